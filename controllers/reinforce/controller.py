"""The recurrent controller, trained by REINFORCE."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from automl.controllers.base import (
    ControllerState,
    Draw,
    PendingChild,
    PolicyController,
    Proposal,
    Result,
    ResultState,
)
from automl.controllers.reinforce.encoding import Encoded, encode, together
from automl.controllers.reinforce.heads import Heads, NewKindError
from automl.controllers.reinforce.losses import moving_baseline, rank_advantages, reinforce_loss
from automl.controllers.reinforce.policy import TABLES, Weights, initial_arrays
from automl.controllers.reinforce.presets import Settings
from automl.controllers.reinforce.sampling import Sampler
from automl.controllers.reinforce.update import Learned, Updater
from automl.search_spaces.decisions import Choice, Decision
from automl.search_spaces.space import Space
from automl.search_spaces.walk import Walk, replay

MOST = 1e12  # size of an advantage
KEPT_WALKS = 256  # the latest

Key = tuple[int, tuple[int, ...]]  # a child's number and tokens

FIRST_STATE = ControllerState(
    {"adam_steps": np.zeros((), np.float32), "rewards": np.zeros(0)},
    {"baseline": None, "touched": {}, "best": []},
)


class Reinforce(PolicyController):
    """A two-layer LSTM policy over the space's decisions, trained by REINFORCE with a moving baseline.

    With `advantage="reward"` and nothing imitated it is the controller of Zoph & Le 2017 (arXiv:1611.01578), section 3.
    The default judges rewards by rank and also imitates the best children so far, which is what learns within hundreds
    of children rather than thousands.
    """

    def __init__(self, space: Space, *, seed: int, **settings: Any) -> None:
        super().__init__(space, seed=seed)
        self.settings = self.settings_kind(**settings)
        self._walks: dict[Key, Walk] = {}
        self._surveyed = Heads.of(space.survey())
        self._load(FIRST_STATE, copy.deepcopy(self._surveyed))

    fixed_options = ("hidden_units",)
    settings_kind = Settings

    @classmethod
    def options(cls) -> tuple[str, ...]:
        return tuple(field.name for field in dataclasses.fields(cls.settings_kind))

    def _updater_of(self, learned: Learned, *, compiled: bool) -> Updater:
        return Updater(learned, self.settings, _reinforce, passes=1, compiled=compiled)

    def _load(self, state: ControllerState, heads: Heads) -> None:
        """Takes a state into tables as large as `heads`; what the state does not name has its first values."""
        self._heads = heads
        self._larger: dict[tuple[str | int, ...], Reinforce] = {}
        self._baseline: float | None = state.values["baseline"]
        self._touched = set(state.values["touched"])
        self._best = [Best(best["number"], tuple(best["tokens"]), best["reward"]) for best in state.values["best"]]
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
                _place(first if part == "first" else second, rest, array, heads)
            elif name not in ("adam_steps", "rewards"):
                _place(weights, name, array, heads)
        steps = np.asarray(state.arrays["adam_steps"], np.float32)
        learned = Learned(Weights(**weights), Weights(**first), Weights(**second), steps)
        self._updater = self._updater_of(learned, compiled=heads.compiled)
        self._sampler: Sampler | None = None  # until the next update
        self._encoded: dict[Key, Encoded] = {}  # children of the latest update that the next may imitate again

    def propose(self, draws: Sequence[Draw], pending: Sequence[PendingChild]) -> list[Proposal]:
        if self._sampler is None:
            self._sampler = Sampler(self.space, self.seed, self._updater.weights, self._heads)
        try:
            drawn = self._sampler.propose(draws)
        except NewKindError as error:
            # Drawn apart, in larger tables that are for it alone: asking must change neither this controller nor the
            # last bit of another draw, and how far tables are padded can.
            if len(draws) > 1:
                return [proposal for draw in draws for proposal in self.propose([draw], pending)]
            return self._with_room_for(error.decisions).propose(draws, pending)
        for draw, (proposal, walk) in zip(draws, drawn, strict=True):
            self._keep_walk((draw.number, proposal.tokens), walk)
        return [proposal for proposal, _ in drawn]

    def learn(self, results: Sequence[Result]) -> dict[str, Any]:
        if not results:
            return {}
        settings = self.settings
        rewards = [float(result.reward) for result in results if result.reward is not None]
        baseline, self._baseline = moving_baseline(self._baseline, rewards, settings.baseline_decay)
        if settings.advantage == "rank":
            advantages = rank_advantages(rewards, self._rewards)
        else:
            # Adam squares the gradient, and float32 ends at 3e38.
            advantages = [min(max(reward - baseline, -MOST), MOST) for reward in rewards]
        self._rewards = [*self._rewards, *rewards][-settings.rank_window :]
        self._update_elite(results)
        pairs = zip([result for result in results if result.reward is not None], advantages, strict=True)
        self._pending.children += [
            ScoredSample(result.number, tuple(result.tokens), tuple(result.log_probs), value) for result, value in pairs
        ]
        self._pending.batches += 1
        told = {"baseline": baseline, "mean_reward": float(np.mean(rewards))}
        if self._pending.batches < settings.accumulate:
            return told | {"accumulated": self._pending.batches}
        judged, self._pending = self._pending.children, Pending()
        keys = [(child.number, child.tokens) for child in judged]
        imitated = [(best.number, best.tokens) for best in self._best]
        children = self._encode([*keys, *imitated])
        self._encoded = dict(zip(imitated, children[len(keys) :], strict=True))
        sequences = together(children, self._heads, [child.log_probs for child in judged])
        loss, entropy, probabilities = self._updater(sequences, [child.advantage for child in judged], len(self._best))
        self._larger, self._sampler = {}, None
        return {
            "loss": loss,
            "entropy": entropy,
            **told,
            "probabilities": {
                kind: [round(float(chance), 6) for chance in probabilities[row, : self._heads.widths[kind]]]
                for kind, row in self._heads.rows.items()
                if probabilities[row].any()
            },
        }

    def state(self) -> ControllerState:
        touched = {kind: width for kind, width in self._heads.widths.items() if kind in self._touched}
        learned = self._updater.learned
        arrays: dict[str, np.ndarray] = {"adam_steps": learned.steps}
        for prefix, part in (("", learned.weights), ("first/", learned.first), ("second/", learned.second)):
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
            "best": [vars(best) for best in self._best],
        }
        if self._pending.batches:
            values["pending"] = {
                "batches": self._pending.batches,
                "children": [vars(c) for c in self._pending.children],
            }
        return ControllerState(arrays, values)

    def restore(self, state: ControllerState) -> None:
        heads = copy.deepcopy(self._surveyed)
        for kind, width in state.values["touched"].items():
            heads.rows.setdefault(kind, len(heads.rows))
            heads.widths.setdefault(kind, width)
        heads.slots = state.values["slots"]
        self._load(state, heads)

    def forget(self, numbers: Collection[int]) -> None:
        self._best = [best for best in self._best if best.number not in numbers]

    def _encode(self, keys: Sequence[Key]) -> list[Encoded]:
        """Children as arrays, in tables that have room for them. For those that are remembered as arrays they have it,
        and their kinds count as touched."""
        new = {key: self._walk(key) for key in keys if key not in self._encoded}
        self._grow(new.values())  # which forgets the arrays
        self._touched |= {
            decision.kind for walk in new.values() for decision in walk.decisions if isinstance(decision, Choice)
        }
        encoded = {key: encode(walk, self._heads) for key, walk in new.items()} | self._encoded
        return [encoded.get(key) or encode(self._walk(key), self._heads) for key in keys]

    def _grow(self, walks: Iterable[Walk]) -> None:
        """Makes room for these children, with all that was learned."""
        heads = copy.deepcopy(self._heads)
        if any([heads.meet(walk.decisions) for walk in walks]):  # a list: all are met
            self._load(self.state(), heads)

    def _with_room_for(self, decisions: Iterable[Decision]) -> Reinforce:
        """A copy that has it."""
        heads = copy.deepcopy(self._heads)
        heads.meet(decisions)
        key: tuple[str | int, ...] = (*heads.rows, heads.slots)
        if key not in self._larger:
            self._larger[key] = larger = copy.copy(self)
            larger._load(self.state(), heads)
        return self._larger[key]

    def _walk(self, key: Key) -> Walk:
        """The finished walk of a child: as it was drawn, or anew, which is the same and takes longer."""
        number, tokens = key
        walk = self._walks.pop(key, None) or replay(self.space.walk(number), tokens)
        self._keep_walk(key, walk)
        return walk

    def _keep_walk(self, key: Key, walk: Walk) -> None:
        self._walks[key] = walk
        if len(self._walks) > KEPT_WALKS:
            del self._walks[next(iter(self._walks))]

    def _update_elite(self, results: Sequence[Result]) -> None:
        """Updates the elite with the best trained children; of equal rewards the older ones stay. Failed children,
        whose reward is the floor, never enter it."""
        seen = [
            Best(result.number, result.tokens, float(result.reward or 0.0))
            for result in results
            if result.state == ResultState.TRAINED
        ]
        ranked = sorted([*self._best, *seen], key=lambda best: (-best.reward, best.number))
        self._best = ranked[: self.settings.imitate]


def _reinforce(log_probs: tf.Tensor, old_log_probs: tf.Tensor, advantages: tf.Tensor) -> tf.Tensor:
    return reinforce_loss(log_probs, advantages)


@dataclasses.dataclass(frozen=True)
class Best:
    """A child worth imitating."""

    number: int
    tokens: tuple[int, ...]
    reward: float


@dataclasses.dataclass(frozen=True)
class ScoredSample:
    """A child with its advantage, as it was when it was told."""

    number: int
    tokens: tuple[int, ...]
    log_probs: tuple[float | None, ...]
    advantage: float

    def __post_init__(self) -> None:
        for name in ("tokens", "log_probs"):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # a state read from JSON has lists


@dataclasses.dataclass
class Pending:
    """Batches that were told and not yet learned from. Until they are, the weights stay what they are, so their
    gradients add up to that of all their children."""

    batches: int = 0
    children: list[ScoredSample] = dataclasses.field(default_factory=list)


def _place(target: dict[str, np.ndarray], name: str, array: np.ndarray, heads: Heads) -> None:
    table, slash, kind = name.partition("/")
    if slash and table in TABLES:
        target[table][heads.rows[kind], : len(array)] = array
    else:
        target[name] = array
