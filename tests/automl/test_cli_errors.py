"""Bad input: one sentence on standard error, exit code 1, and no effect."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
from pathlib import Path

import numpy as np
import pytest
import requests
from command_line import MINE, OURS, files_in, run_automl, script

from automl.db.schema import REVISION
from automl.db.store import Store

CIFAR10 = ("--task", "cifar10", "--data-dir", "data", "--controller", "random")
INLINE = ("--workers", "0", "--children", "3")
LOOKING = (("list",), ("show", "mine"), ("top", "mine"), ("export", "mine", "--format", "json", "--to", "new.json"))
CHANGING = (("search", "mine"), ("resume", "mine"), ("delete", "mine", "--yes"))


@pytest.fixture
def searched(automl, mine, folder):
    """A finished search called `mine`."""
    ran = automl("search", "mine", *OURS, *INLINE)
    assert ran.code == 0, ran.err
    return folder / "automl.db"


# Names


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--space", "convnot"], "There is no space called 'convnot'; there is convnet, joint, recurrent-cell..."),
        (["--task", "digit"], "There is no task called 'digit'; there is digits, ..."),
        (["--task", "cifar"], "There is no task called 'cifar'; there is cifar10, ..."),
        (["--task", "npz"], "The task npz needs a file: write npz:PATH."),
        (
            ["--controller", "rando"],
            "There is no controller called 'rando'; there is random, reinforce, surrogate, ppo, optuna, evolution.",
        ),
        (["--preset", "papr"], "There is no preset called 'papr'; there is paper, small."),
        (["--preset", "smal"], "There is no preset called 'smal'; there is small, paper."),
        (["--task", "cifar10", "--recipe", "quik"], "There is no recipe called 'quik'; there is quick, paper."),
        (["--recipe", "paper"], "There is no recipe called 'paper'; there is default, full."),
        (
            ["--controller", "random", "--controller-preset", "paper"],
            "There is no controller preset called 'paper'; there is default.",
        ),
        (["--schedule", "dept"], "There is no schedule called 'dept'; there is depth."),
        (
            ["--set", "spcae.strides=true"],
            "There is no group of options called 'spcae'; there is space, controller, task.",
        ),
        (
            ["--set", "space.stride=true"],
            "There is no space option called 'stride'; there is strides, ...",
        ),
        (
            ["--set", "task.epoch=3"],
            "There is no task option called 'epoch'; there is epochs, last_epochs, ...",
        ),
        (
            ["--fix", "depht=3"],
            "--fix depht=3: no decision of this space is called 'depht'; it has depth, ...",
        ),
        (["--fix", "depth=7"], "--fix depth=7: '7' is not an option; there are 3, 4, 5, 6."),
        (["--fix", "depth"], "--fix 'depth' is not of the form NAME=VALUE, for example layer*/filter_height=3."),
        (
            ["--fix", "depth=6", "--schedule", "depth"],
            "'depth' is set by the schedule, so it cannot also be narrowed; drop the rule or the schedule.",
        ),
        (["--set", "task.epochs=0"], "task.epochs is 0; it must be a whole number above 0."),
        (["--set", "strides"], "--set 'strides' is not of the form GROUP.NAME=VALUE, for example space.strides=true."),
        (["--children", "0"], "--children is 0; it must be 1 or more."),
        (["--time", "soon"], "'soon' is not a time; write for example 45s, 10m or 1.5h."),
        (["--max-params", "few"], "'few' is not a number; write for example 300000, 300k or 1.5M."),
        (["--config", "none.toml"], "none.toml cannot be read: No such file or directory; name another file with "
         "--config."),
        (["--minimize", "a", "--maximize", "b"], "--minimize and --maximize exclude each other; name the one metric "
         "that is the reward."),
    ],
)  # fmt: skip
def test_wrong_names_and_values(automl, folder, flags, sentence):
    controller = () if "--controller" in flags else ("--controller", "random")
    error = automl("search", "first", *controller, *INLINE, *flags).error
    assert error.startswith(sentence.removesuffix("...")) if sentence.endswith("...") else error == sentence
    if Path("automl.db").exists():
        assert automl("list", "--json").json == []


@pytest.mark.parametrize("name", ["", "-rf", "../up", "a b", "é", "x" * 101, "a/b", "'; DROP TABLE searches; --"])
def test_names_that_no_search_may_have(automl, folder, name):
    error = automl("search", *INLINE, "--", name).error
    assert error == (
        f"{name!r} cannot name a search; use up to 100 letters, digits, '.', '_' and '-', beginning with a letter or "
        "digit."
    )


def test_an_unknown_option_of_a_controller(automl):
    error = automl("search", "first", "--controller", "random", "--set", "controller.rate=1", *INLINE).error
    assert error == "There is no controller option called 'rate'; there is none."
    error = automl("search", "first", "--set", "controller.entrop=1", *INLINE).error
    assert error.startswith("There is no controller option called 'entrop'; there is entropy, ")


def test_unknown_search(automl, searched):
    for command in (("show", "mien"), ("top", "mien"), ("resume", "mien"), ("delete", "mien", "--yes")):
        sentence = f"There is no search called 'mien' in sqlite:///{searched.name}; it has mine."
        assert automl(*command).error == sentence


def test_a_name_that_exists(automl, searched):
    before = searched.read_bytes()
    assert automl("search", "mine", *OURS, *INLINE).error == (
        "A search called 'mine' is already in sqlite:///automl.db. Go on with it: automl resume mine --store automl.db;"
        " or choose another name."
    )
    assert searched.read_bytes() == before


def test_unknown_flags(automl):
    ran = automl("search", "first", "--childs", "3")
    assert ran.code == 2
    assert ran.err.splitlines()[-1].startswith("Error: There is no option '--childs'; there is --children, ")
    ran = automl("top", "first", "--jsn")
    assert ran.err.splitlines()[-1].startswith("Error: There is no option '--jsn'; there is --json, ")
    ran = automl("search", "first", "--epochs", "3")
    assert ran.err.splitlines()[-1].startswith("Error: There is no option '--epochs'; ")


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--seed", 2**63), f"--seed is {2**63}; it must be at most {2**63 - 1}."),
        (("--seed", 10**30), f"--seed is {10**30}; it must be at most {2**63 - 1}."),
        (("--seed", -1), "--seed is -1; it must be 0 or more."),
        (("--children", 10**30), f"--children is {10**30}; it must be at most {2**31 - 1}."),
        (("--workers", 10**9), "--workers is 1000000000; it must be at most 1024."),
        (("--batch-size", 10**9), "--batch-size is 1000000000; it must be at most 100000."),
        (("--max-params", "9" * 400), f"'{'9' * 400}' is not a number; write for example 300000, 300k or 1.5M."),
        (("--max-flops", "1,000"), "'1,000' is not a number; write for example 300000, 300k or 1.5M."),
        (("--time", "9" * 400), f"'{'9' * 400}' is not a time; write for example 45s, 10m or 1.5h."),
        (("--time", 10**30), f"--time is {1e30}; it must be at most 3153600000."),
        (("--time", "nan"), "'nan' is not a time; write for example 45s, 10m or 1.5h."),
        (("--time", 0), "--time is 0.0; it must be above 0."),
        (("--set", "task.epochs=NaN"), "An option cannot be NaN: Out of range float values are not JSON compliant."),
        (("--set", "task.epochs=-Infinity"), "An option cannot be -Infinity: Out of range float values are not ..."),
        (("--set", "task.epochs=[1e999]"), "An option cannot be [1e999]: Out of range float values are not ..."),
        (("--set", "task.epochs=" + "[" * 99999), f"An option cannot be {'[' * 40}…: maximum recursion depth ..."),
        (("--set", "task.epochs=" + "1" * 5000), f"An option cannot be {'1' * 40}…: Exceeds the limit ..."),
    ],
    ids=lambda value: "" if isinstance(value, str) else f"{value[0]} {str(value[1])[:20]}",
)
def test_impossible_numbers(automl, folder, flags, sentence):
    error = automl("search", "first", "--controller", "random", *INLINE, *flags).error
    assert error.startswith(sentence.removesuffix("...")) if sentence.endswith("...") else error == sentence


def test_numbers_of_a_resume_and_of_children(automl, searched):
    for flags, sentence in (
        (("--children", 0), "--children is 0; it must be 1 or more."),
        (("--children", 10**30), f"--children is {10**30}; it must be at most {2**31 - 1}."),
        (("--workers", -1), "--workers is -1; it must be 0 or more."),
        (("--time", 10**30), f"--time is {1e30}; it must be at most 3153600000."),
    ):
        assert automl("resume", "mine", *flags).error == sentence
    assert automl("logs", "mine", 10**30).error == f"'mine' has no child {10**30}; see automl show mine."
    assert automl("top", "mine", "-n", 10**30, "--json").json == automl("top", "mine", "--json").json
    export = ("export", "mine", "--format", "json", "--to", "a.json")
    assert automl(*export, "--child", 10**30).error == f"'mine' has no child {10**30}; see automl top mine."
    assert automl(*export, "--child", -1).error == "'mine' has no child -1; see automl top mine."


def test_numbers_of_other_commands(automl, searched, folder):
    assert automl("train", "mine", "--threads", -1).error == "--threads is -1; it must be 1 to 1024."
    assert automl("train", "mine", "--seeds", 0).error == "--seeds is 0; it must be 1 or more."
    assert automl("compare-optimizers", "sgd", "--workers", 0).error == "--workers is 0; it must be 1 to 1024."
    (folder / "deep.json").write_text("[" * 99999)
    error = automl("propose", "mine", "--spec", "deep.json").error
    assert error.startswith("deep.json is not JSON: maximum recursion depth exceeded")


def test_the_largest_seed(automl, mine):
    for controller in ("random", "reinforce"):
        ran = automl("search", controller, *OURS, "--controller", controller, *INLINE, "--seed", 2**63 - 1)
        assert ran.code == 0, ran.err
        assert automl("show", controller, "--json").json["seed"] == 2**63 - 1
        assert all(0 <= child["seed"] < 2**31 for child in automl("top", controller, "--json").json)


def test_a_usage_error_is_clicks_own(automl):
    ran = automl("search")
    assert ran.code == 2 and "missing argument 'name'" in ran.err.lower()


# Stores


@pytest.mark.parametrize("command", [*LOOKING, ("resume", "mine"), ("delete", "mine", "--yes")])
def test_no_store(automl, folder, command):
    assert automl(*command).error == (
        "There is no store at sqlite:///automl.db. Start one with: automl search NAME --store automl.db"
    )
    assert files_in(folder) == {}


def other_peoples(path):
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE letters (text)")
    connection.close()
    return "is not an automl store"


def no_database(path):
    path.write_bytes(b"Dear diary, " * 1000)
    return "cannot be read as a database (file is not a database)"


def torn(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return "database disk image is malformed"


def newer(path):
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode=DELETE")
    connection.execute("UPDATE alembic_version SET version_num='9999'")
    connection.commit()
    connection.close()
    return f"was written by a newer automl (schema 9999; this program knows up to {REVISION})"


def trapped(path):
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode=DELETE")
    connection.execute("CREATE TRIGGER gift AFTER UPDATE ON searches BEGIN DELETE FROM children; END")
    connection.commit()
    connection.close()
    return "holds a trigger 'gift' that automl never makes"


@pytest.fixture(scope="module")
def any_store(tmp_path_factory):
    path = tmp_path_factory.mktemp("stores") / "automl.db"
    Store(str(path), create=True).close()
    return path


@pytest.mark.parametrize("damage", [other_peoples, no_database, torn, newer, trapped])
def test_a_store_that_cannot_be_used_is_refused_and_not_written(automl, folder, mine, any_store, damage):
    path = folder / "automl.db"
    if damage not in (other_peoples, no_database):
        shutil.copy(any_store, path)
    sentence = damage(path)
    before = files_in(folder)
    for command in (*LOOKING, ("search", "mine", *OURS, *INLINE), *CHANGING[1:]):
        error = automl(*command).error
        assert sentence in error and "automl.db" in error, command
        assert files_in(folder) == before, command
    report = automl("doctor", "--json")
    (finding,) = [finding for finding in json.loads(report.out) if finding["subject"] == "store"]
    assert report.code == 1 and not finding["well"] and sentence in finding["found"]
    assert files_in(folder) == before


def test_the_folder_of_a_store_must_be_there(automl, mine):
    error = automl("search", "mine", *OURS, "--store", "none/a.db").error
    assert error == "The folder none for the store a.db does not exist; create it first."


def test_impossible_places_of_a_store(automl, mine, folder):
    (folder / "here").mkdir()
    (folder / "link.db").symlink_to("nowhere/a.db")
    (folder / "loop.db").symlink_to("loop.db")
    before = files_in(folder)
    choose = "Name another file with --store."
    long = "a" * 300
    sentences = {
        "here": "here is a folder; name a file in it, for example here/automl.db.",
        "sqlite:///here": "here is a folder; name a file in it, for example here/automl.db.",
        "/": "/ is a folder; name a file in it, for example /automl.db.",
        "/dev/null": "/dev/null is not a plain file, which a store must be; name another with --store.",
        "link.db": "link.db is a link to nowhere/a.db, which does not exist; fix the link, or name another file with "
        "--store.",
        "loop.db": f"The store loop.db cannot be reached: Too many levels of symbolic links. {choose}",
        "mine.py/a.db": f"The store mine.py/a.db cannot be reached: Not a directory. {choose}",
        long: f"The store {long} cannot be reached: File name too long. {choose}",
        "~nobody-of-this-name/a.db": "There is no home folder for ~nobody-of-this-name/a.db; name the store by its "
        "absolute path.",
        ":memory:": "A SQLite store must be a plain file; write sqlite:///FILE or a file's path.",
        "sqlite:a.db": "The store's address is not a database URL; write sqlite:///FILE or a file's path.",
        "file:a.db": "The store's address is not a database URL; write sqlite:///FILE or a file's path.",
        "": "The store's address '' is empty or no path; write sqlite:///FILE or a file's path.",
        " ": "The store's address ' ' is empty or no path; write sqlite:///FILE or a file's path.",
        "foo://host/a": "The store cannot be on foo; use sqlite:///FILE or postgresql://HOST/DATABASE.",
    }
    for address, sentence in sentences.items():
        for command in (("list",), ("search", "mine", *OURS, *INLINE), ("resume", "mine")):
            assert automl(*command, f"--store={address}").error == sentence, address
    assert files_in(folder) == before


def test_invalid_addresses(automl):
    assert automl("list", "--store", "mysql://host/db").error == (
        "The store cannot be on mysql; use sqlite:///FILE or postgresql://HOST/DATABASE."
    )
    assert "is not a database URL" in automl("list", "--store", "://").error


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://me:hush-hush@localhost:9/things",
        "postgresql://me@localhost:9/things?password=hush-hush&sslpassword=hush-hush",
        "postgresql://me:hush-hush@localhost:not-a-port/things",
        "mysql://me:hush-hush@localhost/things",
    ],
)
@pytest.mark.parametrize("command", [("list",), ("search", "mine", *OURS, *INLINE), ("resume", "mine"), ("doctor",)])
def test_secrets_of_an_address_are_never_shown(automl, mine, folder, address, command):
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    ran = automl(*command, "--store", address)
    assert ran.code == 1
    assert "hush-hush" not in ran.out + ran.err
    assert not any(b"hush-hush" in content for content in files_in(folder).values())


# The user's own files


def test_a_users_file_that_cannot_be_used(automl, folder, mine):
    def error(space="mine.py:space", task="mine.py:evaluate"):
        return automl("search", "first", "--controller", "random", "--space", space, "--task", task, *INLINE).error

    here = folder / "mine.py"
    assert error(space="none.py:space") == f"{folder / 'none.py'} cannot be read: No such file or directory."
    assert error(task="mine.py:evaluat") == f"{here} has no function 'evaluat'; it has evaluate, space."
    assert error(task="mine.py") == "mine.py names no function; write mine.py:space or mine.py:evaluate."
    for written in ("mine:space", "mine.space"):
        assert error(space=written) == (
            f"There is no space called {written!r}; for a function of your own write mine.py:space."
        )
    (folder / "tools").mkdir()
    (folder / "tools" / "deep.py").write_text(MINE)
    for written in ("tools.deep:evaluate", "tools/deep:evaluate", "tools.deep.evaluate"):
        assert error(task=written) == (
            f"There is no task called {written!r}; for a function of your own write tools/deep.py:evaluate."
        )
    assert error(space="mine").endswith("write mine.py:space or mine.py:evaluate.")
    assert error(space="other:space").startswith("There is no space called 'other:space'; there is ")
    (folder / "empty.py").write_text("")
    assert error(task="empty.py") == "empty.py names no function; write empty.py:NAME, with the function's name."
    (folder / "latin.py").write_bytes("# caf\xe9".encode("latin-1"))
    assert error(space="latin.py:space") == f"{folder / 'latin.py'} is not a Python file: it is not UTF-8 text."
    assert not (folder / "automl.db").exists()


def test_errors_in_a_users_file_are_not_disguised(automl, folder, mine):
    mine.write_text("import automl\n1 / 0\n")
    assert automl("search", "first", *OURS, *INLINE).error == (
        f"{mine} does not run: ZeroDivisionError in line 2: division by zero"
    )
    mine.write_text("def space(:\n")
    assert automl("search", "first", *OURS, *INLINE).error.startswith(
        f"{mine} does not run: SyntaxError in line 1: invalid"
    )


def test_resume_without_the_file(automl, searched, mine):
    moved = mine.with_name("moved.py")
    mine.rename(moved)
    gone = f"{mine} cannot be read: No such file or directory; put it back, or say where it is now: FILE.py:"
    after = "after --space, --task or --controller of automl resume."
    assert automl("resume", "mine", "--children", "5").error == f"{gone}space {after}"
    only_space = automl("resume", "mine", "--children", "5", "--space", "moved.py:space")
    assert only_space.error == f"{gone}evaluate {after}"
    moved_now = ("--space", "moved.py:space", "--task", "moved.py:evaluate")
    assert automl("resume", "mine", "--children", "5", *moved_now).code == 0


def test_resume_with_a_changed_file(automl, searched, mine):
    mine.write_text(MINE + "\n# better now\n")
    error = automl("resume", "mine", "--children", "5").error
    assert error.startswith(f"{mine} has changed since the search began (sha256 ")
    assert error.endswith("; put the old text back, or accept the new one with --accept-change.")


def test_resume_on_a_machine_where_the_file_was_never_approved(automl, searched, mine, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "another machine"))
    sentence = (
        f"The search 'mine' runs your file {mine}, which was not started or approved by you on this machine; read it, "
        f"then approve it with: automl resume mine --space {mine}:space"
    )
    assert automl("resume", "mine", "--children", "5").error == sentence
    # Accepting a change is no approval: another person's store may name any file of this machine.
    mine.write_text(MINE + f"\nPath({str(tmp_path / 'marker')!r}).touch()\n")
    assert automl("resume", "mine", "--children", "5", "--accept-change").error == sentence
    assert not (tmp_path / "marker").exists()


def test_reading_and_exporting_run_no_file_that_was_not_approved(automl, searched, mine, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "another machine"))
    for command in (("show", "mine"), ("top", "mine"), ("list",), ("doctor",)):
        assert automl(*command).code == 0
    for kind in ("python", "keras"):
        assert "was not started or approved by you" in automl("export", "mine", "--format", kind, "--to", "new").error
    assert automl("export", "mine", "--format", "json", "--to", "new.json").code == 0


def test_resume_with_a_file_that_the_search_does_not_use(automl, mine, folder):
    with_builtin = ("--space", "mine.py:space", "--task", "mine.py:evaluate", "--controller", "random")
    assert automl("search", "mine", *with_builtin, *INLINE).code == 0
    other = folder / "other.py"
    other.write_text(MINE + "\n# another\n")
    error = automl("resume", "mine", "--children", "5", "--task", "other.py:evaluate").error
    assert error.startswith(f"{other} is not the text that the search began with (sha256 ")


# Data


def save(path, **changes):
    generator = np.random.default_rng(0)
    arrays = {
        "x_train": generator.integers(0, 256, (40, 6, 6, 1)).astype(np.uint8),
        "y_train": np.arange(40) % 4,
    }
    np.savez(path, **(arrays | changes))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"x_train": np.zeros((40, 6))},
            "x_train in {path} must hold numbers in shape (count, height, width, channels), found float64 of shape "
            "(40, 6).",
        ),
        (
            {"x_train": np.full((40, 6, 6, 1), "a")},
            "x_train in {path} must hold numbers in shape (count, height, width, channels), found <U1 of shape "
            "(40, 6, 6, 1).",
        ),
        ({"y_train": np.zeros(40)}, "y_train in {path} must hold integers in shape (count,), found float64 of shape "
         "(40,)."),
        ({"y_train": np.arange(39) % 4}, "x_train and y_train in {path} must have the same length, found 40 images "
         "and 39 labels."),
    ],
)  # fmt: skip
def test_arrays_of_the_wrong_form(automl, folder, changes, sentence):
    path = folder / "images.npz"
    save(path, **changes)
    error = automl("search", "first", "--task", "npz:images.npz", "--controller", "random", *INLINE).error
    assert error == sentence.format(path=path)
    assert not (folder / "automl.db").exists()


def test_an_array_file_that_is_not_there(automl, folder):
    error = automl("search", "first", "--task", "npz:none.npz", "--controller", "random", *INLINE).error
    assert error == f"{folder / 'none.npz'} is not a file; expected one made with numpy.savez."


def test_cifar10_with_the_wrong_checksum(automl, folder):
    data = folder / "data" / "cifar-10-batches-py"
    data.mkdir(parents=True)
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        (data / name).write_bytes(b"not the photographs")
    error = automl("search", "first", *CIFAR10, *INLINE).error
    assert error.startswith(
        f"{data / 'data_batch_1'} is damaged or not the official file: expected sha256 54636561a3ce25bd3e19253c6b0d8538"
    )
    assert "found " in error and "in 19 bytes; replace it" in error
    # After the fix, the same command works: no search was created.
    assert not (folder / "automl.db").exists()


def test_cifar10_offline(automl, folder, monkeypatch):
    def unreachable(*arguments, **options):
        raise requests.ConnectionError("Network is unreachable")

    monkeypatch.setattr(requests, "get", unreachable)
    error = automl("search", "first", *CIFAR10, *INLINE).error
    data = folder / "data"
    assert error == (
        f"CIFAR-10 is not in {data} (the download failed: Network is unreachable): unpack "
        f"https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz so that {data / 'cifar-10-batches-py'} holds "
        "data_batch_1, data_batch_2, data_batch_3, data_batch_4, data_batch_5, test_batch."
    )
    assert not (folder / "automl.db").exists()


# Limits that cannot be checked, exports, deletions


def test_limits_need_a_space_and_a_task_that_can_count(automl, mine):
    assert automl("search", "first", *OURS, *INLINE, "--max-params", "10k").error == (
        "--max-params and --max-flops need a space whose specs have a method count(input_shape, num_classes), and a "
        "task with images; drop the limit."
    )


def test_export_to_an_existing_path(automl, searched, folder):
    def export(to, *flags, kind="json"):
        return automl("export", "mine", "--format", kind, "--to", to, *flags)

    there = folder / "there.json"
    there.write_text("mine")
    assert export("there.json").error == "there.json already exists; choose another path or add --force."
    assert there.read_text() == "mine"
    assert export("none/a.json").error == "The folder none does not exist; create it first."
    assert export(folder, "--force").error == (
        f"{folder} is a folder; name a file in it, or a new folder for savedmodel."
    )
    assert export("there.json", "--force", kind="savedmodel").error == (
        "there.json is a file, and savedmodel writes a folder; choose another path."
    )
    assert export("a.h5", kind="hdf5").error.startswith("There is no format called 'hdf5'; there is ")
    assert export("a.json", "--child", "99").error == "'mine' has no child 99; see automl top mine."


def test_deleting_asks_first(automl, searched, monkeypatch):
    error = "Deleting 'mine' with its 8 children needs --yes, since standard input is not a terminal."
    assert automl("delete", "mine").error == error
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda question: "n")
    assert automl("delete", "mine").out == "Nothing was deleted.\n"
    assert automl("list", "--json").json[0]["name"] == "mine"
    monkeypatch.setattr("builtins.input", lambda question: "y")
    assert automl("delete", "mine").out == "Deleted mine.\n"
    assert automl("list", "--json").json == []


# Tracebacks


def test_debug_shows_the_traceback(folder, mine):
    ran = run_automl("resume", "mine", "--debug", folder=folder)
    assert ran.code == 1
    assert "Traceback (most recent call last)" in ran.err and "There is no store at" in ran.err
    plain = run_automl("resume", "mine", folder=folder)
    assert plain.error.startswith("There is no store at")


def test_an_unexpected_error_is_one_line_too(automl, monkeypatch):
    def broken(*arguments, **options):
        raise KeyError("surprise")

    monkeypatch.setattr("automl.cli.look.print_list", broken)
    assert automl("list").error == "KeyError: 'surprise' (--debug shows the traceback)"


def test_a_closed_pipe_is_no_error(searched, folder):
    with subprocess.Popen(
        [script(), "top", "mine", "--json"], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert "Traceback" not in process.stderr.read()
