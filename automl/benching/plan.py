"""The plan of a bench: competitors, the settings that they share, seeds and budgets."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from automl.child_trainers.experiment import Experiment, make_experiment
from automl.child_trainers.user_files import UserFile
from automl.donors.describing import donor_identity
from automl.donors.reading import read_offers
from automl.donors.receiving import received
from automl.donors.references import read_references, with_store
from automl.donors.telling import warm_start
from automl.paths import store_address
from automl.preparation import make_controller
from automl.search_spaces.names import validate_choice
from automl.search_spaces.whole_numbers import check_whole_number
from automl.settings.parsing import parse_value
from automl.settings.schema import BENCH_OPTIONS, MOST_PROCESSES, SearchConfig
from automl.settings.stored import stored_settings

PLACES = ("data_dir",)  # options that name places, which may change when a bench continues
MOST_SEEDS = 100_000
WARM_START = "warm-start"  # in `--set LABEL.warm-start=SEARCH`, which is no option of a controller
TOP = (1, 5, 15)  # numbers of best rewards whose mean is reported by default


@dataclasses.dataclass(frozen=True)
class Competitor:
    """A controller of the bench, with its preset and options.

    Attributes:
        label: its name in the bench.
        controller: a name, or `FILE.py:CLASS`.
        preset: the controller's preset; None for the default.
        options: the controller's options, as `NAME=VALUE`.
        warm_start: earlier searches that it learns from, as `SEARCH[@STORE]`.
    """

    label: str
    controller: str
    preset: str | None = None
    options: tuple[str, ...] = ()
    warm_start: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Competitor:
        """Reads `NAME`, `NAME:PRESET` or `FILE.py:CLASS`, each also as `LABEL=…`. Raises ValueError."""
        label, equals, rest = text.partition("=")
        chosen = (rest if equals else text).strip()
        if not chosen or (equals and not label.strip()):
            raise ValueError(f"--controllers has {text!r}; write NAME, NAME:PRESET or LABEL=NAME, with commas between.")
        name, colon, preset = (chosen, "", "") if UserFile.is_reference(chosen) else chosen.partition(":")
        return cls(label.strip() if equals else chosen, name, preset or None if colon else None)

    def search_name(self, seed: int) -> str:
        """The name in the store of the competitor's search with this seed."""
        plain = re.sub(r"[^A-Za-z0-9]+", "-", self.label).strip("-")[:40] or "controller"
        return f"{plain}-{hashlib.sha256(self.label.encode()).hexdigest()[:6]}-{seed}"

    @property
    def warm_start_flag(self) -> str:
        """What the user has named the earlier searches with."""
        return f"--set {self.label}.{WARM_START}"

    def to_json(self) -> dict[str, Any]:
        return {"controller": self.controller, "preset": self.preset, "options": list(self.options)}


@dataclasses.dataclass(frozen=True)
class Plan:
    """The searches of a bench.

    Attributes:
        competitors: the controllers, each with another label.
        shared: the options that all searches have: those of `BENCH_OPTIONS`, and `set` for the space and the task.
        budgets: numbers of trained children, ascending.
        seeds: the number of seeds, which are 0, 1, 2, …
        top: numbers of best rewards whose mean is reported, ascending.
    """

    competitors: tuple[Competitor, ...]
    shared: Mapping[str, Any]
    budgets: tuple[int, ...]
    seeds: int
    top: tuple[int, ...]

    @classmethod
    def make(
        cls,
        controllers: str | Sequence[str],
        *,
        budgets: str | Sequence[int],
        seeds: int,
        top: str | Sequence[int] = TOP,
        set: Sequence[str] = (),
        **shared: Any,
    ) -> Plan:
        """Reads the plan and checks it as far as is possible without the parts of a search; `check` makes these.

        Args:
            controllers: the competitors, in the form of `Competitor.parse`; in a text, with commas between them.
            set: `space.NAME=VALUE` and `task.NAME=VALUE` for all, `LABEL.NAME=VALUE` for one competitor, and
                `LABEL.warm-start=SEARCH[@STORE]` for an earlier search that it learns from.

        Raises:
            ValueError: an option or a name is unknown, or has a bad value.
        """
        texts = controllers.split(",") if isinstance(controllers, str) else list(controllers)
        competitors = [Competitor.parse(text.strip()) for text in texts]
        labels = [one.label for one in competitors]
        if twice := next((label for label in labels if labels.count(label) > 1), None):
            raise ValueError(f"--controllers names {twice!r} twice; give one another label, as in other={twice}.")
        for option in shared:
            validate_choice("option of a bench", option, BENCH_OPTIONS)
        common, of_label, donors = _divided(set, labels)
        return cls(
            tuple(
                dataclasses.replace(one, options=tuple(of_label[one.label]), warm_start=tuple(donors[one.label]))
                for one in competitors
            ),
            {name: value for name, value in SearchConfig.read(shared).items() if value is not None}
            | ({"set": tuple(common)} if common else {}),
            _counts("--budgets", budgets, "25,50,100"),
            check_whole_number("--seeds", seeds, least=1, most=MOST_SEEDS),
            _counts("--top", top, "1,5,15"),
        )

    @property
    def children(self) -> int:
        """The largest budget."""
        return self.budgets[-1]

    def options_of(self, competitor: Competitor) -> dict[str, Any]:
        """The options of a competitor's search, without its seed and its budget."""
        options = tuple(f"controller.{option}" for option in competitor.options)
        return {
            **self.shared,
            "set": (*self.shared.get("set", ()), *options),
            "controller": competitor.controller,
            "controller_preset": competitor.preset,
            "warm_start": tuple(with_store(text, store_address(None)) for text in competitor.warm_start),
            "workers": 0,
            "keep": 0,
        }

    def config_of(self, competitor: Competitor, seed: int = 0) -> SearchConfig:
        return SearchConfig(**self.options_of(competitor), seed=seed, children=self.children)

    def check(self) -> Checked:
        """Makes the parts of every competitor's search, so that a wrong option is found before the first search starts.

        Raises:
            ValueError: a part is unknown or has a bad value, or the data cannot be read.
            StoreError: an earlier search cannot be read.
        """
        subject, donors = None, {}
        for competitor in self.competitors:
            settings = stored_settings(self.config_of(competitor))
            experiment = make_experiment(settings)
            controller = make_controller(settings, experiment, 0)
            subject = subject or Subject.of(settings, experiment)
            flag = competitor.warm_start_flag
            references = read_references(competitor.warm_start, store_address(None), flag=flag)
            found = [received(offer, experiment.space) for offer in read_offers(references)]
            warm_start(controller, competitor.controller, found, experiment.space, flag=flag)
            donors[competitor.label] = tuple(map(donor_identity, found))
        assert subject is not None
        return Checked(subject, donors)

    def identity(self, subject: Subject) -> dict[str, Any]:
        """The settings that must not change when a bench continues, as JSON: the shared options, the texts of the
        user's files, and the data."""
        shared = {name: value for name, value in self.shared.items() if name not in PLACES}
        options = {name: _identity(value) for name, value in sorted(shared.items())}
        return options | {"data": subject.fingerprint}

    def identity_of(self, competitor: Competitor, donors: Sequence[str]) -> dict[str, Any]:
        """The settings of a competitor that must not change. `donors` are the identities of its earlier searches."""
        identity = competitor.to_json() | {"controller": _identity(competitor.controller)}
        return identity | ({WARM_START: list(donors)} if donors else {})


