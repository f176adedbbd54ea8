"""Makes and checks the parts of a search from its settings: space, task, controller, and the cost of a child."""

from __future__ import annotations

import contextlib
import dataclasses
import pkgutil
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from automl.child_trainers.behaviour import Behaviour
from automl.child_trainers.determinism import checking_determinism
from automl.child_trainers.devices import (
    quiet_native_start,
    start_tensorflow,
    without_native_lines,
)
from automl.child_trainers.experiment import (
    NO_USER_CALLABLES,
    SESSION,
    Experiment,
    UserCallables,
    make_experiment,
    session_callable,
)
from automl.child_trainers.gpus import visible_gpus
from automl.child_trainers.user_files import UserFile
from automl.controllers import CONTROLLERS, EARLIER_DEFAULTS, NETWORKS, PRESETS
from automl.controllers.base import Controller, Cost
from automl.controllers.checked import CheckedController, ControllerError
from automl.proposer import Limits
from automl.search_spaces import SPACES
from automl.search_spaces.names import validate_choice
from automl.search_spaces.recorded import check_options
from automl.search_spaces.space import Space
from automl.wording import counted

Progress = Callable[[int, int], None]
Stage = Callable[[str], None]  # called before each step of the preparation that may take seconds
IMPORTING, READING = "Importing TensorFlow", "Reading the data of {}"
USES_TENSORFLOW = re.compile(r"^\s*(?:import|from)\s+(?:tensorflow|keras)\b", re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Run:
    """The budgets and the workers of one start or resume.

    Attributes:
        children: how many children may be trained in all; None for no limit.
        time: seconds; None for no limit.
        workers: the number of worker processes; 0 trains in this process.
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
    """Raises ValueError if this machine has too few GPUs for a child that needs several."""
    gpus = visible_gpus()
    if per_child > 1 and len(gpus) < per_child:
        present = counted(len(gpus), "GPU") if gpus else "no GPU"
        raise ValueError(f"--gpus-per-child is {per_child}, but this process sees {present}.")
    if per_child > 1 and any(gpu.is_slice for gpu in gpus):
        raise ValueError(
            f"--gpus-per-child is {per_child}, but a process can use only one slice of a GPU in MIG mode; drop it."
        )


def prepare_experiment(
    settings: Mapping[str, Any],
    user_callables: UserCallables,
    workers: int,
    progress: Progress | None,
    stage: Stage,
    *,
    download: bool = True,
) -> Experiment:
    """Makes the space and the task. Hides the output of TensorFlow when a user's file imports it."""
    files = user_files_of(settings).values()
    for file in files:
        stage(f"Importing {file.path}")
    with without_native_lines():
        experiment = make_experiment(settings, user_callables=user_callables, progress=progress, download=download)
    if workers == 0 and any(USES_TENSORFLOW.search(file.text) for file in files):
        stage(IMPORTING)
        start_tensorflow()  # otherwise the first child that uses it prints TensorFlow's output
    return experiment


def make_controller(
    settings: Mapping[str, Any],
    experiment: Experiment,
    seed: int,
    stage: Stage = lambda text: None,
    *,
    user_callables: UserCallables = NO_USER_CALLABLES,
) -> Controller:
    """Makes a new controller from a search's settings. A user's own controller is checked against the contract.

    Args:
        user_callables: may have the class of a controller that only this process has.

    Raises:
        ValueError: a preset or an option is unknown or has a bad value.
        ControllerError: the user's controller cannot be made.
        UserFileError: its file is missing, was changed, or does not have this class.
    """
    chosen = settings["controller"]
    kind = session_callable("controller", chosen["name"], user_callables)
    file = UserFile.from_json(chosen.get("file"))
    if kind is not None or file is not None:
        return _users_controller(chosen, file.load() if file is not None else kind, file, experiment, seed)
    if chosen["name"] in NETWORKS and "tensorflow" not in sys.modules:
        stage(IMPORTING)
    with quiet_native_start():
        presets = pkgutil.resolve_name(PRESETS[chosen["name"]])
        preset = presets[_preset_name(settings, presets)]
        kind = pkgutil.resolve_name(CONTROLLERS[chosen["name"]])
        for option in chosen["options"]:
            validate_choice("controller option", option, list(kind.options()))
        controller: Controller = kind(experiment.space, seed=seed, **(preset | chosen["options"]))
    return controller


def _preset_name(settings: Mapping[str, Any], presets: Mapping[str, Any]) -> str:
    """The preset of a search's controller. Raises UnknownNameError."""
    chosen = settings["controller"]
    default = next(iter(presets))
    name = validate_choice("controller preset", chosen["preset"] or default, presets)
    earlier = name == default and Behaviour.of_settings(settings).controller_default == 1
    return EARLIER_DEFAULTS.get(chosen["name"], default) if earlier else name


def _users_controller(
    chosen: Mapping[str, Any], kind: Any, file: UserFile | None, experiment: Experiment, seed: int
) -> CheckedController:
    if chosen["preset"] is not None:
        raise ValueError(f"A controller of your own has no presets; drop the preset {chosen['preset']!r}.")
    name = f"The controller {chosen['name'].removeprefix(SESSION)}"
    if not (isinstance(kind, type) and issubclass(kind, Controller)):
        raise ControllerError(
            f"{name} is not a subclass of automl.controllers.base.Controller; make it one, or name another class."
        )
    for option in chosen["options"]:
        validate_choice("controller option", option, list(kind.options()))
    return CheckedController(
        lambda: kind(experiment.space, seed=seed, **chosen["options"]),
        experiment.space,
        seed=seed,
        name=name,
        path=None if file is None else file.path,
    )


def cost_function(experiment: Experiment, limits: Limits) -> Callable[[object], Cost]:
    """A function of a spec that returns its parameters and FLOPs, if these can be counted.

    Raises:
        ValueError: the task cannot train specs of the space, or a limit is set and they cannot be counted.
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
    """The user's files of a search, by the part that uses them: `space`, `task`, `controller`."""
    files = {group: UserFile.from_json(settings[group].get("file")) for group in ("space", "task", "controller")}
    return {group: file for group, file in files.items() if file is not None}
