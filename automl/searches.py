"""Creates searches: checks the whole configuration before anything is written."""

from __future__ import annotations

import contextlib
import dataclasses
import pkgutil
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from automl.approval import approve
from automl.child_trainers.experiment import NO_USER_CALLABLES, Experiment, UserCallables
from automl.controllers import SCALES
from automl.controllers.base import Draw
from automl.controllers.checked import CheckedController
from automl.db.records import (
    ATTEMPTS,
    Donor,
    Fault,
    State,
    StoreError,
)
from automl.db.store import Store
from automl.donors.reading import Offer, read_offers
from automl.donors.receiving import received
from automl.donors.references import read_references
from automl.donors.telling import warm_start
from automl.machine import prepare_process
from automl.paths import check_name, delete_files
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
from automl.proposer import Limits
from automl.search_spaces.names import validate_choice
from automl.search_spaces.recorded import check_options
from automl.search_spaces.spec import spec_to_json
from automl.settings.checks import check_config
from automl.settings.schema import SearchConfig
from automl.settings.stored import stored_settings
from automl.surroundings import (
    workdir_of,
    working_in,
)
from automl.worker_plan import check_workers, plan_workers

FIRST_DRAWS = 8  # children that are drawn once before a search is written
READING_DONORS = "Reading the earlier searches"
BATCH_SIZE = 8  # children that a controller step proposes, by default


def create(
    store: Store,
    name: str,
    config: SearchConfig,
    *,
    user_callables: UserCallables = NO_USER_CALLABLES,
    progress: Progress | None = None,
    stage: Stage = lambda text: None,
) -> Run:
    """Checks the whole configuration, then writes the new search. Returns its first run.

    Args:
        store: need not exist yet; it is made last, so that a refused start leaves nothing behind.
        user_callables: the user's space, task or controller that only this process has.
        stage: called before each step that may take seconds.

    Raises:
        NameTakenError: the name exists; nothing was changed.
        ValueError: an option has a bad value or no effect; nothing was written.
    """
    check_name(name)
    refuse_taken(store, name)
    settings = stored_settings(config)
    if config.warm_start:
        stage(READING_DONORS)
    offers = read_offers(read_references(config.warm_start, store.address, own_name=name))
    with working_in(workdir_of(settings)):
        plan = _checked(config, settings, offers, user_callables, progress, stage)
    store.make()
    store.create_search(
        name,
        space=settings["space"]["name"],
        task=settings["task"]["name"],
        controller=settings["controller"]["name"],
        seed=config.seed,
        replicas=plan.replicas,
        batch_size=plan.batch_size,
        threads=config.threads,
        settings=settings,
        budget=plan.run.children,
        donors=plan.donors,
    )
    return plan.run


class _Plan(NamedTuple):
    """What a checked configuration comes to: the first run, the number of batches in flight and their size, and what
    the search receives from earlier ones."""

    run: Run
    replicas: int
    batch_size: int
    donors: list[Donor]


def _checked(
    config: SearchConfig,
    settings: dict[str, Any],
    offers: Sequence[Offer],
    user_callables: UserCallables,
    progress: Progress | None,
    stage: Stage,
) -> _Plan:
    """Checks the configuration and completes the settings."""
    check_gpus(config.gpus_per_child)
    scale = _scale(config)
    some_workers = 1 if config.workers is None else config.workers  # how many is planned once the task is known
    replicas = config.replicas or scale.get("replicas") or (2 if some_workers else 1)
    batch_size = config.batch_size or scale.get("batch_size") or BATCH_SIZE
    prepare_process(config.threads, some_workers, config.policy_device)
    for file in user_files_of(settings).values():
        file.check_name()
    experiment = prepare_experiment(settings, user_callables, some_workers, progress, stage)
    workers, per_gpu, reason = plan_workers(config, settings["task"]["name"], experiment.task)
    settings |= {"workers_per_gpu": per_gpu, "workers_per_gpu_reason": reason}
    check_workers(settings, experiment.task, workers)
    run = Run(config.budget, config.time, workers)
    settings["run"] = dataclasses.asdict(run)
    check_config(config, settings, experiment)
    with checking_space(settings, experiment.space):
        _check_task(settings, experiment, stage)
        donors = [received(offer, experiment.space) for offer in offers]
        _check_controller(settings, experiment, config.seed, donors, stage, user_callables)
    for file in user_files_of(settings).values():
        approve(file)  # the user has just named it
    return _Plan(run, replicas, batch_size, donors)


