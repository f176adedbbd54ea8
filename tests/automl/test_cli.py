"""The command from end to end: a real search on digits, real processes, and the output for users and scripts."""

from __future__ import annotations

import contextlib
import io
import itertools
import math
import os
import pty
import select
import shutil
import signal
import subprocess
import time

import pytest
from command_line import (
    MINE,
    OURS,
    Watcher,
    lives,
    python,
    run_automl,
    script,
    wait_until,
    without_colours,
)
from screen import screen
from waiting import SECONDS

import automl as package
from automl import retry
from automl.cli import views
from automl.cli.terminal import make_console
from automl.db.records import SearchState
from automl.db.store import Store

INLINE = ("--workers", "0")
BOX = "╭╮╰╯│─"
COMMANDS = (
    *("search", "resume", "list", "show", "top", "watch", "logs", "stop", "propose", "train", "export", "delete"),
    *("doctor", "retry"),
)
CHILD_FIELDS = {"number", "state", "tokens", "spec", "reward", "metrics", "params", "seconds"}


# Real digits


@pytest.fixture
def copied(digits, folder):
    """A copy of the digits' store in the current folder."""
    path, _ = digits
    with contextlib.closing(Store(str(path), readonly=True)) as store:
        assert store.search("digits").num_trained == 3
    shutil.copy(path, folder / "automl.db")
    return folder / "automl.db"


def test_what_a_search_says(digits):
    _, ran = digits
    lines = ran.out.splitlines()
    assert ran.err == ""
    assert lines[0] == "Preparing the search 'digits' in sqlite:///automl.db"
    assert "Space convnet, task digits, controller reinforce, seed 0" in lines
    told = next(line for line in lines if line.startswith("Each child: "))
    assert "data digits" in told and "epochs 1" in told and "num_train 320" in told
    assert any(line.split()[:2] == ["child", "reward"] for line in lines)
    assert lines[-2:] == ["Done: 3 children trained.", "Go further with: automl resume digits --children 6"]
    assert "\x1b" not in ran.out


def test_without_a_terminal_the_last_progress_is_that_of_the_end(automl, mine):
    """Also of a search that ends sooner than the view reads the store again."""
    ran = automl("search", "mine", *OURS, *INLINE, "--children", "4")
    progress = [line for line in ran.out.splitlines() if " trained, best " in line]
    assert len(progress) == 1 and progress[0].startswith("4/4 trained, best ") and progress[0].endswith(")"), ran.out


def test_list(automl, copied):
    (search,) = automl("list", "--json").json
    assert (search["name"], search["state"], search["num_trained"], search["budget"]) == ("digits", "finished", 3, 3)
    assert (search["space"], search["task"], search["controller"]) == ("convnet", "digits", "reinforce")
    assert search["children"]["trained"] == 3 and search["children"]["ready"] == 3
    headings, row = automl("list").out.splitlines()
    assert headings.split() == ["name", "state", "trained", "best", "space", "task", "controller", "started"]
    assert row.split()[:3] == ["digits", "finished", "3/3"]
    assert row.split()[3] == f"{search['best_reward']:.4f}"


def test_show(automl, copied):
    shown = automl("show", "digits", "--json").json
    with contextlib.closing(Store(str(copied), readonly=True)) as store:
        assert shown["digest"] == store.digest(store.search("digits").id)
    assert shown["settings"]["task"]["options"] == {"epochs": 1, "num_train": 320}
    assert shown["settings"]["narrowing"]["fix"] == ["depth=3", "layer*/num_filters=8"]
    (segment,) = shown["segments"]
    assert (segment["children"], segment["workers"], segment["ending"]) == (3, 1, "finished")
    assert set(segment["versions"]) == {"python", "automl", "tensorflow", "keras", "numpy", "sqlalchemy"}
    first, second = shown["steps"]
    assert (first["consumed_batch"], second["consumed_batch"]) == (None, 0)
    assert all(len(step["state_hash"]) == 64 and "blob" not in step for step in shown["steps"])
    text = automl("show", "digits").out
    assert text.startswith("digits: finished\n  3/3 trained")
    assert "filter_height:" in text  # what the controller has learned


