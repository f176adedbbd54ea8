"""Chooses the most promising candidate by the reward model."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import ndtri

from automl.controllers.base import Draw, PendingChild, Result, ResultState
from automl.controllers.keyed import pool_stream
from automl.controllers.ranks import rank_shares
from automl.controllers.reward_model.candidates import climbed, mutation
from automl.controllers.reward_model.donors import Donors
from automl.controllers.reward_model.features import Matrix, Row
from automl.controllers.reward_model.fitting import fit
from automl.controllers.reward_model.gaussian_process import GaussianProcess, Hyperparameters, Layout, Prediction
from automl.controllers.single_thread import single_threaded
from automl.controllers.variation import uniform_walk
from automl.search_spaces.space import Space
from automl.search_spaces.spec import canonical_hash
from automl.search_spaces.walk import Walk
from automl.search_spaces.whole_numbers import check_whole_number

MAX_KNOWN = 400  # children with rewards that the model uses: its cost grows with their cube
MAX_IN_FLIGHT = 256  # children in flight that it uses, the latest
MIN_FITTED = 4  # children from which on hyperparameters are fitted
REFIT_GROWTH = 1.25  # they are fitted again when there are so many times as many children
DONOR_TURNS = 4  # of so many first children, one is chosen by what the donors say
MAX_CHANGES = 3  # tokens that a mutation changes

Tokens = tuple[int, ...]


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
    """Remembers the children that have rewards, and chooses the next one among candidates.

    What it says is a function of these children, in the order in which it received them, of the children in flight, and
    of the donors.

    Args:
        donors: earlier searches; None for none.
    """

    def __init__(self, space: Space, seed: int, settings: ScreenSettings, donors: Donors | None = None) -> None:
        self._space = space
        self._seed = seed
        self._settings = settings
        self._donors = Donors(space) if donors is None else donors
        self._features = self._donors.new_features()
        self._scored: list[_Scored] = []
        self._tokens: set[Tokens] = set()
        self._hashes: set[str] = set()  # canonical hashes of the same children
        self._fit_size = (0, self._features.size)  # the children of the latest fit, and the features that they had
        self._hyperparameters: Hyperparameters | None = None  # None until they are needed
        # Of the present children, made when they are needed; by number of a child, where a schedule distinguishes them
        self._process: GaussianProcess | None = None  # with no child in flight
        self._candidates: dict[int, list[Walk]] = {}
        self._pools: dict[int, Pool] = {}
        self._rows: dict[Tokens, Row] = {}  # of candidates
        self._hash_of: dict[Tokens, str] = {}

    @property
    def num_scored(self) -> int:
        """How many children have rewards."""
        return len(self._scored)

    def decides(self, number: int, initial: int) -> bool:
        """Whether the model chooses the child of this number. With donors it chooses one of `DONOR_TURNS` children
        before `initial` children have rewards; the others show without prejudice what the donors are worth."""
        return self.num_scored >= initial or (len(self._donors) > 0 and number % DONOR_TURNS == 0)

    def tell(self, results: Iterable[Result]) -> None:
        """Adds the children that have rewards."""
        for result in results:
            if result.reward is not None:
                tokens = tuple(result.tokens)
                walk = self._space.decode(tokens)
                self._features.add(walk)
                trained = result.state == ResultState.TRAINED
                self._scored.append(_Scored(tokens, self._features.row(walk), float(result.reward), trained))
                self._tokens.add(tokens)
                self._hashes.add(canonical_hash(walk.spec, tokens))
        # The sizes at which hyperparameters are fitted depend on the children alone, so a replay fits only once.
        if len(self._scored) >= max(MIN_FITTED, REFIT_GROWTH * self._fit_size[0]):
            self._fit_size, self._hyperparameters = (len(self._scored), self._features.size), None
        self._process, self._candidates, self._pools, self._rows, self._hash_of = None, {}, {}, {}, {}

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
            self._pools[number] = Pool(self, self._space, candidates)
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

    def _new_candidates(self, number: int) -> list[Walk]:
        settings = self._settings
        generator = pool_stream(self._seed, len(self._scored))
        walks = [uniform_walk(self._space, number, generator) for _ in range(settings.uniform)]
        trained = sorted((child for child in self._scored if child.trained), key=lambda child: -child.reward)
        parents = [
            uniform_walk(self._space, number, generator, self._space.decode(child.tokens).answers)
            for child in trained[: settings.parents]
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
        generator = pool_stream(self._seed, len(self._scored), part)
        return climbed(self._space, number, walks, self, self._settings.rounds, generator)

    @single_threaded
    def score(self, walks: Sequence[Walk]) -> np.ndarray:
        """float64 (children,): the upper confidence bounds of children's scores while none is in flight."""
        return self.upper_bounds(self.at_rest().predict(self.matrix(walks)))

    @single_threaded
    def donor_weights(self) -> list[float]:
        """How far each donor is trusted."""
        return self.at_rest().basis_weights[: len(self._donors)].tolist() if len(self._donors) else []

    def at_rest(self) -> GaussianProcess:
        """The model while no child is in flight."""
        if self._process is None:
            self._process = self.process(())
        return self._process

    def upper_bounds(self, prediction: Prediction) -> np.ndarray:
        """float64 (candidates,): expected scores, plus the weighted standard deviations.

        Source: Srinivas et al. 2010, "Gaussian process optimization in the bandit setting", section 3.
        """
        return np.asarray(prediction.mean + self._settings.exploration * np.sqrt(prediction.variance))

    def is_new(self, tokens: Tokens) -> bool:
        """Whether no child with a reward has these tokens."""
        return tokens not in self._tokens

    def repeats(self, walk: Walk) -> bool:
        """Whether an equal child has a reward, such as another numbering of the same network."""
        return self.hash_of(walk) in self._hashes

    def hash_of(self, walk: Walk) -> str:
        """The canonical hash of a candidate."""
        found = self._hash_of.get(walk.tokens)
        if found is None:
            found = self._hash_of[walk.tokens] = canonical_hash(walk.spec, walk.tokens)
        return found

    def process(self, in_flight: Sequence[Tokens]) -> GaussianProcess:
        """The model of the children with rewards and of those in flight."""
        known, scores = self._known(len(self._scored), self._features.size)
        layout = Layout.of(self._features, known, self._donors.basis)
        waiting = self.matrix([self._space.decode(tokens) for tokens in in_flight[-MAX_IN_FLIGHT:]])
        hyperparameters = self._fitted().extended(layout.num_decisions)
        return GaussianProcess(layout, hyperparameters, known, scores, waiting)

    def matrix(self, walks: Sequence[Walk]) -> Matrix:
        return self._donors.with_functions(self._features.matrix([self._row(walk) for walk in walks]))

    def _row(self, walk: Walk) -> Row:
        row = self._rows.get(walk.tokens)
        if row is None:
            row = self._rows[walk.tokens] = self._features.row(walk)
        return row

    def _fitted(self) -> Hyperparameters:
        """The hyperparameters of the latest fit."""
        if self._hyperparameters is None:
            count, size = self._fit_size
            matrix, scores = self._known(count, size)
            layout = Layout.of(self._features, matrix, self._donors.basis)
            if count:
                self._hyperparameters = fit(layout, matrix, scores)
            else:
                self._hyperparameters = Hyperparameters.prior(layout.num_decisions)
        return self._hyperparameters

    def _known(self, count: int, size: tuple[int, int]) -> tuple[Matrix, np.ndarray]:
        """Those of the first children that the model uses, in columns of this size, and their scores."""
        rewards = np.array([child.reward for child in self._scored[:count]])
        used = _used(rewards)
        matrix = self._features.matrix([self._scored[index].row for index in used], size)
        return self._donors.with_functions(matrix), normal_scores(rewards)[used]


