"""What a person asks of a search, from flags, a TOML file or Python, and the settings that are stored for it."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from automl.child_trainers.behaviour import Behaviour
from automl.child_trainers.devices import PRECISIONS, default_precision, visible_gpus
from automl.child_trainers.experiment import SESSION
from automl.child_trainers.recipes import PRUNERS
from automl.child_trainers.registry import OF_FILES, TASKS, default_task, early_stop_of, kind_of, preset_of, recipes_of
from automl.child_trainers.user_files import UserFile, meant_file
from automl.controllers import CONTROLLERS
from automl.db.records import is_search_name
from automl.search_spaces import SPACES
from automl.search_spaces.names import validate_choice
from automl.settings.stored_form import check_settings
from automl.surroundings import check_workdir, current_folder

GROUPS = ("space", "task", "controller")
DEFAULT_CHILDREN = 100
NUMBER = r"\d+(?:_\d+)*(?:\.\d+)?"
MULTIPLES = {"k": 10**3, "m": 10**6, "g": 10**9}
KINDS: dict[str, tuple[tuple[type, ...], str]] = {  # of settings: the types that fit, and the words for them
    "str": ((str,), "a text"),
    "int": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "bool": ((bool,), "true or false"),
    "tuple[str, ...]": ((tuple,), "a list of texts"),
}
LONGEST = 100 * 365 * 86400  # seconds; system timers have a limit near this
LARGEST = {  # values of settings: limits of database columns and of the machine
    **dict.fromkeys(("stall", "child_timeout", "time"), LONGEST),
    **dict.fromkeys(("seed", "max_params", "max_flops", "worker_memory", "recycle_growth"), 2**63 - 1),
    **dict.fromkeys(("children", "keep", "recycle_after"), 2**31 - 1),
    **dict.fromkeys(("replicas", "batch_size"), 100_000),
    **dict.fromkeys(("threads", "workers", "gpus_per_child", "workers_per_gpu"), 1024),
}
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


ADDED_LATER: dict[str, Any] = {
    "behaviour": dataclasses.asdict(Behaviour.of_settings({})),
    "compute": {"precision": "float32", "xla": False, "devices": 1},
    "workers_per_gpu": 1,
    "early_stop": "none",
    "worker_memory": None,
    "recycling": {"after": 1000, "growth": 2 * 10**9},
    "workdir": None,
}


@dataclasses.dataclass(frozen=True)
class Asked:
    """All that can be asked of a new search. None means the default, which may depend on the rest.

    Attributes:
        space: a name, or `FILE.py:FUNCTION`.
        preset: of the space.
        task: a name, `npz:PATH`, `text:PATH`, or `FILE.py:FUNCTION`; by default the space's own.
        recipe: of the task.
        controller: a name.
        controller_preset: of the controller.
        set: single options, `GROUP.NAME=VALUE` with the groups space, task and controller.
        fix, only: rules that narrow the space, `NAME=VALUE` and `NAME=VALUE,VALUE`; names may be globs.
        schedule: of the space, for example `depth`.
        max_params, max_flops: what a child may cost.
        minimize, maximize: the metric that counts.
        seed: of everything that is drawn.
        replicas: batches in flight (K); by default 2 with workers, 1 without, or what the controller's preset says.
        batch_size: children a controller step proposes and an update consumes (m); by default 8, or as the preset says.
        threads: of each worker.
        children: how many are trained in all.
        time: seconds for this start.
        workers: processes that train; 0 trains in this process.
        keep: for so many of the best children weights are kept.
        stall: seconds without a step after which a worker is ended.
        child_timeout: seconds that a child may take.
        worker_memory: bytes that a worker and what it starts may hold; by default its share of this machine's.
        recycle_after: children after which a worker makes room for a fresh one.
        recycle_growth: bytes that a worker may have grown by when it does so earlier.
        keep_going: do not pause when child after child fails.
        data_dir: where data sets lie.
        policy_device: `cpu` or `gpu`.
        early_stop: the pruner that stops hopeless children: `none`, `median`, `hyperband`, `asha`; by default the
            recipe's.
        precision: of training: `float32`, `bfloat16`, `float16`; by default the fastest that this machine has.
        xla: compile training steps with XLA.
        gpus_per_child: GPUs that train one child together.
        workers_per_gpu: workers that share one GPU, each with its part of the memory.
        workdir: the folder in which the user's own code runs; by default the current one.
    """

    space: str = "convnet"
    preset: str | None = None
    task: str | None = None
    recipe: str | None = None
    controller: str = "reinforce"
    controller_preset: str | None = None
    set: tuple[str, ...] = ()
    fix: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    schedule: str | None = None
    max_params: int | None = None
    max_flops: int | None = None
    minimize: str | None = None
    maximize: str | None = None
    seed: int = 0
    replicas: int | None = None
    batch_size: int | None = None
    threads: int = 1
    children: int | None = None
    time: float | None = None
    workers: int | None = None
    keep: int = 10
    stall: float = 1800.0
    child_timeout: float | None = None
    worker_memory: int | None = None
    recycle_after: int = 1000
    recycle_growth: int = 2 * 10**9
    keep_going: bool = False
    data_dir: str | None = None
    policy_device: str = "cpu"
    early_stop: str | None = None
    precision: str | None = None
    xla: bool = False
    gpus_per_child: int = 1
    workers_per_gpu: int = 1
    workdir: str | None = None

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            _check_kind(field, getattr(self, field.name))
        for name in (
            "replicas",
            "batch_size",
            "threads",
            "max_params",
            "max_flops",
            "stall",
            "child_timeout",
            "time",
            "worker_memory",
            "recycle_after",
            "recycle_growth",
            "gpus_per_child",
            "workers_per_gpu",
        ):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{_flag(name)} is {value}; it must be above 0.")
        for name in ("children", "workers", "keep", "seed"):
            value = getattr(self, name)
            if value is not None and value < (1 if name == "children" else 0):
                raise ValueError(f"{_flag(name)} is {value}; it must be {1 if name == 'children' else 0} or more.")
        for name, largest in LARGEST.items():
            value = getattr(self, name)
            if value is not None and not value <= largest:  # nor is NaN
                raise ValueError(f"{_flag(name)} is {value}; it must be at most {largest}.")
        goal_of(self.minimize, self.maximize)
        if self.gpus_per_child > 1 and self.workers_per_gpu > 1:
            raise ValueError(
                "--gpus-per-child and --workers-per-gpu exclude each other; a child has GPUs or shares one."
            )
        if self.gpus_per_child > 1 and self.xla:
            raise ValueError("--gpus-per-child and --xla exclude each other; XLA compiles for one device.")
        if self.policy_device not in ("cpu", "gpu"):
            raise ValueError(f"--policy-device is {self.policy_device!r}; it is cpu or gpu.")
        if self.early_stop is not None:
            validate_choice("pruner", self.early_stop, list(PRUNERS))
        if self.precision is not None:
            validate_choice("precision", self.precision, list(PRECISIONS))

    @property
    def chosen_task(self) -> str:
        """The task asked for, or the one that goes with the space."""
        return self.task if self.task is not None else default_task(self.space, self.preset)

    @property
    def budget(self) -> int | None:
        """Children to train: 100 where neither a number nor a time was given."""
        return DEFAULT_CHILDREN if self.children is None and self.time is None else self.children


def from_toml(path: Path) -> dict[str, Any]:
    """The settings in a TOML file: keys are the flags' names, `[set]` holds tables by group.

    Raises:
        ValueError: the file cannot be read, or has a key that is no setting.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}; name another file with --config.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not TOML: {error}.") from None
    names = [field.name for field in dataclasses.fields(Asked)]
    values: dict[str, Any] = {}
    for key, value in content.items():
        name = validate_choice("setting", key.replace("-", "_"), names)
        if isinstance(value, dict) and name != "set":
            options = f"; options of the {name} stand in [set.{name}]" if name in GROUPS else ""
            raise ValueError(f"{path}: {key!r} is a table, where one value is expected{options}.")
        if name == "set":
            value = _options_of_tables(path, value)
        elif name == "time" or name.endswith("timeout") or name == "stall":
            value = parse_seconds(str(value))
        elif name.startswith("max_") or name in ("worker_memory", "recycle_growth"):
            value = parse_count(str(value))
        values[name] = tuple(value) if isinstance(value, list) else value
    return values


