"""Checks before a search that a space is deterministic.

The check walks the space twice, and a space of the user's file again in processes with other hash seeds.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from automl.child_trainers.set_order import may_be_from_set
from automl.child_trainers.user_files import UserFile
from automl.child_trainers.workers.process import ROOT
from automl.search_spaces.recorded import Record, check_same_survey, surveyed
from automl.search_spaces.space import Space

CANDIDATE_SEEDS = range(1, 17)  # hash seeds; the check uses those under which sets have another order than here
START = """
import sys
sys.path.insert(0, sys.argv[1])
from automl.child_trainers.determinism import main
main(int(sys.argv[2]))
"""
# Prints for each list of options whether it has the order of a set in this process too.
SET_ORDER_CHECK = """
import json, sys
sys.path.insert(0, sys.argv[1])
from automl.child_trainers.set_order import is_order_of_set
json.dump([is_order_of_set(options) for options in json.load(sys.stdin)], sys.stdout)
"""


@contextlib.contextmanager
def checking_determinism(space: Space, file: UserFile | None, options: Mapping[str, Any]) -> Iterator[None]:
    """Checks a user's own space. Other processes walk it while the body of the `with` statement runs; their results are
    checked at its end.

    Args:
        space: the space without narrowing.
        file: the file of the space's function, or None if only this process has the function.
        options: the arguments of the function.

    Raises:
        UnstableSpaceError: the space is not deterministic.
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
    """A process that walks the space of a user's file with another hash seed. Leaving its context ends it."""

    def __init__(self, order: str, seed: int) -> None:
        self._answer, notify = os.pipe()
        environment = {**os.environ, "PYTHONHASHSEED": str(seed)}
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", START, ROOT, str(notify)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,  # this process has already printed the output of the file
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
        """Waits for the walks of the process. Raises ValueError if it could not walk the space."""
        with os.fdopen(os.dup(self._answer), "rb") as pipe:
            content = pipe.read()
        code = self._process.wait()
        if not content:
            raise ValueError(
                f"The file of the space runs here, but another process that ran it ended with code {code}."
            )
        answer = json.loads(content)
        if "error" in answer:
            raise ValueError(f"The space cannot be walked in another process: {answer['error']}")
        walks: list[Record] = answer["walks"]
        return walks


def _seeds(walks: Sequence[Record]) -> list[int]:
    """A few hash seeds. Each list of options that may be from a set has another order under at least one of
    them, if `CANDIDATE_SEEDS` has such a seed."""
    lists = []
    for walk in walks:
        for decision in walk["decisions"]:
            options = decision.get("options", [])
            if options not in lists and may_be_from_set(options):
                lists.append(options)
    own = os.environ.get("PYTHONHASHSEED")
    other = next(seed for seed in CANDIDATE_SEEDS if str(seed) != own)
    if not lists:
        return [other]
    left = set(range(len(lists)))
    differing = {seed: _differing(lists, seed) for seed in CANDIDATE_SEEDS}
    seeds: list[int] = []
    while left:
        best = max(differing, key=lambda seed: len(differing[seed] & left))
        if not differing[best] & left:
            break
        seeds.append(best)
        left -= differing[best]
    return seeds or [other]


def _differing(lists: Sequence[Sequence[Any]], seed: int) -> set[int]:
    """The indices of the lists whose set has another order under a hash seed."""
    completed = subprocess.run(
        [sys.executable, "-P", "-S", "-c", SET_ORDER_CHECK, ROOT],
        input=json.dumps(lists),
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": str(seed)},
    )
    return {index for index, same in enumerate(json.loads(completed.stdout)) if not same}


def main(notify: int) -> None:
    """Runs in the other process: reads the file and the options from standard input, writes the answer to the pipe
    `notify`."""
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
    os._exit(0)  # does not wait for threads that the file started
