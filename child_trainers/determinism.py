"""Finds a space that is not the same every time before a search begins: it is walked twice, and again in processes of
other hash seeds where it comes from the user's file."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from child_trainers.process import ROOT
from child_trainers.user_files import UserFile
from search_spaces.recorded import Record, check_same_survey, surveyed
from search_spaces.space import Space

PROBED = range(1, 17)  # hash seeds of which those are taken that order sets of strings otherwise than this process
START = """
import sys
sys.path.insert(0, sys.argv[1])
from child_trainers.determinism import main
main(int(sys.argv[2]))
"""
# Whether a set of these options would stand in another order than they do.
PROBE = """
import json, sys
def frozen(value):
    return tuple(map(frozen, value)) if isinstance(value, list) else value
lists = [[frozen(option) for option in options] for options in json.load(sys.stdin)]
json.dump([list(set(options)) != options for options in lists], sys.stdout)
"""


@contextlib.contextmanager
def checking_determinism(space: Space, file: UserFile | None, options: Mapping[str, Any]) -> Iterator[None]:
    """Checks a space of the user's own. Other processes walk it beside the body of the `with`, which ends with their
    verdict.

    Args:
        space: with its function alone.
        file: that the function comes from, or None where only this process has it.
        options: that the function takes.

    Raises:
        UnstableSpaceError: the space is not the same every time.
        ValueError: an option or a spec cannot be stored, or the space cannot be walked.
    """
    first = surveyed(space)
    check_same_survey(first, surveyed(space))
    if file is None:
        yield
        return
    order = json.dumps({"file": file.to_json(), "options": dict(options)})
    with contextlib.ExitStack() as stack:
        others = [stack.enter_context(_OtherProcess(order, seed)) for seed in _seeds(first)]
        yield
        for other in others:
            check_same_survey(first, other.surveyed())


class _OtherProcess:
    """Walks the space of the user's file under another hash seed. As a context it ends the process at the latest."""

    def __init__(self, order: str, seed: int) -> None:
        self._answer, notify = os.pipe()
        environment = {**os.environ, "PYTHONHASHSEED": str(seed)}
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", START, ROOT, str(notify)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,  # what the file prints was printed here already
                stderr=subprocess.DEVNULL,
                pass_fds=(notify,),
                env=environment,
            )
        except BaseException:
            os.close(self._answer)
            raise
        finally:
            os.close(notify)
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError), self._process.stdin as pipe:
            pipe.write(order.encode())

    def __enter__(self) -> _OtherProcess:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            os.close(self._answer)
        self._process.kill()
        self._process.wait()

    def surveyed(self) -> list[Record]:
        """Raises ValueError where the space cannot be walked there."""
        with os.fdopen(os.dup(self._answer), "rb") as pipe:
            told = pipe.read()
        code = self._process.wait()
        if not told:
            raise ValueError(f"The file of the space runs here, but ends another process that runs it (code {code}).")
        answer = json.loads(told)
        if "error" in answer:
            raise ValueError(f"The space cannot be walked in another process than this one: {answer['error']}")
        walks: list[Record] = answer["walks"]
        return walks


def _seeds(walks: Sequence[Record]) -> list[int]:
    """Hash seeds under which every options that may come from a set stand in another order."""
    lists = []
    for walk in walks:
        for decision in walk["decisions"]:
            options = decision.get("options", [])
            if options not in lists and _is_ordered_as_set(options):
                lists.append(options)
    own = os.environ.get("PYTHONHASHSEED")
    other = next(seed for seed in PROBED if str(seed) != own)
    if not lists:
        return [other]
    left = set(range(len(lists)))
    found = {seed: _differing(lists, seed) for seed in PROBED}
    seeds: list[int] = []
    while left:
        best = max(found, key=lambda seed: len(found[seed] & left))
        if not found[best] & left:
            break
        seeds.append(best)
        left -= found[best]
    return seeds or [other]


def _is_ordered_as_set(options: Sequence[Any]) -> bool:
    """Whether these stand in the order of a set of them, of which some process has another."""
    if len(options) < 2 or not any('"' in json.dumps(option) for option in options):
        return False
    with contextlib.suppress(TypeError):  # a dict is in no set
        frozen = [_frozen(option) for option in options]
        return list(set(frozen)) == frozen
    return False


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _differing(lists: Sequence[Sequence[Any]], seed: int) -> set[int]:
    """Which of these lists a set under a hash seed would order otherwise."""
    done = subprocess.run(
        [sys.executable, "-P", "-S", "-c", PROBE],
        input=json.dumps(lists),
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": str(seed)},
    )
    return {index for index, differs in enumerate(json.loads(done.stdout)) if differs}


def main(notify: int) -> None:
    """The other process. Standard input is the order; the answer goes to the pipe `notify`."""
    order = json.load(sys.stdin)
    answer: dict[str, Any]
    try:
        function = UserFile.from_json(order["file"]).load()  # type: ignore[union-attr]
        answer = {"walks": surveyed(Space(functools.partial(function, **order["options"])))}
    except Exception as error:
        answer = {"error": f"{type(error).__name__}: {error}"}
    with os.fdopen(notify, "wb") as pipe:
        pipe.write(json.dumps(answer).encode())
    sys.stdout.flush()
    os._exit(0)  # waits for no thread that the file has left