class _Scored(NamedTuple):
    """A child that has a reward."""

    tokens: Tokens
    row: Row
    reward: float
    trained: bool


class Pool:
    """The candidates for the next children, while more and more of them are in flight.

    Args:
        screen: which may not receive more children as long as the pool is used.
        walks: the candidates, in any order.
    """

    def __init__(self, screen: Screen, space: Space, walks: Sequence[Walk]) -> None:
        unique = {walk.tokens: walk for walk in walks}
        # If every candidate is trained already, the proposer refuses the choice and takes a neighbour.
        self._walks = [walk for tokens, walk in unique.items() if screen.is_new(tokens)] or list(walks[:1])
        self._screen = screen
        self._space = space
        self._hashes: dict[Tokens, str] = {}  # canonical hashes of children in flight
        self._in_flight: tuple[Tokens, ...] = ()
        self._prediction: Prediction | None = None

    def choose(self, attempt: int, pending: Sequence[PendingChild]) -> Walk:
        """The candidate with the highest upper confidence bound that equals no child that is trained or in flight; at
        a later attempt, one further down."""
        in_flight = tuple(child.tokens for child in pending)
        bounds = self._screen.upper_bounds(self._predicted(in_flight))
        for tokens in in_flight:
            if tokens not in self._hashes:
                self._hashes[tokens] = self._screen.hash_of(self._space.decode(tokens))
        waiting = {self._hashes[tokens] for tokens in in_flight}
        ranked = [self._walks[index] for index in np.argsort(-bounds, kind="stable").tolist()]
        free = (walk for walk in ranked if self._screen.hash_of(walk) not in waiting and not self._screen.repeats(walk))
        return next(itertools.islice(free, attempt, None), ranked[attempt % len(ranked)])

    def _predicted(self, in_flight: tuple[Tokens, ...]) -> Prediction:
        known = len(self._in_flight)
        if self._prediction is None or in_flight[:known] != self._in_flight:
            process = self._screen.process(in_flight) if in_flight else self._screen.at_rest()
            self._prediction = process.predict(self._screen.matrix(self._walks))
        else:
            for tokens in in_flight[known:]:
                self._prediction.observe(self._screen.matrix([self._space.decode(tokens)]))
        self._in_flight = in_flight
        return self._prediction


def normal_scores(rewards: np.ndarray) -> np.ndarray:
    """The quantiles of the normal distribution at the rewards' ranks; equal rewards have one.

        s_i = Phi^-1((rank_i - 1/2) / n)

    The model then depends neither on the scale of the rewards nor on a few extreme ones.
    """
    return np.asarray(ndtri(rank_shares(rewards)))


def _used(rewards: np.ndarray) -> np.ndarray:
    """The indices of the children that the model uses, ascending: all, or the best half and the latest of the rest."""
    if len(rewards) <= MAX_KNOWN:
        return np.arange(len(rewards))
    best = np.argsort(-rewards, kind="stable")[: MAX_KNOWN // 2]
    others = np.setdiff1d(np.arange(len(rewards)), best)
    return np.sort(np.concatenate([best, others[len(best) - MAX_KNOWN :]]))
