"""Searches that learn from earlier ones: `--warm-start`."""

import contextlib
import json
import shutil
import sqlite3

import pytest

import automl as api
from automl.controllers.ranks import rank_shares
from automl.db.records import State
from automl.donors.describing import donor_line
from automl.donors.reading import best_and_spread
from automl.donors.receiving import MAX_RECEIVED
from automl.paths import open_store

OURS = ("--space", "landscape", "--preset", "noisy", "--task", "synthetic", "--workers", 0)
FEW = ("--set", "controller.uniform=40", "--set", "controller.mutations=40", "--batch-size", 4)
WARM = (*OURS, "--controller", "surrogate", *FEW)


def donors_of(name, store="automl.db"):
    with contextlib.closing(open_store(store)) as opened:
        return opened.donors(opened.search(name).id)


def children_of(name, store="automl.db"):
    with contextlib.closing(open_store(store)) as opened:
        found = opened.search(name)
        return opened.digest(found.id), opened.children(found.id, states=[State.TRAINED])


@pytest.fixture
def first(automl):
    """The store `old.db` with the earlier search `first`."""
    ran = automl("search", "first", *OURS, "--controller", "random", "--children", 24, "--store", "old.db")
    assert ran.code == 0, ran.err


@pytest.mark.usefixtures("first")
def test_the_command_line_says_what_was_received(automl):
    ran = automl("search", "second", *WARM, "--warm-start", "first@old.db", "--children", 4)
    assert ran.code == 0, ran.err
    line = "first in sqlite:///old.db (landscape, synthetic): all 24 trained children fit this space, 24 received"
    assert f"Learns from {line}" in " ".join(ran.out.split())
    assert f"learns from {line}" in " ".join(automl("show", "second").out.split())
    assert "24 received, weight " in " ".join(automl("show", "second").out.split())
    shown = automl("show", "second", "--json").json
    assert isinstance(shown["donors"][0].pop("weight"), float)
    assert shown["donors"] == [
        {
            "name": "first",
            "store": "sqlite:///old.db",
            "space": "landscape",
            "task": "synthetic",
            "trained": 24,
            "tried": 24,
            "fitting": 24,
            "received": 24,
        }
    ]
    _, earlier = children_of("first", "old.db")
    (donor,) = donors_of("second")
    best = max(earlier, key=lambda child: child.reward)
    assert (donor.tokens[0], donor.rewards[0], donor.ranks[0]) == (best.tokens, best.reward, 23.5 / 24)
    assert donor.ranks[-1] == 0.5 / 24


