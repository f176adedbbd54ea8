"""Makes candidates, and chooses the most promising one by the reward model."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from automl.controllers.base import Draw, PendingChild, Result
from automl.controllers.keyed import pool_stream
from automl.controllers.reward_model.candidates import climbed, mutation
from automl.controllers.reward_model.donors import Donors
from automl.controllers.reward_model.model import RewardModel
from automl.controllers.reward_model.pool import Pool
from automl.controllers.single_thread import single_threaded
from automl.controllers.variation import uniform_walk
from automl.search_spaces.space import Space
from automl.search_spaces.walk import Walk
from automl.search_spaces.whole_numbers import check_whole_number

DONOR_TURNS = 4  # of so many first children, one is chosen by what the donors say
MAX_CHANGES = 3  # tokens that a mutation changes


@dataclasses.dataclass(frozen=True)
class ScreenSettings:
    """What the user can set.

    Attributes:
        uniform: candidates that are drawn uniformly.
        mutations: candidates that are mutations of the best children.
        parents: how many of the best children are mutated.
        rounds: of the local search from the most promising candidates.
        exploration: the weight of a candidate's standard deviation beside its expected score.
    """

    uniform: int = 100
    mutations: int = 200
    parents: int = 10
    rounds: int = 6
    exploration: float = 1.0

    def __post_init__(self) -> None:
        for name in ("uniform", "mutations", "parents", "rounds"):
            check_whole_number(f"controller.{name}", getattr(self, name), least=0)
        value = self.exploration
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise ValueError(f"controller.exploration is {value!r}; it must be a number, 0 or more.")


class Screen:
    """Makes candidates from the children that have rewards, and chooses the next child among them.

    What it says is a function of these children, in the order in which it received them, of the children in flight, and
    of the donors.

    Args:
        donors: earlier searches; None for none.

    Attributes:
        model: of the rewards; it receives children through the screen.
    """

    def __init__(self, space: Space, seed: int, settings: ScreenSettings, donors: Donors | None = None) -> None:
        self._space = space
        self._seed = seed
        self._settings = settings
        self._donors = Donors(space) if donors is None else donors
        self.model = RewardModel(space, self._donors, settings.exploration)
        # Of the present children, made when they are needed; by number of a child, where a schedule distinguishes them
        self._candidates: dict[int, list[Walk]] = {}
        self._pools: dict[int, Pool] = {}

    def decides(self, number: int, initial: int) -> bool:
        """Whether the model chooses the child of this number. With donors it chooses one of `DONOR_TURNS` children
        before `initial` children have rewards; the others show without prejudice what the donors are worth."""
        return self.model.num_scored >= initial or (len(self._donors) > 0 and number % DONOR_TURNS == 0)

    def tell(self, results: Iterable[Result]) -> None:
        """Adds the children that have rewards."""
        self.model.tell(results)
        self._candidates, self._pools = {}, {}

    @single_threaded
    def choose(
        self,
        draw: Draw,
        pending: Sequence[PendingChild],
        extend: Callable[[int], Sequence[Walk]] = lambda number: (),
    ) -> Walk:
        """The most promising candidate for a draw.

        Args:
            extend: makes more candidates for the child of a number. It is called once for the present children.
        """
        number = self._pool_number(draw.number)
        if number not in self._pools:
            candidates = self.candidates(number)
            if added := extend(number):
                candidates = self._climbed(number, [*added, *candidates], "added")
            self._pools[number] = Pool(self.model, self._space, candidates, self._generator)
        return self._pools[number].choose(draw.attempt, pending)

    @single_threaded
    def candidates(self, number: int) -> list[Walk]:
        """Uniform candidates for the child of a number, mutations of the best children, and what the local search
        finds from them."""
        number = self._pool_number(number)
        if number not in self._candidates:
            self._candidates[number] = self._climbed(number, self._new_candidates(number), "climb")
        return self._candidates[number]

    def _pool_number(self, number: int) -> int:
        """Without a schedule all children share their candidates, which must not depend on who is drawn first."""
        return 0 if self._space.schedule is None else number

    def _generator(self, part: str) -> np.random.Generator:
        """The random numbers of the present children, by the name of what they are for."""
        return pool_stream(self._seed, self.model.num_scored, part)

    def _new_candidates(self, number: int) -> list[Walk]:
        settings = self._settings
        generator = self._generator("pool")
        walks = [uniform_walk(self._space, number, generator) for _ in range(settings.uniform)]
        parents = [
            uniform_walk(self._space, number, generator, self._space.decode(tokens).answers)
            for tokens in self.model.best_trained(settings.parents)
        ]
        inherited = [
            uniform_walk(self._space, number, generator, walk.answers) for walk in self._donors.best(settings.parents)
        ]
        walks += inherited
        parents += inherited[: settings.parents - len(parents)]
        for index in range(settings.mutations if parents else 0):
            changes = 1 + int(generator.integers(MAX_CHANGES))
            walks.append(mutation(self._space, number, parents[index % len(parents)], changes, generator))
        return walks

    def _climbed(self, number: int, walks: Sequence[Walk], part: str) -> list[Walk]:
        """These candidates, and those of a local search from the best of them.

        Args:
            part: of the random numbers.
        """
        generator = self._generator(part)
        return climbed(self._space, number, walks, self.model, self._settings.rounds, generator)