def _check_task(settings: dict[str, Any], experiment: Experiment, stage: Stage) -> None:
    """Checks the task and the data of a new search, and completes its settings.

    Raises:
        ValueError: one of them is not valid.
    """
    task = experiment.task
    if settings["early_stop"] != "none" and task.objective is None:
        name, stop = settings["task"]["name"], settings["early_stop"]
        raise ValueError(
            f"Children of the task {name} report no metrics per epoch, which --early-stop {stop} needs; drop it, or "
            "for your own function set the number of epochs with --set task.epochs=N."
        )
    task.check_goal()
    if settings["task"]["file"] is None:
        stage(READING.format(settings["task"]["name"]))
    task.prepare()  # before the search is written: wrong data must leave no search behind
    settings["task"]["fingerprint"] = task.fingerprint
    settings["task"]["brightness"] = task.brightness
    settings["task"]["reading"] = task.reading()
    settings["task"]["constants"] = task.constants()  # a later version may change a recipe


def _check_controller(
    settings: Mapping[str, Any],
    experiment: Experiment,
    seed: int,
    donors: Sequence[Donor],
    stage: Stage,
    user_callables: UserCallables,
) -> None:
    """Checks the controller and the first proposals of a new search.

    Raises:
        ValueError: one of them is not valid.
    """
    cost = cost_function(experiment, Limits(**settings["limits"]))
    controller = make_controller(settings, experiment, seed, stage, user_callables=user_callables)
    warm_start(controller, settings["controller"]["name"], donors, experiment.space)
    # The first proposals are made now, so that their errors occur before anything is written.
    draws = [Draw(number) for number in range(FIRST_DRAWS)]
    if isinstance(controller, CheckedController):
        controller.check(draws)
    for proposal in controller.ask(draws):
        walk = experiment.space.decode(proposal.tokens)
        check_options(walk.decisions)
        spec_to_json(walk.spec)
        cost(walk.spec)


def _scale(config: SearchConfig) -> Mapping[str, int]:
    """The number of batches in flight and their size, as far as the controller's preset sets them."""
    scales = pkgutil.resolve_name(SCALES[config.controller]) if config.controller in SCALES else {}
    scale: Mapping[str, int] = scales.get(config.controller_preset, {})
    return scale


def refuse_taken(store: Store, name: str) -> None:
    """Raises NameTakenError if the store has a search of this name. Imports nothing slow."""
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


def make_ready(store: Store, name: str, *, fault: str | None = None, number: int | None = None) -> list[int]:
    """Makes failed and lost children ready to be trained again; returns their numbers.

    Raises:
        ValueError: there is no such fault, or the child has not failed.
        LeaseHeldError: the search runs.
    """
    faults = () if fault is None else (Fault(validate_choice("fault", fault, list(ATTEMPTS))),)
    if number is not None:
        children = store.children(store.search(name).id, number=number)
        if not children:
            raise ValueError(f"{name!r} has no child {number}; see automl show {name}.")
        if children[0].state not in (State.FAILED, State.LOST):
            raise ValueError(f"Child {number} of {name!r} has not failed: it is {children[0].state}.")
        if faults and children[0].fault not in faults:
            raise ValueError(f"Child {number} of {name!r} has another fault: {children[0].fault}.")
    return store.retry(name, faults=faults, number=number)
