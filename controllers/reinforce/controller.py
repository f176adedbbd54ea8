"""The recurrent controller, trained by REINFORCE."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from controllers.base import Controller, ControllerState, Draw, Proposal, Result
from controllers.reinforce.heads import Heads
from controllers.reinforce.losses import moving_baseline, rank_advantages
from controllers.reinforce.policy import TABLES, Variables, initial_arrays
from controllers.reinforce.presets import Settings
from controllers.reinforce.sampling import NewKindError, Sampler
from controllers.reinforce.update import Updater, encode
from search_spaces.decisions import Choice, Decision
from search_spaces.space import Space
from search_spaces.walk import Walk, replay


class Reinforce(Controller):
    """A two-layer LSTM policy over the space's decisions, trained by REINFORCE with a moving baseline.

    With `advantage="reward"` and nothing imitated it is the controller of Zoph & Le 2017 (arXiv:1611.01578), section 3.
    The default judges rewards by rank and also imitates the best children so far, which is what learns within hundreds
    of children rather than thousands.
    """

    def __init__(self, space: Space, *, seed: int, width: int, **settings: Any) -> None:
        super().__init__(space, seed=seed, width=width)
        self.settings = Settings(**settings)
        self._heads = Heads.of(space.survey())
        self._touched: set[str] = set()
        self._baseline: float | None = None
        self._rewards: list[float] = []
        self._best: list[Best] = []
        self._build(self._initial_arrays(), {}, {}, 0.0)

    def _propose(self, draws: Sequence[Draw]) -> list[Proposal]:
        try:
            return self._sampler.propose(self.space, self.seed, draws)
        except NewKindError as error:
            self._grow(error.decisions)
            return self._propose(draws)

    def _learn(self, results: Sequence[Result]) -> dict[str, Any]:
        if not results:
            return {}
        settings = self.settings
        rewards = [float(result.reward) for result in results if result.reward is not None]
        baseline, self._baseline = moving_baseline(self._baseline, rewards, settings.baseline_decay)
        if settings.advantage == "rank":
            advantages = rank_advantages(rewards, self._rewards)
        else:
            advantages = [reward - baseline for reward in rewards]
        self._rewards = [*self._rewards, *rewards][-settings.rank_window :]
        self._remember(results)
        walks = [self._replay(result.number, result.tokens) for result in results]
        walks += [self._replay(best.number, best.tokens) for best in self._best]
        for walk in walks:
            self._grow(walk.decisions)
        loss, entropy, probabilities = self._updater(encode(walks, self._heads), advantages, len(self._best))
        self._touched |= {
            decision.kind for walk in walks for decision in walk.decisions if isinstance(decision, Choice)
        }
        return {
            "loss": loss,
            "entropy": entropy,
            "baseline": baseline,
            "mean_reward": float(np.mean(rewards)),
            "probabilities": {
                kind: [round(float(chance), 6) for chance in probabilities[row, : self._heads.widths[kind]]]
                for kind, row in self._rows.items()
                if probabilities[row].any()
            },
        }

    def state(self) -> ControllerState:
        arrays: dict[str, np.ndarray] = {"adam_steps": self._updater.steps.numpy()}
        parts = {"": self._variables, "first/": self._updater.first, "second/": self._updater.second}
        for prefix, variables in parts.items():
            for name, variable in variables._asdict().items():
                value = variable.numpy()
                if name not in TABLES:
                    arrays[prefix + name] = value
                    continue
                for kind in self._touched:
                    arrays[f"{prefix}{name}/{kind}"] = value[self._rows[kind], : self._heads.widths[kind]]
        arrays["rewards"] = np.asarray(self._rewards, np.float64)
        values = {
            "baseline": self._baseline,
            "touched": {kind: self._heads.widths[kind] for kind in sorted(self._touched)},
            "slots": self._heads.slots,
            "best": [dataclasses.asdict(best) for best in self._best],
        }
        return ControllerState(arrays, values)

    def restore(self, state: ControllerState) -> None:
        values, arrays = state.values, dict(state.arrays)
        self._baseline = values["baseline"]
        self._touched = set(values["touched"])
        self._best = [Best(best["number"], tuple(best["tokens"]), best["reward"]) for best in values["best"]]
        self._rewards = arrays.pop("rewards").tolist()
        for kind, width in values["touched"].items():
            self._heads.rows.setdefault(kind, len(self._heads.rows))
            self._heads.widths.setdefault(kind, width)
        self._heads.slots = max(self._heads.slots, values["slots"])
        steps = float(arrays.pop("adam_steps"))
        main = self._initial_arrays()
        first = {name: np.zeros_like(array) for name, array in main.items()}
        second = {name: np.zeros_like(array) for name, array in main.items()}
        for prefix, target in (("first/", first), ("second/", second), ("", main)):
            for name, array in arrays.items():
                if name.startswith(prefix) and not (prefix == "" and name.startswith(("first/", "second/"))):
                    self._place(target, name.removeprefix(prefix), array)
        self._build(main, first, second, steps)

    @property
    def _rows(self) -> dict[str, int]:
        return self._heads.rows

    def _initial_arrays(self) -> dict[str, np.ndarray]:
        settings = self.settings
        return initial_arrays(
            self.seed, settings.hidden_units, settings.initial_range, self._heads.kinds, self._heads.width
        )

    def _place(self, target: dict[str, np.ndarray], name: str, array: np.ndarray) -> None:
        table, slash, kind = name.partition("/")
        if slash and table in TABLES:
            target[table][self._rows[kind], : len(array)] = array
        else:
            target[name] = array

    def _build(
        self,
        main: Mapping[str, np.ndarray],
        first: Mapping[str, np.ndarray],
        second: Mapping[str, np.ndarray],
        steps: float,
    ) -> None:
        self._variables = Variables(**{name: tf.Variable(array) for name, array in main.items()})
        self._sampler = Sampler(self._variables, self._heads, units=self.settings.hidden_units, width=self.width)
        self._updater = Updater(self._variables, self.settings)
        self._updater.steps.assign(steps)
        for moments, arrays in ((self._updater.first, first), (self._updater.second, second)):
            for name, array in arrays.items():
                getattr(moments, name).assign(array)

    def _grow(self, decisions: Iterable[Decision]) -> None:
        """Rebuilds the tables with room for these decisions, and with all that was learned."""
        known = copy.deepcopy(self._heads)
        if not known.meet(decisions):
            return
        state = self.state()
        self._heads = known
        self.restore(state)

    def _replay(self, number: int, tokens: Sequence[int]) -> Walk:
        return replay(self.space.walk(number), tuple(tokens))

    def _remember(self, results: Sequence[Result]) -> None:
        """Keeps the best children for imitation; of equal rewards the older."""
        seen = [Best(result.number, result.tokens, float(result.reward or 0.0)) for result in results]
        ranked = sorted([*self._best, *seen], key=lambda best: (-best.reward, best.number))
        self._best = ranked[: self.settings.imitate]


@dataclasses.dataclass(frozen=True)
class Best:
    """A child worth imitating."""

    number: int
    tokens: tuple[int, ...]
    reward: float
