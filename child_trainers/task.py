"""What a child is trained on: the contract of a task, a person's function as one, and the reward in what it returns."""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import inspect
import math
import numbers
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np

from automl.child_trainers.data.summary import DataSummary
from automl.child_trainers.seeding import LIBRARIES, Seeder, seed_basic, seed_libraries
from automl.child_trainers.training.checkpoints import Checkpoint
from automl.db.records import Fault
from automl.search_spaces.plain import scalar

PARAMETERS = ("spec", "seed", "epochs", "report")


class DivergedError(Exception):
    """Training left the finite numbers."""


class InvalidResultError(Exception):
    """A task returned something that holds no reward."""


class SearchFaultError(Exception):
    """A fault of the search, not of a child: it must be fixed before more children are trained. The message is a
    sentence."""


class Report(Protocol):
    """Handed to `evaluate`; every call proves that the child lives.

    Attributes:
        checkpoint: where a long training keeps what it goes on from, or None.
    """

    checkpoint: Checkpoint | None

    def __call__(self, epoch: int, **metrics: float) -> None:
        """Writes the metrics of an epoch (1, 2, …). Raises DivergedError where one is not finite."""

    def restore(self, history: Sequence[Mapping[str, float]]) -> None:
        """Writes the metrics of epochs 1, 2, … of an earlier attempt again, without judging them."""

    def follow(self, steps_done: Callable[[], int]) -> None:
        """Takes a count of training steps, to be read from another thread between two epochs."""


class Record:
    """A report of a training that belongs to no search: it keeps what it is told.

    Attributes:
        checkpoint: see `Report`.
        epochs: the metrics of each, in order.
    """

    def __init__(self, checkpoint: Checkpoint | None = None) -> None:
        self.checkpoint = checkpoint
        self.epochs: list[dict[str, float]] = []

    def __call__(self, epoch: int, **metrics: float) -> None:
        self.epochs.append(reported(epoch, metrics))

    def restore(self, history: Sequence[Mapping[str, float]]) -> None:
        self.epochs += [dict(metrics) for metrics in history]

    def follow(self, steps_done: Callable[[], int]) -> None:
        pass


