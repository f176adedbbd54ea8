"""Checks that a user's controller keeps its contract. An error is one sentence, and the search can be resumed."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, TypeVar

import numpy as np

from automl.controllers.base import (
    Controller,
    ControllerState,
    Donor,
    Draw,
    PendingChild,
    PolicyController,
    Proposal,
    Result,
)
from automl.search_spaces.decisions import Choice, Decision
from automl.search_spaces.space import Space

Answer = TypeVar("Answer")
STREAM_HINT = "draw random numbers with automl.controllers.keyed.stream(seed, number, attempt)"


class ControllerError(ValueError):
    """A controller broke its contract; the message is one sentence that names it."""


class CheckedController(Controller):
    """Forwards all calls to a user's controller and checks what it returns. Every method may raise ControllerError.

    Args:
        make: creates the user's controller.
        name: the controller's name, for messages.
        path: the controller's file, so that a message can name the line that raised an error; None without a file.
    """

    def __init__(
        self, make: Callable[[], Controller], space: Space, *, seed: int, name: str, path: str | None = None
    ) -> None:
        super().__init__(space, seed=seed)
        self._name = name
        self._path = path
        self._controller = self._call("its constructor", make)
        self.fixed_options = tuple(self._controller.fixed_options)
        self.sequential = bool(self._controller.sequential)
        self.remembers = bool(self._controller.remembers)
        self.accepts_donors = bool(self._controller.accepts_donors)

    def check(self, draws: Sequence[Draw]) -> None:
        """Checks a new controller before a search is stored. Its proposals must not depend on the order of the draws or
        on earlier calls of `ask`, and its state must be storable."""
        first = self.ask(draws)
        second = self.ask(draws[::-1])[::-1]
        for draw, one, other in zip(draws, first, second, strict=True):
            if one != other:
                raise ControllerError(
                    f"{self._name} proposes the tokens {_shown(one.tokens)} for child {draw.number} and then, asked "
                    f"again, {_shown(other.tokens)}; {STREAM_HINT}."
                )
        self.state()

    def ask(self, draws: Sequence[Draw], pending: Sequence[PendingChild] = ()) -> list[Proposal]:
        proposals = self._call("ask", lambda: self._controller.ask(draws, pending))
        if not isinstance(proposals, list | tuple) or not all(isinstance(one, Proposal) for one in proposals):
            raise ControllerError(
                f"{self._name} returned {_shown(proposals)} for {len(draws)} draws; ask returns a list of Proposal."
            )
        if len(proposals) != len(draws):
            raise ControllerError(
                f"{self._name} returned {len(proposals)} proposals for {len(draws)} draws; ask returns one for each."
            )
        return [self._checked(draw, proposal) for draw, proposal in zip(draws, proposals, strict=True)]

    def tell(self, results: Sequence[Result]) -> dict[str, Any]:
        stats = self._call("tell", lambda: self._controller.tell(results))
        if not isinstance(stats, dict):
            raise ControllerError(f"{self._name} returned {_shown(stats)} from tell, which returns a dict.")
        self._check_json("from tell", stats)
        return stats

    def propose(self, draws: Sequence[Draw], pending: Sequence[PendingChild]) -> list[Proposal]:
        return self.ask(draws, pending)

    def learn(self, results: Sequence[Result]) -> dict[str, Any]:
        return self.tell(results)

    def warm_start(self, donors: Sequence[Donor]) -> None:
        self._call("warm_start", lambda: self._controller.warm_start(donors))

    def state(self) -> ControllerState | None:
        state = self._call("state", self._controller.state)
        if state is None:
            return None
        if not isinstance(state, ControllerState):
            raise ControllerError(
                f"{self._name} returned {_shown(state)} from state, which returns a ControllerState, or None."
            )
        for name, array in state.arrays.items():
            if not isinstance(name, str) or not isinstance(array, np.ndarray) or array.dtype.hasobject:
                raise ControllerError(
                    f"{self._name} has {_shown(array)} as the array {name!r} of its state; arrays are NumPy arrays of "
                    "numbers, and everything else belongs in values."
                )
        self._check_json("as the values of its state", state.values)
        return state

    def restore(self, state: ControllerState) -> None:
        self._call("restore", lambda: self._controller.restore(state))

    def remember(self, batches: Iterable[Sequence[Result]]) -> None:
        self._call("remember", lambda: self._controller.remember(batches))

    def replay(self, batches: Iterable[Sequence[Result]]) -> None:
        self._call("replay", lambda: self._controller.replay(batches))

    def forget(self, numbers: Collection[int]) -> None:
        self._call("forget", lambda: self._controller.forget(numbers))

    def _call(self, method: str, call: Callable[[], Answer]) -> Answer:
        try:
            return call()
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)
            lines = [frame.lineno for frame in frames if self._path is not None and frame.filename == self._path]
            where = f" (line {lines[-1]})" if lines else ""
            message = " ".join(str(error).split()).rstrip(".")
            raise ControllerError(
                f"{self._name} raised {type(error).__name__} in {method}{where}{f': {message}' if message else ''}."
            ) from error

    def _checked(self, draw: Draw, proposal: Proposal) -> Proposal:
        """The proposal with Python numbers. Raises ControllerError if it is not a child of the space."""
        wrong = f"{self._name} proposes {_shown(proposal.tokens)} as child {draw.number}"
        try:
            tokens = tuple(int(token) for token in proposal.tokens)
            if tokens != tuple(proposal.tokens):
                raise ValueError
        except (TypeError, ValueError):
            raise ControllerError(f"{wrong}; tokens are whole numbers.") from None
        walk, rest = self.space.walk(draw.number), tokens
        while (decision := walk.decision) is not None:
            answer, rest = rest[: decision.num_tokens], rest[decision.num_tokens :]
            if len(answer) < decision.num_tokens:
                raise ControllerError(f"{wrong}, but the tokens end before the decision {decision.name!r}.")
            if not decision.admits(answer):
                raise ControllerError(f"{wrong}, but {decision.name!r} cannot be {_shown(answer)}{_instead(decision)}.")
            walk.answer(answer)
        if rest:
            raise ControllerError(f"{wrong}, but {len(rest)} of the tokens are left over after the last decision.")
        return Proposal(tokens, self._log_probs(wrong, proposal.log_probs, walk.forced))

    def _log_probs(
        self, wrong: str, log_probs: Sequence[Any], forced: Sequence[int | None]
    ) -> tuple[float | None, ...]:
        if not isinstance(self._controller, PolicyController):
            if len(log_probs):
                raise ControllerError(
                    f"{wrong} with log-probabilities, which only a PolicyController has; leave them out, or make it a "
                    "subclass of automl.controllers.base.PolicyController."
                )
            return ()
        if len(log_probs) != len(forced):
            raise ControllerError(f"{wrong} with {len(log_probs)} log-probabilities; there is one for each token.")
        for index, (log_prob, token) in enumerate(zip(log_probs, forced, strict=True)):
            if token is not None and log_prob is not None:
                raise ControllerError(f"{wrong}, but token {index} is forced, so its log-probability must be None.")
            if token is None and not (isinstance(log_prob, int | float | np.floating) and np.isfinite(log_prob)):
                raise ControllerError(
                    f"{wrong}, but the log-probability of token {index} is {log_prob!r}; it must be a finite number."
                )
        return tuple(None if log_prob is None else float(log_prob) for log_prob in log_probs)

    def _check_json(self, where: str, value: Any) -> None:
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise ControllerError(
                f"{self._name} returned {_shown(value)} {where}, which is not JSON: {str(error).rstrip('.')}."
            ) from None


def _instead(decision: Decision) -> str:
    """The part of a message that lists the answers which the decision admits."""
    if not isinstance(decision, Choice):
        return "; its tokens are 0 or 1, and a forced token cannot change"
    return f"; it may be one of {_shown([token for token in range(len(decision.options)) if decision.allows(token)])}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"
