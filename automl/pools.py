"""Makes the pool of a run: workers on this machine, this process, or the user's own pool."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from automl.child_trainers.devices import memory_share, quiet_native_start
from automl.child_trainers.experiment import Experiment
from automl.child_trainers.gpu_sharing import busy_gpus
from automl.child_trainers.gpus import Gpu, gpu_failure, gpu_groups, used_memory, visible_gpus
from automl.child_trainers.workers.local_pool import LocalPool
from automl.child_trainers.workers.messages import WorkerOrder
from automl.child_trainers.workers.monitor import Deadlines
from automl.child_trainers.workers.pool import InlinePool, Pool, PoolMaker, PoolSetup
from automl.child_trainers.workers.worker import Worker
from automl.db.records import Lease, Search
from automl.db.store import Store
from automl.paths import artefacts_of
from automl.preparation import Run, Stage
from automl.wording import counted
from automl.worker_plan import sharing_workers, worker_gpu_memory

INLINE_DEVICE = "this process"  # the device of children that are trained in the coordinator's process


def _inline_pool(setup: PoolSetup) -> InlinePool:
    order = setup.order
    # No heartbeat: no other process claims under this lease, and the lease has its own heartbeat.
    worker = Worker(
        setup.store,
        order.search_id,
        setup.experiment,
        f"{order.epoch}.inline",
        INLINE_DEVICE,
        order.epoch,
        order.keep,
        order.early_stop,
        artefacts=setup.artefacts,
        beat=False,
    )
    with quiet_native_start():
        worker.warm_up()
    return InlinePool(worker)


POOLS: Mapping[str, PoolMaker] = {"inline": _inline_pool, "local": LocalPool}


def _notices(gpus: Sequence[Gpu], sharing: int) -> list[str]:
    """What the user should know of the GPUs before workers start."""
    if (failure := gpu_failure()) is not None:
        return [f"No GPU is used ({failure})."]
    return busy_gpus(gpus, used_memory(gpus), sharing)


def make_pool(
    store: Store,
    search: Search,
    lease: Lease,
    experiment: Experiment,
    settings: Mapping[str, Any],
    run: Run,
    stage: Stage,
    own: PoolMaker | None = None,
) -> Pool:
    """Makes the pool of a run under its lease.

    Args:
        own: makes the user's own pool, instead of one of `POOLS`.

    Raises:
        TypeError: `own` did not return a pool.
    """
    artefacts = artefacts_of(store, search.name)
    num_gpus = experiment.task.requirements.devices
    gpus = visible_gpus() if run.workers else []
    gpus = gpus[: len(gpus) // num_gpus * num_gpus]  # those of whole groups
    uuids = [gpu.uuid for gpu in gpus if gpu.uuid is not None]
    sharing = sharing_workers(settings, run.workers, len(gpus) // num_gpus)
    order = WorkerOrder(
        store=store.address if store.file is None else str(store.file),
        search_id=search.id,
        settings=dict(settings),
        epoch=lease.epoch,
        keep=settings["keep"],
        threads=search.threads,
        early_stop=settings["early_stop"],
        recycle_after=settings["recycling"]["after"],
        recycle_growth=settings["recycling"]["growth"],
        gpu_memory=worker_gpu_memory(settings, experiment.task, run.workers) if run.workers else None,
        artefacts=artefacts.to_json(),
    )
    setup = PoolSetup(
        store=store,
        order=order,
        experiment=experiment,
        artefacts=artefacts,
        deadlines=Deadlines(
            stall=settings["stall"],
            timeout=settings["child_timeout"],
            memory=settings["worker_memory"] or memory_share(max(1, run.workers)),
        ),
        count=run.workers,
        gpus=gpu_groups(gpus, num_gpus),
        gpu_uuids=uuids if len(uuids) == len(gpus) else (),
        notices=_notices(gpus, sharing) if run.workers else (),
    )
    if run.workers:
        stage(f"Starting {counted(run.workers, 'worker')}")
    elif "tensorflow" not in sys.modules:
        stage("Preparing to train")
    pool = (own or POOLS["local" if run.workers else "inline"])(setup)
    if not isinstance(pool, Pool):
        raise TypeError(f"The argument pool must make a Pool (child_trainers/workers/pool.py), got {pool!r}.")
    return pool
