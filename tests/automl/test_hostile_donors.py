"""A donor's store is damaged, of another version, or a stranger's: one sentence, and nothing of it is run or a path."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import files_in

from automl.db.records import Donor, StoreError
from automl.db.schema import ChildRow, DecisionRow, SearchRow
from automl.db.store import Store
from automl.donors import reading
from automl.donors.describing import donor_line
from automl.donors.reading import read_offers
from automl.donors.receiving import received
from automl.donors.references import read_references
from automl.search_spaces.decisions import Choice
from automl.search_spaces.numeric import Integer
from automl.search_spaces.space import Space
from automl.search_spaces.transfer import RecordedError, UnfitError, recorded_answers, transferred

OURS = ("--space", "landscape", "--preset", "noisy", "--task", "synthetic", "--workers", 0)
RELEASED = Path(__file__).with_name("assets") / "release-0.1.0.sqlite"
VALUES = (
    *("text", "\x1b]0;owned\x07", "\u202egnp", "", -1, 0, 2**62, 1.5, 1e308, 9e999, b"\xff\x00", None, "../victim"),
    *("{}", "[]", "3", '"x"', "null", "[1,", '[{"a": 1}]', "[-1]", "[1e400]", f"[{2**70}]", f"[{'9' * 4000}]"),
    *('{"a": NaN}', '[[["deep"]]]', "[" * 900 + "]" * 900, "[" * 100_000),
    *('{"name": "choice0", "kind": "k", "options": {}}', '{"name": "choice0", "kind": "k", "count": -1}'),
)


def small() -> Iterator[Choice]:
    return {"first": (yield Choice("first", (1, 2, 3))), "second": (yield Integer("second", 1, 4))}


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> Path:
    """The folder with the store of a search of six children."""
    return tmp_path_factory.mktemp("stored") / "old.db"


@pytest.fixture
def old(stored, automl, folder) -> Path:
    """A copy of that store."""
    if not stored.exists():
        ran = automl("search", "first", *OURS, "--controller", "random", "--children", 6, "--store", "old.db")
        assert ran.code == 0, ran.err
        shutil.copy(folder / "old.db", stored)
    return Path(shutil.copy(stored, folder / "old.db"))


@pytest.fixture
def noisy() -> Space:
    from automl.child_trainers.experiment import make_space
    from automl.settings.schema import SearchConfig
    from automl.settings.stored import stored_settings

    return make_space(stored_settings(SearchConfig(space="landscape", preset="noisy", task="synthetic")))


def receive(path: Path, space: Space, name: str = "first") -> Donor:
    (offer,) = read_offers(read_references([f"{name}@{path}"], "none.db"))
    return received(offer, space)


def change(path: Path, statement: str, values: tuple[object, ...] = ()) -> None:
    for beside in ("-wal", "-shm"):
        path.with_name(f"{path.name}{beside}").unlink(missing_ok=True)
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement, values)


@pytest.mark.parametrize("row", [SearchRow, ChildRow, DecisionRow])
def test_values_that_automl_never_writes(old, stored, noisy, folder, row):
    """Each is refused with a sentence, or does no harm to what is received."""
    trials = [(column.name, value) for column in row.__table__.columns for value in VALUES]
    for column, value in random.Random(0).sample(trials, min(100, len(trials))):
        shutil.copy(stored, old)
        with contextlib.suppress(sqlite3.IntegrityError):  # the schema keeps this value out
            change(old, f"UPDATE {row.__tablename__} SET {column} = ?", (value,))  # noqa: S608
        try:
            donor = receive(old, noisy)
        except (StoreError, ValueError) as error:
            assert len(str(error)) < 700, (column, value)
            continue
        json.dumps(donor.rewards, allow_nan=False)
        assert all(noisy.decode(tokens) for tokens in donor.tokens), (column, value)
        assert donor_line(donor).isprintable(), (column, value)
    assert {path.partition("-")[0] for path in files_in(folder)} == {"old.db"}


# Without a check, each of these ended the command with a traceback, or with a sentence of thousands of characters.
@pytest.mark.parametrize(
    ("statement", "value"),
    [
        ("UPDATE children SET log_probs = ?", f"[{'9' * 400}]"),
        ("UPDATE searches SET name = ?", "n" * 5000),
        ("UPDATE decisions SET decision = ?", "[3]"),
        ("UPDATE children SET decisions = ?", f"[{2**70}]"),
    ],
)
def test_values_that_are_known_to_need_a_check(old, noisy, statement, value):
    change(old, statement, (value,))
    with pytest.raises(StoreError) as caught:
        receive(old, noisy)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("statement", "sentence"),
    [
        (
            "UPDATE children SET reward = 9e999 WHERE number = 2",
            "--warm-start cannot read the search 'first': The store holds a ranked child whose reward is inf, which "
            "automl never writes; it is damaged, or another program has changed it. Restore it from a backup.",
        ),
        (
            "UPDATE children SET reward = NULL WHERE number = 2",
            "--warm-start cannot read the search 'first': The store holds a ranked child whose reward is None, which "
            "automl never writes; it is damaged, or another program has changed it. Restore it from a backup.",
        ),
        (
            "UPDATE children SET tokens = '[\"\\u001b[31m\"]' WHERE number = 2",
            "--warm-start cannot read the search 'first': The store holds a child whose tokens is ['\\x1b[31m'], which "
            "automl never writes; it is damaged, or another program has changed it. Restore it from a backup.",
        ),
        (
            "UPDATE alembic_version SET version_num = '9999'",
            "--warm-start cannot read the search 'first': sqlite:///old.db was written by a newer automl (schema 9999; "
            "this program knows up to 0004). Upgrade automl, or choose another --store.",
        ),
        (
            "CREATE TRIGGER boo AFTER INSERT ON searches BEGIN SELECT 1; END",
            "--warm-start cannot read the search 'first': sqlite:///old.db holds a trigger 'boo' that automl never "
            "makes; it is not opened. Use a clean store.",
        ),
        ("PRAGMA application_id = 5", None),
    ],
)
def test_a_bad_store_gets_one_sentence(automl, old, folder, statement, sentence):
    change(old, statement)
    ran = automl("search", "second", *OURS, "--controller", "surrogate", "--warm-start", "first@old.db")
    assert "\x1b" not in ran.err
    assert ran.error == sentence if sentence else ran.error.startswith("--warm-start cannot read the search 'first'")
    assert not (folder / "automl.db").exists()


def test_names_of_a_donor_never_reach_the_terminal_raw(automl, old):
    change(old, "UPDATE searches SET space = ?, task = ?", ("\x1b]0;owned\x07" + "s" * 500, "\u202e\r\ntask"))
    flags = ("--controller", "surrogate", "--children", 2, "--warm-start", "first@old.db")
    ran = automl("search", "second", *OURS, *flags)
    assert ran.code == 0, ran.err
    with contextlib.closing(Store("automl.db")) as store:
        (donor,) = store.donors(store.search("second").id)
    assert donor_line(donor).isprintable() and len(donor.space) < 200
    for shown in (ran, automl("show", "second"), automl("show", "second", "--json")):
        assert "\x1b" not in shown.out and "\u202e" not in shown.out


def test_only_children_that_are_tried_are_read(old, noisy, monkeypatch):
    monkeypatch.setattr(reading, "MAX_TRIED", 4)
    donor = receive(old, noisy)
    assert (donor.trained, donor.tried, len(donor.tokens)) == (6, 4, 4)
    assert donor.ranks[0] == 5.5 / 6 and donor.ranks[-1] == 0.5 / 6
    monkeypatch.setattr(reading, "MAX_TRAINED", 5)
    with pytest.raises(StoreError, match="'first': it has more than 5 trained children; name a smaller search"):
        receive(old, noisy)


def test_values_of_a_stranger_are_short_in_messages():
    records = [
        {"name": "first", "kind": "k", "options": ["\x1b" * 10_000, 10**4000, [[[[[[[[1]]]]]]]]]},
        {"name": "second", "kind": "k", "options": [10**400, True]},
    ]
    for tokens in ([0, 0], [1, 0], [2, 0]):
        with pytest.raises(UnfitError, match=r"^the decision 'first' cannot be .{1,60} here$") as caught:
            transferred(Space(small), recorded_answers(records, tokens))
        assert str(caught.value).isprintable()
    records[0]["options"] = [1]
    for token in (0, 1):
        with pytest.raises(UnfitError, match="the decision 'second' cannot be"):
            transferred(Space(small), recorded_answers(records, [0, token]))


@pytest.mark.parametrize(
    ("records", "tokens", "why"),
    [
        ([3], [0], "a recorded decision has no name of its own, or no kind"),
        (
            [{"name": "a" * 5000, "kind": "k", "options": [1]}],
            [7],
            "the decision 'aaaaaaaaaaaa...aaaaaaaaaaaaa' has no ",
        ),
        ([{"name": "l0", "kind": "l", "count": 0}, {"name": "l1", "kind": "l", "count": 1}], [2], "an answer other "),
        ([{"name": "l0", "kind": "l", "count": [0]}], [], "the links 'l0' have no answer among the tokens"),
    ],
)
def test_recorded_decisions_are_checked(records, tokens, why):
    with pytest.raises(RecordedError) as caught:
        recorded_answers(records, tokens)
    assert why in str(caught.value) and len(str(caught.value)) < 120


# Stores of automl 0.1.0

OWN = """from automl import Choice