class Checked(NamedTuple):
    """What a checked plan comes to.

    Attributes:
        donors: the identities of the earlier searches that each competitor learns from, by its label.
    """

    subject: Subject
    donors: Mapping[str, tuple[str, ...]]


@dataclasses.dataclass(frozen=True)
class Subject:
    """The space and the task that the competitors search.

    Attributes:
        space, task: their names, for the user.
        optimum: the highest reward without noise of the children that the narrowing leaves; None if it is not known.
        noiseless: the metric that is the reward without noise, or None.
        fingerprint: the fingerprint of the data; None if the task's name identifies them.
    """

    space: str
    task: str
    optimum: float | None
    noiseless: str | None
    fingerprint: str | None

    @classmethod
    def of(cls, settings: Mapping[str, Any], experiment: Experiment) -> Subject:
        """Reads and checks the data. Raises ValueError."""
        task, space = experiment.task, experiment.space
        spec = space.survey()[0].spec
        task.check(spec)
        task.check_goal()
        task.prepare()
        optimum = None
        if space.schedule is None:  # with one, other children are possible at each number
            optimum = task.optimum(spec, space.admits if space.narrowing.rules else None)
        name, preset = settings["space"]["name"], settings["space"]["preset"]
        title = f"{name} ({preset})" if preset else name
        return cls(title, settings["task"]["name"], optimum, task.noiseless, task.fingerprint)


def check_jobs(jobs: int) -> int:
    return check_whole_number("--jobs", jobs, least=1, most=MOST_PROCESSES)


def _divided(
    texts: Sequence[str], labels: Sequence[str]
) -> tuple[list[str], dict[str, list[str]], dict[str, list[str]]]:
    """The options of the space and the task, those of each competitor, and its earlier searches."""
    common: list[str] = []
    of_label: dict[str, list[str]] = {label: [] for label in labels}
    donors: dict[str, list[str]] = {label: [] for label in labels}
    for text in texts:
        key, equals, value = text.partition("=")
        label, dot, option = key.strip().rpartition(".")
        if not equals or not dot or not option:
            raise ValueError(
                f"--set {text!r} is not of the form GROUP.NAME=VALUE, for example {labels[0]}.entropy=0.1."
            )
        if validate_choice("group of options", label, ["space", "task", *labels]) in ("space", "task"):
            common.append(text)
            continue
        if option.replace("_", "-") == WARM_START:
            donors[label].append(value.strip())
            continue
        parse_value(value.strip())
        of_label[label].append(f"{option}={value.strip()}")
    return common, of_label, donors


def _counts(flag: str, given: str | Sequence[int], example: str) -> tuple[int, ...]:
    """Numbers of children, each once, ascending."""
    try:
        numbers = sorted({int(part) for part in (given.split(",") if isinstance(given, str) else given)})
    except (TypeError, ValueError):
        numbers = []
    if not numbers or numbers[0] < 1:
        raise ValueError(f"{flag} is {given!r}; write numbers of children with commas between them: {example}.")
    return tuple(numbers)


def _identity(value: Any) -> Any:
    """The value as JSON. A user's file is identified by its content, so a changed file is another setting."""
    if isinstance(value, str) and UserFile.is_reference(value):
        file = UserFile.read(value)
        return f"{Path(file.path).name}:{file.attribute} (sha256 {file.sha256[:12]})"
    return list(value) if isinstance(value, tuple) else value
