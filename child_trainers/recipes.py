"""How children are trained: named sets of constants, all of which a person can change (`--set task.NAME=VALUE`)."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

SCHEDULES = ("steps", "cosine")
PRUNERS = ("none", "median", "hyperband", "asha")  # of children that look hopeless


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Constants of a training run.

    Attributes:
        epochs: passes over the training images.
        batch_size: images a step; what is left over at the end of an epoch is dropped.
        learning_rate: at the first step.
        momentum: of Nesterov's method.
        weight_decay: L2, added to the gradient of every weight that is no bias and no normalization parameter.
        schedule: `steps` divides the rate by 10 at half and at three quarters of the steps; `cosine` lowers it to 0.
        augment: pad by 4 pixels, crop at random, flip left-right at random.
        num_train: images to train on, None for all.
        num_validation: images that the reward is read from, None for all.
        last_epochs: the reward is the cube of the best validation accuracy among so many last epochs.
    """

    epochs: int = 50
    batch_size: int = 64
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4
    schedule: str = "steps"
    augment: bool = True
    num_train: int | None = None
    num_validation: int | None = None
    last_epochs: int = 5

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "last_epochs"):
            if not _is_count(getattr(self, name)):
                raise ValueError(f"task.{name} is {getattr(self, name)!r}; it must be a whole number above 0.")
        for name in ("num_train", "num_validation"):
            value = getattr(self, name)
            if value is not None and not _is_count(value):
                raise ValueError(f"task.{name} is {value!r}; it must be a whole number above 0, or null for all.")
        if not (_is_number(self.learning_rate) and self.learning_rate > 0):
            raise ValueError(f"task.learning_rate is {self.learning_rate!r}; it must be a number above 0.")
        if not (_is_number(self.momentum) and 0 <= self.momentum < 1):
            raise ValueError(f"task.momentum is {self.momentum!r}; it must be a number in [0, 1).")
        if not (_is_number(self.weight_decay) and self.weight_decay >= 0):
            raise ValueError(f"task.weight_decay is {self.weight_decay!r}; it must be a number, 0 or more.")
        if not isinstance(self.augment, bool):
            raise ValueError(f"task.augment is {self.augment!r}; it must be true or false.")
        if self.schedule not in SCHEDULES:
            raise ValueError(f"task.schedule is {self.schedule!r}; it is one of {', '.join(SCHEDULES)}.")


def _is_count(value: Any) -> bool:
    return type(value) is int and value > 0  # True is an int too, and a JSON value can be one


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


# Zoph & Le 2017, section 4.1, with the batch and the learning-rate steps of DenseNet (Huang et al. 2017), whose recipe
# that section names.
PAPER: dict[str, Any] = {}

# For processors: enough to rank small networks, not to train them out.
QUICK: dict[str, Any] = {
    "epochs": 5,
    "batch_size": 64,
    "learning_rate": 0.1,
    "schedule": "cosine",
    "num_train": 4096,
    "num_validation": 2048,
}

# Most of the digits' 1,297 training images, for a child of seconds; not turned or shifted, since a 6 is no 9.
DIGITS: dict[str, Any] = {
    "num_train": 1024,
    "epochs": 2,
    "batch_size": 32,
    "learning_rate": 0.05,
    "schedule": "cosine",
    "augment": False,
}

# A person's own images: no flips, since we cannot know whether they may be flipped.
OWN: dict[str, Any] = {"epochs": 10, "batch_size": 64, "learning_rate": 0.05, "schedule": "cosine", "augment": False}

# For one network that is to be as good as it can be.
FULL: dict[str, Any] = {"epochs": 30}

RECIPES: dict[str, dict[str, dict[str, Any]]] = {  # of each task: the first is the default, the last the fullest
    "digits": {"default": DIGITS, "full": DIGITS | FULL | {"num_train": None}},
    "cifar10": {"quick": QUICK, "paper": PAPER},
    "npz": {"default": OWN, "full": OWN | FULL},
}

EARLY_STOP: dict[str, str] = {"quick": "median"}  # the pruner of each recipe that has one