class Assignment(NamedTuple):
    """A child to be trained beside others."""

    spec: Any
    seed: int
    report: Report


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A trained child.

    Attributes:
        reward: what the controller is told; higher is better.
        metrics: JSON values, kept with the child.
        weights: the model's weights at `epoch`, the epoch that the reward was read from, by name.
        seconds: where the time went, by phase.
        ending: why a child with a result was not trained to its end, or None.
        screened: whether the screening test rejected it.
    """

    reward: float
    metrics: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    weights: Mapping[str, np.ndarray] | None = None
    epoch: int = 0
    seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)
    ending: str | None = None
    screened: bool = False


@dataclasses.dataclass(frozen=True)
class Goal:
    """Which metric counts: `--minimize M` makes the reward -M, `--maximize M` makes it M."""

    metric: str
    minimize: bool

    def __str__(self) -> str:
        return f"--{'minimize' if self.minimize else 'maximize'} {self.metric}"

    @property
    def words(self) -> str:
        """A description of the reward."""
        return f"minus {self.metric}" if self.minimize else self.metric


@dataclasses.dataclass(frozen=True)
class Objective:
    """The metric that a task reports every epoch and that tells good children from bad ones; `epochs` is how many there
    are of a child that is trained to its end."""

    metric: str
    maximize: bool
    epochs: int


class Task(abc.ABC):
    """Trains children and says what they are worth.

    One object serves many children, one after the other. `evaluate` may raise anything: the child then fails with the
    fault of that exception.

    Attributes:
        floor: the reward of a failed child, or None where the task has no natural lowest reward.
        metric: what tells a trained child's quality, among its metrics.
        reward_words: a description of the reward if no metric is named.
        fixed_options: constants of the recipe without which rewards would no longer compare.
        reading_options: those that say how the data are read, which a child that is trained again keeps.
        reads_words: whether an exported model takes texts instead of numbers.
        takes_compute: whether it uses the precision, XLA and devices of the search.
        population: how many children are trained together, in one call of `evaluate_together`.
        fingerprint: of data that a person's file holds, or None where the task's name says which data they are.
        brightness: the lowest and the highest value of the images of a user's file, if the images are rescaled by
            them.
        objective: what early stopping goes by, or None where children cannot be stopped early.
    """

    floor: float | None = None
    metric: str = "reward"
    reward_words: ClassVar[str] = "what the task returns"
    fixed_options: tuple[str, ...] = ()
    reading_options: tuple[str, ...] = ()
    reads_words: bool = False
    objective: Objective | None = None
    population: int = 1
    takes_compute: bool = False
    fingerprint: str | None = None
    brightness: Sequence[float] | None = None

    @abc.abstractmethod
    def evaluate(self, spec: Any, *, seed: int, report: Report) -> Outcome: ...

    def evaluate_together(self, children: Sequence[Assignment]) -> Iterator[tuple[int, Outcome | Exception]]:
        """Trains several children at a time, each as if it were alone.

        Yields what became of each, by its place among `children`, as soon as it is known; an exception for one that
        failed. What is raised instead fails all that were not yielded yet.
        """
        for index, child in enumerate(children):
            yield index, self.evaluate(child.spec, seed=child.seed, report=child.report)

    def prepare(self) -> None:  # noqa: B027 - most tasks need nothing
        """Loads and checks what children need; the coordinator calls it before workers start. May raise ValueError."""

    def reading(self) -> dict[str, Any] | None:
        """JSON values that are needed to build a model from stored weights without the data; None for none."""
        return None

    def warm_up(self) -> None:
        """Imports and loads what is slow; a worker calls it before its first child."""
        self.prepare()

    def check(self, spec: Any) -> None:  # noqa: B027 - a person's function takes any
        """Raises ValueError where this task cannot train specs like this one; called once, with one of the space."""

    def check_goal(self) -> None:  # noqa: B027 - what a function of the user's own reports is not known before it runs
        """Raises ValueError where --minimize or --maximize names no metric that this task reports."""

    def count(self, spec: Any) -> tuple[int, int] | None:
        """Parameters of a child and FLOPs for one input of it, or None where they cannot be told."""
        return None

    def data_summary(self) -> DataSummary | None:
        """How the data were read, or None for a task that reads its own; may load them, and raise ValueError."""
        return None

    def constants(self) -> dict[str, Any] | None:
        """Those of the recipe, as JSON values; None where there is none."""
        return None

    def describe(self) -> dict[str, Any]:
        """What a person should know of how children are trained."""
        return {}


class FunctionTask(Task):
    """A person's function as a task.

    The function may declare any of `spec`, `seed`, `epochs` and `report` (its own default of `epochs` holds where none
    is asked for), and returns the reward as one number, or a dict with `reward`, or, with a goal, a dict with the
    goal's metric.

    Args:
        uses: libraries that the function is known to use; others are seeded when a child imports them.
        importing: a context in which imports find the modules beside the function's file.

    Attributes:
        takes_epochs: whether the function has the parameter `epochs`.
        needs_epochs: whether that has no default.

    Raises:
        ValueError: the function declares a parameter that a task is never given.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        goal: Goal | None = None,
        epochs: int | None = None,
        uses: Iterable[str] = LIBRARIES,
        importing: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> None:
        if not callable(function):
            raise ValueError(f"A task must be a function, got {function!r}.")
        self._function = function
        self._goal = goal
        self._epochs = epochs
        if epochs is not None:
            metric = "reward" if goal is None else goal.metric
            self.objective = Objective(metric, goal is None or not goal.minimize, epochs)
        self._seeder = Seeder(uses)
        self._importing = importing
        parameters = inspect.signature(function).parameters.values()
        takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
        unknown = [
            parameter.name
            for parameter in parameters
            if parameter.name not in PARAMETERS
            and parameter.default is parameter.empty
            and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        ]
        if unknown:
            name = getattr(function, "__name__", "the function")
            raise ValueError(f"{name} asks for {unknown[0]!r}; a task is given any of {', '.join(PARAMETERS)}.")
        required = {parameter.name for parameter in parameters if parameter.default is parameter.empty}
        declared = {parameter.name for parameter in parameters}
        self._passed = [name for name in PARAMETERS if takes_any or name in declared]
        self.takes_epochs = "epochs" in self._passed
        self.needs_epochs = "epochs" in required
        if epochs is None and "epochs" not in required:
            self._passed = [name for name in self._passed if name != "epochs"]

    def evaluate(self, spec: Any, *, seed: int, report: Report) -> Outcome:
        offered = {"spec": spec, "seed": seed, "epochs": self._epochs, "report": report}
        # Restores the current folder, which a child may change.
        with contextlib.chdir("."), self._importing(), self._seeder.begin(seed):
            returned = self._function(**{name: offered[name] for name in self._passed})
        return read_outcome(returned, self._goal)


