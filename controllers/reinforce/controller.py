"""The recurrent controller, trained by REINFORCE."""

from __future__ import annotations

import copy
import dataclasses
import itertools
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from automl.controllers.base import (
    ControllerState,
    Donor,
    Draw,
    PendingChild,
    PolicyController,
    Proposal,
    Result,
    ResultState,
)
from automl.controllers.reinforce.encoding import Encoded, collate, encode
from automl.controllers.reinforce.guide import Guide
from automl.controllers.reinforce.heads import Heads, NewKindError
from automl.controllers.reinforce.losses import moving_baseline, rank_advantages, reinforce_loss
from automl.controllers.reinforce.policy import TABLES, Weights, initial_arrays
from automl.controllers.reinforce.presets import Settings
from automl.controllers.reinforce.sampling import Drawn, Sampler
from automl.controllers.reinforce.update import TrainState, Updater
from automl.controllers.reward_model.donors import Donors
from automl.search_spaces.decisions import Choice, Decision
from automl.search_spaces.space import Space
from automl.search_spaces.walk import Walk, replay

MAX_ADVANTAGE = 1e12  # absolute value
MAX_CACHED_WALKS = 256

Key = tuple[int, tuple[int, ...]]  # a child's number and tokens

INITIAL_STATE = ControllerState(
    {"adam_steps": np.zeros((), np.float32), "rewards": np.zeros(0)},
    {"baseline": None, "touched": {}, "best": []},
)


