"""The outcome of a training: reads the reward from what a task returned, and the fault from what it raised."""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Mapping
from typing import Any

import numpy as np

from automl.child_trainers.gpu_faults import is_gpu_full, lost_gpu
from automl.db.records import Fault
from automl.search_spaces.plain import scalar


class DivergedError(Exception):
    """A value of the training is not finite."""


class InvalidResultError(Exception):
    """A task returned or reported something that is not a reward or a metric."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The result of training a child.

    Attributes:
        reward: the number that the controller learns from; higher is better.
        metrics: JSON values, stored with the child.
        weights: the model's weights by name, after the epoch `epoch`.
        epoch: the epoch that gave the reward.
        seconds: seconds by phase of the training.
        ending: why a child with a reward was not trained to its end, or None.
        screened: whether the screening test rejected it.
    """

    reward: float
    metrics: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    weights: Mapping[str, np.ndarray] | None = None
    epoch: int = 0
    seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)
    ending: str | None = None
    screened: bool = False


@dataclasses.dataclass(frozen=True)
class Goal:
    """The metric that gives the reward: with `--minimize M` the reward is -M, with `--maximize M` it is M."""

    metric: str
    minimize: bool

    def __str__(self) -> str:
        return f"--{'minimize' if self.minimize else 'maximize'} {self.metric}"

    @property
    def words(self) -> str:
        """A description of the reward."""
        return f"minus {self.metric}" if self.minimize else self.metric


def read_outcome(returned: Any, goal: Goal | None = None) -> Outcome:
    """The outcome that a task returned: an `Outcome`, a number, or a dict of metrics.

    Raises:
        InvalidResultError: there is no reward in it, or a metric is not a plain value; the message shows the value.
        DivergedError: the reward or a metric is not finite.
    """
    if isinstance(returned, Outcome):
        outcome = returned
        if goal is not None:
            outcome = dataclasses.replace(outcome, reward=_goal_reward(outcome.metrics, goal))
    elif isinstance(returned, Mapping):
        metrics = {str(name): value for name, value in returned.items()}
        reward = metrics.get("reward") if goal is None else _goal_reward(metrics, goal)
        if goal is None and "reward" not in metrics:
            raise InvalidResultError(
                f"The task returned a dict with {', '.join(sorted(metrics)) or 'nothing'}, and no 'reward'; add it, or "
                "name the metric with --minimize or --maximize."
            )
        outcome = Outcome(
            _number("reward", reward), {name: value for name, value in metrics.items() if name != "reward"}
        )
    elif goal is not None:
        raise InvalidResultError(
            f"The task returned {_shown(returned)}; with {goal} it must return a dict with {goal.metric!r}."
        )
    else:
        outcome = Outcome(_number("reward", returned))
    metrics = {name: _plain(name, value) for name, value in outcome.metrics.items()}
    return dataclasses.replace(outcome, reward=_finite("reward", _number("reward", outcome.reward)), metrics=metrics)


def reported(epoch: int, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics of an epoch as JSON values.

    Raises:
        InvalidResultError: a metric is not a plain JSON value.
        DivergedError: a metric is not finite.
    """
    return {name: _plain(f"{name} of epoch {epoch}", value, "reported") for name, value in metrics.items()}


def fault_of(error: BaseException) -> Fault:
    """The kind of fault for an exception that `evaluate` raised. `NODE_LOST` if its GPU cannot be used any more."""
    names = {kind.__name__ for kind in type(error).__mro__}
    text = str(error)
    if isinstance(error, DivergedError | FloatingPointError):
        return Fault.DIVERGED
    if isinstance(error, InvalidResultError):
        return Fault.INVALID
    if lost_gpu(text) is not None:
        return Fault.NODE_LOST
    if is_gpu_full(text):
        return Fault.GPU_OOM
    if isinstance(error, MemoryError) or "ResourceExhaustedError" in names:
        return Fault.OOM
    return Fault.RAISED


def _goal_reward(metrics: Mapping[str, Any], goal: Goal) -> float:
    if goal.metric not in metrics:
        raise InvalidResultError(
            f"The task returned {', '.join(sorted(metrics)) or 'no metrics'}; {goal} needs {goal.metric!r} among them."
        )
    value = _number(goal.metric, metrics[goal.metric])
    return -value if goal.minimize else value


def _number(name: str, value: Any) -> float:
    plain = scalar(value)
    if isinstance(plain, bool) or not isinstance(plain, numbers.Real):
        raise InvalidResultError(f"The task returned {_shown(value)} where one number ({name}) was expected.")
    return _float(name, plain)


def _float(name: str, value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        raise DivergedError(f"{name} is too large for a floating-point number.") from None


def _finite(name: str, value: float) -> float:
    if not math.isfinite(value):
        raise DivergedError(f"{name} is {value}.")
    return value


def _plain(name: str, value: Any, verb: str = "returned") -> Any:
    """A metric as a JSON value: scalars of other libraries become plain finite numbers."""
    plain = scalar(value)
    if isinstance(plain, bool | str) or plain is None:
        return plain
    if isinstance(plain, numbers.Integral):
        return int(plain)
    if isinstance(plain, numbers.Real):
        return _finite(name, _float(name, plain))
    if isinstance(plain, list | tuple):
        return [_plain(name, item, verb) for item in plain]
    if isinstance(plain, Mapping) and verb == "reported":  # stored, but not shown in a view
        return {str(key): _plain(name, item, verb) for key, item in plain.items()}
    raise InvalidResultError(f"The task {verb} {_shown(value)} as the metric {name!r}; metrics are plain numbers.")


def _shown(value: Any) -> str:
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"
