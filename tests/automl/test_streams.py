"""Standard streams that are closed, full or narrow, and Ctrl-C before a command has begun: with real processes."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import subprocess
import sys
import termios
import tomllib
from pathlib import Path

import pytest
from command_line import OURS, Ran, files_in
from waiting import SECONDS

BEGIN = "import sys; sys.argv[0] = 'automl'; from automl.cli.entry import main; main()"
SEARCH = ("search", "mine", *OURS, "--workers", "0", "--children", "3")
READING = (("list",), ("show", "mine"), ("top", "mine"), ("top", "mine", "--json"), ("logs", "mine", "0"),
           ("watch", "mine"), ("doctor",), ("--help",))  # fmt: skip


def command(*arguments, code=BEGIN, prelude="", **options):
    """Runs the command's entry point; `prelude` is shell text before it, such as a redirection."""
    words = ["sh", "-c", f'exec "$0" "$@" {prelude}', sys.executable, "-c", code, *arguments]
    done = subprocess.run(
        words, text=True, timeout=SECONDS, **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    )
    return Ran(done.returncode, done.stdout or "", done.stderr or "")


def into_a_closed_pipe(*arguments):
    """Runs the command with an output whose reader has gone."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        return command(*arguments, stdout=writer)
    finally:
        os.close(writer)


@pytest.fixture
def searched(automl, mine, folder):
    ran = automl(*SEARCH)
    assert ran.code == 0, ran.err
    return folder / "automl.db"


def test_the_installed_command_begins_here():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert project["project"]["scripts"] == {"automl": "automl.cli.entry:main"}


@pytest.mark.parametrize("arguments", READING, ids=" ".join)
def test_a_reader_that_has_seen_enough_is_no_error(searched, arguments):
    assert into_a_closed_pipe(*arguments) == Ran(0, "", "")


def test_a_full_disk_is_reported(searched):
    ran = command("show", "mine", prelude=">/dev/full")
    assert ran.error == "Standard output cannot be written: No space left on device."


@pytest.mark.parametrize("closed", [">&-", ">&- 2>&-", "<&- >&- 2>&-", "<&-"])
def test_closed_streams(searched, automl, folder, closed):
    before = files_in(folder)
    ran = command("show", "mine", prelude=closed)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("mine: finished\n") == (closed == "<&-")
    assert files_in(folder) == before, "what was printed went into a file"
    assert command("resume", "mine", "--children", "6", prelude=closed).code == 0
    assert automl("list", "--json").json[0]["num_trained"] == 6


def test_deleting_without_a_terminal(searched):
    ran = command("delete", "mine", prelude="<&-")
    assert ran.error == "Deleting 'mine' with its 8 children needs --yes, since standard input is not a terminal."


def test_a_search_outlives_the_reader_of_its_output(mine, folder, automl):
    ran = into_a_closed_pipe(*SEARCH)
    assert ran == Ran(0, "", "Standard output is closed; the command goes on without it.\n")
    assert automl("show", "mine", "--json").json["state"] == "finished"
    full = command("resume", "mine", "--children", "6", prelude=">/dev/full")
    assert full == Ran(0, "", "Standard output is closed; the command goes on without it.\n")
    assert automl("list", "--json").json[0]["num_trained"] == 6


def test_characters_that_the_encoding_lacks(mine, folder):
    mine.write_text(re.sub("return digits", "return {'größe': digits[0], 'name': '网络'}", mine.read_text()))
    mine.write_text(re.sub("worth = .*", "worth = spec['größe'] / 4", mine.read_text()))
    narrow = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for arguments in (SEARCH, ("top", "mine"), ("show", "mine"), ("list",)):
        ran = command(*arguments, env=narrow)
        assert (ran.code, ran.err) == (0, ""), arguments
        assert ran.out.isascii()
    assert r"gr\xf6\xdfe" in command("top", "mine", env=narrow).out


INTERRUPTED = """
import os, signal, sys
class Finder:
    def find_spec(name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)
        return None
sys.meta_path.insert(0, Finder)
"""


@pytest.mark.parametrize("module", ["typer", "automl.cli.search", "sqlalchemy", "alembic", "tensorflow"])
def test_ctrl_c_before_a_search_begins_leaves_nothing(mine, folder, module):
    before = files_in(folder)
    arguments = ("search", "mine", "--set", "task.epochs=1", "--workers", "0", "--children", "1")
    ran = command(*arguments, code=INTERRUPTED.format(module=module) + BEGIN)
    assert (ran.code, ran.err) == (130, "Nothing was started.\n")
    assert files_in(folder) == before
    assert not (folder / "automl.db").exists()


def test_ctrl_c_before_a_search_begins_leaves_the_terminal_as_it_was(mine, folder):
    leader, follower = pty.openpty()
    before = termios.tcgetattr(follower)
    try:
        search = ("search", "mine", "--workers", "0", "--children", "1")
        code = INTERRUPTED.format(module="tensorflow") + BEGIN
        words = [sys.executable, "-c", code, *search]
        process = subprocess.Popen(words, stdin=follower, stdout=follower, stderr=follower, start_new_session=True,
                                   preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))  # fmt: skip
        text = b""
        while b"Nothing was started." not in text:
            text += os.read(leader, 4096)
        assert process.wait(240) == 130
        assert termios.tcgetattr(follower) == before
        assert text.rpartition(b"\x1b[?25")[2].startswith(b"h")
    finally:
        os.close(leader)
        os.close(follower)


def test_ctrl_c_before_a_search_begins_keeps_the_store_that_is_there(searched, automl):
    ran = command("search", "other", "--children", "1", code=INTERRUPTED.format(module="tensorflow") + BEGIN)
    assert (ran.code, ran.err) == (130, "Nothing was started.\n")
    assert [search["name"] for search in automl("list", "--json").json] == ["mine"]


def test_ctrl_c_before_a_search_begins_keeps_the_store_that_another_search_has_made_meanwhile(mine, folder):
    code = INTERRUPTED.replace(
        "os.kill(", "__import__('automl.db.store').db.store.Store('automl.db', create=True).close(); os.kill("
    )
    ran = command("search", "other", "--children", "1", code=code.format(module="tensorflow") + BEGIN)
    assert (ran.code, ran.err) == (130, "Nothing was started.\n")
    assert (folder / "automl.db").stat().st_size


def test_ctrl_c_while_a_command_that_only_looks_is_imported(searched):
    assert command("list", code=INTERRUPTED.format(module="sqlalchemy") + BEGIN) == Ran(130, "", "")