def test_top(automl, copied):
    children = automl("top", "digits", "--json").json
    assert len(children) == 3
    rewards = [child["reward"] for child in children]
    assert rewards == sorted(rewards, reverse=True)
    for child in children:
        assert set(child) >= CHILD_FIELDS
        assert child["state"] == "trained"
        assert math.isclose(child["reward"], child["metrics"]["val_accuracy"] ** 3)
        assert child["params"] > 0 and child["seconds"] > 0
        assert [layer["num_filters"] for layer in child["spec"]["layers"]] == [8, 8, 8]
    assert automl("top", "digits", "-n", "1", "--json").json == children[:1]
    lines = automl("top", "digits", "-n", "2").out.splitlines()
    assert len(lines) == 3 and lines[1].split()[:2] == [str(children[0]["number"]), f"{rewards[0]:.4f}"]
    assert automl("top", "digits", "-n", "0").code == 2


def test_going_further_and_deleting(automl, copied, folder):
    bare = automl("resume", "digits")
    assert bare.code == 0
    assert bare.out == (
        "digits has trained 3 of 3 children; nothing was changed. Go further with: automl resume digits --children 6\n"
    )  # fmt: skip
    ran = run_automl("resume", "digits", "--children", "5", "--workers", "0", folder=folder)
    assert ran.code == 0 and ran.err == "", ran
    assert "Done: 5 children trained." in ran.out
    shown = automl("show", "digits", "--json").json
    assert [segment["children"] for segment in shown["segments"]] == [3, 5]
    assert [segment["workers"] for segment in shown["segments"]] == [1, 0]
    assert (shown["children"]["trained"], shown["children"]["ready"]) == (5, 3)  # two batches of two are in flight
    assert [step["consumed_batch"] for step in shown["steps"]] == [None, 0, 1]
    assert automl("delete", "digits", "--yes").out == "Deleted digits.\n"
    assert automl("list").out == "No searches yet. Start one with: automl search NAME\n"
    assert not (folder / "automl.db.logs" / "digits").exists()


# The user's own space and task


def test_a_search_that_fails_from_the_start_pauses(automl, mine, folder):
    mine.write_text(MINE + "\ndef broken(spec):\n    raise RuntimeError('no data')\n")
    flags = ("--space", "mine.py:space", "--task", "mine.py:broken", "--controller", "random")
    ran = automl("search", "mine", *flags, *INLINE)
    assert ran.code == 3 and ran.err == ""
    assert ran.out.splitlines()[-4:] == [
        "3 children failed: raised RuntimeError: no data (3).",
        "Once the cause is fixed, make them ready again with: automl retry mine",
        "Paused: The first 3 children failed (raised: RuntimeError: no data). Fix the cause and resume, or resume "
        "with --keep-going.",
        "Go on with: automl resume mine",
    ]
    checkpoints = folder / "automl.db.logs" / "mine" / "checkpoints"
    checkpoints.mkdir(parents=True)
    names = ("child-0.checkpoint", "child-0.previous", "child-0-train-7.checkpoint", "child-99.checkpoint")
    for name in names:
        (checkpoints / name).touch()
    ran = automl("resume", "mine", "--keep-going", "--time", "0.3s", *INLINE)
    assert ran.code == 4 and "the time given with --time is over" in ran.out  # nothing was trained
    assert {path.name for path in checkpoints.iterdir()} == set(names[2:])  # a failed child is not continued


def test_workers_that_cannot_start_pause_the_search_with_their_log(automl, mine, folder):
    mine.write_text("import os\nif 'AUTOML_WORKER' in os.environ:\n    os._exit(7)\n" + MINE)
    assert automl("search", "mine", *OURS, "--children", "1", *INLINE).code == 0
    os.environ["AUTOML_WORKER"] = "1"
    # The coordinator, here in this process, has the file loaded already.
    ran = automl("resume", "mine", "--children", "2", "--workers", "1")
    log = folder / "automl.db.logs" / "mine" / "worker-0.log"
    assert (
        f"Paused: No worker can be used: its workers end without a child (exit code 7); their log is {log}." in ran.out
    )
    assert ran.code == 3 and log.exists()


def test_an_exhausted_space_is_a_success(automl, mine):
    mine.write_text("from automl import Choice\n\ndef space():\n    return (yield Choice('x', (1, 2, 3)))\n" + EVALUATE)
    ran = automl("search", "mine", *OURS, "--children", "9", *INLINE)
    assert ran.code == 0
    assert ran.out.splitlines()[-1] == "Done: exhausted 3/9: the space has no more."
    assert automl("list", "--json").json[0]["state"] == SearchState.EXHAUSTED


