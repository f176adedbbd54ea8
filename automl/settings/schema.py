"""The options of a search: each is declared once, here.

They define the flags of `automl search` and `automl resume`, the keys of a TOML file, the arguments of `automl.search`,
the messages about bad values, and docs/settings.md. Imports nothing slow: `automl --help` reads this module.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from automl.search_spaces import DEFAULT_SPACE, SPACES
from automl.search_spaces.names import validate_choice
from automl.settings.option import OnResume, Option, option, options_of

SPACE, TASK, CONTROLLER = "Search space", "Task and training", "Controller"
BUDGET, WORKERS, OTHERS = "Budget", "Workers and devices", "Options"
LONGEST = 100 * 365 * 86400  # seconds; system timers have a limit near this
WHOLE, COUNT = 2**63 - 1, 2**31 - 1  # limits of database columns
MOST_PROCESSES = 1024  # more than any machine has cores
DEFAULT_CHILDREN = 100
AUTO = "auto"  # chosen from the task and the machine
LAST_RUN = "as in the last run"
# Options of a search that all competitors of a bench share. The bench gives the others, such as controller and seed.
BENCH_OPTIONS = (
    *("space", "preset", "fix", "only", "schedule", "max_params", "max_flops"),
    *("task", "recipe", "minimize", "maximize", "early_stop", "precision", "xla", "data_dir"),
    *("batch_size", "replicas", "keep_going"),
)


@dataclasses.dataclass(frozen=True)
class SearchConfig:
    """The options of a new search, from flags, a TOML file or Python. None means a default that other options decide.

    docs/settings.md lists the options; `SearchConfig.options()` has their declarations.

    Raises:
        ValueError: a value has another type than declared, is out of range or unknown, or two options exclude each
            other. The message names the option by its flag.
    """

    space: str | None = option(
        None,
        f"Space that children are sampled from: {', '.join(SPACES)}, or FILE.py:FUNCTION.",
        group=SPACE,
        default_text=f"{DEFAULT_SPACE}, or the task's own",
        on_resume=OnResume("FILE.py:FUNCTION: approve your own space on this machine."),
    )
    preset: str | None = option(
        None,
        "Preset of the space, such as small, paper or extended; of tables: shared, separate; of landscapes: links, "
        "conditional, forty, noisy, numbers.",
        group=SPACE,
        default_text="the first",
    )
    fix: tuple[str, ...] = option(
        (),
        "Fix decisions to one option: 'layer*/filter_height=3'; a name may be a glob.",
        group=SPACE,
        metavar="NAME=VALUE",
    )
    only: tuple[str, ...] = option(
        (), "Allow only these options of decisions.", group=SPACE, metavar="NAME=VALUE,VALUE"
    )
    schedule: str | None = option(None, "Schedule of the space: depth (networks grow as in the paper).", group=SPACE)
    max_params: int | None = option(
        None, "Largest number of parameters of a child, such as 300k.", group=SPACE, unit="count", above=0, most=WHOLE
    )
    max_flops: int | None = option(
        None,
        "Largest number of FLOPs of a child for one example, such as 50M.",
        group=SPACE,
        unit="count",
        above=0,
        most=WHOLE,
    )

    task: str | None = option(
        None,
        "Task that children are trained on: digits, cifar10, npz:PATH, ptb, pydoc, text:PATH, or FILE.py:FUNCTION. "
        "Without training: table:FILE.csv, table:nas-bench-macro, synthetic.",
        group=TASK,
        default_text="the space's own",
        on_resume=OnResume(
            "FILE.py:FUNCTION: approve your own task on this machine; npz:PATH, text:PATH, table:FILE.csv: as --data."
        ),
    )
    recipe: str | None = option(
        None,
        "Recipe of the task; for cifar10: quick, paper; for texts: quick, small, paper.",
        group=TASK,
        default_text="the first",
    )
    minimize: str | None = option(
        None, "Metric to minimize; the reward is its negative.", group=TASK, metavar="METRIC", on_resume=OnResume()
    )
    maximize: str | None = option(
        None, "Metric to maximize; it is the reward.", group=TASK, metavar="METRIC", on_resume=OnResume()
    )
    early_stop: str | None = option(
        None,
        "Pruner that stops unpromising children: median, hyperband, asha, none.",
        group=TASK,
        choices="automl.child_trainers.recipes:PRUNERS",
        called="pruner",
        default_text="median for quick, except for update rules",
    )
    precision: str | None = option(
        None,
        "Precision of training: float32, bfloat16, float16.",
        group=TASK,
        choices="automl.child_trainers.devices:PRECISIONS",
        called="precision",
        default_text="the machine's fastest",
    )
    xla: bool | None = option(
        None, "Compile training steps with XLA.", group=TASK, default_text="on a GPU, where a training is long"
    )
    data_dir: str | None = option(
        None, "Folder of the data sets; also set by AUTOML_DATA.", group=TASK, metavar="DIR", on_resume=OnResume()
    )
    workdir: str | None = option(
        None,
        "Working folder of your own code.",
        group=TASK,
        metavar="DIR",
        default_text="the current folder",
        on_resume=OnResume(default="as stored"),
    )

    controller: str = option(
        "reinforce",
        "Controller of the search: reinforce, ppo, evolution, optuna, surrogate, random, or FILE.py:CLASS.",
        group=CONTROLLER,
        on_resume=OnResume("FILE.py:CLASS: approve your own controller on this machine."),
    )
    controller_preset: str | None = option(
        None,
        "Preset of the controller, such as default, plain, paper or paper-cells.",
        group=CONTROLLER,
        default_text="the first",
    )
    warm_start: tuple[str, ...] = option(
        (),
        "Learn from the children of an earlier search, of this or another task; STORE is its file or database URL.",
        group=CONTROLLER,
        metavar="SEARCH[@STORE]",
    )
    seed: int = option(0, "Random seed of the search.", group=CONTROLLER, least=0, most=WHOLE)
    batch_size: int | None = option(
        None,
        "Number of children that one controller step proposes and learns from.",
        group=CONTROLLER,
        above=0,
        most=100_000,
        default_text="8, or the preset's",
    )
    replicas: int | None = option(
        None,
        "Number of batches in flight.",
        group=CONTROLLER,
        above=0,
        most=100_000,
        default_text="2; 1 with --workers 0; or the preset's",
    )
    policy_device: str = option("cpu", "Device of the controller: cpu, gpu.", group=CONTROLLER, choices=("cpu", "gpu"))

    children: int | None = option(
        None,
        "Total number of children to train.",
        group=BUDGET,
        least=1,
        most=COUNT,
        default_text=f"{DEFAULT_CHILDREN}, or no limit with --time",
        on_resume=OnResume(default=LAST_RUN),
    )
    time: float | None = option(
        None,
        "Time limit of this run: 45s, 10m, 1.5h.",
        group=BUDGET,
        unit="seconds",
        above=0,
        most=LONGEST,
        on_resume=OnResume(default=LAST_RUN),
    )
    keep: int = option(10, "Number of best children whose weights are kept.", group=BUDGET, least=0, most=COUNT)
    keep_going: bool = option(
        False, "Do not pause when several children in a row fail.", group=BUDGET, on_resume=OnResume()
    )

    workers: int | None = option(
        None,
        "Number of worker processes; 0 trains in this process.",
        group=WORKERS,
        least=0,
        most=MOST_PROCESSES,
        default_text="--workers-per-gpu for each GPU, else cores / 2",
        on_resume=OnResume(default=LAST_RUN),
    )
    threads: int = option(1, "CPU threads of each worker.", group=WORKERS, above=0, most=MOST_PROCESSES)
    gpus_per_child: int = option(
        1, "Number of GPUs that train one child together.", group=WORKERS, above=0, most=MOST_PROCESSES
    )
    workers_per_gpu: int | str = option(
        AUTO,
        "Number of workers that share one GPU and its memory; auto is what cores and memory allow.",
        group=WORKERS,
        words=(AUTO,),
        above=0,
        most=MOST_PROCESSES,
    )
    stall: float = option(
        1800.0,
        "Longest time without a training step; then the worker is killed.",
        group=WORKERS,
        unit="seconds",
        above=0,
        most=LONGEST,
    )
    child_timeout: float | None = option(
        None, "Longest time that a child may take.", group=WORKERS, unit="seconds", above=0, most=LONGEST
    )
    worker_memory: int | None = option(
        None,
        "Memory limit in bytes of a worker and the processes it starts, such as 4G.",
        group=WORKERS,
        unit="count",
        above=0,
        most=WHOLE,
        default_text="its share of the machine's memory",
    )
    recycle_after: int = option(
        1000, "Number of children after which a worker is replaced.", group=WORKERS, above=0, most=COUNT
    )
    recycle_growth: int = option(
        2 * 10**9,
        "Memory growth in bytes after which a worker is replaced earlier.",
        group=WORKERS,
        unit="count",
        above=0,
        most=WHOLE,
    )

    set: tuple[str, ...] = option(
        (),
        "Set one option of the space, the task or the controller: space.strides=true.",
        group=OTHERS,
        metavar="GROUP.NAME=VALUE",
        on_resume=OnResume("Change an option: controller.entropy=0.01, task.epochs=8."),
    )

    def __post_init__(self) -> None:
        self.check({name: getattr(self, name) for name in self.options()})
        goal_of(self.minimize, self.maximize)
        if self.gpus_per_child > 1 and self.workers_per_gpu not in (AUTO, 1):
            raise ValueError(
                "--gpus-per-child and --workers-per-gpu exclude each other; a child has GPUs or shares one."
            )
        if self.gpus_per_child > 1 and self.xla:
            raise ValueError("--gpus-per-child and --xla exclude each other; XLA compiles for one device.")

    @classmethod
    def options(cls) -> Mapping[str, Option]:
        """The declared options by name."""
        return options_of(cls)

    @classmethod
    def resumable(cls) -> Mapping[str, Option]:
        """The options that a resume may change."""
        return {name: option for name, option in cls.options().items() if option.on_resume is not None}

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """Converts options given in Python to the declared types: lists to tuples, `10m` to seconds.

        Raises:
            ValueError: an option is unknown, or a text is not in its unit.
        """
        options = cls.options()
        return {name: options[validate_choice("setting", name, options)].read(value) for name, value in given.items()}

    @classmethod
    def check(cls, values: Mapping[str, Any]) -> None:
        """Raises ValueError if one of these options cannot have its value."""
        options = cls.options()
        for name, value in values.items():
            options[name].check(value)

    @property
    def chosen_space(self) -> str:
        """The space asked for, or the one that goes with the task."""
        from automl.child_trainers.registry import default_space  # not needed for --help

        return self.space if self.space is not None else default_space(self.task)

    @property
    def chosen_task(self) -> str:
        """The given task, or the default task of the space."""
        from automl.child_trainers.registry import default_task  # not needed for --help

        return self.task if self.task is not None else default_task(self.chosen_space, self.preset)

    @property
    def budget(self) -> int | None:
        """The number of children to train: 100 if neither --children nor --time is given; None for no limit."""
        return DEFAULT_CHILDREN if self.children is None and self.time is None else self.children


def goal_of(minimize: str | None, maximize: str | None) -> dict[str, Any] | None:
    """The metric of --minimize or --maximize in its stored form, or None. Raises ValueError if both are given."""
    if minimize and maximize:
        raise ValueError("--minimize and --maximize exclude each other; name the one metric that is the reward.")
    metric = minimize or maximize
    return None if metric is None else {"metric": metric, "minimize": bool(minimize)}
