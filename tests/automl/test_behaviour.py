"""A search keeps the behaviour that it began with, and names it."""

import contextlib
import dataclasses

import pytest

from automl.child_trainers.behaviour import Behaviour
from automl.db.store import Store
from automl.settings.schema import SearchConfig
from automl.settings.stored import stored_settings

ONE_MASK = "keeps the behaviour of 0.1.0: one mask for all drops of a rule"


@pytest.fixture
def stored(folder):
    """Makes a search whose settings have this behaviour; None for one of 0.1.0."""

    def make(behaviour, **asked):
        settings = stored_settings(SearchConfig(**asked)) | {"run": {"children": 1, "time": None, "workers": 0}}
        del settings["behaviour"]
        if behaviour is not None:
            settings["behaviour"] = behaviour
        with contextlib.closing(Store("automl.db", create=True)) as store:
            store.create_search(
                "old",
                space=settings["space"]["name"],
                task=settings["task"]["name"],
                controller="random",
                seed=0,
                replicas=1,
                batch_size=2,
                threads=1,
                settings=settings,
                budget=1,
            )

    return make


def test_show_says_what_a_search_of_the_first_version_keeps(automl, stored):
    stored(None, space="update-rule", controller="random")
    assert f"  {ONE_MASK}\n" in automl("show", "old").out
    assert automl("show", "old", "--json").json["keeps"] == ["one mask for all drops of a rule"]


@pytest.mark.parametrize(
    ("behaviour", "asked"),
    [(None, {"controller": "random"}), (dataclasses.asdict(Behaviour()), {"space": "update-rule"})],
    ids=["where it makes no difference", "of a new search"],
)
def test_show_says_nothing(automl, stored, behaviour, asked):
    stored(behaviour, **asked)
    assert "keeps" not in automl("show", "old").out
    assert automl("show", "old", "--json").json["keeps"] == []


def test_a_search_of_a_newer_version_is_shown_and_not_resumed(automl, stored):
    stored({"drop_masks": 9}, space="update-rule")
    assert "it needs a newer automl" in automl("show", "old").out
    ran = automl("resume", "old")
    assert ran.code == 1 and ran.error.endswith("it needs a newer automl.")