FAILING = """
import os
from automl import Choice

def space():
    return (yield Choice("kind", ("even", "odd", "out")))

def evaluate(spec):
    if os.path.exists("mended") or spec == "even":
        return 1.0
    raise MemoryError("no room") if spec == "out" else RuntimeError("it is odd")
"""


@pytest.mark.parametrize("workers", ["0", "1"])
def test_failed_children_are_reported_and_trained_once_the_cause_is_fixed(automl, folder, workers):
    (folder / "mine.py").write_text(FAILING)
    ran = automl("search", "mine", *OURS, "--workers", workers)
    assert ran.code == 4 and ran.err == ""
    failed, again, ended = ran.out.splitlines()[-3:]
    assert failed in (
        f"2 children failed: {', '.join(causes)}."
        for causes in itertools.permutations(["raised RuntimeError: it is odd (1)", "out of memory (1)"])
    )
    assert again == "Once the cause is fixed, make them ready again with: automl retry mine"
    assert ended == "Ended: exhausted 1/100: the space has no more."
    shown = automl("show", "mine").out
    assert f"  {failed.rstrip('.')}; automl retry mine makes them ready again\n" in shown
    assert {count["fault"] for count in automl("show", "mine", "--json").json["failures"]} == {"raised", "oom"}
    assert automl("resume", "mine").code == 4  # there is no child to train
    children = Watcher(folder / "automl.db", "mine").children()
    number = {child.fault: child.number for child in children}
    (folder / "mended").touch()
    assert (
        automl("retry", "mine", "--fault", "crashed").out == "No child has failed with crashed; nothing was changed.\n"
    )
    assert automl("retry", "mine", "--child", number[None]).error.endswith(" has not failed: it is trained.")
    assert automl("retry", "mine", "--child", "9").error == "'mine' has no child 9; see automl show mine."
    assert automl("retry", "mine", "--fault", "ooom").error.startswith("There is no fault called 'ooom'; there is oom")
    assert automl("retry", "mine", "--fault", "oom").out == (
        f"1 child of mine is ready again: {number['oom']}.\nTrain them with: automl resume mine\n"
    )
    assert retry("mine", child=number["raised"]) == [number["raised"]]
    ran = automl("resume", "mine", "--workers", workers)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines()[-1] == "Done: exhausted 3/100: the space has no more."
    assert "child failed" not in ran.out and "children failed" not in ran.out


def test_a_space_of_two_children_that_fail_ends_without_success(automl, folder):
    (folder / "mine.py").write_text(FAILING.replace('("even", "odd", "out")', '("odd", "more")'))
    ran = automl("search", "mine", *OURS, *INLINE)
    assert ran.code == 4
    assert "2 children failed: raised RuntimeError: it is odd (2)." in ran.out.splitlines()
    assert ran.out.splitlines()[-1] == "Ended: exhausted 0/100: the space has no more."


def test_exit_codes_are_documented(automl):
    for command in ([], ["search"], ["resume"]):
        told = " ".join(automl(*command, "--help").out.split())
        for code in ("0 done", "1 error", "2 wrong usage", "3 paused", "4 ended without a trained child", "130 interr"):
            assert code in told


EVALUATE = "\ndef evaluate(spec):\n    return float(spec)\n"


def test_minimizing_a_metric(automl, mine):
    ran = automl("search", "mine", *OURS, "--minimize", "worth", "--children", "4", *INLINE)
    assert ran.code == 0, ran.err
    children = automl("top", "mine", "--json").json
    assert all(child["reward"] == -child["metrics"]["worth"] for child in children)


def test_settings_from_a_file(automl, mine, folder):
    (folder / "search.toml").write_text(
        'space = "mine.py:space"\ntask = "mine.py:evaluate"\ncontroller = "random"\nchildren = 9\n'
        'workers = 0\nseed = 4\nfix = ["digit0=2"]\n'
    )
    assert automl("search", "mine", "--config", "search.toml", "--children", "2").code == 0
    shown = automl("show", "mine", "--json").json
    assert (shown["budget"], shown["seed"], shown["controller"]) == (2, 4, "random")
    assert {child["spec"][0] for child in automl("top", "mine", "--json").json} == {2}


def test_refused_draws_are_shown(automl, mine):
    mine.write_text("from automl import Choice\n\ndef space():\n    return (yield Choice('x', (1, 2, 3)))\n" + EVALUATE)
    automl("search", "mine", *OURS, "--children", "3", *INLINE)
    repeats = automl("show", "mine", "--json").json["refused"]["repeat"]
    assert repeats > 0
    assert f"draws refused: {repeats} repeat" in automl("show", "mine").out