def stored_settings(asked: Asked) -> dict[str, Any]:
    """The settings that make an experiment, as they are stored with the search.

    Raises:
        ValueError: a name or an option's form is wrong; the known ones are named.
    """
    options = _parse_options(asked.set)
    return {
        "space": {
            "name": _name("space", asked.space, SPACES),
            "preset": asked.preset or preset_of(asked.space, asked.chosen_task),
            "options": options["space"],
            "file": _file(asked.space),
        },
        "narrowing": {"fix": list(asked.fix), "only": list(asked.only)},
        "schedule": asked.schedule,
        "limits": {"params": asked.max_params, "flops": asked.max_flops},
        "task": {
            "name": _task_name(asked.chosen_task),
            "recipe": asked.recipe,
            "options": options["task"],
            "goal": goal_of(asked.minimize, asked.maximize),
            "file": _file(asked.chosen_task),
            "data_dir": _data_dir(asked.data_dir),
        },
        "controller": {
            "name": validate_choice("controller", asked.controller, CONTROLLERS),
            "preset": asked.controller_preset,
            "options": options["controller"],
        },
        "keep": asked.keep,
        "stall": asked.stall,
        "child_timeout": asked.child_timeout,
        "worker_memory": asked.worker_memory,
        "recycling": {"after": asked.recycle_after, "growth": asked.recycle_growth},
        "keep_going": asked.keep_going,
        "early_stop": asked.early_stop or _default_early_stop(asked),
        "policy_device": asked.policy_device,
        "behaviour": dataclasses.asdict(Behaviour()),
        # Settled here and now: a child must be trained the same way wherever the search is resumed.
        "compute": {
            "precision": asked.precision or default_precision(visible_gpus()),
            "xla": asked.xla,
            "devices": asked.gpus_per_child,
        },
        "workers_per_gpu": asked.workers_per_gpu,
        "workdir": current_folder() if asked.workdir is None else check_workdir(asked.workdir),
    }


