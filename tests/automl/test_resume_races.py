"""Two resumes of one search: neither loses the other's changes, and a refused resume changes nothing."""

from __future__ import annotations

import contextlib

import pytest
from command_line import MINE, OURS

import automl as package
from automl.db.store import Store

INLINE = ("--workers", "0")
TEXT = MINE.replace("(spec, report)", "(spec, report, epochs=2)")


@pytest.fixture
def searched(automl, mine, folder):
    """A store with the search `mine`, of three children; its task takes the option `epochs`."""
    mine.write_text(TEXT)
    assert automl("search", "mine", *OURS, *INLINE, "--children", "3").code == 0
    return folder / "automl.db"


@pytest.fixture
def meanwhile(monkeypatch):
    """Runs a function between a resume's reading of the settings and its lease."""

    def arrange(do):
        take_lease = Store.take_lease

        def take(self, *arguments, **options):
            monkeypatch.setattr(Store, "take_lease", take_lease)
            do()
            return take_lease(self, *arguments, **options)

        monkeypatch.setattr(Store, "take_lease", take)

    return arrange


def stored(path):
    with contextlib.closing(Store(str(path), readonly=True)) as store:
        search = store.search("mine")
        return search, store.segments(search.id), store.children(search.id)


def test_two_resumes_keep_each_other_s_changes(searched, meanwhile):
    meanwhile(lambda: package.resume("mine", set=("task.epochs=3",), children=6))
    package.resume("mine", keep_going=True)
    search, segments, children = stored(searched)
    assert search.settings["task"]["options"] == {"epochs": 3} and search.settings["keep_going"] is True
    assert search.budget == 6 == search.settings["run"]["children"] == search.num_trained  # it repeats the last budget
    assert [segment.changes for segment in segments] == [{}, {"task.epochs": 3}, {"keep_going": True}]
    assert [child.number for child in children if child.state == "trained"] == list(range(6))


def test_a_setting_that_both_resumes_change_has_the_last_value(searched, meanwhile):
    meanwhile(lambda: package.resume("mine", set=("task.epochs=3",), children=6, workers=0))
    package.resume("mine", set=("task.epochs=4",), children=5)
    search, segments, _ = stored(searched)
    assert search.settings["task"]["options"] == {"epochs": 4} and search.budget == 5
    assert segments[-1].changes == {"task.epochs": 4}


def test_a_change_that_is_refused_leaves_a_finished_search_finished(automl, searched, mine):
    mine.write_text(TEXT.replace("(0, 1, 2, 3)", "(0, 1)"))
    before = stored(searched)[0]
    refused = automl("resume", "mine", "--accept-change", "--children", "5")
    assert refused.code == 1 and refused.err.startswith("Error: ")
    after, segments, _ = stored(searched)
    assert (after.state, after.cause, after.owner) == (before.state, before.cause, None) == ("finished", None, None)
    assert (after.settings, after.budget, len(segments)) == (before.settings, 3, 1)


def test_a_change_that_another_resume_made_impossible_is_refused(automl, searched, mine, meanwhile):
    """The file has changed by the time that the lease is taken."""
    meanwhile(lambda: mine.write_text(TEXT + "\n# changed\n"))
    refused = automl("resume", "mine", "--children", "5", *INLINE)
    assert "has changed since the search began" in refused.error
    after, segments, _ = stored(searched)
    assert (after.state, after.owner, after.budget, len(segments)) == ("finished", None, 3, 1)
