"""Settings and presets of the controllers with a recurrent policy, REINFORCE and PPO."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

COUNTS_AND_WEIGHTS = (  # settings that may be 0
    "entropy",
    "imitate",
    "imitation",
    "candidates",
    "uniform",
    "mutations",
    "parents",
    "rounds",
    "exploration",
    "model_updates",
    "model_elite",
)


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings of REINFORCE (`--set controller.NAME=VALUE`).

    Attributes:
        hidden_units: units of each of the two LSTM layers.
        initial_range: initial weights are uniform in [-initial_range, initial_range].
        learning_rate: Adam's learning rate.
        baseline_decay: decay of the exponential moving average of the batches' mean rewards.
        advantage: `reward` (reward minus baseline) or `rank` (rank among the latest rewards, scaled to [-1, 1]).
        rank_window: number of latest rewards that a rank is computed from.
        entropy: weight of the mean entropy per free token (nats) in the loss.
        imitate: number of best children so far that each update imitates; 0 turns imitation off.
        imitation: weight of the mean negative log-probability of the imitated children in the loss.
        accumulate: number of batches whose gradients one update adds up.
        heads: `kind` (decisions of one kind share an embedding and a softmax) or `decision` (each name has its own).
        candidates: number of children that the policy draws, and among which a reward model chooses; 0 turns the model
            off, and with it all that follows.
        uniform: number of candidates that are drawn uniformly.
        mutations: number of candidates that are mutations of the best children.
        parents: number of best children that are mutated.
        rounds: number of rounds of the local search from the most promising candidates.
        exploration: weight of a candidate's standard deviation beside its expected score.
        initial: number of children that must have rewards before the model is used.
        model_updates: number of updates from the model's scores between two batches.
        model_samples: number of children that the policy draws for such an update.
        model_elite: number of candidates with the highest scores that such an update imitates.
    """

    hidden_units: int = 35
    initial_range: float = 0.08
    learning_rate: float = 0.03
    baseline_decay: float = 0.9
    advantage: str = "rank"
    rank_window: int = 1000
    entropy: float = 0.0
    imitate: int = 8
    imitation: float = 0.5
    accumulate: int = 1
    heads: str = "kind"
    candidates: int = 0
    uniform: int = 50
    mutations: int = 100
    parents: int = 10
    rounds: int = 3
    exploration: float = 1.0
    initial: int = 8
    model_updates: int = 2
    model_samples: int = 16
    model_elite: int = 8

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            kinds = {"int": (int,), "float": (int, float), "str": (str,)}[str(field.type)]
            if type(value) not in kinds:  # not isinstance: True is an int, and JSON has booleans
                words = {"int": "a whole number", "float": "a number", "str": "a text"}[str(field.type)]
                raise ValueError(f"controller.{field.name} is {value!r}; it must be {words}.")
        if self.advantage not in ("reward", "rank"):
            raise ValueError(f"controller.advantage is {self.advantage!r}; it is 'reward' or 'rank'.")
        if not 0 <= self.baseline_decay < 1:
            raise ValueError(f"controller.baseline_decay is {self.baseline_decay}; it must be in [0, 1).")
        for name in ("hidden_units", "initial_range", "learning_rate", "rank_window", "accumulate"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"controller.{name} is {getattr(self, name)}; it must be above 0 and finite.")
        if self.heads not in ("kind", "decision"):
            raise ValueError(f"controller.heads is {self.heads!r}; it is 'kind' or 'decision'.")
        for name in ("initial", "model_samples"):
            if getattr(self, name) < 1:
                raise ValueError(f"controller.{name} is {getattr(self, name)}; it must be 1 or more.")
        for name in COUNTS_AND_WEIGHTS:
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"controller.{name} is {getattr(self, name)}; it must be 0 or more and finite.")


REWARD_MODEL: dict[str, Any] = {"heads": "decision", "candidates": 64}

PRESETS: dict[str, dict[str, Any]] = {
    "default": REWARD_MODEL,
    "plain": {},  # the policy alone, the default of automl 0.1.0
    # Zoph & Le 2017, section 4.1. They do not state the decay of the baseline; 0.95 is the value of NASNet (2018).
    "paper": {
        "learning_rate": 0.0006,
        "baseline_decay": 0.95,
        "advantage": "reward",
        "entropy": 0.0,
        "imitate": 0,
        "imitation": 0.0,
    },
    # The same paper, section 4.2: its search for recurrent cells.
    "paper-cells": {
        "learning_rate": 0.0005,
        "baseline_decay": 0.95,
        "advantage": "reward",
        "entropy": 0.0,
        "imitate": 0,
        "imitation": 0.0,
        "accumulate": 10,
    },
}

SCALES: dict[str, dict[str, int]] = {  # the paper's number of batches in flight (K) and children per batch (m)
    "paper": {"replicas": 100, "batch_size": 8},
    "paper-cells": {"replicas": 400, "batch_size": 1},
}

# The presets of `ppo.Ppo`. They are here because importing `ppo` imports TensorFlow.
PPO_PRESETS: dict[str, dict[str, Any]] = {
    "default": {"learning_rate": 0.01, **REWARD_MODEL},
    "plain": {"learning_rate": 0.01},
    # Bello et al. 2017 (arXiv:1709.07417), section 3.3, whose policy has a single layer of 150 units.
    "paper": {
        "hidden_units": 150,
        "learning_rate": 0.00001,
        "baseline_decay": 0.95,
        "advantage": "reward",
        "entropy": 0.0015,
        "imitate": 0,
        "imitation": 0.0,
    },
}

PPO_SCALES: dict[str, dict[str, int]] = {"paper": {"batch_size": 5}}
