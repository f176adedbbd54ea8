"""Runs a search: makes its parts, takes the lease, runs the coordinator, and releases the lease whatever happens."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

from automl.child_trainers.data.summary import DataSummary
from automl.child_trainers.experiment import NO_USER_CALLABLES, SESSION, Experiment, UserCallables, make_space
from automl.child_trainers.workers.heartbeat import Heartbeat
from automl.child_trainers.workers.pool import PoolMaker
from automl.controller_records import restore_controller
from automl.controllers.base import Controller
from automl.controllers.checked import ControllerError
from automl.coordinator import Coordinator
from automl.db.owner import Owner
from automl.db.records import (
    Fault,
    Lease,
    Search,
    SearchState,
    StaleLeaseError,
    State,
)
from automl.db.store import Store
from automl.donors.telling import warm_start
from automl.endings import Ending, Stop, StopNow
from automl.listeners.base import SearchStarted, SegmentEnded
from automl.listeners.dispatch import Listeners
from automl.machine import machine, prepare_process, versions
from automl.paths import artefacts_of, drop_checkpoints
from automl.pools import make_pool
from automl.preparation import (
    READING,
    Progress,
    Run,
    Stage,
    check_gpus,
    checking_space,
    cost_function,
    make_controller,
    prepare_experiment,
    user_files_of,
)
from automl.proposer import Limits, Proposer
from automl.recording import accepted_order, newly_recorded
from automl.resuming import Resume, as_created
from automl.search_spaces import SPACES
from automl.search_spaces.recorded import Catalogue
from automl.settings.checks import check_task_options
from automl.settings.stored import may_download
from automl.status import PREPARED
from automl.surroundings import (
    enter,
    workdir_of,
    working_in,
)
from automl.worker_plan import check_workers

ERROR, AT_ONCE = "it ended with an error", "stopped at once"  # causes of a pause


def run_search(
    store: Store,
    name: str,
    run: Run,
    stop: Stop,
    *,
    resume: Resume | None = None,
    user_callables: UserCallables = NO_USER_CALLABLES,
    listeners: Listeners | None = None,
    pool: PoolMaker | None = None,
    on_data: Callable[[DataSummary], None] | None = None,
    progress: Progress | None = None,
    stage: Stage = lambda text: None,
) -> Ending:
    """Runs a search under its lease until it ends, and releases it whatever happens.

    Args:
        resume: from `prepare_resume`; its changes are written once the lease is held.
        user_callables: the user's space, task or controller that only this process has.
        listeners: receive the events of the search.
        pool: makes the user's own pool, instead of one of `automl.pools.POOLS`.
        on_data: called before the first turn with a summary of the data, if the task has one.
        stage: called before each step that may take seconds.

    Raises:
        LeaseHeldError: another process runs the search.
        StaleLeaseError: another process took the search over during the run.
    """
    if resume is None:
        resume = as_created(store.search(name), run)
    with working_in(workdir_of(resume.settings)):
        return _run_search(
            store, name, resume, stop, user_callables, listeners or Listeners(), pool, on_data, progress, stage
        )


def _run_search(
    store: Store,
    name: str,
    resume: Resume,
    stop: Stop,
    user_callables: UserCallables,
    listeners: Listeners,
    pool: PoolMaker | None,
    on_data: Callable[[DataSummary], None] | None,
    progress: Progress | None,
    stage: Stage,
) -> Ending:
    # The parts are made before the lease is taken: a resume with an error must not change what other processes see.
    parts = _make_parts(store, resume, user_callables, progress, stage)
    if on_data is not None and (summary := parts.experiment.task.data_summary()) is not None:
        on_data(summary)
    lease = store.take_lease(name, Owner.this_process())
    ending = _as_before(lease)
    try:
        with Heartbeat(lambda: _renew(store, lease, stop)):
            # Another process may have resumed the search with other changes since it was read.
            before, resume = resume, resume.again(store)
            if (before.run, before.settings) != (resume.run, resume.settings):
                enter(workdir_of(resume.settings))
                parts = _make_parts(store, resume, user_callables, progress, stage)
            proposer = _make_proposer(store, resume, parts)
            ending = Ending(SearchState.PAUSED, ERROR)  # all checks are done: the run begins
            ending = _run_under_lease(store, resume, lease, parts, proposer, stop, listeners, pool, stage)
        return with_counts(store, name, ending)
    except StopNow:
        ending = Ending(SearchState.PAUSED, stop.cause)
        return with_counts(store, name, ending)
    except ControllerError as error:
        if ending.cause == ERROR:
            ending = Ending(SearchState.PAUSED, str(error))
        raise
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


@dataclasses.dataclass(frozen=True)
class _Parts:
    """The space and task, and the controller of a search."""

    experiment: Experiment
    controller: Controller
    of_children: dict[int, tuple[int, ...]] = dataclasses.field(default_factory=dict)  # decisions to be recorded


def _as_before(lease: Lease) -> Ending:
    """The ending that restores the state before the lease was taken, for a run that does not begin."""
    if lease.state in (SearchState.RUNNING, SearchState.STOPPING):  # of a process that died
        return Ending(SearchState.PAUSED, ERROR)
    return Ending(SearchState(lease.state), lease.cause)


def _make_parts(
    store: Store, resume: Resume, user_callables: UserCallables, progress: Progress | None, stage: Stage
) -> _Parts:
    """Makes the parts of a search. Raises ValueError if a change of the resume is not valid."""
    search, settings, run = resume.search, resume.settings, resume.run
    prepare_process(search.threads, run.workers, settings["policy_device"])
    check_gpus(settings["compute"]["devices"])
    _check_session(settings, user_callables, run.workers)
    if "space.file" in resume.changes:
        settings["space"] = {**settings["space"], "order": []}
        changed = make_space(settings)
        with checking_space(settings, changed):
            settings["space"]["order"] = accepted_order(store, search, changed)
    download = resume.arguments is None or may_download(settings, resume.arguments.get("data_dir"))
    experiment = prepare_experiment(settings, user_callables, run.workers, progress, stage, download=download)
    check_workers(settings, experiment.task, run.workers)
    controller = make_controller(settings, experiment, search.seed, stage, user_callables=user_callables)
    _check_fixed(store, search, controller, experiment, settings, resume.changes)
    if settings["task"]["file"] is None:
        stage(READING.format(settings["task"]["name"]))
    experiment.task.prepare()  # once, before workers start: each would download the data, or fail on its own
    return _Parts(experiment, controller)


def _make_proposer(store: Store, resume: Resume, parts: _Parts) -> Proposer:
    """Restores the controller and makes the proposer.

    Raises:
        ValueError: the space makes other children from stored tokens.
    """
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
    warm_start(controller, settings["controller"]["name"], store.donors(search.id), experiment.space)
    restore_controller(store, search.id, controller)
    limits = Limits(**settings["limits"])
    return Proposer(
        experiment.space,
        controller,
        cost_function(experiment, limits),
        limits,
        seed=search.seed,
        seen=store.hashes(search.id),
        refused=search.refused,
        catalogue=catalogue,
        admits=experiment.task.admits,
        listed=experiment.task.listed,
    )


def _run_under_lease(
    store: Store,
    resume: Resume,
    lease: Lease,
    parts: _Parts,
    proposer: Proposer,
    stop: Stop,
    listeners: Listeners,
    own_pool: PoolMaker | None,
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
    listeners.search_started(SearchStarted(store.search(search.name), segment, run.workers))
    try:
        made = make_pool(store, search, lease, experiment, settings, run, stage, own_pool)
        with contextlib.closing(made) as pool:
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
                log=str(artefacts_of(store, search.name)) if run.workers else "",
                objective=experiment.task.objective,
                early_stop=settings["early_stop"],
                listeners=listeners,
            )
            ending = coordinator.run(run.children, stop)
    except StopNow:
        ending = Ending(SearchState.PAUSED, stop.cause)
    except ControllerError as error:
        ending = Ending(SearchState.PAUSED, str(error))
        raise
    except KeyboardInterrupt:
        ending = Ending(SearchState.PAUSED, AT_ONCE)
        raise
    finally:
        try:
            store.end_segment(lease, segment, ending.cause or ending.state)
        finally:
            listeners.segment_ended(SegmentEnded(segment, ending.state, ending.cause))
        drop_checkpoints(store, search, artefacts_of(store, search.name))
    return ending


def _check_session(settings: Mapping[str, Any], user_callables: UserCallables, workers: int) -> None:
    """Raises ValueError if workers cannot import a function of this session, or if the search does not use it."""
    for group in ("space", "task", "controller"):
        in_session = settings[group]["name"].startswith(SESSION)
        if in_session and workers and group != "controller":  # workers need no controller
            raise ValueError(
                f"Workers cannot find the {group} {settings[group]['name'].removeprefix(SESSION)}, which exists only "
                "in a Python session; use workers=0."
            )
        if group in user_callables and not in_session:
            raise ValueError(f"This search has its own {group}; drop the argument {group}.")


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
        raise ValueError(f"{fixed[0]} cannot be changed after a search has begun: the stored state would not fit.")
    spec = experiment.space.survey()[0].spec
    options = [
        name.removeprefix("task.") for name in changes if name.removeprefix("task.") in settings["task"]["options"]
    ]
    check_task_options(options, settings, task, spec)
    for option in task.fixed_options:
        if f"task.{option}" in changes:
            raise ValueError(
                f"task.{option} cannot be changed after a search has begun: rewards would no longer be comparable."
            )


def _renew(store: Store, lease: Lease, stop: Stop) -> bool:
    try:
        store.renew_lease(lease)
    except StaleLeaseError as error:
        stop.request(str(error))  # the loop may not write for long; stopping makes it write, which raises this too
        return False
    return True


def _segment(
    run: Run, search: Search, settings: Mapping[str, Any], changes: Mapping[str, Any], prepared: float
) -> dict[str, Any]:
    files = {group: {"path": file.path, "sha256": file.sha256} for group, file in user_files_of(settings).items()}
    return {
        "children": run.children,
        "time": None if run.time is None or math.isinf(run.time) else run.time,
        "workers": run.workers,
        "versions": versions(),
        "machine": machine() | {"threads_per_worker": search.threads, PREPARED: round(prepared, 3)},
        "user_files": files,
        "changes": dict(changes),
    }
