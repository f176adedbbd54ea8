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
OF_THE_RULE = tuple(inspect.signature(update_rule).parameters)


def joint(
    *, network: str = "convnet", rates: Sequence[float] = (1e-3, 1e-2, 1e-1, 1.0), **options: Any
) -> Generator[Decision, Any, TrainedNet | TrainedCell]:
    """Yields the decisions of a network, then those of a rule (`update_rule`) and its learning rate.

    Args:
        network: the space that it is of, `convnet` or `recurrent-cell`.
        rates: learning rates; a sweep would cost a training for each.
        options: those of the two spaces.

    Raises:
        ValueError: at the first step of the part whose option is wrong.
    """
    if network not in NETWORKS:
        raise ValueError(f"network is {network!r}; it is one of {', '.join(NETWORKS)}.")
    numbers = isinstance(rates, list | tuple) and all(type(rate) in (int, float) and rate > 0 for rate in rates)
    if not (numbers and rates):
        raise ValueError(f"rates is {rates!r}; it must be a list of numbers above 0.")
    of_rule = {name: options.pop(name) for name in OF_THE_RULE if name in options}
    function, trained = NETWORKS[network]
    taken = inspect.signature(function).parameters
    if strange := [name for name in options if name not in taken]:
        raise ValueError(
            f"space.{strange[0]} is no option of {network}, whose are {', '.join(taken)}; leave it out, and choose a "
            f"preset for {network}."
        )
    made = yield from function(**options)
    rule = yield from update_rule(**of_rule)
    rate = yield Choice("learning_rate", tuple(float(rate) for rate in rates), kind="learning_rate")
    return trained(made, rule, rate)


# What `--set space.NAME=VALUE` may name.
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