def goal_of(minimize: str | None, maximize: str | None) -> dict[str, Any] | None:
    """The named metric as it is stored, or None. Raises ValueError if both are given."""
    if minimize and maximize:
        raise ValueError("--minimize and --maximize exclude each other; name the one metric that counts.")
    metric = minimize or maximize
    return None if metric is None else {"metric": metric, "minimize": bool(minimize)}


def completed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Stored settings, with those that an earlier version did not have at their value in that version.

    Raises:
        StoreError: they are not of the form that automl writes.
    """
    check_settings(settings)
    return {**ADDED_LATER, **settings}


def changeable_options(texts: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Options that a resume may change, by group.

    Raises:
        ValueError: one is of the space, of which stored tokens are children.
    """
    options = _parse_options(texts)
    if options["space"]:
        name = next(iter(options["space"]))
        raise ValueError(f"space.{name} cannot be changed after a search has begun; start another search with it.")
    return {group: given for group, given in options.items() if given}


def task_options(texts: Iterable[str]) -> dict[str, Any]:
    """Constants of a recipe, `epochs=30` or `task.epochs=30`. Raises ValueError."""
    return _parse_options(text if text.startswith("task.") else f"task.{text}" for text in texts)["task"]


def with_data_dir(settings: dict[str, Any], given: str | None) -> dict[str, Any]:
    """Stored settings with the data folder of this start: the argument, else AUTOML_DATA, else the stored one."""
    folder = _data_dir(given) or settings["task"]["data_dir"]
    return {**settings, "task": {**settings["task"], "data_dir": folder}}


def may_download(settings: Mapping[str, Any], given: str | None) -> bool:
    """Whether missing data may be downloaded: not to a folder that only the store names."""
    return _data_dir(given) is not None or settings["task"]["data_dir"] is None


def check_name(name: str) -> str:
    """A search's name. Raises ValueError for one that a terminal or a folder could not bear."""
    if not is_search_name(name):
        raise ValueError(
            f"{name!r} cannot name a search; use up to 100 letters, digits, '.', '_' and '-', beginning with a letter "
            "or digit."
        )
    return name


