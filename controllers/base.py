"""The contract between the loop and whatever proposes children."""

from __future__ import annotations

import abc
import dataclasses
import enum
import inspect
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from automl.search_spaces.decisions import Decision
from automl.search_spaces.space import Space


@dataclasses.dataclass(frozen=True)
class Draw:
    """A request for the tokens of one child.

    Attributes:
        number: the child's number in its search.
        attempt: 0, 1, 2, … where earlier draws for this number were refused.
        given: answers by decision name that are taken as they are; what depends on them is drawn.
    """

    number: int
    attempt: int = 0
    given: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)

    def answer(self, decision: Decision) -> tuple[int, ...] | None:
        """The given answer, or None where there is none that fits the decision as it now stands."""
        tokens = self.given.get(decision.name)
        return tokens if tokens is not None and decision.admits(tokens) else None


@dataclasses.dataclass(frozen=True)
class Proposal:
    """A proposed child.

    Attributes:
        tokens: its answers to the space's decisions, one after the other.
        log_probs: of a `PolicyController`, for each token the natural logarithm of its probability, None where the
            token was forced; empty for other controllers.
    """

    tokens: tuple[int, ...]
    log_probs: tuple[float | None, ...] = ()

    @property
    def log_prob(self) -> float:
        """Of the whole child; 0 where there are no log-probabilities."""
        return sum(log_prob for log_prob in self.log_probs if log_prob is not None)


@dataclasses.dataclass(frozen=True)
class PendingChild:
    """A child that was proposed and whose result the controller was not told yet."""

    number: int
    tokens: tuple[int, ...]


class ResultState(enum.StrEnum):
    """How a child ended."""

    TRAINED = "trained"
    FAILED = "failed"  # the child's own fault; its reward is the task's floor
    LOST = "lost"  # the machine's fault; it has no reward


class Origin(enum.StrEnum):
    """Where a child's tokens come from."""

    DRAWN = "drawn"  # by this controller, or a neighbour of what it drew
    USER = "user"
    SEARCH = "search"  # another search


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a child costs; None where nobody can tell.

    Attributes:
        params: number of parameters.
        flops: floating-point operations of the forward pass for one example.
        seconds: of its training. They differ from run to run, and so does a search whose controller uses them.
    """

    params: int | None = None
    flops: int | None = None
    seconds: float | None = None


@dataclasses.dataclass(frozen=True)
class Result:
    """What became of a child.

    Attributes:
        number: the child's number in its search.
        log_probs: those with which it was drawn; empty where there were none.
        reward: the floor for a failed child, None for a lost one.
        state: only trained children enter an elite.
        fault: why a child failed or was lost, for example `diverged` or `oom`; None for a trained one.
        metrics: that the task reported, by name.
        stopped_at: the epoch after which the child was stopped early, so that its reward is a prediction; None where it
            was trained to its end.
    """

    number: int
    tokens: tuple[int, ...]
    log_probs: tuple[float | None, ...]
    reward: float | None
    state: ResultState = ResultState.TRAINED
    fault: str | None = None
    metrics: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    cost: Cost = Cost()
    origin: Origin = Origin.DRAWN
    stopped_at: int | None = None


@dataclasses.dataclass(frozen=True)
class ControllerState:
    """All that a controller knows: arrays by name, and plain JSON."""

    arrays: Mapping[str, np.ndarray]
    values: Mapping[str, Any]


class Controller(abc.ABC):
    """Proposes children and learns from their rewards.

    A controller implements `propose` and `learn`; the loop calls `ask` and `tell`. It calls `ask` for whole batches, by
    child number and attempt: the same draw under the same state gives the same tokens, before and after a restart. So
    `propose` must not learn, and takes random numbers from `automl.controllers.keyed.stream`. `tell` gets whole batches
    in batch order, whatever order their children finished in; it also takes children that this object never proposed.

    A search resumes in one of two ways. A controller with a state implements `state` and `restore`: what one returns,
    the other brings back exactly. A controller whose `state` returns None is made anew, and `replay` tells it all
    batches again.

    Args:
        space: what is sampled.
        seed: the search's seed.
    """

    fixed_options: tuple[str, ...] = ()  # settings that must stay what they were when a state was made

    @classmethod
    def options(cls) -> tuple[str, ...]:
        """Names of the settings that it takes beside these arguments: by default, its other keyword arguments."""
        parameters = inspect.signature(cls).parameters.values()
        return tuple(one.name for one in parameters if one.kind is one.KEYWORD_ONLY and one.name != "seed")

    def __init__(self, space: Space, *, seed: int) -> None:
        self.space = space
        self.seed = seed

    def ask(self, draws: Sequence[Draw], pending: Sequence[PendingChild] = ()) -> list[Proposal]:
        """The children for these draws, in their order.

        Args:
            pending: the children in flight, by number.

        Raises:
            ValueError: there are no draws.
        """
        if not draws:
            raise ValueError("ask needs at least one draw, got none.")
        return self.propose(draws, pending)

    def tell(self, results: Sequence[Result]) -> dict[str, Any]:
        """Learns from a whole batch and returns statistics of the step (JSON values).

        Raises:
            ValueError: a reward is not finite.
        """
        for result in results:
            if result.reward is not None and not np.isfinite(result.reward):
                raise ValueError(f"Child {result.number} has reward {result.reward}; a reward must be finite.")
        return self.learn([result for result in results if result.reward is not None])

    @abc.abstractmethod
    def propose(self, draws: Sequence[Draw], pending: Sequence[PendingChild]) -> list[Proposal]:
        """The children for these draws, of which there is at least one. What is drawn may not depend on the others."""

    @abc.abstractmethod
    def learn(self, results: Sequence[Result]) -> dict[str, Any]:
        """Learns from the results with rewards, of which there may be none; returns what `tell` does."""

    def state(self) -> ControllerState | None:
        """All that it knows; None for a controller that is rebuilt by `replay`."""
        return None

    def restore(self, state: ControllerState) -> None:
        """Brings back a state of `state`."""
        raise NotImplementedError(f"{type(self).__name__} has a state and no method restore.")

    def replay(self, batches: Iterable[Sequence[Result]]) -> None:
        """Rebuilds a fresh controller that keeps no state from all batches that were told, in their order.

        A child that `automl retry` made ready again, or that was resumed, has its latest result.
        """
        for results in batches:
            self.tell(results)

    def forget(self, numbers: Collection[int]) -> None:  # noqa: B027 - most controllers keep no children
        """Removes these failed children from the elite; a state of automl 0.1.0 may contain them."""


class PolicyController(Controller):
    """A controller that draws from a probability distribution over children.

    Every proposal has a log-probability for each token, None exactly where the token was forced.
    """