@pytest.mark.usefixtures("first")
def test_a_resume_needs_no_donor_and_goes_on_in_the_same_way(automl, folder):
    """Equal seeds and donors give equal searches, also if the search is stopped and the donor's store is deleted."""
    whole = automl("search", "second", *WARM, "--warm-start", "first@old.db", "--children", 16, "--store", "whole.db")
    assert whole.code == 0, whole.err
    part = automl("search", "second", *WARM, "--warm-start", "first@old.db", "--children", 8, "--store", "part.db")
    assert part.code == 0, part.err
    for path in folder.glob("old.db*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    resumed = automl("resume", "second", "--children", 16, "--store", "part.db")
    assert resumed.code == 0, resumed.err
    assert children_of("second", "part.db")[0] == children_of("second", "whole.db")[0]
    alone = automl("search", "second", *WARM, "--children", 16, "--store", "alone.db")
    assert alone.code == 0, alone.err
    assert children_of("second", "alone.db")[0] != children_of("second", "whole.db")[0]


@pytest.mark.usefixtures("first")
def test_a_policy_learns_from_donors_too(caplog):
    caplog.set_level("INFO", "automl")
    options = {"space": "landscape", "preset": "noisy", "task": "synthetic", "workers": 0, "batch_size": 4}
    options["set"] = [f"controller.{one}" for one in ("candidates=16", "uniform=16", "mutations=16", "model_samples=8")]
    for store, warm in (("whole.db", ["first@old.db"]), ("part.db", ["first@old.db"]), ("alone.db", [])):
        children = 8 if store == "part.db" else 12
        api.search("second", **options, warm_start=warm, children=children, store=store)
    api.resume("second", children=12, store="part.db")
    digests = {store: children_of("second", f"{store}.db")[0] for store in ("whole", "part", "alone")}
    assert digests["part"] == digests["whole"] != digests["alone"]
    assert len([record for record in caplog.records if record.getMessage().startswith("Learns from first in")]) == 2


@pytest.mark.usefixtures("first")
def test_a_search_may_have_several_donors_of_its_own_store(automl):
    shutil.copyfile("old.db", "automl.db")
    for name, donors in (("second", ["first"]), ("third", ["second", "first@old.db"])):
        flags = [part for donor in donors for part in ("--warm-start", donor)]
        ran = automl("search", name, *WARM, *flags, "--children", 8)
        assert ran.code == 0, ran.err
    assert [(donor.name, donor.store) for donor in donors_of("third")] == [
        ("second", "sqlite:///automl.db"),
        ("first", "sqlite:///old.db"),
    ]
    assert automl("delete", "third", "--yes").code == 0


@pytest.mark.usefixtures("first")
def test_a_settings_file_names_donors(automl, folder):
    (folder / "warm.toml").write_text('warm-start = ["first@old.db"]\n')
    ran = automl("search", "second", "--config", "warm.toml", *WARM, "--children", 4)
    assert ran.code == 0, ran.err
    assert [donor.name for donor in donors_of("second")] == ["first"]
    (folder / "warm.toml").write_text('children = 4\nwarm-start = "first"\n')
    ran = automl("search", "third", "--config", "warm.toml", *WARM)
    assert ran.code == 1 and "warm.toml, line 2: --warm-start is 'first'; it must be a list of texts." in ran.err


def test_a_store_may_have_an_at_in_its_name(automl):
    ran = automl("search", "first", *OURS, "--controller", "random", "--children", 4, "--store", "me@work.db")
    assert ran.code == 0, ran.err
    ran = automl("search", "second", *WARM, "--warm-start", "first@me@work.db", "--children", 4)
    assert ran.code == 0, ran.err
    assert [donor.name for donor in donors_of("second")] == ["first"]


NOT_OF_THE_FORM = (
    "is not of the form SEARCH or SEARCH@STORE, where STORE is a file or a database URL, for example first@old.db."
)


@pytest.mark.usefixtures("first")
@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (
            ("--warm-start", "nope@old.db"),
            "--warm-start cannot read the search 'nope': There is no search called 'nope' in sqlite:///old.db; it has "
            "first.",
        ),
        (
            ("--warm-start", "first@nope.db"),
            "--warm-start cannot read the search 'first': there is no store nope.db; write SEARCH@STORE with the file "
            "of its store.",
        ),
        (
            ("--warm-start", "first"),
            "--warm-start cannot read the search 'first': there is no store automl.db; write SEARCH@STORE with the "
            "file of its store.",
        ),
        (
            ("--warm-start", "first@sqlite:///nope.db"),
            "--warm-start cannot read the search 'first': there is no store sqlite:///nope.db; write SEARCH@STORE with "
            "the file of its store.",
        ),
        (
            ("--warm-start", "first@mysql://me:hush@host/a"),
            "--warm-start cannot read the search 'first': The store cannot be on mysql; use sqlite:///FILE or "
            "postgresql://HOST/DATABASE.",
        ),
        (
            ("--warm-start", "first@.."),
            "--warm-start cannot read the search 'first': .. is a folder; name a file in it, for example ../automl.db.",
        ),
        (
            ("--warm-start", "second"),
            "--warm-start names 'second', which is the new search itself; name an earlier one.",
        ),
        (("--warm-start", ""), f"--warm-start '' {NOT_OF_THE_FORM}"),
        (("--warm-start", "first@"), f"--warm-start 'first@' {NOT_OF_THE_FORM}"),
        (("--warm-start", "@old.db"), f"--warm-start '@' {NOT_OF_THE_FORM}"),
        (("--warm-start", "../first"), f"--warm-start '../first' {NOT_OF_THE_FORM}"),
        (
            ("--warm-start", "first@old.db", "--warm-start", "first@sqlite:///old.db"),
            "--warm-start names the search 'first' of sqlite:///old.db twice; name it once.",
        ),
        (
            ("--warm-start", "first@old.db", "--controller", "random"),
            "The controller random does not learn from earlier searches; drop --warm-start, or choose surrogate, or "
            "reinforce or ppo with a reward model (option candidates above 0).",
        ),
        (
            ("--warm-start", "first@old.db", "--preset", "forty"),
            "--warm-start: this space has no child of the search 'first': the decision 'choice12' has no answer there "
            "(24 of 24 trained children); name a search of the same or an overlapping space.",
        ),
        (
            ("--warm-start", "first@old.db", "--preset", "links"),
            "--warm-start: this space has no child of the search 'first': the decision 'layer0/operation' has no "
            "answer there (24 of 24 trained children); name a search of the same or an overlapping space.",
        ),
    ],
)
def test_a_bad_donor_gets_one_sentence(automl, folder, flags, sentence):
    options = ("--space", "landscape", "--task", "synthetic", "--workers", 0)
    options += () if "--preset" in flags else ("--preset", "noisy")
    options += () if "--controller" in flags else ("--controller", "surrogate")
    ran = automl("search", "second", *options, *flags)
    assert ran.error == sentence
    assert not (folder / "automl.db").exists()