def space():
    first = yield Choice("first", (1, 2, 3, 4, 5, 6))
    second = yield Choice("second", (1, 2, 3, 4, 5, 6))
    return {"first": first, "second": second}


def other():
    first = yield Choice("first", (1, 2, 3, 4, 5, 6))
    return {"first": first}


def evaluate(spec):
    return float(sum(spec.values()))
"""


def test_a_store_of_the_first_release_is_a_donor_once_it_is_upgraded(automl, folder):
    """Nothing of its search has to run: the present space makes the same children from its tokens."""
    (folder / "mine.py").write_text(OWN)
    shutil.copy(RELEASED, "old.db")
    task = ("--task", "mine.py:evaluate", "--workers", 0, "--controller", "surrogate", "--warm-start", "own@old.db")
    ran = automl("search", "new", "--space", "mine.py:space", *task, "--children", 2)
    assert ran.error == (
        "--warm-start cannot read the search 'own': sqlite:///old.db has schema 0003 and this program needs 0004; any "
        "`automl search` or `automl resume` with --store old.db upgrades it (a backup is made first)."
    )
    options = ("--task", "mine.py:evaluate", "--space", "mine.py:space", "--controller", "random", "--workers", 0)
    assert automl("search", "another", *options, "--children", 1, "--store", "old.db").code == 0
    ran = automl("search", "new", "--space", "mine.py:space", *task, "--children", 2)
    assert ran.code == 0, ran.err
    with contextlib.closing(Store("automl.db")) as store, contextlib.closing(Store("old.db")) as earlier:
        (donor,) = store.donors(store.search("new").id)
        children = earlier.children(earlier.search("own").id)
    assert all(child.decisions is None for child in children)
    trained = {(child.reward, tuple(child.tokens)) for child in children if child.state == "trained"}
    assert set(zip(donor.rewards, map(tuple, donor.tokens), strict=True)) == trained
    assert automl("resume", "new", "--children", 4).code == 0
    ran = automl("search", "third", "--space", "mine.py:other", *task)
    assert ran.error == (
        f"--warm-start: this space has no child of the search 'own': 1 of its 2 tokens are left over after the last "
        f"decision, and that search was run by automl 0.1.0, which recorded no decisions ({len(trained)} of "
        f"{len(trained)} trained children); name a search of the same or an overlapping space."
    )