class Reinforce(PolicyController):
    """A two-layer LSTM policy over the space's decisions, trained by REINFORCE with a moving baseline.

    With `advantage="reward"` and `imitate=0` it is the controller of Zoph & Le 2017 (arXiv:1611.01578), section 3. By
    default it computes advantages from ranks and also imitates the best children so far, because this learns within
    hundreds of children rather than thousands.
    """

    def __init__(self, space: Space, *, seed: int, **settings: Any) -> None:
        super().__init__(space, seed=seed)
        self.settings = self.settings_kind(**settings)
        self._walks: dict[Key, Walk] = {}
        self._initial_heads = Heads.of(space.survey(), by_name=self.settings.heads == "decision")
        self._donors = Donors(space)
        self._guide = self._new_guide()
        self._load(INITIAL_STATE, copy.deepcopy(self._initial_heads))
        self.sequential = self.remembers = self.accepts_donors = self._guide is not None

    fixed_options = ("hidden_units", "heads")
    settings_kind = Settings

    @classmethod
    def options(cls) -> tuple[str, ...]:
        return tuple(field.name for field in dataclasses.fields(cls.settings_kind))

    def _make_updater(self, state: TrainState, *, compiled: bool) -> Updater:
        return Updater(state, self.settings, _reinforce, passes=1, compiled=compiled)

    def _load(self, state: ControllerState, heads: Heads) -> None:
        """Loads a state into tables of the size of `heads`. What the state lacks gets its initial value."""
        self._heads = heads
        self._larger_copies: dict[tuple[str | int, ...], Reinforce] = {}
        self._baseline: float | None = state.values["baseline"]
        self._touched = set(state.values["touched"])  # kinds that an update has used; only their rows are stored
        self._elite = [
            EliteChild(best["number"], tuple(best["tokens"]), best["reward"]) for best in state.values["best"]
        ]
        self._rewards: list[float] = state.arrays["rewards"].tolist()
        pending = state.values.get("pending", {"batches": 0, "children": []})
        self._pending = Pending(pending["batches"], [ScoredSample(**child) for child in pending["children"]])
        settings = self.settings
        weights = initial_arrays(self.seed, settings.hidden_units, settings.initial_range, heads.widths)
        first = {name: np.zeros_like(array) for name, array in weights.items()}
        second = {name: np.zeros_like(array) for name, array in weights.items()}
        for name, array in state.arrays.items():
            part, slash, rest = name.partition("/")
            if slash and part in ("first", "second"):
                _copy_into(first if part == "first" else second, rest, array, heads)
            elif name not in ("adam_steps", "rewards"):
                _copy_into(weights, name, array, heads)
        steps = np.asarray(state.arrays["adam_steps"], np.float32)
        train_state = TrainState(Weights(**weights), Weights(**first), Weights(**second), steps)
        self._updater = self._make_updater(train_state, compiled=heads.compiled)
        self._sampler: Sampler | None = None  # valid until the next update
        self._encoded: dict[Key, Encoded] = {}  # the elite of the latest update, which the next one may imitate again

    def _new_guide(self) -> Guide | None:
        settings = self.settings
        return Guide(self.space, self.seed, settings, self, self._donors) if settings.candidates else None

    def warm_start(self, donors: Sequence[Donor]) -> None:
        self._donors = Donors(self.space, donors)
        self._guide = self._new_guide()

    def propose(self, draws: Sequence[Draw], pending: Sequence[PendingChild]) -> list[Proposal]:
        chosen = [self._chosen(draw, pending) for draw in draws]
        return [proposal for proposal, _ in self._drawn(chosen)]

    def _chosen(self, draw: Draw, pending: Sequence[PendingChild]) -> Draw:
        """The draw, with the child that the model chooses for it, if it does."""
        if self._guide is None or draw.given or not self._guide.decides(draw.number):
            return draw
        return _given(draw, self._guide.choose(draw, pending))

    def sample(self, draws: Sequence[Draw]) -> list[Walk]:
        """Draws children that belong to no search."""
        return [walk for _, walk in self._drawn(draws)]

    def _drawn(self, draws: Sequence[Draw]) -> list[Drawn]:
        if self._sampler is None:
            self._sampler = Sampler(self.space, self.seed, self._updater.weights, self._heads)
        try:
            drawn = self._sampler.propose(draws)
        except NewKindError as error:
            # A copy with larger tables makes this draw. `ask` must not change this controller, and larger padding
            # could change the last bit of the other draws.
            if len(draws) > 1:
                return [drawn for draw in draws for drawn in self._drawn([draw])]
            return self._larger_copy(error.decisions)._drawn(draws)
        for draw, (proposal, walk) in zip(draws, drawn, strict=True):
            self._cache_walk((draw.number, proposal.tokens), walk)
        return drawn

    def learn(self, results: Sequence[Result]) -> dict[str, Any]:
        if not results:
            return {}
        stats = self._learn(results)
        if self._guide is not None:
            self._guide.tell(results)
            if self._guide.ready and not self._pending.batches:
                self._guide.teach(results[-1].number)
            stats |= self._guide.stats()
        return stats

    def update(self, walks: Sequence[Walk], advantages: Sequence[float], elite: Sequence[Walk]) -> None:
        """Learns from drawn children with these advantages, and imitates the elite."""
        together = [*walks, *elite]
        self._grow(together)
        self._touched |= self._keys_of(together)
        children = [encode(walk, self._heads) for walk in together]
        self._updater(collate(children, self._heads), advantages, len(elite))
        self._larger_copies, self._sampler = {}, None

    def _learn(self, results: Sequence[Result]) -> dict[str, Any]:
        settings = self.settings
        rewards = [float(result.reward) for result in results if result.reward is not None]
        baseline, self._baseline = moving_baseline(self._baseline, rewards, settings.baseline_decay)
        if settings.advantage == "rank":
            advantages = rank_advantages(rewards, self._rewards)
        else:
            # Adam squares the gradient, and the largest float32 is 3e38.
            advantages = [min(max(reward - baseline, -MAX_ADVANTAGE), MAX_ADVANTAGE) for reward in rewards]
        self._rewards = [*self._rewards, *rewards][-settings.rank_window :]
        self._update_elite(results)
        pairs = zip([result for result in results if result.reward is not None], advantages, strict=True)
        self._pending.children += [
            ScoredSample(result.number, tuple(result.tokens), tuple(result.log_probs), value) for result, value in pairs
        ]
        self._pending.batches += 1
        stats = {"baseline": baseline, "mean_reward": float(np.mean(rewards))}
        if self._pending.batches < settings.accumulate:
            return stats | {"accumulated": self._pending.batches}
        samples, self._pending = self._pending.children, Pending()
        keys = [(sample.number, sample.tokens) for sample in samples]
        elite_keys = [(child.number, child.tokens) for child in self._elite]
        children = self._encode([*keys, *elite_keys])
        self._encoded = dict(zip(elite_keys, children[len(keys) :], strict=True))
        sequences = collate(children, self._heads, [sample.log_probs for sample in samples])
        advantages = [sample.advantage for sample in samples]
        loss, entropy, probabilities = self._updater(sequences, advantages, len(self._elite))
        self._larger_copies, self._sampler = {}, None
        of_heads = {
            head: probabilities[row, : self._heads.widths[head]]
            for head, row in self._heads.rows.items()
            if probabilities[row].any()
        }
        return {
            "loss": loss,
            "entropy": entropy,
            **stats,
            "probabilities": {
                kind: [round(float(value), 6) for value in mean] for kind, mean in self._heads.by_kind(of_heads).items()
            },
        }

    def state(self) -> ControllerState:
        touched = {kind: width for kind, width in self._heads.widths.items() if kind in self._touched}
        state = self._updater.state
        arrays: dict[str, np.ndarray] = {"adam_steps": state.steps}
        for prefix, part in (("", state.weights), ("first/", state.first), ("second/", state.second)):
            for name, value in part._asdict().items():
                if name not in TABLES:
                    arrays[prefix + name] = value
                    continue
                for kind, width in touched.items():
                    arrays[f"{prefix}{name}/{kind}"] = value[self._heads.rows[kind], :width]
        arrays["rewards"] = np.asarray(self._rewards, np.float64)
        values: dict[str, Any] = {
            "baseline": self._baseline,
            "touched": touched,
            "slots": self._heads.slots,
            "best": [vars(child) for child in self._elite],
        }
        if self._guide is not None:
            values["model_elite"] = self._guide.elite
        if self._pending.batches:
            values["pending"] = {
                "batches": self._pending.batches,
                "children": [vars(sample) for sample in self._pending.children],
            }
        return ControllerState(arrays, values)

    def restore(self, state: ControllerState) -> None:
        heads = copy.deepcopy(self._initial_heads)
        for kind, width in state.values["touched"].items():
            heads.rows.setdefault(kind, len(heads.rows))
            heads.widths.setdefault(kind, width)
        heads.slots = state.values["slots"]
        self._load(state, heads)
        self._guide = guide = self._new_guide()
        if guide is not None:
            guide.elite = [tuple(tokens) for tokens in state.values.get("model_elite", [])]

    def remember(self, batches: Iterable[Sequence[Result]]) -> None:
        if self._guide is not None:
            elite = self._guide.elite
            for results in batches:
                self._guide.tell(results)
            self._guide.elite = elite

    def forget(self, numbers: Collection[int]) -> None:
        self._elite = [child for child in self._elite if child.number not in numbers]

    def _encode(self, keys: Sequence[Key]) -> list[Encoded]:
        """Encodes children, after growing the tables to fit them. Children that are encoded already fit, and their
        kinds are in `_touched`."""
        new = {key: self._walk(key) for key in keys if key not in self._encoded}
        self._grow(new.values())  # clears `_encoded` if the tables grow
        self._touched |= self._keys_of(new.values())
        encoded = {key: encode(walk, self._heads) for key, walk in new.items()} | self._encoded
        return [encoded.get(key) or encode(self._walk(key), self._heads) for key in keys]

    def _keys_of(self, walks: Iterable[Walk]) -> set[str]:
        """The heads that these children use."""
        decisions = itertools.chain.from_iterable(walk.decisions for walk in walks)
        return {self._heads.key(decision) for decision in decisions if isinstance(decision, Choice)}

    def _grow(self, walks: Iterable[Walk]) -> None:
        """Grows the tables to fit these children, keeping all that was learned."""
        heads = copy.deepcopy(self._heads)
        if any([heads.add(walk.decisions) for walk in walks]):  # a list, because `any` stops at the first True
            self._load(self.state(), heads)

    def _larger_copy(self, decisions: Iterable[Decision]) -> Reinforce:
        """A copy of this controller with tables that fit these decisions."""
        heads = copy.deepcopy(self._heads)
        heads.add(decisions)
        key: tuple[str | int, ...] = (*heads.rows, heads.slots)
        if key not in self._larger_copies:
            self._larger_copies[key] = larger = copy.copy(self)
            larger._load(self.state(), heads)
        return self._larger_copies[key]

    def _walk(self, key: Key) -> Walk:
        """The finished walk of a child, from the cache or replayed from its tokens."""
        number, tokens = key
        walk = self._walks.pop(key, None) or replay(self.space.walk(number), tokens)
        self._cache_walk(key, walk)
        return walk

    def _cache_walk(self, key: Key, walk: Walk) -> None:
        self._walks[key] = walk
        if len(self._walks) > MAX_CACHED_WALKS:
            del self._walks[next(iter(self._walks))]

    def _update_elite(self, results: Sequence[Result]) -> None:
        """Updates the elite with these results. Of children with equal rewards the older ones stay. Failed children,
        whose reward is the floor, never enter it."""
        trained = [
            EliteChild(result.number, result.tokens, float(result.reward or 0.0))
            for result in results
            if result.state == ResultState.TRAINED
        ]
        ranked = sorted([*self._elite, *trained], key=lambda child: (-child.reward, child.number))
        self._elite = ranked[: self.settings.imitate]


