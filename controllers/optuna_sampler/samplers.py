"""Optuna's samplers by name, with their requirements and the checks that a sampler suits a space."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import inspect
import re
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution

from automl.controllers.keyed import stream
from automl.controllers.optuna_sampler.parameters import Parameter, parameters_of
from automl.controllers.variation import uniform_walk
from automl.search_spaces.names import validate_choice
from automl.search_spaces.space import Space
from automl.search_spaces.whole_numbers import check_whole_number

NUM_WALKS = 64  # random children that show which decisions every child has
FLAGS = ("multivariate", "group", "constant_liar")
# The lowest values of options; that of the others is 0. NSGA-II crosses two of three parents.
LEAST = {"n_ei_candidates": 1, "population_size": 3}
INSTEAD = "use tpe, random or bruteforce"


@dataclasses.dataclass(frozen=True)
class SamplerKind:
    """One of Optuna's samplers.

    Attributes:
        class_name: the name of its class in `optuna.samplers`.
        packages: the packages that it needs beside Optuna.
        takes_notes: the trials at which it notes, in the trial or in the study, what it needs later (the generation of
            a genetic algorithm, the state of CMA-ES, the place in a sequence): `none`, `finished` or `all`.
        samples: the parameters that its algorithm samples; it draws the others at random. `all`; `shared`, those that
            every child has; `numbers`, those of `shared` that are numbers; or `fixed`, if all children must have the
            same parameters.
        least: the number of these parameters below which it would draw everything at random.
        does_parts: whether it can use a trial without some of the parameters that other trials have.
    """

    class_name: str
    packages: tuple[str, ...] = ()
    takes_notes: str = "none"
    samples: str = "all"
    least: int = 1
    does_parts: bool = False


KINDS: Mapping[str, SamplerKind] = {
    "tpe": SamplerKind("TPESampler", does_parts=True),
    "random": SamplerKind("RandomSampler"),
    "bruteforce": SamplerKind("BruteForceSampler"),
    # These mutate one parameter of a child on average, so a single parameter is always drawn at random.
    "nsgaii": SamplerKind("NSGAIISampler", takes_notes="finished", samples="shared", least=2),
    "nsgaiii": SamplerKind("NSGAIIISampler", takes_notes="finished", samples="shared", least=2),
    "gp": SamplerKind("GPSampler", ("torch", "scipy"), samples="shared"),
    "cmaes": SamplerKind("CmaEsSampler", ("cmaes",), takes_notes="finished", samples="numbers"),
    "qmc": SamplerKind("QMCSampler", ("scipy",), takes_notes="all", samples="fixed"),
}

REFUSED: Mapping[str, str] = {
    "grid": f"needs a list of all combinations and cannot do conditional decisions; {INSTEAD}",
    "partialfixed": "wraps another sampler; name that one, and fix decisions with --fix",
}


def kind_of(name: str, space: Space) -> SamplerKind:
    """The sampler of a name such as `tpe` or `TPESampler`.

    Raises:
        ValueError: the name is unknown, it needs a package that is not installed, or it cannot sample the space.
    """
    short = re.sub(r"[-_\s]", "", name).casefold().removesuffix("sampler")
    if short in REFUSED:
        raise ValueError(f"The Optuna sampler {name!r} {REFUSED[short]}.")
    if short not in KINDS:
        validate_choice("Optuna sampler", name, KINDS)
    kind = KINDS[short]
    missing = [package for package in kind.packages if importlib.util.find_spec(package) is None]
    if missing:
        raise ValueError(
            f"The Optuna sampler {name!r} needs {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} "
            f"not installed; run pip install {' '.join(missing)}, or {INSTEAD}."
        )
    _check_space(name, kind, space)
    return kind


def make_sampler(kind: SamplerKind, seed: int, sequence_seed: int, settings: Mapping[str, Any]) -> Any:
    """A new sampler.

    Args:
        seed: the seed of this draw.
        sequence_seed: the seed that all draws of one sequence share.
    """
    made = getattr(optuna.samplers, kind.class_name)
    if kind.samples == "fixed":
        independent = optuna.samplers.RandomSampler(seed=seed)
        return made(seed=sequence_seed, scramble=True, independent_sampler=independent, **settings)
    return made(seed=seed, **settings)


def checked_settings(name: str, kind: SamplerKind, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a sampler that are not None, and our defaults.

    Raises:
        ValueError: the sampler lacks one of these options, or a value is wrong.
    """
    chosen = {option: value for option, value in options.items() if value is not None}
    known = inspect.signature(getattr(optuna.samplers, kind.class_name)).parameters
    for option, value in chosen.items():
        validate_choice(f"option of the Optuna sampler {name!r}", option, [one for one in options if one in known])
        if option in FLAGS and type(value) is not bool:
            raise ValueError(f"controller.{option} is {value!r}; it must be true or false.")
        if option not in FLAGS:
            check_whole_number(f"controller.{option}", value, least=LEAST.get(option, 0))
    if kind.class_name == "TPESampler":
        multivariate = chosen.setdefault("multivariate", True)
        if chosen.setdefault("group", multivariate) and not multivariate:
            raise ValueError("controller.group is true and controller.multivariate is false; a group is multivariate.")
    return chosen


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hides Optuna's log and its warnings that a feature is experimental."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(level)


def _check_space(name: str, kind: SamplerKind, space: Space) -> None:
    """Raises ValueError if the sampler would draw everything at random, or would fail at a later child."""
    if kind.samples == "all":
        return
    children = [_parameters(space, number) for number in range(NUM_WALKS)]
    met = {parameter for child in children for parameter in child}
    shared = {parameter for parameter in met if all(parameter in child for child in children)}
    if kind.samples == "fixed":
        if met - shared:
            decision = min(child[one][0] for child in children for one in child if one not in shared)
            raise ValueError(
                f"The Optuna sampler {name!r} cannot do conditional decisions, and only some children have "
                f"{decision!r}; {INSTEAD}."
            )
        return
    first = children[0]
    numbers = {one for one in shared if not isinstance(first[one][1].distribution, CategoricalDistribution)}
    sampled = numbers if kind.samples == "numbers" else shared
    if len(sampled) < kind.least and met:
        what = "Integer, Real and Ordinal decisions" if kind.samples == "numbers" else "decisions"
        raise ValueError(
            f"The Optuna sampler {name!r} samples only the {what} that every child has, at least {kind.least}, and "
            f"draws the others at random; this space has {len(sampled) or 'none'} of them; {INSTEAD}."
        )


def _parameters(space: Space, number: int) -> dict[str, tuple[str, Parameter]]:
    """By name, the parameters of a random child, each with the name of its decision."""
    walk = uniform_walk(dataclasses.replace(space, schedule=None), number, stream(0, number, 0))
    return {
        one.name: (decision.name, one)
        for decision in walk.decisions
        for one in parameters_of(decision)
        if one is not None
    }