def fresh_start(seed: int, *, keras: bool = True) -> None:
    """Leaves nothing of the child before to this one, and seeds every global generator: a child trained third in a
    worker equals the same child alone.

    Keras is only touched where it is imported already. Not to touch it at all matters where children train beside the
    policy: clearing it makes TensorFlow prepare every compiled function again, which takes a second.
    """
    seed_basic(seed)
    if keras:
        seed_libraries(["keras"], seed)


def read_outcome(returned: Any, goal: Goal | None = None) -> Outcome:
    """The reward in what a task returned.

    Raises:
        InvalidResultError: it holds no reward; the message says what came back.
        DivergedError: a metric is not finite.
    """
    if isinstance(returned, Outcome):
        outcome = returned
        if goal is not None:
            outcome = dataclasses.replace(outcome, reward=_goal_reward(outcome.metrics, goal))
    elif isinstance(returned, Mapping):
        metrics = {str(name): value for name, value in returned.items()}
        reward = metrics.get("reward") if goal is None else _goal_reward(metrics, goal)
        if goal is None and "reward" not in metrics:
            raise InvalidResultError(
                f"The task returned a dict with {', '.join(sorted(metrics)) or 'nothing'}, and no 'reward'; add it, or "
                "say which metric counts with --minimize or --maximize."
            )
        outcome = Outcome(
            _number("reward", reward), {name: value for name, value in metrics.items() if name != "reward"}
        )
    elif goal is not None:
        raise InvalidResultError(
            f"The task returned {_shown(returned)}; with {goal} it must return a dict with {goal.metric!r}."
        )
    else:
        outcome = Outcome(_number("reward", returned))
    metrics = {name: _plain(name, value) for name, value in outcome.metrics.items()}
    return dataclasses.replace(outcome, reward=_finite("reward", _number("reward", outcome.reward)), metrics=metrics)


def reported(epoch: int, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics of an epoch as JSON values.

    Raises:
        InvalidResultError: one of them is neither a number nor a text.
        DivergedError: one of them is not finite.
    """
    return {name: _plain(f"{name} of epoch {epoch}", value, "reported") for name, value in metrics.items()}


def fault_of(error: BaseException) -> Fault:
    """The fault that an exception of `evaluate` stands for."""
    names = {kind.__name__ for kind in type(error).__mro__}
    if isinstance(error, DivergedError | FloatingPointError):
        return Fault.DIVERGED
    if isinstance(error, InvalidResultError):
        return Fault.INVALID
    if isinstance(error, MemoryError) or "ResourceExhaustedError" in names:
        return Fault.OOM
    return Fault.RAISED


def _goal_reward(metrics: Mapping[str, Any], goal: Goal) -> float:
    if goal.metric not in metrics:
        raise InvalidResultError(
            f"The task returned {', '.join(sorted(metrics)) or 'no metrics'}; {goal} needs {goal.metric!r} among them."
        )
    value = _number(goal.metric, metrics[goal.metric])
    return -value if goal.minimize else value


def _number(name: str, value: Any) -> float:
    plain = scalar(value)
    if isinstance(plain, bool) or not isinstance(plain, numbers.Real):
        raise InvalidResultError(f"The task returned {_shown(value)} where one number ({name}) was expected.")
    return _float(name, plain)


def _float(name: str, value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        raise DivergedError(f"{name} is beyond what a floating-point number can hold.") from None


def _finite(name: str, value: float) -> float:
    if not math.isfinite(value):
        raise DivergedError(f"{name} is {value}.")
    return value


def _plain(name: str, value: Any, said: str = "returned") -> Any:
    """A metric as JSON: numbers finite, scalars of any library plain."""
    plain = scalar(value)
    if isinstance(plain, bool | str) or plain is None:
        return plain
    if isinstance(plain, numbers.Integral):
        return int(plain)
    if isinstance(plain, numbers.Real):
        return _finite(name, _float(name, plain))
    if isinstance(plain, list | tuple):
        return [_plain(name, item, said) for item in plain]
    if isinstance(plain, Mapping) and said == "reported":  # stored, but not shown in a view
        return {str(key): _plain(name, item, said) for key, item in plain.items()}
    raise InvalidResultError(f"The task {said} {_shown(value)} as the metric {name!r}; metrics are plain numbers.")


def _shown(value: Any) -> str:
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"
