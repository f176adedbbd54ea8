import dataclasses

import pytest

from automl.child_trainers.behaviour import EARLIER_VERSIONS, Behaviour, earlier_behaviours

NAMES = [field.name for field in dataclasses.fields(Behaviour)]


def settings_of(space="convnet", task="digits", controller="reinforce", **more):
    parts = {"space": space, "task": task, "controller": controller}
    return {part: {"name": name, "file": None} for part, name in parts.items()} | more


def test_every_version_before_the_newest_is_described():
    assert list(EARLIER_VERSIONS) == NAMES
    assert {name: len(earlier) + 1 for name, earlier in EARLIER_VERSIONS.items()} == dataclasses.asdict(Behaviour())


def test_a_search_without_behaviour_has_the_first_version_of_everything():
    assert dataclasses.asdict(Behaviour.of_settings({})) == dict.fromkeys(NAMES, 1)


def test_a_search_keeps_the_versions_that_it_names():
    newest = Behaviour()
    assert Behaviour.of_settings({"behaviour": dataclasses.asdict(newest)}) == newest
    part = {"drop_masks": newest.drop_masks}
    assert Behaviour.of_settings({"behaviour": part}) == dataclasses.replace(Behaviour.of_settings({}), **part)


@pytest.mark.parametrize(
    ("stored", "sentence"),
    [
        ({"drop_masks": 99}, "needs a newer automl"),
        ({"gravity": 1}, "needs a newer automl"),
        ({"drop_masks": True}, "must be a version"),
        ({"drop_masks": 0}, "must be a version"),
        ({"drop_masks": "2"}, "must be a version"),
        ([], "must be a table of versions"),
    ],
)
def test_what_this_version_does_not_know_is_refused(stored, sentence):
    with pytest.raises(ValueError, match=sentence):
        Behaviour.of_settings({"behaviour": stored})


def test_a_new_search_keeps_no_earlier_behaviour():
    for space in ("convnet", "recurrent-cell", "update-rule", "joint"):
        for task in ("digits", "pydoc", "npz:/data.npz"):
            assert earlier_behaviours(settings_of(space, task, behaviour=dataclasses.asdict(Behaviour()))) == []
