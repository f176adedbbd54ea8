"""A convolutional network, the update rule that trains it, and the rule's learning rate, as one child."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

from search_spaces.convnet.space import PRESETS as CONVNETS
from search_spaces.convnet.space import convnet
from search_spaces.decisions import Choice, Decision
from search_spaces.joint.spec import TrainedNet
from search_spaces.update_rule.space import update_rule

OF_THE_RULE = tuple(inspect.signature(update_rule).parameters)


def joint(*, rates: Sequence[float] = (1e-3, 1e-2, 1e-1, 1.0), **options: Any) -> Generator[Decision, Any, TrainedNet]:
    """Yields the decisions of a network (`convnet`), then those of a rule (`update_rule`) and its learning rate.

    Args:
        rates: learning rates; a sweep would cost a training for each.
        options: those of the two spaces.

    Raises:
        ValueError: at the first step of the part whose option is wrong.
    """
    numbers = isinstance(rates, list | tuple) and all(type(rate) in (int, float) and rate > 0 for rate in rates)
    if not (numbers and rates):
        raise ValueError(f"rates is {rates!r}; it must be a list of numbers above 0.")
    of_rule = {name: options.pop(name) for name in OF_THE_RULE if name in options}
    net = yield from convnet(**options)
    rule = yield from update_rule(**of_rule)
    rate = yield Choice("learning_rate", tuple(float(rate) for rate in rates), kind="learning_rate")
    return TrainedNet(net, rule, rate)


# What `--set space.NAME=VALUE` may name.
_FUNCTIONS = (convnet, update_rule, joint)
_NAMED = [parameter for function in _FUNCTIONS for parameter in inspect.signature(function).parameters.values()]
joint.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
    [parameter for parameter in _NAMED if parameter.kind is parameter.KEYWORD_ONLY]
)

PRESETS: dict[str, dict[str, Any]] = {"small": CONVNETS["small"] | {"groups": (1, 2)}, "paper": {"groups": (2,)}}

SCHEDULES: Mapping[str, Callable[[int], Mapping[str, Any]]] = {}