def _reinforce(log_probs: tf.Tensor, old_log_probs: tf.Tensor, advantages: tf.Tensor) -> tf.Tensor:
    return reinforce_loss(log_probs, advantages)


@dataclasses.dataclass(frozen=True)
class EliteChild:
    """One of the best trained children so far, which the policy imitates."""

    number: int
    tokens: tuple[int, ...]
    reward: float


@dataclasses.dataclass(frozen=True)
class ScoredSample:
    """A child with the advantage that was computed when `tell` received its result."""

    number: int
    tokens: tuple[int, ...]
    log_probs: tuple[float | None, ...]
    advantage: float

    def __post_init__(self) -> None:
        for name in ("tokens", "log_probs"):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # a state read from JSON has lists


@dataclasses.dataclass
class Pending:
    """Batches that `tell` received and that no update has used yet. The weights do not change in between, so the
    gradients of these batches add up to the gradient of all their children."""

    batches: int = 0
    children: list[ScoredSample] = dataclasses.field(default_factory=list)


def _given(draw: Draw, walk: Walk) -> Draw:
    """A draw that gives this child."""
    return Draw(draw.number, draw.attempt, walk.answers)


def _copy_into(target: dict[str, np.ndarray], name: str, array: np.ndarray, heads: Heads) -> None:
    """Copies a stored array, which for a table is the part of one kind."""
    table, slash, kind = name.partition("/")
    if slash and table in TABLES:
        target[table][heads.rows[kind], : len(array)] = array
    else:
        target[name] = array