@pytest.mark.usefixtures("first")
def test_a_search_of_the_same_name_in_another_store_is_no_other_than_any(automl):
    ran = automl("search", "first", *WARM, "--warm-start", "first@old.db", "--children", 2)
    assert ran.code == 0, ran.err


@pytest.mark.usefixtures("first")
def test_a_server_that_does_not_answer_is_named_without_its_password(automl):
    pytest.importorskip("psycopg")
    ran = automl("search", "second", *WARM, "--warm-start", "first@postgresql://me:hush@127.0.0.1:9/things")
    assert ran.error.startswith(
        "--warm-start cannot read the search 'first': The store postgresql://me@127.0.0.1:9/things cannot be opened: "
    )
    assert "hush" not in ran.out + ran.err


@pytest.mark.usefixtures("first")
def test_a_resume_takes_no_donors(automl):
    assert automl("search", "second", *WARM, "--children", 2).code == 0
    ran = automl("resume", "second", "--warm-start", "first@old.db", "--children", 4)
    sentence = "is an option of a new search: a resume cannot change it; leave it out."
    assert ran.code == 2 and f"--warm-start {sentence}" in " ".join(ran.err.split())
    with pytest.raises(ValueError, match=f"warm_start {sentence}"):
        api.resume("second", warm_start=["first@old.db"])


def test_a_search_without_a_trained_child_is_refused(automl, folder):
    (folder / "mine.py").write_text("def train(spec):\n    raise ValueError('never')\n")
    automl("search", "first", *OURS[:4], "--task", "mine.py:train", "--workers", 0, "--children", 3)
    ran = automl("search", "second", *WARM, "--warm-start", "first", "--children", 4)
    assert ran.error == (
        "The search 'first' in sqlite:///automl.db has no trained child to learn from; leave it out of "
        "--warm-start, or train some first."
    )


@pytest.mark.usefixtures("first")
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            "DELETE FROM decisions WHERE number = 11",
            "--warm-start: child 3 of 'first' in sqlite:///old.db is not as automl writes it: a child answers a "
            "decision that is not recorded; restore that store from a backup, or drop it.",
        ),
        (
            "UPDATE alembic_version SET version_num = '0003'",
            "--warm-start cannot read the search 'first': sqlite:///old.db has schema 0003 and this program needs "
            "0004; any `automl search` or `automl resume` with --store old.db upgrades it (a backup is made first).",
        ),
    ],
)
def test_a_store_of_which_nothing_can_be_received(automl, change, sentence):
    with contextlib.closing(sqlite3.connect("old.db")) as connection, connection:
        connection.execute("UPDATE children SET reward = 99.0 WHERE number = 3")
        connection.execute(change)
    assert automl("search", "second", *WARM, "--warm-start", "first@old.db").error == sentence


