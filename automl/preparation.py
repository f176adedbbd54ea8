"""Makes and checks the parts of a search from its settings: space, task, controller, and what a child costs."""

from __future__ import annotations

import contextlib
import dataclasses
import pkgutil
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from automl.child_trainers.determinism import checking_determinism
from automl.child_trainers.devices import (
    quiet_native_start,
    start_tensorflow,
    visible_gpus,
    without_native_lines,
)
from automl.child_trainers.experiment import Experiment, UserCallables, make_experiment
from automl.child_trainers.user_files import UserFile
from automl.controllers import CONTROLLERS, PRESETS
from automl.controllers.base import Controller
from automl.proposer import Cost, Limits
from automl.search_spaces import SPACES
from automl.search_spaces.names import validate_choice
from automl.search_spaces.recorded import check_options
from automl.search_spaces.space import Space

Progress = Callable[[int, int], None]
Stage = Callable[[str], None]  # called before each step of the preparation that may take seconds
IMPORTING, READING = "Importing TensorFlow", "Reading the data of {}"
USES_TENSORFLOW = re.compile(r"^\s*(?:import|from)\s+(?:tensorflow|keras)\b", re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Run:
    """What one start may use.

    Attributes:
        children: to be trained in all; None is without end.
        time: seconds, or None.
        workers: processes; 0 trains in this one.
    """

    children: int | None
    time: float | None
    workers: int


@contextlib.contextmanager
def checking_space(settings: Mapping[str, Any], space: Space) -> Iterator[None]:
    """Checks the space while the body of the `with` runs. Raises ValueError."""
    check_options([decision for walk in space.survey() for decision in walk.decisions])
    chosen = settings["space"]
    if chosen["name"] in SPACES:  # built-in spaces are deterministic
        yield
        return
    with checking_determinism(Space(space.function), UserFile.from_json(chosen["file"]), chosen["options"]):
        yield


def check_gpus(per_child: int) -> None:
    gpus = visible_gpus()
    if per_child > 1 and len(gpus) < per_child:
        there = f"there {'is' if len(gpus) == 1 else 'are'} {len(gpus)}" if gpus else "there is none"
        raise ValueError(f"--gpus-per-child is {per_child}, but of GPUs {there} here.")


def prepare_experiment(
    settings: Mapping[str, Any],
    user_callables: UserCallables,
    workers: int,
    progress: Progress | None,
    stage: Stage,
    *,
    download: bool = True,
) -> Experiment:
    """The space and the task. Hides what TensorFlow prints when a user's file imports it."""
    files = user_files_of(settings).values()
    for file in files:
        stage(f"Importing {file.path}")
    with without_native_lines():
        experiment = make_experiment(settings, user_callables=user_callables, progress=progress, download=download)
    if workers == 0 and any(USES_TENSORFLOW.search(file.text) for file in files):
        stage(IMPORTING)
        start_tensorflow()  # otherwise it prints when the first child uses it
    return experiment


def make_controller(
    settings: Mapping[str, Any], experiment: Experiment, seed: int, stage: Stage = lambda text: None
) -> Controller:
    if settings["controller"]["name"] != "random" and "tensorflow" not in sys.modules:
        stage(IMPORTING)
    chosen = settings["controller"]
    with quiet_native_start():
        presets = pkgutil.resolve_name(PRESETS[chosen["name"]])
        preset = presets[validate_choice("controller preset", chosen["preset"] or next(iter(presets)), presets)]
        kind = pkgutil.resolve_name(CONTROLLERS[chosen["name"]])
        for option in chosen["options"]:
            validate_choice("controller option", option, list(kind.options()))
        controller: Controller = kind(experiment.space, seed=seed, **(preset | chosen["options"]))
    return controller


def cost_function(experiment: Experiment, limits: Limits) -> Callable[[Any], Cost]:
    """Parameters and FLOPs of a spec, where they can be told.

    Raises:
        ValueError: the task cannot train what the space makes, or a limit was asked for that cannot be judged.
    """
    task = experiment.task
    spec = experiment.space.survey()[0].spec
    task.check(spec)
    if task.count(spec) is None and limits != Limits():
        raise ValueError(
            "--max-params and --max-flops need a space whose specs have a method count(input_shape, num_classes), "
            "and a task with images; drop the limit."
        )
    return lambda spec: Cost(*(task.count(spec) or (None, None)))


def user_files_of(settings: Mapping[str, Any]) -> dict[str, UserFile]:
    files = {group: UserFile.from_json(settings[group]["file"]) for group in ("space", "task")}
    return {group: file for group, file in files.items() if file is not None}
