"""The contract between the loop and whatever proposes children."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from automl.search_spaces.decisions import Choice, Decision
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
        if tokens is None or len(tokens) != decision.num_tokens:
            return None
        if isinstance(decision, Choice):
            fits = 0 <= tokens[0] < len(decision.options) and decision.allows(tokens[0])
        else:
            fits = all(
                token in (0, 1) and forced in (None, token)
                for forced, token in zip(decision.forced, tokens, strict=True)
            )
        return tokens if fits else None


@dataclasses.dataclass(frozen=True)
class Proposal:
    """A drawn child: its tokens, and for each the natural logarithm of its probability (None where forced)."""

    tokens: tuple[int, ...]
    log_probs: tuple[float | None, ...]

    @property
    def log_prob(self) -> float:
        return sum(log_prob for log_prob in self.log_probs if log_prob is not None)


@dataclasses.dataclass(frozen=True)
class Result:
    """What became of a child.

    Attributes:
        log_probs: those with which it was drawn.
        reward: None for a lost child, the floor for a failed one.
        trained: whether it was trained; only trained children enter the elite.
    """

    number: int
    tokens: tuple[int, ...]
    log_probs: tuple[float | None, ...]
    reward: float | None
    trained: bool = True


@dataclasses.dataclass(frozen=True)
class ControllerState:
    """All that a controller knows: arrays by name, and plain JSON."""

    arrays: Mapping[str, np.ndarray]
    values: Mapping[str, Any]


class Controller(abc.ABC):
    """Proposes children and learns from their rewards.

    The loop calls `ask` for whole batches, by child number and attempt: the same draw under the same state gives the
    same tokens, before and after a restart. `tell` gets whole batches in batch order, whatever order their children
    finished in; it also takes children that this object never proposed. `ask` must not learn. What `state` returns,
    `restore` brings back exactly: that is how a search resumes.

    Args:
        space: what is sampled.
        seed: the search's seed.
    """

    fixed_options: tuple[str, ...] = ()  # settings that must stay what they were when a state was made

    @classmethod
    def options(cls) -> tuple[str, ...]:
        """Names of the settings that it takes beside these arguments."""
        return ()

    def __init__(self, space: Space, *, seed: int) -> None:
        self.space = space
        self.seed = seed

    def ask(self, draws: Sequence[Draw]) -> list[Proposal]:
        """The children for these draws, in their order. Raises ValueError for none."""
        if not draws:
            raise ValueError("ask needs at least one draw, got none.")
        return self._propose(draws)

    def tell(self, results: Sequence[Result]) -> dict[str, Any]:
        """Learns from a whole batch and returns figures of the step (JSON values).

        Raises:
            ValueError: a reward is not finite.
        """
        for result in results:
            if result.reward is not None and not np.isfinite(result.reward):
                raise ValueError(f"Child {result.number} has reward {result.reward}; a reward must be finite.")
        return self._learn([result for result in results if result.reward is not None])

    @abc.abstractmethod
    def _propose(self, draws: Sequence[Draw]) -> list[Proposal]:
        """At least one; what is drawn may not depend on the others."""

    @abc.abstractmethod
    def _learn(self, results: Sequence[Result]) -> dict[str, Any]:
        """Results with rewards only; there may be none."""

    @abc.abstractmethod
    def state(self) -> ControllerState: ...

    @abc.abstractmethod
    def restore(self, state: ControllerState) -> None: ...

    def forget(self, numbers: Collection[int]) -> None:  # noqa: B027 - most controllers keep no children
        """Removes these failed children from the elite; a state of automl 0.1.0 may contain them."""