def parse_seconds(text: str) -> float:
    """`90`, `45s`, `10m`, `1.5h`, `2d` in seconds. Raises ValueError."""
    match = re.fullmatch(rf"({NUMBER})\s*([smhd]?)", text.strip().lower())
    if match is None or math.isinf(float(match[1])):
        raise ValueError(f"{text!r} is not a time; write for example 45s, 10m or 1.5h.")
    return float(match[1]) * SECONDS[match[2] or "s"]


def parse_count(text: str) -> int:
    """`300000`, `300k`, `1.5M`, `2G` as a whole number. Raises ValueError."""
    match = re.fullmatch(rf"({NUMBER})\s*([kmg]?)", text.strip().lower())
    if match is None or math.isinf(float(match[1])):
        raise ValueError(f"{text!r} is not a number; write for example 300000, 300k or 1.5M.")
    return round(float(match[1]) * MULTIPLES.get(match[2], 1))


def _check_kind(field: dataclasses.Field[Any], value: Any) -> None:
    """Raises ValueError where a setting from a TOML file or from Python is of another type than declared."""
    kind, _, optional = str(field.type).partition(" | ")
    types, words = KINDS[kind]
    fits = type(value) in types and (kind != "tuple[str, ...]" or all(type(item) is str for item in value))
    if not (fits or (value is None and optional)):
        raise ValueError(f"{_flag(field.name)} is {value!r}; it must be {words}.")


def _options_of_tables(path: Path, tables: Any) -> list[str]:
    """`[set.GROUP]` tables as the texts of --set."""
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise ValueError(f"{path}: 'set' holds tables by group; write for example [set.task] and below it epochs = 8.")
    return [
        f"{group}.{option}={json.dumps(given, default=str)}"
        for group, table in tables.items()
        for option, given in table.items()
    ]


def _parse_options(texts: Iterable[str]) -> dict[str, dict[str, Any]]:
    options: dict[str, dict[str, Any]] = {group: {} for group in GROUPS}
    for text in texts:
        key, equals, value = text.partition("=")
        group, dot, name = key.strip().partition(".")
        if not equals or not dot or not name:
            raise ValueError(f"--set {text!r} is not of the form GROUP.NAME=VALUE, for example space.strides=true.")
        options[validate_choice("group of options", group, list(GROUPS))][name] = _value(value.strip())
    return options


def _value(text: str) -> Any:
    """The JSON value of a text, or the text itself if it is not JSON. Raises ValueError for values that cannot be
    stored: numbers that are not finite, lists that are nested too deeply."""
    try:
        value = json.loads(text)
        json.dumps(value, allow_nan=False)
    except json.JSONDecodeError:
        return text
    except (ValueError, RecursionError) as error:
        shown = text if len(text) <= 40 else f"{text[:40]}…"
        raise ValueError(f"An option cannot be {shown}: {str(error).rstrip('.')}.") from None
    return value


def _name(what: str, reference: str, names: Mapping[str, Any]) -> str:
    if UserFile.is_reference(reference) or reference.startswith(SESSION):
        return reference
    if reference not in names and (meant := meant_file(reference)) is not None:
        raise ValueError(f"There is no {what} called {reference!r}; for a function of your own write {meant}.")
    return validate_choice(what, reference, names)


def _task_name(reference: str) -> str:
    if reference in OF_FILES:
        raise ValueError(f"The task {reference} needs a file: write {reference}:PATH.")
    if (kind := kind_of(reference)) != reference:
        path = Path(os.path.expanduser(reference.removeprefix(f"{kind}:"))).absolute()
        return f"{kind}:{path}"
    return _name("task", reference, TASKS)


def _default_early_stop(asked: Asked) -> str:
    recipe = asked.recipe or next(iter(recipes_of(asked.space, asked.chosen_task)), None)
    return early_stop_of(asked.space, recipe)


def _file(reference: str) -> dict[str, str] | None:
    return UserFile.read(reference).to_json() if UserFile.is_reference(reference) else None


def _data_dir(given: str | None) -> str | None:
    chosen = given or os.environ.get("AUTOML_DATA")
    return str(Path(os.path.expanduser(chosen)).absolute()) if chosen else None


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
