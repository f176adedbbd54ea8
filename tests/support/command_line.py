"""Shared parts of the tests of `automl/`: a user's file, the installed command, and waits for its effects."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from waiting import SECONDS

from automl.db.records import Child
from automl.db.store import Store

# A space of 1,024 children and a task that ends at once, unless a folder `hold` exists beside the file.
MINE = """
import os, time
from pathlib import Path
from automl import Choice

def space():
    digits = []
    for index in range(5):
        digits.append((yield Choice(f"digit{index}", (0, 1, 2, 3))))
    return digits

def evaluate(spec, report):
    worth = sum(digit / 4 ** (index + 1) for index, digit in enumerate(spec))
    report(1, pid=os.getpid(), worth=worth / 2)
    while Path(__file__).with_name("hold").exists():
        time.sleep(0.005)
    report(2, pid=os.getpid(), worth=worth)
    return {"reward": worth, "worth": worth}
"""
OURS = ("--space", "mine.py:space", "--task", "mine.py:evaluate", "--controller", "random")


@dataclasses.dataclass(frozen=True)
class Ran:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.code == 0, self.err
        return json.loads(self.out)

    @property
    def error(self) -> str:
        """The one sentence of a refusal."""
        assert self.code == 1, self
        lines = self.err.splitlines()
        assert len(lines) == 1 and lines[0].startswith("Error: "), self.err
        assert "Traceback" not in self.out
        return lines[0].removeprefix("Error: ")


def script() -> str:
    """The installed command."""
    return str(Path(sysconfig.get_path("scripts")) / "automl")


def run_automl(*arguments: str | Path, folder: Path, **options: Any) -> Ran:
    """Runs the installed command to its end."""
    done = subprocess.run(
        [script(), *map(str, arguments)], cwd=folder, capture_output=True, text=True, timeout=SECONDS, **options
    )
    return Ran(done.returncode, done.stdout, done.stderr)


class Running:
    """The installed command while it runs."""

    def __init__(self, *arguments: str, folder: Path) -> None:
        self.process = subprocess.Popen(
            [script(), *arguments], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self) -> Ran:
        """Waits for its end."""
        out, err = self.process.communicate(timeout=SECONDS)
        return Ran(self.process.returncode, out, err)

    def close(self) -> None:
        """Ends the command in any state; called at the end of a test."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


@contextlib.contextmanager
def running(*arguments: str, folder: Path) -> Iterator[Running]:
    command = Running(*arguments, folder=folder)
    try:
        yield command
    finally:
        command.close()


def wait_until(found: Callable[[], Any], what: str, command: Running | None = None, interval: float = 0.01) -> Any:
    """Calls `found` until it returns a true value, and returns this value."""
    end = time.monotonic() + SECONDS
    while True:
        value = found()
        if value:
            return value
        if command is not None and command.process.poll() is not None:
            raise AssertionError(f"The command ended before {what}: {command.end()}")
        assert time.monotonic() < end, f"waited {SECONDS:g} s for {what}"
        time.sleep(interval)


class Watcher:
    """Reads a search from another process, also before its store exists."""

    def __init__(self, path: Path, name: str) -> None:
        self._path = path
        self._name = name

    def ask(self, question: Callable[[Store, int], Any]) -> Any:
        """The answer for the search's store and id; None while there is no such search."""
        from automl.db.records import StoreError

        if not self._path.exists():
            return None
        try:
            with contextlib.closing(Store(str(self._path), readonly=True)) as store:
                return question(store, store.search(self._name).id)
        except StoreError:
            return None

    def children(self) -> list[Child]:
        return self.ask(lambda store, search: store.children(search)) or []

    def num(self, state: str) -> int:
        counts = self.ask(lambda store, search: store.counts(search))
        return counts[state] if counts else 0

    def pids(self) -> set[int]:
        """Of all processes that have trained a child."""

        def reported(store: Store, search: int) -> set[int]:
            rows = [row for child in store.children(search) for row in store.measurements(child.id)]
            return {int(row.metrics["pid"]) for row in rows if "pid" in row.metrics}

        return self.ask(reported) or set()

    def digest(self) -> str:
        found = self.ask(lambda store, search: store.digest(search))
        assert isinstance(found, str)
        return found


def children_of(pid: int) -> list[int]:
    """The processes that this process has started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def lives(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def without_colours(text: str) -> str:
    """A terminal's text without its escape sequences."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def clean_environment() -> dict[str, str]:
    """This process's environment without what earlier tests or the user have set for automl. TensorFlow's number of
    threads stays, because it is that of the whole process."""
    names = ("AUTOML_", "TF_", "CUDA_", "OMP_", "COLUMNS", "LINES")  # the last two are the size of some terminal
    return {
        name: value for name, value in os.environ.items() if not name.startswith(names) or name.startswith("TF_NUM_")
    }


def files_in(folder: Path) -> dict[str, bytes]:
    """Every file's content, except the files that SQLite makes beside an open database."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix not in (".db-shm", ".db-wal")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def python(code: str, *, folder: Path, arguments: tuple[str, ...] = ()) -> Ran:
    """Runs Python code with the folder first on the path, as `python -c` does."""
    done = subprocess.run(
        [sys.executable, *arguments, "-c", code], cwd=folder, capture_output=True, text=True, timeout=SECONDS
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def isolated_python(code: str, folder: Path, *arguments: object) -> str:
    """Runs Python code where none of our packages can be imported."""
    hidden = f"import sys\nsys.path = [entry for entry in sys.path if entry != {str(Path(__file__).parents[2])!r}]\n"
    hidden += "sys.meta_path = [finder for finder in sys.meta_path if 'editable' not in repr(finder)]\n"
    hidden += "import importlib.util\n"
    hidden += "for name in ('automl', 'db', 'controllers', 'search_spaces', 'child_trainers'):\n"
    hidden += "    assert importlib.util.find_spec(name) is None, name\n"
    command = [sys.executable, "-I", "-c", hidden + code, *map(str, arguments)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=SECONDS, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout
