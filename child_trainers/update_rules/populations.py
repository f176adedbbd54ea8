"""Chooses how a population of update rules trains on this machine, and with how many places."""

from __future__ import annotations

import math

from automl.child_trainers.devices import gpu_memory, trains_on_gpu
from automl.child_trainers.update_rules.flat_networks import FlatNetwork
from automl.child_trainers.update_rules.grouped_networks import GroupedNetwork
from automl.child_trainers.update_rules.in_turn import InTurn
from automl.child_trainers.update_rules.population import Population
from automl.child_trainers.update_rules.side_by_side import SideBySide
from automl.search_spaces.update_rule.semantics import AVERAGES

MOST_PLACES = 128  # more make a member's step hardly cheaper
MEMORY_SHARE = 0.5  # of a GPU, for the members; the rest is for the workspaces of operations and for other processes


def make_population(network: GroupedNetwork, least: int, *, xla: bool) -> Population:
    """A population for this machine: side by side on a GPU, in turn on a processor.

    Args:
        least: places that the children of one claim need.
        xla: whether XLA compiles the steps on a GPU.
    """
    if not trains_on_gpu():
        return InTurn(network.single, least)
    return SideBySide(network, num_places(network, least, gpu_memory()), xla=xla)


def num_places(network: GroupedNetwork, least: int, memory: int | None) -> int:
    """How many members a GPU trains side by side.

    Args:
        least: the children of one claim need so many places.
        memory: of the GPU in bytes; None if it is not known.
    """
    if memory is None:
        return least
    fitting = int(MEMORY_SHARE * memory) // member_bytes(network)
    return max(1, min(MOST_PLACES, fitting))


def member_bytes(network: GroupedNetwork) -> int:
    """The memory that a member needs in a step: its weights, averages and their updates, and the values that its
    gradient needs."""
    single: FlatNetwork = network.single
    size = sum(math.prod(shape) for shape in single.shapes.values())
    vectors = 2 * (1 + len(AVERAGES)) + 40  # of its size, before and after the step, and for the words of the language
    return 4 * (vectors * size + network.step_values)