def test_the_store_of_the_environment(automl, mine, folder):
    os.environ["AUTOML_STORE"] = str(folder / "other.db")
    ran = automl("search", "mine", *OURS, "--children", "1", *INLINE)
    assert ran.out.splitlines()[-1] == "Go further with: automl resume mine --children 2"
    assert (folder / "other.db").exists() and not (folder / "automl.db").exists()
    assert automl("list", "--json").json[0]["name"] == "mine"
    assert automl("list", "--store", "third.db").error.startswith("There is no store at")
    del os.environ["AUTOML_STORE"]
    assert automl("resume", "mine", "--store", "other.db").out.endswith(
        "Go further with: automl resume mine --store other.db --children 2\n"
    )
    assert automl("top", "mine", "--store", "sqlite:///other.db", "--json").json[0]["state"] == "trained"


def test_no_worker_outlives_a_search_and_its_logs_are_deleted_with_it(automl, mine, folder):
    assert run_automl("search", "mine", *OURS, "--children", "6", "--workers", "2", folder=folder).code == 0
    pids = Watcher(folder / "automl.db", "mine").pids()
    assert pids and not any(lives(pid) for pid in pids)
    logs = folder / "automl.db.logs" / "mine"
    assert {path.name for path in logs.iterdir()} == {"worker-0.log", "worker-1.log"}
    assert automl("delete", "mine", "--yes").code == 0
    assert not logs.exists()


# On a terminal


class Terminal:
    """The command on a pseudo-terminal."""

    def __init__(self, *arguments):
        self.text = ""
        self.leader, follower = pty.openpty()
        self.process = subprocess.Popen(
            [script(), *arguments],
            stdin=follower,
            stdout=follower,
            stderr=follower,
            env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "120", "LINES": "40"},
            start_new_session=True,
            preexec_fn=_take_terminal,
        )
        os.close(follower)

    def read_until(self, text):
        end = time.monotonic() + SECONDS
        while text not in without_colours(self.text):
            assert time.monotonic() < end, self.text
            assert self._read(), f"{text!r} is not in {self.text}"

    def read_all(self):
        while self._read():
            pass
        return self.process.wait(SECONDS)

    def press(self, key):
        os.write(self.leader, key)

    def _read(self):
        select.select([self.leader], [], [], SECONDS)
        try:
            part = os.read(self.leader, 65536)
        except OSError:  # the other end is closed
            return False
        self.text += part.decode(errors="replace")
        return bool(part)

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.leader)


def _take_terminal():
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def test_the_live_view_and_ctrl_c(mine, folder):
    (folder / "hold").mkdir()
    terminal = Terminal("search", "mine", *OURS, "--children", "800", "--workers", "1")
    try:
        terminal.read_until("1 running")
        text = without_colours(terminal.text)
        assert "mine: mine.py:space on mine.py:evaluate by random" in text
        assert "trained" in text and "0 of 800 in " in text
        (folder / "hold").rmdir()
        terminal.read_until("reward")
        (folder / "hold").mkdir()
        wait_until(lambda: Watcher(folder / "automl.db", "mine").num("running") == 1, "a child that is held")
        terminal.press(b"\x03")
        wait_until(lambda: Watcher(folder / "automl.db", "mine").ask(_is_stopping), "a clean stop")
        (folder / "hold").rmdir()
        assert terminal.read_all() == 130
    finally:
        terminal.close()
    left = screen(terminal.text, 120, 40)
    assert left[0].startswith("Preparing the search ") and not any(set(line) & set(BOX) for line in left), left
    assert "^C" not in "".join(left)
    end = without_colours(terminal.text)
    assert "Paused: stopped by SIGINT" in end and "Go on with: automl resume mine" in end
    assert "Traceback" not in end


@pytest.mark.parametrize("height", [5, 40])
def test_nothing_of_the_panel_is_left_where_it_is_higher_than_the_terminal(automl, mine, monkeypatch, height):
    assert automl("search", "mine", *OURS, "--children", "6", *INLINE).code == 0
    drawn = io.StringIO()
    console = make_console(file=drawn, force_terminal=True, width=60, height=height)
    monkeypatch.setattr(views, "make_console", lambda: console)
    monkeypatch.setattr(views, "LIVE_SECONDS", 0.0)
    with contextlib.closing(Store("automl.db", readonly=True)) as store:
        view = views.LiveView(store, "mine")
        view.note("before")
        with pytest.raises(KeyboardInterrupt), view.live():
            view.stage("Reading the data")
            view.turn()
            view.turn()
            raise KeyboardInterrupt
    text = drawn.getvalue()
    assert "Reading the data (0s)" in without_colours(text) and BOX[0] in text
    assert [line for line in screen(text, 60, height) if line] == ["before"]


