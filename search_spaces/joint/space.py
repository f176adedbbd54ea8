"""A network, the update rule that trains it, and the rule's learning rate, as one child."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

from automl.search_spaces.convnet.space import PRESETS as CONVNETS
from automl.search_spaces.convnet.space import convnet
from automl.search_spaces.decisions import Choice, Decision
from automl.search_spaces.joint.spec import TrainedCell, TrainedNet
from automl.search_spaces.recurrent_cell.space import recurrent_cell
from automl.search_spaces.update_rule.space import update_rule

NETWORKS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "convnet": (convnet, TrainedNet),
    "recurrent-cell": (recurrent_cell, TrainedCell),
}
RULE_OPTIONS = tuple(inspect.signature(update_rule).parameters)


def joint(
    *, network: str = "convnet", rates: Sequence[float] = (1e-3, 1e-2, 1e-1, 1.0), **options: Any
) -> Generator[Decision, Any, TrainedNet | TrainedCell]:
    """Yields the decisions of a network, then those of a rule (`update_rule`) and its learning rate.

    Args:
        network: the space of the network, `convnet` or `recurrent-cell`.
        rates: the learning rates to choose from. They are a decision because a sweep would cost one training for each.
        options: options of the network's space and of `update_rule`.

    Raises:
        ValueError: an option is invalid. The first step of the part that it belongs to raises it.
    """
    if network not in NETWORKS:
        raise ValueError(f"network is {network!r}; it is one of {', '.join(NETWORKS)}.")
    numbers = isinstance(rates, list | tuple) and all(type(rate) in (int, float) and rate > 0 for rate in rates)
    if not (numbers and rates):
        raise ValueError(f"rates is {rates!r}; it must be a list of numbers above 0.")
    rule_options = {name: options.pop(name) for name in RULE_OPTIONS if name in options}
    function, spec_type = NETWORKS[network]
    known = inspect.signature(function).parameters
    if unknown := [name for name in options if name not in known]:
        raise ValueError(
            f"space.{unknown[0]} is not an option of {network}, which has {', '.join(known)}; leave it out, and choose "
            f"a preset for {network}."
        )
    net = yield from function(**options)
    rule = yield from update_rule(**rule_options)
    rate = yield Choice("learning_rate", tuple(float(rate) for rate in rates), kind="learning_rate")
    return spec_type(net, rule, rate)


# The names that `--set space.NAME=VALUE` accepts.
_FUNCTIONS = (convnet, recurrent_cell, update_rule, joint)
_NAMED = [parameter for function in _FUNCTIONS for parameter in inspect.signature(function).parameters.values()]
joint.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
    [parameter for parameter in _NAMED if parameter.kind is parameter.KEYWORD_ONLY]
)

PRESETS: dict[str, dict[str, Any]] = {
    "small": CONVNETS["small"] | {"groups": (1, 2)},
    "paper": {"groups": (2,)},
    "cells": {"network": "recurrent-cell", "groups": (1, 2)},
}

SCHEDULES: Mapping[str, Callable[[int], Mapping[str, Any]]] = {}
