"""Search by a reward model alone: the yardstick for policies whose candidates a reward model screens."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

from automl.controllers.base import Controller, Donor, Draw, PendingChild, Proposal, Result
from automl.controllers.keyed import stream
from automl.controllers.reward_model.donors import Donors, donor_stats
from automl.controllers.reward_model.screen import Screen, ScreenSettings
from automl.controllers.variation import uniform_walk
from automl.search_spaces.space import Space
from automl.search_spaces.walk import Walk
from automl.search_spaces.whole_numbers import check_whole_number

PRESETS: dict[str, dict[str, Any]] = {"default": {}}


class Surrogate(Controller):
    """Chooses among uniform candidates, mutations of the best children and what a local search finds from them, by a
    Gaussian process: it takes the candidate with the highest upper confidence bound. The first children are drawn
    uniformly.

    It keeps no state: a resume passes all children to it again.

    Args:
        initial: children that are drawn before the model is used, at the least.
        settings: of `ScreenSettings`.

    Raises:
        ValueError: a setting has a wrong type or value.
    """

    sequential = True
    accepts_donors = True

    def __init__(self, space: Space, *, seed: int, initial: int = 8, **settings: Any) -> None:
        super().__init__(space, seed=seed)
        self._initial = initial
        self._settings = ScreenSettings(**settings)
        check_whole_number("controller.initial", initial, least=1)
        check_whole_number("controller.uniform", self._settings.uniform, least=1)
        self._screen = Screen(space, seed, self._settings)

    @classmethod
    def options(cls) -> tuple[str, ...]:
        return ("initial", *(field.name for field in dataclasses.fields(ScreenSettings)))

    def warm_start(self, donors: Sequence[Donor]) -> None:
        self._screen = Screen(self.space, self.seed, self._settings, Donors(self.space, donors))

    def propose(self, draws: Sequence[Draw], pending: Sequence[PendingChild]) -> list[Proposal]:
        return [Proposal(self._drawn(draw, pending).tokens) for draw in draws]

    def learn(self, results: Sequence[Result]) -> dict[str, Any]:
        self._screen.tell(results)
        return donor_stats(self._screen.model.donor_weights())

    def replay(self, batches: Iterable[Sequence[Result]]) -> None:
        for results in batches:  # without statistics, for which the model would be fitted again and again
            self._screen.tell(results)

    def _drawn(self, draw: Draw, pending: Sequence[PendingChild]) -> Walk:
        if draw.given or not self._screen.decides(draw.number, self._initial):
            return uniform_walk(self.space, draw.number, stream(self.seed, draw.number, draw.attempt), draw.given)
        return self._screen.choose(draw, pending)
