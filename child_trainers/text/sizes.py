"""How large a language model of a cell is, without building it: weights, parameters, FLOPs, units within a budget."""

from __future__ import annotations

import math

from automl.child_trainers.recipes import LanguageRecipe
from automl.search_spaces.spec import Cell


def weight_shapes(cell: Cell, num_types: int, units: int, recipe: LanguageRecipe) -> dict[str, tuple[int, ...]]:
    """The shape of every weight, by name."""
    width = cell.num_products * units
    shapes: dict[str, tuple[int, ...]] = {"embedding": (num_types, units)}
    for index in range(recipe.layers):
        shapes |= {f"layer{index}/kernel": (units, width), f"layer{index}/recurrent_kernel": (units, width)}
        if cell.biased:
            shapes[f"layer{index}/bias"] = (width,)
    if not recipe.shared_embeddings:
        shapes["softmax/kernel"] = (num_types, units)
    return shapes | {"softmax/bias": (num_types,)}


def num_parameters(cell: Cell, num_types: int, units: int, recipe: LanguageRecipe) -> int:
    return sum(math.prod(shape) for shape in weight_shapes(cell, num_types, units, recipe).values())


def num_flops(cell: Cell, num_types: int, units: int, recipe: LanguageRecipe) -> int:
    """FLOPs of the matrix products for one token in the forward pass. A multiplication and an addition count as two."""
    return 2 * units * (recipe.layers * 2 * cell.num_products * units + num_types)


def units_within(cell: Cell, num_types: int, recipe: LanguageRecipe) -> int:
    """The number of units that the recipe sets, or the largest number with which a model has at most the recipe's
    number of parameters.

    Raises:
        ValueError: a model of one unit has more parameters than that.
    """
    if recipe.units is not None:
        return recipe.units
    assert recipe.parameters is not None
    if num_parameters(cell, num_types, 1, recipe) > recipe.parameters:
        raise ValueError(
            f"A model of {recipe.parameters:,} parameters cannot have {num_types:,} types; raise task.parameters or "
            "lower task.vocabulary_size."
        )
    low, high = 1, 2
    while num_parameters(cell, num_types, high, recipe) <= recipe.parameters:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if num_parameters(cell, num_types, middle, recipe) <= recipe.parameters:
            low = middle
        else:
            high = middle
    return low
