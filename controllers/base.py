"""The contract between a search's loop and its controller."""

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

# A statistic that `tell` may return: how far each donor is trusted, a list of numbers. `show` prints it.
DONOR_WEIGHTS = "donor_weights"


@dataclasses.dataclass(frozen=True)
class Draw:
    """A request for the tokens of one child.

    Attributes:
        number: the child's number in its search.
        attempt: how many earlier draws for this number were refused.
        given: fixed answers, by decision name; the controller draws all other answers.
    """

    number: int
    attempt: int = 0
    given: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)

    def answer(self, decision: Decision) -> tuple[int, ...] | None:
        """The given answer, or None if there is none or the decision does not admit it."""
        tokens = self.given.get(decision.name)
        return tokens if tokens is not None and decision.admits(tokens) else None


@dataclasses.dataclass(frozen=True)
class Proposal:
    """A proposed child.

    Attributes:
        tokens: its answers to the space's decisions, in their order.
        log_probs: from a `PolicyController`, the natural logarithm of each token's probability, None where the token
            was forced; empty from other controllers.
    """

    tokens: tuple[int, ...]
    log_probs: tuple[float | None, ...] = ()

    @property
    def log_prob(self) -> float:
        """Log-probability of the whole child, in nats; 0 if `log_probs` is empty."""
        return sum(log_prob for log_prob in self.log_probs if log_prob is not None)


@dataclasses.dataclass(frozen=True)
class PendingChild:
    """A proposed child whose result the controller has not received yet."""

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


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a child costs; None where this is unknown.

    Attributes:
        params: number of parameters.
        flops: floating-point operations of the forward pass for one example.
        seconds: its training time. It differs between runs, so a search whose controller uses it is not reproducible.
    """

    params: int | None = None
    flops: int | None = None
    seconds: float | None = None


@dataclasses.dataclass(frozen=True)
class Result:
    """The outcome of one child.

    Attributes:
        number: the child's number in its search.
        log_probs: the log-probabilities of its proposal; empty if there were none.
        reward: the task's floor for a failed child, None for a lost one.
        state: how the child ended; only trained children enter an elite.
        fault: why the child failed or was lost, for example `diverged` or `oom`; None for a trained one.
        metrics: what the task reported, by metric name.
        stopped_at: the epoch after which the child was pruned, which makes its reward a prediction; None if it was
            trained to the end.
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
class DonorChild:
    """A trained child of an earlier search.

    Attributes:
        tokens: its answers to the decisions of the present space.
        reward: in the earlier search. Another task may have rewards of another scale.
        rank: the share of that search's trained children with a lower reward, counting itself and equal ones half:
            above 0 and below 1.
    """

    tokens: tuple[int, ...]
    reward: float
    rank: float


@dataclasses.dataclass(frozen=True)
class Donor:
    """An earlier search, of this or another task, whose children a controller may learn from.

    Attributes:
        name: of the search.
        children: one or more of its children that the present space has, the best first.
    """

    name: str
    children: tuple[DonorChild, ...]


@dataclasses.dataclass(frozen=True)
class ControllerState:
    """Everything a controller needs to resume: arrays by name, and JSON values by name."""

    arrays: Mapping[str, np.ndarray]
    values: Mapping[str, Any]


class Controller(abc.ABC):
    """Proposes children and learns from their rewards.

    A controller implements `propose` and `learn`; the loop calls `ask` and `tell`. The loop calls `ask` with the draws
    of a whole batch. The same draw under the same state gives the same tokens, before and after a restart. So `propose`
    must not learn, and must take random numbers from `automl.controllers.keyed.stream`. The loop calls `tell` with
    whole batches in batch order, in whatever order their children finished. `tell` also accepts children that this
    object never proposed.

    A search resumes in one of two ways. A controller with a state implements `state` and `restore`: `restore` brings
    back exactly what `state` returned. A controller whose `state` returns None is made again, and `replay` passes all
    batches to `tell` again.

    Args:
        space: the space to sample.
        seed: the search's seed.
    """

    # Settings that a resume cannot change, because the stored state depends on them.
    fixed_options: tuple[str, ...] = ()
    # Whether a draw depends on the children in flight; see `propose`.
    sequential: bool = False
    # Whether a resume passes all earlier results to `remember`, after `restore`.
    remembers: bool = False
    # Whether it learns from earlier searches; see `warm_start`.
    accepts_donors: bool = False

    @classmethod
    def options(cls) -> tuple[str, ...]:
        """Names of the controller's settings: by default, the constructor's keyword-only arguments except `seed`."""
        parameters = inspect.signature(cls).parameters.values()
        return tuple(item.name for item in parameters if item.kind is item.KEYWORD_ONLY and item.name != "seed")

    def __init__(self, space: Space, *, seed: int) -> None:
        self.space = space
        self.seed = seed

    def ask(self, draws: Sequence[Draw], pending: Sequence[PendingChild] = ()) -> list[Proposal]:
        """Returns one proposal for each draw, in the order of the draws.

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
        """Returns one proposal for each of one or more draws. A proposal must not depend on the other draws.

        With `sequential`, a proposal may depend on `pending`. The loop then asks for one draw at a time, and `pending`
        includes the children of the same batch that it has accepted.
        """

    @abc.abstractmethod
    def learn(self, results: Sequence[Result]) -> dict[str, Any]:
        """Learns from the results that have a reward, possibly none, and returns the statistics that `tell` returns."""

    def warm_start(self, donors: Sequence[Donor]) -> None:
        """Receives the children of earlier searches, if the user names some and `accepts_donors` is set.

        It is called once, before the first `ask`; at a resume with the same donors, before `restore` and `replay`. They
        are no part of the state.
        """
        raise NotImplementedError(f"{type(self).__name__} accepts donors but has no method warm_start.")

    def state(self) -> ControllerState | None:
        """Everything it needs to resume; None for a controller that `replay` rebuilds."""
        return None

    def restore(self, state: ControllerState) -> None:
        """Restores what `state` returned."""
        raise NotImplementedError(f"{type(self).__name__} has a state but no method restore.")

    def remember(self, batches: Iterable[Sequence[Result]]) -> None:
        """Receives the results of all batches that `tell` received before the state was made, in their order.

        A resume calls it after `restore`, if `remembers` is set. So a controller that needs the children so far does
        not keep them in its state, since the store has them.
        """
        raise NotImplementedError(f"{type(self).__name__} remembers children but has no method remember.")

    def replay(self, batches: Iterable[Sequence[Result]]) -> None:
        """Rebuilds a new controller that stores no state: passes all earlier batches to `tell`, in their order.

        A child that was retried (`automl retry`) or resumed has its latest result.
        """
        for results in batches:
            self.tell(results)

    def forget(self, numbers: Collection[int]) -> None:  # noqa: B027 - most controllers keep no children
        """Removes these failed children from the elite; a state of automl 0.1.0 may contain them."""


class PolicyController(Controller):
    """A controller that draws from a probability distribution over children.

    Every proposal has a log-probability for each token, None exactly where the token was forced.
    """
