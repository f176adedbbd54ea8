"""Sums of effects of single choices and of pairs of choices, and their maximum."""

from __future__ import annotations

import dataclasses

import numpy as np

from automl.child_trainers.landscapes.streams import Stream

LARGEST_FACTOR = 4**12  # entries of a factor of exact elimination
STARTS, ROUNDS = 100, 50  # of the local search
CHANGED = 0.15  # share of the choices that a round of the local search draws again


@dataclasses.dataclass(frozen=True)
class PairwiseSum:
    """f(x) = sum_d main[d, x_d] + sum_(d, e) pairs[d, e][x_d, x_e]

    Attributes:
        main: float64 (choices, options).
        pairs: by two different choices, float64 (options, options).
    """

    main: np.ndarray
    pairs: dict[tuple[int, int], np.ndarray]

    def value(self, x: list[int]) -> float:
        """f at these options, one for each choice."""
        return float(
            sum(self.main[d, option] for d, option in enumerate(x))
            + sum(table[x[d], x[e]] for (d, e), table in self.pairs.items())
        )

    def maximum(self) -> tuple[float, bool]:
        """The highest value, and True; or the best value of a local search, and False."""
        exact = self._eliminated()
        return (self._climbed(), False) if exact is None else (exact, True)

    def _eliminated(self) -> float | None:
        """The maximum, by eliminating the choices one after the other, at each step the one with the fewest neighbours.
        None if a factor would be too large.

        Source: max-sum variable elimination, Koller & Friedman 2009, section 13.2.
        """
        num_choices, num_options = self.main.shape
        factors: list[tuple[tuple[int, ...], np.ndarray]] = [((d,), self.main[d]) for d in range(num_choices)]
        factors += self.pairs.items()
        left = set(range(num_choices))
        constant = 0.0

        def scope_of(d: int) -> set[int]:
            return {e for scope, _ in factors if d in scope for e in scope}

        while left:
            chosen = min(left, key=lambda d: (len(scope_of(d)), d))
            scope = sorted(scope_of(chosen))
            if num_options ** len(scope) > LARGEST_FACTOR:
                return None
            joint = np.zeros((num_options,) * len(scope))
            for inner, table in factors:
                if chosen in inner:
                    # The factor's axes in ascending order, with axes of length 1 for the other choices of the scope.
                    ascending = np.transpose(table, np.argsort(inner))
                    joint += ascending.reshape([num_options if d in inner else 1 for d in scope])
            factors = [factor for factor in factors if chosen not in factor[0]]
            rest = joint.max(axis=scope.index(chosen))
            scope.remove(chosen)
            left.remove(chosen)
            if scope:
                factors.append((tuple(scope), rest))
            else:
                constant += float(rest)
        return constant

    def _climbed(self) -> float:
        """The best value of an iterated local search. Coordinate ascent begins at random starts. In each round it
        begins again at a perturbed copy of the best point of each start, and keeps the better of both."""
        num_choices, num_options = self.main.shape
        table = np.zeros((num_choices, num_options, num_choices, num_options))
        for (d, e), pair in self.pairs.items():
            table[d, :, e, :] += pair
            table[e, :, d, :] += pair.T
        stream = Stream(num_choices, num_options)
        best = (stream.uniform(STARTS, num_choices) * num_options).astype(int)
        best_values = np.full(STARTS, -np.inf)
        for round_number in range(ROUNDS):
            x = best.copy()
            if round_number:
                again = stream.uniform(STARTS, num_choices) < CHANGED
                x[again] = (stream.uniform(STARTS, num_choices) * num_options).astype(int)[again]
            while True:
                before = x.copy()
                for d in range(num_choices):
                    # (starts, options): the value of each option of d, given the other choices
                    of_options = self.main[d] + table[d][:, np.arange(num_choices), x].sum(axis=2).T
                    x[:, d] = of_options.argmax(axis=1)
                if (x == before).all():
                    break
            single = self.main[np.arange(num_choices), x].sum(axis=1)
            choices = np.arange(num_choices)
            paired = table[choices[None, :, None], x[:, :, None], choices[None, None, :], x[:, None, :]].sum(
                axis=(1, 2)
            )
            values = single + paired / 2
            better = values > best_values
            best[better], best_values[better] = x[better], values[better]
        return max(self.value(list(x)) for x in best)


def random_pairwise(
    stream: Stream, num_choices: int, num_options: int, *, per_choice: int, strength: float
) -> PairwiseSum:
    """A sum with random effects, scaled so that its variance over random children is about 1.

    Main effects are standard normal. Each choice draws `per_choice` random partners; the effects of such a pair are
    `strength` times standard normal.
    """
    scale = 1.0 / np.sqrt(num_choices * (1.0 + per_choice * strength**2))
    main = stream.normal(num_choices, num_options) * scale
    pairs: dict[tuple[int, int], np.ndarray] = {}
    for d in range(num_choices):
        for _ in range(per_choice):
            other = stream.below(num_choices - 1)
            pair = (d, other + (other >= d))
            effects = stream.normal(num_options, num_options) * strength * scale
            pairs[pair] = pairs.get(pair, 0.0) + effects
    return PairwiseSum(main, pairs)
