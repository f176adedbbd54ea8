"""Makes the pool of a run: workers on this machine, or this process itself."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from automl.child_trainers.devices import (
    gpu_groups,
    memory_share,
    quiet_native_start,
    visible_gpus,
)
from automl.child_trainers.experiment import Experiment
from automl.child_trainers.workers.pool import Deadlines, InlinePool, LocalPool, Pool
from automl.child_trainers.workers.worker import Worker
from automl.db.records import (
    Lease,
    Search,
)
from automl.db.store import Store
from automl.paths import checkpoint_dir, log_dir
from automl.preparation import Run, Stage
from automl.wording import counted

INLINE_DEVICE = "this process"  # of children that are trained in the coordinator


def make_pool(
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
