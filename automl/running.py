"""Starts and resumes searches: checks what was asked, takes the lease, makes the parts, runs the loop, and lets go."""

from __future__ import annotations

import contextlib
import dataclasses
import fnmatch
import math
import os
import pkgutil
import platform
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from automl.approval import approve, check_approved
from automl.loop import Coordinator, Ending, Stop, StopNow, unpack_state
from automl.options import check_asked, check_data_dir, check_task_options
from automl.proposing import Cost, Limits, Proposer
from automl.recording import accepted_order, newly_recorded
from automl.settings import (
    Asked,
    changeable_options,
    check_name,
    completed,
    goal_of,
    may_download,
    stored_settings,
    with_data_dir,
)
from automl.settings_shape import check_settings
from automl.standing import PREPARED
from automl.surroundings import (
    current_folder,
    enter,
    with_data,
    with_kept_arrays,
    with_workdir,
    workdir_of,
    working_in,
)
from automl.wording import counted
from child_trainers.checkpoints import OWN_FOLDERS as CHECKPOINT_FOLDERS
from child_trainers.data.summary import DataSummary
from child_trainers.determinism import checking_determinism
from child_trainers.devices import (
    default_workers,
    environment,
    gpu_groups,
    memory_share,
    quiet_native_start,
    start_tensorflow,
    visible_gpus,
    without_native_lines,
)
from child_trainers.experiment import NOTHING_OWN, SESSION, Experiment, Own, known, make_experiment, make_space
from child_trainers.heartbeat import Heartbeat
from child_trainers.pool import Deadlines, InlinePool, LocalPool, Pool
from child_trainers.process import LOG_FOLDERS
from child_trainers.task import Goal
from child_trainers.tasks import kind_of
from child_trainers.user_files import UserFile, UserFileError
from child_trainers.worker import Worker
from controllers import CONTROLLERS, PRESETS, SCALES
from controllers.base import Controller, Draw
from db import own_files
from db.owner import Owner
from db.records import (
    ATTEMPTS,
    Fault,
    Lease,
    Search,
    SearchState,
    StaleLeaseError,
    State,
    StoreError,
    is_search_name,
)
from db.store import Store
from search_spaces import SPACES
from search_spaces.recorded import Catalogue, check_options
from search_spaces.space import Space
from search_spaces.walk import spec_to_json

VERSIONED = ("tensorflow", "keras", "numpy", "sqlalchemy")
FIRST_DRAWS = 8  # children that are drawn once before a search is written
BATCH_SIZE = 8  # children that a controller step proposes, where nobody says how many
INLINE_DEVICE = "this process"  # of children that are trained in the coordinator
ERROR, AT_ONCE = "it ended with an error", "stopped at once"  # causes of a pause
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


def create(
    store: Store,
    name: str,
    asked: Asked,
    *,
    own: Own = NOTHING_OWN,
    progress: Progress | None = None,
    stage: Stage = lambda text: None,
) -> Run:
    """Checks everything that was asked, then writes the new search. Returns its first run.

    Args:
        store: may not exist yet; it is made last, so that a refused start leaves nothing behind.
        own: a space or a task that only this process has.
        stage: called before each step that may take seconds.

    Raises:
        NameTakenError: the name exists; nothing was changed.
        ValueError: something that was asked cannot be; nothing was written.
    """
    check_name(name)
    refuse_taken(store, name)
    settings = stored_settings(asked)
    with working_in(workdir_of(settings)):
        run, replicas, batch_size = _checked(asked, settings, own, progress, stage)
    store.make()
    store.create_search(
        name,
        space=settings["space"]["name"],
        task=settings["task"]["name"],
        controller=settings["controller"]["name"],
        seed=asked.seed,
        replicas=replicas,
        batch_size=batch_size,
        threads=asked.threads,
        settings=settings,
        budget=run.children,
    )
    return run


