"""Refuses options without effect, and the lack of an option that a user's own task needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from automl.child_trainers.experiment import Experiment
from automl.child_trainers.function_task import FunctionTask
from automl.child_trainers.registry import DATA_DIR_TASKS
from automl.child_trainers.task import Task
from automl.search_spaces.spec import Cell, Trainable
from automl.settings.schema import SearchConfig
from automl.surroundings import check_runs_code


def check_config(config: SearchConfig, settings: Mapping[str, Any], experiment: Experiment) -> None:
    """Raises ValueError if an option of a new search has no effect."""
    task = experiment.task
    spec = experiment.space.survey()[0].spec
    check_task_options(settings["task"]["options"], settings, task, spec)
    check_epochs_given(task, settings)
    check_data_dir(config.data_dir, settings)
    if config.workdir is not None:
        check_runs_code(settings)
    wanted = {
        "--precision": config.precision not in (None, "float32"),
        "--xla": config.xla is True,
        "--gpus-per-child": config.gpus_per_child > 1,
    }
    flag = next((flag for flag, given in wanted.items() if given), None)
    if flag is None:
        return
    if task.ignores_compute is not None:
        raise ValueError(f"{flag} has no effect on {task.ignores_compute}; drop it.")
    if not isinstance(spec, Trainable | Cell):
        raise ValueError(
            f"{flag} has no effect on {type(spec).__name__}, which has no method network(…): Keras models are trained "
            "in float32 on one device; drop it."
        )


def check_task_options(names: Iterable[str], settings: Mapping[str, Any], task: Task, spec: object) -> None:
    """Raises ValueError if one of these options of the task has no effect on children with a spec like this one.

    Args:
        names: the given options.
    """
    unused = task.unused_options(spec)
    for name in names:
        if isinstance(task, FunctionTask) and name == "epochs":
            _check_epochs(settings, task)
        if name in unused:
            raise ValueError(f"task.{name} has no effect {unused[name]}.")


def check_epochs_given(task: Task, settings: Mapping[str, Any]) -> None:
    """Raises ValueError if a user's own task needs `epochs` and no number is given."""
    if isinstance(task, FunctionTask) and task.needs_epochs and settings["task"]["options"].get("epochs") is None:
        raise ValueError(
            f"The task {settings['task']['name']} needs 'epochs'; set it with --set task.epochs=N, or give "
            "the parameter a default."
        )


def check_data_dir(given: str | None, settings: Mapping[str, Any]) -> None:
    """Raises ValueError if --data-dir is given for a task that does not use it."""
    task = settings["task"]["name"]
    if given is not None and task not in DATA_DIR_TASKS:
        raise ValueError(
            f"--data-dir has no effect on the task {task}; it is the folder of {' or '.join(DATA_DIR_TASKS)}. Drop it."
        )


def _check_epochs(settings: Mapping[str, Any], task: FunctionTask) -> None:
    epochs = settings["task"]["options"].get("epochs")
    if type(epochs) is not int or epochs < 1:
        raise ValueError(f"task.epochs is {epochs!r}; it must be a whole number above 0.")
    if not task.takes_epochs and settings["early_stop"] == "none":
        raise ValueError(
            f"task.epochs has no effect on {settings['task']['name']}, which has no parameter 'epochs'; add the "
            "parameter, or drop the option. (With --early-stop, it is the number of epochs that the task reports.)"
        )