def test_the_preparation_is_printed_as_lines_without_a_terminal(digits):
    lines = digits[1].out.splitlines()
    told = [line for line in lines if line.startswith(("Importing", "Reading", "Starting"))]
    assert told == ["Reading the data of digits", "Importing TensorFlow", "Starting 1 worker"]


USES_TENSORFLOW = """
from automl import Choice
{at_import}

def space():
    return (yield Choice("x", (1, 2, 3)))

def evaluate(spec):
    import sys
    import tensorflow as tf
    print("of the user", file=sys.stderr)
    return float(tf.constant(spec) * 2)
"""


@pytest.mark.parametrize(
    "at_import", ["", "import tensorflow as tf\nimport sys\nprint('of the file', file=sys.stderr)"]
)
def test_tensorflow_s_start_up_lines_stay_off_the_terminal(folder, at_import):
    (folder / "mine.py").write_text(USES_TENSORFLOW.format(at_import=at_import))
    ran = run_automl("search", "mine", *OURS, "--children", "1", *INLINE, folder=folder)
    assert (ran.code, ran.err) == (0, ("of the file\n" if at_import else "") + "of the user\n")


def _is_stopping(store, search):
    return store.searches()[0].state == SearchState.STOPPING


# The whole program


def test_help_and_version(folder):
    ran = run_automl("--help", folder=folder)
    assert ran.code == 0
    for command in COMMANDS:
        assert f"\n  {command} " in ran.out
    ran = run_automl("--version", folder=folder)
    assert (ran.code, ran.out) == (0, f"automl {package.__version__}\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_and_takes_a_store(automl, command):
    ran = automl(command, "--help")
    assert ran.code == 0 and "--store" in ran.out


def test_tensorflow_is_imported_late(mine, folder):
    code = """
import sys
import automl
assert not {"tensorflow", "keras", "sqlalchemy", "numpy"} & set(sys.modules)
automl.Choice, automl.Links
from automl.child_trainers.user_files import UserFile
UserFile.read("mine.py:space").load()
assert not {"tensorflow", "keras"} & set(sys.modules)
print("well")
"""
    assert python(code, folder=folder).out == "well\n"


def test_looking_imports_no_tensorflow(automl, mine, folder):
    assert automl("search", "mine", *OURS, "--children", "2", *INLINE).code == 0
    code = """
import sys
from automl.cli.app import main
for command in (["list"], ["top", "mine", "--json"], ["show", "mine"], ["resume", "mine"]):
    sys.argv = ["automl", *command]
    try:
        main()
    except SystemExit as end:
        assert not end.code, command
    assert not {"tensorflow", "keras", "alembic", "rich"} & set(sys.modules), command
    assert command[0] in ("show", "resume") or "numpy" not in sys.modules, command
"""
    ran = python(code, folder=folder)
    assert ran.code == 0, ran.err


def test_folders_of_our_inner_packages_names_are_the_user_s(mine, folder):
    for name in ("db", "controllers", "child_trainers", "search_spaces"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text("whose = 'the user'\n")
    ran = run_automl("search", "mine", *OURS, "--children", "2", "--workers", "1", folder=folder)
    assert ran.code == 0 and "Done: 2 children trained." in ran.out, ran
    imported = python("import automl, db, automl.db.store; automl.Choice; print(db.whose)", folder=folder)
    assert (imported.code, imported.out) == (0, "the user\n"), imported.err


@pytest.mark.parametrize("statement", ["import db", "from search_spaces.decisions import Choice"])
def test_an_import_by_a_name_of_0_1_0_says_the_new_name(statement, folder):
    ran = python(f"import automl\n{statement}", folder=folder)
    name = statement.split()[1].partition(".")[0]
    assert ran.err.splitlines()[-1] == (
        f"ModuleNotFoundError: No module named {name!r}; if automl's is meant, its name is automl.{name} since "
        "version 0.2.0."
    )


def test_signals_are_as_they_were_after_a_search(automl, mine):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)]
    assert automl("search", "mine", *OURS, "--children", "1", *INLINE).code == 0
    after = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)]
    assert after == before