def _checked(
    asked: Asked, settings: dict[str, Any], own: Own, progress: Progress | None, stage: Stage
) -> tuple[Run, int, int]:
    """Checks what was asked and completes the settings; returns the first run, the batches in flight and their size."""
    _check_gpus(asked.gpus_per_child)
    workers = asked.workers
    if workers is None:
        workers = default_workers(len(visible_gpus()) // asked.gpus_per_child * asked.workers_per_gpu)
    run = Run(asked.budget, asked.time, workers)
    scale = _scale(asked)
    replicas = asked.replicas or scale.get("replicas") or (2 if run.workers else 1)
    batch_size = asked.batch_size or scale.get("batch_size") or BATCH_SIZE
    settings["run"] = dataclasses.asdict(run)
    prepare_process(asked.threads, run.workers, asked.policy_device)
    for file in _user_files(settings).values():
        file.check_name()
    experiment = _prepare_experiment(settings, own, run.workers, progress, stage)
    check_asked(asked, settings, experiment)
    with _checking_space(settings, experiment.space):
        _check_task(settings, experiment, asked.seed, stage)
    for file in _user_files(settings).values():
        approve(file)  # the user has just named it
    return run, replicas, batch_size


@contextlib.contextmanager
def _checking_space(settings: Mapping[str, Any], space: Space) -> Iterator[None]:
    """Checks the space while the body of the `with` runs. Raises ValueError."""
    check_options([decision for walk in space.survey() for decision in walk.decisions])
    chosen = settings["space"]
    if chosen["name"] in SPACES:  # built-in spaces are deterministic
        yield
        return
    with checking_determinism(Space(space.function), UserFile.from_json(chosen["file"]), chosen["options"]):
        yield


def _check_task(settings: dict[str, Any], experiment: Experiment, seed: int, stage: Stage) -> None:
    """Checks the task, the data and the first proposals of a new search, and completes its settings.

    Raises:
        ValueError: one of them is not valid.
    """
    task = experiment.task
    if settings["early_stop"] != "none" and task.objective is None:
        name, stop = settings["task"]["name"], settings["early_stop"]
        raise ValueError(
            f"Children of the task {name} report no epochs that --early-stop {stop} could go by; drop it, or for a "
            "function of your own say how many there are with --set task.epochs=N."
        )
    task.check_goal()
    if settings["task"]["file"] is None:
        stage(READING.format(settings["task"]["name"]))
    task.prepare()  # wrong data must leave no search behind
    settings["task"]["fingerprint"] = task.fingerprint
    settings["task"]["brightness"] = task.brightness
    settings["task"]["reading"] = task.reading()
    settings["task"]["constants"] = task.constants()  # a recipe may be another in a later version
    cost = _cost_function(experiment, Limits(**settings["limits"]))
    controller = _make_controller(settings, experiment, seed, stage)
    # Errors of the first proposals are found now, before anything is written.
    for proposal in controller.ask([Draw(number) for number in range(FIRST_DRAWS)]):
        walk = experiment.space.decode(proposal.tokens)
        check_options(walk.decisions)
        spec_to_json(walk.spec)
        cost(walk.spec)


def _scale(asked: Asked) -> Mapping[str, int]:
    """Batches in flight and their size, where the controller's preset says them."""
    scales = pkgutil.resolve_name(SCALES[asked.controller]) if asked.controller in SCALES else {}
    found: Mapping[str, int] = scales.get(asked.controller_preset, {})
    return found


def _check_gpus(per_child: int) -> None:
    gpus = visible_gpus()
    if per_child > 1 and len(gpus) < per_child:
        there = f"there {'is' if len(gpus) == 1 else 'are'} {len(gpus)}" if gpus else "there is none"
        raise ValueError(f"--gpus-per-child is {per_child}, but of GPUs {there} here.")


def refuse_taken(store: Store, name: str) -> None:
    """Raises NameTakenError before anything slow is imported."""
    if store.has_search(name):
        raise store.name_taken(name)


@contextlib.contextmanager
def deleting_unless_started(store: Store, name: str) -> Iterator[None]:
    """Deletes a new search if the body of the `with` fails before any child is proposed."""
    try:
        yield
    except Exception:
        with contextlib.suppress(StoreError):
            if store.last_step(store.search(name).id) is None:
                store.delete(name)
                delete_files(store, name)
        raise


@dataclasses.dataclass(frozen=True)
class Resume:
    """What a resume will do.

    Attributes:
        search: as it was read.
        run: what this start may use.
        settings: those of the search with what this resume changes.
        changes: what it changes in them, for the segment.
        asked: the arguments of `resumed`, to apply them again once the lease is held; None for a new search.
        folder: the current folder of the command, which relative paths among these arguments refer to.
    """

    search: Search
    run: Run
    settings: dict[str, Any]
    changes: dict[str, Any]
    asked: Mapping[str, Any] | None
    folder: str | None = None

    def again(self, store: Store) -> Resume:
        """The same, for the present settings of the search. Raises as `prepare_resume` does."""
        if self.asked is None:
            return _as_created(store.search(self.search.name), self.run)
        with working_in(self.folder):
            return prepare_resume(store, self.search.name, **self.asked)


def prepare_resume(store: Store, name: str, **asked: Any) -> Resume:
    """What a resume will do to the search; `asked` are the arguments of `resumed`.

    Raises:
        UnknownSearchError, UserFileError, ValueError.
    """
    search = store.search(name)
    check_stored_name(search.name)
    return Resume(search, *resumed(store, search, **asked), asked, current_folder())


def resumed(
    store: Store,
    search: Search,
    *,
    children: int | None = None,
    time: float | None = None,
    workers: int | None = None,
    set: Sequence[str] = (),
    space: str | None = None,
    task: str | None = None,
    data_dir: str | None = None,
    keep_going: bool | None = None,
    accept_change: bool = False,
    minimize: str | None = None,
    maximize: str | None = None,
    data: str | None = None,
    workdir: str | None = None,
) -> tuple[Run, dict[str, Any], dict[str, Any]]:
    """What a resume does: the run, the settings, and what it changes in them.

    A bare resume repeats the last budgets. `set` changes options of the task and the controller. `space` and `task`
    approve the user's files on this machine. `minimize` and `maximize` set the metric of the reward while no child is
    trained; children that failed because it was not set are trained again. `data`, or `task` as `npz:PATH` or
    `text:PATH`, says where the search's data are now, and `workdir` in which folder the user's code runs.

    Raises:
        UserFileError, ValueError.
    """
    name = search.name
    Asked(children=children, time=time, workers=workers)  # which checks them
    check_settings(search.settings, started=True)
    settings = completed(search.settings)
    last = Run(**settings["run"])
    run = Run(
        children if children is not None else last.children,
        time if time is not None else last.time,
        workers if workers is not None else last.workers,
    )
    changes: dict[str, Any] = {}
    flag, place = "--data", settings["task"]["name"]
    if task is not None and kind_of(task) != task:
        data, task, flag = task, None, "--task"
    settings = with_kept_arrays(store, name, settings) if data is None else with_data(settings, data, flag=flag)
    if settings["task"]["name"] != place:
        changes["task.data"] = settings["task"]["name"]
    settings = with_workdir(settings, workdir)
    if workdir is not None:
        changes["workdir"] = settings["workdir"]
    check_data_dir(data_dir, settings)
    if accept_change and not _user_files(settings):
        raise ValueError(f"The search {name!r} uses no file of yours; drop --accept-change.")
    for group, options in changeable_options(set).items():
        settings[group] = {**settings[group], "options": settings[group]["options"] | options}
        changes |= {f"{group}.{option}": value for option, value in options.items()}
    for group, given in (("space", space), ("task", task)):
        stored = UserFile.from_json(settings[group]["file"])
        file = _approved(name, group, stored, given, accept_change=accept_change)
        if file is not None and file != stored:
            settings[group] = {**settings[group], "name": f"{file.path}:{file.attribute}", "file": file.to_json()}
            changes[f"{group}.file"] = {"path": file.path, "sha256": file.sha256}
    before = settings["task"]["data_dir"]
    settings = with_data_dir(settings, data_dir)
    if settings["task"]["data_dir"] != before:
        changes["task.data_dir"] = settings["task"]["data_dir"]
    if (goal := goal_of(minimize, maximize)) is not None and goal != settings["task"]["goal"]:
        _check_goal_is_open(store, search, settings)
        settings["task"] = {**settings["task"], "goal": goal}
        changes["task.goal"] = goal
    if keep_going is not None and keep_going != settings["keep_going"]:
        settings["keep_going"] = changes["keep_going"] = keep_going
    settings["run"] = dataclasses.asdict(run)
    return run, settings, changes


def _check_goal_is_open(store: Store, search: Search, settings: Mapping[str, Any]) -> None:
    """Raises ValueError if children are trained: their rewards would not compare with those of another metric."""
    trained = store.counts(search.id)[State.TRAINED]
    if trained:
        goal = settings["task"]["goal"]
        by = "what the task returned as its reward" if goal is None else str(Goal(**goal))
        raise ValueError(
            f"{counted(trained, 'child', 'children')} of {search.name!r} {'was' if trained == 1 else 'were'} judged by "
            f"{by}, and rewards would no longer compare; start a new search to go by another metric."
        )


def run_search(
    store: Store,
    name: str,
    run: Run,
    stop: Stop,
    *,
    resume: Resume | None = None,
    own: Own = NOTHING_OWN,
    on_turn: Callable[[Coordinator], None] | None = None,
    on_data: Callable[[DataSummary], None] | None = None,
    progress: Progress | None = None,
    stage: Stage = lambda text: None,
) -> Ending:
    """Runs a search under its lease until it ends, and releases it whatever happens.

    Args:
        resume: from `prepare_resume`; its changes are written once the lease is held.
        own: a space or a task that only this process has.
        on_turn: called after every turn of the loop.
        on_data: called before the first turn with how the data were read, if the task knows.
        stage: called before each step that may take seconds.

    Raises:
        LeaseHeldError: another process runs it.
        StaleLeaseError: another process took it over meanwhile.
    """
    if resume is None:
        resume = _as_created(store.search(name), run)
    with working_in(workdir_of(resume.settings)):
        return _run_search(store, name, resume, stop, own, on_turn, on_data, progress, stage)


def _run_search(
    store: Store,
    name: str,
    resume: Resume,
    stop: Stop,
    own: Own,
    on_turn: Callable[[Coordinator], None] | None,
    on_data: Callable[[DataSummary], None] | None,
    progress: Progress | None,
    stage: Stage,
) -> Ending:
    # Errors are found before the lease is taken, because other processes see the lease.
    parts = _make_parts(store, resume, own, progress, stage)
    if on_data is not None and (summary := parts.experiment.task.data_summary()) is not None:
        on_data(summary)
    lease = store.take_lease(name, Owner.this_process())
    ending = _as_before(lease)
    try:
        with Heartbeat(lambda: _renew(store, lease, stop)):
            # Another process may have resumed the search since it was read, with changes of its own.
            before, resume = resume, resume.again(store)
            if (before.run, before.settings) != (resume.run, resume.settings):
                enter(workdir_of(resume.settings))
                parts = _make_parts(store, resume, own, progress, stage)
            proposer = _make_proposer(store, resume, parts)
            ending = Ending(SearchState.PAUSED, ERROR)  # all checks are done: the run begins
            ending = _run_under_lease(store, resume, lease, parts, proposer, stop, on_turn, stage)
        return with_counts(store, name, ending)
    except StopNow:
        ending = Ending(SearchState.PAUSED, stop.cause)
        return with_counts(store, name, ending)
    except KeyboardInterrupt:
        ending = Ending(SearchState.PAUSED, AT_ONCE)
        raise
    except StaleLeaseError:
        ending = None  # type: ignore[assignment]
        raise
    finally:
        if ending is not None:
            store.release(lease, ending.state, ending.cause)


def with_counts(store: Store, name: str, ending: Ending) -> Ending:
    """The ending with the numbers of trained and of failed or lost children."""
    counts = store.counts(store.search(name).id)
    failures = counts[State.FAILED] + counts[State.LOST]
    return dataclasses.replace(ending, trained=counts[State.TRAINED], failures=failures)


def make_ready(store: Store, name: str, *, fault: str | None = None, number: int | None = None) -> list[int]:
    """Makes failed and lost children ready to be trained again; returns their numbers.

    Raises:
        ValueError: there is no such fault, or the child has not failed.
        LeaseHeldError: the search runs.
    """
    faults = () if fault is None else (Fault(known("fault", fault, list(ATTEMPTS))),)
    if number is not None:
        found = store.children(store.search(name).id, number=number)
        if not found:
            raise ValueError(f"{name!r} has no child {number}; see automl show {name}.")
        if found[0].state not in (State.FAILED, State.LOST):
            raise ValueError(f"Child {number} of {name!r} has not failed: it is {found[0].state}.")
        if faults and found[0].fault not in faults:
            raise ValueError(f"Child {number} of {name!r} failed otherwise: it is {found[0].fault}.")
    return store.retry(name, faults=faults, number=number)


@dataclasses.dataclass(frozen=True)
class _Parts:
    """The space and task, and the controller of a search."""

    experiment: Experiment
    controller: Controller
    of_children: dict[int, tuple[int, ...]] = dataclasses.field(default_factory=dict)  # decisions to be recorded


def _as_created(search: Search, run: Run) -> Resume:
    """The first run of a new search, which changes no settings."""
    check_stored_name(search.name)
    return Resume(search, run, completed(search.settings), {}, None)


def _as_before(lease: Lease) -> Ending:
    """The state of a search before the lease was taken, for a run that does not begin."""
    if lease.state in (SearchState.RUNNING, SearchState.STOPPING):  # of a process that died
        return Ending(SearchState.PAUSED, ERROR)
    return Ending(SearchState(lease.state), lease.cause)


def _make_parts(store: Store, resume: Resume, own: Own, progress: Progress | None, stage: Stage) -> _Parts:
    """Makes the parts of a search. Raises ValueError if a change of the resume is not valid."""
    search, settings, run = resume.search, resume.settings, resume.run
    prepare_process(search.threads, run.workers, settings["policy_device"])
    _check_gpus(settings["compute"]["devices"])
    _check_session(settings, own, run.workers)
    if "space.file" in resume.changes:
        settings["space"] = {**settings["space"], "order": []}
        changed = make_space(settings)
        with _checking_space(settings, changed):
            settings["space"]["order"] = accepted_order(store, search, changed)
    download = resume.asked is None or may_download(settings, resume.asked.get("data_dir"))
    experiment = _prepare_experiment(settings, own, run.workers, progress, stage, download=download)
    controller = _make_controller(settings, experiment, search.seed, stage)
    _check_fixed(store, search, controller, experiment, settings, resume.changes)
    if settings["task"]["file"] is None:
        stage(READING.format(settings["task"]["name"]))
    experiment.task.prepare()  # before workers start, too: they would all load or download, and fail one by one
    return _Parts(experiment, controller)


def _make_proposer(store: Store, resume: Resume, parts: _Parts) -> Proposer:
    """Restores the controller and makes the proposer for the steps that follow. Raises ValueError if the space makes
    other children from stored tokens."""
    search, settings = resume.search, resume.settings
    experiment, controller = parts.experiment, parts.controller
    catalogue = Catalogue(store.decisions(search.id))
    parts.of_children.update(
        newly_recorded(
            store,
            search,
            experiment.space,
            catalogue,
            all_children=settings["space"]["name"] not in SPACES,
            changed="space.file" in resume.changes,
        )
    )
    step = store.last_step(search.id)
    if step is not None and step.blob is not None:
        controller.restore(unpack_state(step.blob, step.blob_sha256))
        controller.forget({child.number for child in store.children(search.id, states=[State.FAILED])})
    limits = Limits(**settings["limits"])
    return Proposer(
        experiment.space,
        controller,
        _cost_function(experiment, limits),
        limits,
        seed=search.seed,
        seen=store.hashes(search.id),
        refused=search.refused,
        catalogue=catalogue,
    )


def _run_under_lease(
    store: Store,
    resume: Resume,
    lease: Lease,
    parts: _Parts,
    proposer: Proposer,
    stop: Stop,
    on_turn: Callable[[Coordinator], None] | None,
    stage: Stage,
) -> Ending:
    search, run, settings, changes = resume.search, resume.run, resume.settings, resume.changes
    experiment, controller = parts.experiment, parts.controller
    decisions = proposer.catalogue.taken()
    store.change_settings(lease, settings, decisions=decisions, of_children=parts.of_children)
    if "task.goal" in changes:
        store.retry(search.name, faults=[Fault.INVALID], lease=lease)
    store.set_budget(lease, run.children)
    segment = store.begin_segment(lease, _segment(run, search, settings, changes, stop.age))
    ending = Ending(SearchState.PAUSED, ERROR)
    try:
        with contextlib.closing(_make_pool(store, search, lease, experiment, settings, run, stage)) as pool:
            coordinator = Coordinator(
                store,
                search,
                lease,
                controller,
                proposer,
                pool,
                population=experiment.task.population,
                floor=experiment.task.floor,
                keep_going=settings["keep_going"],
                log=str(log_dir(store, search.name)) if run.workers else "",
                objective=experiment.task.objective,
                early_stop=settings["early_stop"],
            )
            ending = coordinator.run(run.children, stop, lambda: on_turn(coordinator) if on_turn else None)
    except StopNow:
        ending = Ending(SearchState.PAUSED, stop.cause)
    except KeyboardInterrupt:
        ending = Ending(SearchState.PAUSED, AT_ONCE)
        raise
    finally:
        store.end_segment(lease, segment, ending.cause or ending.state)
        _drop_checkpoints(store, search)
    return ending


def _check_session(settings: Mapping[str, Any], own: Own, workers: int) -> None:
    """Raises ValueError where a function of a session is missing, not wanted, or could not be found by workers."""
    for group in ("space", "task"):
        of_session = settings[group]["name"].startswith(SESSION)
        if of_session and workers:
            raise ValueError(
                f"Workers cannot find the {group} {settings[group]['name'].removeprefix(SESSION)}, which lives in one "
                "session alone; use workers=0."
            )
        if group in own and not of_session:
            raise ValueError(f"This search has a {group} of its own; drop the argument {group}.")


def _check_fixed(
    store: Store,
    search: Search,
    controller: Controller,
    experiment: Experiment,
    settings: Mapping[str, Any],
    changes: Mapping[str, Any],
) -> None:
    """Raises ValueError if a change would invalidate stored states or metrics, or has no effect."""
    task = experiment.task
    fixed = [name for name in changes if name.removeprefix("controller.") in controller.fixed_options]
    if fixed and store.last_step(search.id) is not None:
        raise ValueError(f"{fixed[0]} cannot be changed after a search has begun: what was learned would not fit.")
    spec = experiment.space.survey()[0].spec
    options = [
        name.removeprefix("task.") for name in changes if name.removeprefix("task.") in settings["task"]["options"]
    ]
    check_task_options(options, settings, task, spec)
    for option in task.fixed_options:
        if f"task.{option}" in changes:
            raise ValueError(
                f"task.{option} cannot be changed after a search has begun: rewards would no longer compare."
            )


def prepare_process(threads: int, workers: int, policy_device: str) -> None:
    """Ties this process to its device, before TensorFlow is imported: the policy is small and leaves GPUs to children.

    Without workers, children train here too, on the first GPU that there is.
    """
    gpus = visible_gpus()
    gpu = ",".join(gpus) if policy_device == "gpu" and gpus else None
    if workers == 0 and gpus:
        gpu = gpus[0]
    os.environ.update(environment(threads, gpu))


def log_dir(store: Store, name: str) -> Path:
    """Where workers' output goes: beside a SQLite store, else in the user's folder for logs, one for each database.

    Raises:
        StoreError: the name, which may be from somebody else's store, leads out of that folder.
    """
    check_stored_name(name)
    if store.file is not None:
        return store.file.with_name(f"{store.file.name}.logs") / name
    import platformdirs

    return Path(platformdirs.user_log_dir("automl")) / store.folder_name / name


def check_stored_name(name: str) -> None:
    """Raises StoreError if a search in a store has an invalid name."""
    if not is_search_name(name):
        raise StoreError(
            f"The store has a search called {name!r}, a name that automl never gives: it may lead to other folders, so "
            "nothing is read or written for it. It can be looked at, and deleted from the store with automl delete."
        )


def delete_files(store: Store, name: str) -> None:
    """Deletes the logs and checkpoints of a search; deletes nothing if the name is not valid."""
    if not is_search_name(name):
        return
    logs, checkpoints = log_dir(store, name), checkpoint_dir(store, name)
    for folder, own, pattern in ((logs, LOG_FOLDERS, "worker-*.log"), (checkpoints, CHECKPOINT_FOLDERS, "child-*")):
        for file in fnmatch.filter(own_files.names(folder, own=own), pattern):
            with contextlib.suppress(OSError):
                own_files.remove(folder / file, own=own)
    own_files.remove_if_empty(checkpoints, own=CHECKPOINT_FOLDERS)
    own_files.remove_if_empty(logs, own=LOG_FOLDERS)


def checkpoint_dir(store: Store, name: str) -> Path:
    """Where children's checkpoints go while they are trained: beside the logs' folder."""
    return log_dir(store, name) / "checkpoints"


def _drop_checkpoints(store: Store, search: Search) -> None:
    """Deletes those of children that nobody will train on: who ended them, a pool or a lease, had no hold of them."""
    folder = checkpoint_dir(store, search.name)
    files = [file for file in own_files.names(folder, own=CHECKPOINT_FOLDERS) if file.startswith("child-")]
    if not files:
        return
    over = {f"child-{child.number}" for child in store.children(search.id, states=[State.FAILED, State.LOST])}
    for file in files:
        if file.partition(".")[0] in over:
            with contextlib.suppress(OSError):  # whatever is left costs a little space, and `delete` tries again
                own_files.remove(folder / file, own=CHECKPOINT_FOLDERS)


def _renew(store: Store, lease: Lease, stop: Stop) -> bool:
    try:
        store.renew_lease(lease)
    except StaleLeaseError as error:
        stop.request(str(error))  # the loop may have nothing to write for long; this makes it write, and be told
        return False
    return True


def _prepare_experiment(
    settings: Mapping[str, Any],
    own: Own,
    workers: int,
    progress: Progress | None,
    stage: Stage,
    *,
    download: bool = True,
) -> Experiment:
    """The space and the task. Hides what TensorFlow prints when a user's file imports it."""
    files = _user_files(settings).values()
    for file in files:
        stage(f"Importing {file.path}")
    with without_native_lines():
        experiment = make_experiment(settings, own=own, progress=progress, download=download)
    if workers == 0 and any(USES_TENSORFLOW.search(file.text) for file in files):
        stage(IMPORTING)
        start_tensorflow()  # otherwise it prints when the first child uses it
    return experiment


def _make_controller(
    settings: Mapping[str, Any], experiment: Experiment, seed: int, stage: Stage = lambda text: None
) -> Controller:
    if settings["controller"]["name"] != "random" and "tensorflow" not in sys.modules:
        stage(IMPORTING)
    chosen = settings["controller"]
    with quiet_native_start():
        presets = pkgutil.resolve_name(PRESETS[chosen["name"]])
        preset = presets[known("controller preset", chosen["preset"] or next(iter(presets)), presets)]
        kind = pkgutil.resolve_name(CONTROLLERS[chosen["name"]])
        for option in chosen["options"]:
            known("controller option", option, list(kind.options()))
        controller: Controller = kind(experiment.space, seed=seed, **(preset | chosen["options"]))
    return controller


def _cost_function(experiment: Experiment, limits: Limits) -> Callable[[Any], Cost]:
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


def _make_pool(
    store: Store,
    search: Search,
    lease: Lease,
    experiment: Experiment,
    settings: Mapping[str, Any],
    run: Run,
    stage: Stage,
) -> Pool:
    if run.workers == 0:
        if "tensorflow" not in sys.modules:
            stage("Preparing to train")
        name = f"{lease.epoch}.inline"
        # No heartbeat: nobody else claims under this lease, which has one of its own.
        worker = Worker(
            store,
            search.id,
            experiment,
            name,
            INLINE_DEVICE,
            lease.epoch,
            settings["keep"],
            settings["early_stop"],
            checkpoint_dir(store, search.name),
            beat=False,
        )
        with quiet_native_start():
            worker.warm_up()
        return InlinePool(worker)
    order = {
        "store": store.address if store.file is None else str(store.file),
        "search_id": search.id,
        "settings": dict(settings),
        "epoch": lease.epoch,
        "keep": settings["keep"],
        "threads": search.threads,
        "early_stop": settings["early_stop"],
        "recycling": settings["recycling"],
        "gpu_share": 1.0 / settings["workers_per_gpu"],
        "checkpoints": str(checkpoint_dir(store, search.name)),
    }
    stage(f"Starting {counted(run.workers, 'worker')}")
    deadlines = Deadlines(
        stall=settings["stall"],
        timeout=settings["child_timeout"],
        memory=settings["worker_memory"] or memory_share(run.workers),
    )
    return LocalPool(
        store,
        order,
        count=run.workers,
        gpus=gpu_groups(visible_gpus(), settings["compute"]["devices"]),
        log_dir=log_dir(store, search.name),
        deadlines=deadlines,
    )


def _segment(
    run: Run, search: Search, settings: Mapping[str, Any], changes: Mapping[str, Any], prepared: float
) -> dict[str, Any]:
    files = {group: {"path": file.path, "sha256": file.sha256} for group, file in _user_files(settings).items()}
    return {
        "children": run.children,
        "time": None if run.time is None or math.isinf(run.time) else run.time,
        "workers": run.workers,
        "versions": versions(),
        "machine": machine() | {"threads_per_worker": search.threads, PREPARED: round(prepared, 3)},
        "user_files": files,
        "changes": dict(changes),
    }


def machine() -> dict[str, Any]:
    """What children's last bits can depend on beside the versions."""
    return {
        "host": platform.node(),
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
    }


def other_surroundings(store: Store, search: Search) -> list[str]:
    """How this machine and its packages differ from those of the last run: children may then not be bit-equal."""
    segments = store.segments(search.id)
    if not segments:
        return []
    last, here = segments[-1], versions()
    changed = [
        f"{name} {before} before, {here[name]} now"
        for name, before in last.versions.items()
        if name in here and here[name] != before
    ]
    before, now = last.machine.get("processor"), machine()["processor"]
    return changed if before == now else [*changed, f"processor {before} before, {now} now"]


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def versions() -> dict[str, str]:
    """Of Python and the packages whose releases can change results."""
    found = {"python": platform.python_version()}
    from automl import __version__

    found["automl"] = __version__  # not from metadata: the distribution has another name
    for package in VERSIONED:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "absent"
    return found


def _user_files(settings: Mapping[str, Any]) -> dict[str, UserFile]:
    files = {group: UserFile.from_json(settings[group]["file"]) for group in ("space", "task")}
    return {group: file for group, file in files.items() if file is not None}


def _approved(
    name: str, group: str, stored: UserFile | None, given: str | None, *, accept_change: bool
) -> UserFile | None:
    """The file that a resume will run, or None for a part that needs none. Raises UserFileError."""
    flag = f"--{group}"
    if stored is None:
        if given is not None:
            raise ValueError(f"The search {name!r} uses no file of yours as its {group}; drop {flag}.")
        return None
    if given is None:
        check_approved(stored, name=name, flag=flag)
        if not accept_change:
            stored.check_unchanged()
            return stored
    file = UserFile.read(given or f"{stored.path}:{stored.attribute}")
    if file.sha256 != stored.sha256 and not accept_change:
        raise UserFileError(
            f"{file.path} is not the text that the search began with (sha256 {stored.sha256[:12]}, now "
            f"{file.sha256[:12]}); put the old text back, or accept the new one with --accept-change."
        )
    approve(file)
    return file
