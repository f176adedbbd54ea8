"""A population: networks in training at the same time, each with its own update rule and learning rate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np


class Member(NamedTuple):
    """One network in training, with a rule and a learning rate.

    Attributes:
        program: int32 (LENGTH,), the encoded rule.
        rate: the learning rate.
        seed: of the initial weights, of the order of the images, and of the rule's random numbers.
        steps: the number of steps of the whole training, on which the rule's decays depend.
    """

    program: np.ndarray
    rate: float
    seed: int
    steps: int


class Population(Protocol):
    """Trains networks of one kind, each in a place of its own and with its own rule.

    A rule is an input of the compiled functions, so a new rule needs no new trace.

    Attributes:
        places: the largest number of networks at a time.
        side_by_side: whether more members at a time make a member's step cheaper.
        traces: number of traces so far.
    """

    places: int
    side_by_side: bool
    traces: int

    def steps_done(self) -> int:
        """Number of training steps of all members so far. May be called from any thread."""

    def compile(self) -> None:
        """Traces all functions, unless they are traced already. Without this call, the first use of each traces it."""

    def begin(self, place: int, member: Member) -> None:
        """Puts a network with initial weights into a place."""

    def train_epoch(self, places: Sequence[int], epochs: Sequence[int]) -> list[float]:
        """Trains these places for an epoch and returns the mean loss in nats of each.

        A network whose loss is not finite has diverged; no step follows the one with that loss.

        Args:
            epochs: the number of each place's epoch, from 0.
        """

    def validate(self, places: Sequence[int]) -> list[float]:
        """The metric of each of these places on the validation data."""

    def weights(self, place: int) -> dict[str, np.ndarray]:
        """The weights that a model of this network needs, by name."""
