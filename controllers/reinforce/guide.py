"""Couples a policy with a reward model, which screens what the policy draws and gives it scores to learn from."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from automl.controllers.base import Draw, PendingChild, Result
from automl.controllers.reinforce.losses import rank_advantages
from automl.controllers.reinforce.presets import Settings
from automl.controllers.reward_model.donors import Donors, donor_stats
from automl.controllers.reward_model.screen import Screen, ScreenSettings
from automl.search_spaces.space import Space
from automl.search_spaces.walk import Walk

PARTS = 1_000  # the most sets of draws that one state needs
PART_SIZE = 100_000  # the most draws in a set


class Policy(Protocol):
    """What a guide needs of a policy."""

    def sample(self, draws: Sequence[Draw]) -> list[Walk]:
        """Draws children that belong to no search."""
        ...

    def update(self, walks: Sequence[Walk], advantages: Sequence[float], elite: Sequence[Walk]) -> None:
        """Learns from drawn children with these advantages, and imitates the elite."""
        ...


class Guide:
    """Screens the candidates of a policy, and trains the policy on the reward model's scores between two batches.

    Candidates are samples of the policy, uniform draws, mutations of the best children, and what a local search finds
    from them. The reward model chooses among them. Its scores need no training of a child, so after each batch the
    policy takes some steps on the scores of samples of its own, and imitates the candidates with the highest scores. So
    it learns from all children so far, not from one batch.
    """

    def __init__(
        self, space: Space, seed: int, settings: Settings, policy: Policy, donors: Donors | None = None
    ) -> None:
        self._space = space
        self._settings = settings
        self._policy = policy
        screened = ScreenSettings(
            settings.uniform, settings.mutations, settings.parents, settings.rounds, settings.exploration
        )
        self._screen = Screen(space, seed, screened, donors)
        self.elite: list[tuple[int, ...]] = []  # tokens of the candidates with the highest scores at the latest updates

    @property
    def ready(self) -> bool:
        """Whether enough children have rewards to learn from the model."""
        return self._screen.model.num_scored >= self._settings.initial

    def decides(self, number: int) -> bool:
        """Whether the model chooses the child of this number."""
        return self._screen.decides(number, self._settings.initial)

    def tell(self, results: Iterable[Result]) -> None:
        self._screen.tell(results)
        self.elite = []

    def stats(self) -> dict[str, Any]:
        """Statistics of the model."""
        return donor_stats(self._screen.model.donor_weights())

    def choose(self, draw: Draw, pending: Sequence[PendingChild]) -> Walk:
        """The most promising candidate for this draw."""
        return self._screen.choose(draw, pending, self._policy_candidates)

    def _policy_candidates(self, number: int) -> list[Walk]:
        elite = [self._space.decode(tokens) for tokens in self.elite]
        return [*self._sample(number, self._settings.candidates, part=0), *elite]

    def teach(self, number: int) -> None:
        """Trains the policy on the model's scores.

        Args:
            number: of the next child, for which candidates are drawn.
        """
        settings = self._settings
        if not settings.model_updates:
            return
        elite = self._best_of(self._scored(self._screen.candidates(number)))
        for update in range(settings.model_updates):
            sampled = self._scored(self._sample(number, settings.model_samples, part=1 + update))
            elite = self._best_of([*elite, *sampled])
            advantages = rank_advantages([score for score, _ in sampled], [])
            self._policy.update([walk for _, walk in sampled], advantages, [walk for _, walk in elite])
        self.elite = [walk.tokens for _, walk in elite]

    def _scored(self, walks: Sequence[Walk]) -> list[tuple[float, Walk]]:
        return list(zip(self._screen.model.score(walks).tolist(), walks, strict=True))

    def _best_of(self, scored: Sequence[tuple[float, Walk]]) -> list[tuple[float, Walk]]:
        """The elite among them, without children that have rewards already."""
        unique = {walk.tokens: (score, walk) for score, walk in scored if self._screen.model.is_new(walk.tokens)}
        ranked = sorted(unique.values(), key=lambda one: -one[0])
        new = (one for one in ranked if not self._screen.model.repeats(one[1]))
        return list(itertools.islice(new, self._settings.model_elite))

    def _sample(self, number: int, count: int, *, part: int) -> list[Walk]:
        """Draws of the policy. No child has a negative attempt, so none is drawn with the same random numbers."""
        first = (self._screen.model.num_scored * PARTS + part) * PART_SIZE
        return self._policy.sample([Draw(number, -1 - first - index) for index in range(count)])