SPACE = """
from automl import Choice, Outcome

def first():
    return (yield from units((1, 2, 3), (4, 8, 16)))

def second():
    return (yield from units((3, 2), (16, 4, 2, 8)))

def units(depths, options):
    depth, chosen = (yield Choice("depth", depths)), []
    for index in range(depth):
        chosen.append((yield Choice(f"units{index}", options)))
    return {"depth": depth, "units": chosen}

def train(spec):
    return Outcome(float(sum(spec["units"])))
"""


def test_an_overlapping_space_receives_the_children_that_it_has(automl, folder):
    (folder / "mine.py").write_text(SPACE)
    options = ("--task", "mine.py:train", "--workers", 0)
    ran = automl("search", "first", "--space", "mine.py:first", *options, "--controller", "random", "--children", 30)
    assert ran.code == 0, ran.err
    flags = ("--space", "mine.py:second", *options, "--controller", "surrogate", "--warm-start", "first")
    ran = automl("search", "second", *flags, "--children", 4)
    assert ran.code == 0, ran.err
    _, earlier = children_of("first")
    shared = [child for child in earlier if child.spec["depth"] > 1]
    assert 0 < len(shared) < len(earlier)
    (donor,) = donors_of("second")
    assert (donor.trained, donor.tried, donor.fitting) == (30, 30, len(shared))
    assert donor_line(donor).endswith(f"{len(shared)} of 30 trained children fit this space, {len(shared)} received")
    options = (16, 4, 2, 8)
    for tokens, reward in zip(donor.tokens, donor.rewards, strict=True):
        assert sum(options[token] for token in tokens[1:]) == reward
    # An option that is added later moves no token of what was received.
    (folder / "mine.py").write_text(SPACE.replace("(3, 2)", "(2, 1, 3)"))
    ran = automl("resume", "second", "--children", 8, "--accept-change")
    assert ran.code == 0, ran.err


@pytest.mark.usefixtures("first")
@pytest.mark.parametrize(
    ("column", "value", "why"),
    [
        ("ranks", "[0.5]", "its lists differ in length"),
        ("ranks", json.dumps([1.5] * 24), "a child has the rank 1.5"),
        ("tokens", json.dumps([[99] * 12] * 24), "the decision 'choice0' has no answer among the tokens"),
        ("answered", json.dumps([[99] * 12] * 24), "a child answers a decision that is not recorded"),
        ("decisions", json.dumps([{}] * 12), "a recorded decision has no name of its own, or no kind"),
    ],
)
def test_what_was_received_is_checked_at_a_resume(automl, column, value, why):
    assert automl("search", "second", *WARM, "--warm-start", "first@old.db", "--children", 4).code == 0
    with contextlib.closing(sqlite3.connect("automl.db")) as connection, connection:
        connection.execute(f"UPDATE donors SET {column} = ?", (value,))  # noqa: S608 - a name in this file
    ran = automl("resume", "second", "--children", 8)
    assert ran.error == (
        f"What the search received from 'first' is not as automl writes it: {why}. Restore the store from a "
        "backup, or start a new search."
    )


def test_of_many_children_the_best_are_received_and_some_of_the_rest():
    assert best_and_spread(range(5), 6) == [0, 1, 2, 3, 4]
    chosen = best_and_spread(range(1001), MAX_RECEIVED)
    assert len(set(chosen)) == MAX_RECEIVED
    assert chosen[:101] == [*range(100), 100] and chosen[-1] == 1000 and chosen == sorted(chosen)


def test_equal_rewards_have_one_rank():
    assert rank_shares([3.0, 1.0, 1.0, 0.0]).tolist() == [3.5 / 4, 2 / 4, 2 / 4, 0.5 / 4]
