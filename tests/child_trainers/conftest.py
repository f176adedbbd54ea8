"""A search in a SQLite store, made by hand, for tests of workers and pools."""

import dataclasses
from typing import Any

import pytest

from automl.child_trainers.artefacts import FolderArtefacts
from automl.child_trainers.user_files import UserFile
from automl.child_trainers.workers.messages import WorkerOrder
from automl.db.owner import Owner
from automl.db.records import Child, Lease, NewChild, Step
from automl.db.store import Store
from automl.search_spaces.space import Space
from automl.search_spaces.spec import spec_to_json


class Clock:
    """Seconds that pass only when a test says so."""

    def __init__(self, now=1000.0):
        self.now = now

    def __call__(self):
        return self.now


@dataclasses.dataclass(frozen=True)
class HandMadeSearch:
    store: Store
    id: int
    lease: Lease
    settings: dict[str, Any]

    def child(self, number) -> Child:
        (child,) = self.store.children(self.id, number=number)
        return child

    def attempts(self, number):
        return self.store.attempts(self.child(number).id)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def new_search(tmp_path):
    """Makes a running search whose children have the given tokens, and the specs that a space makes of them."""
    stores = []

    def spec_of(space, tokens):
        return None if space is None else spec_to_json(Space(space).decode(tokens).spec)

    def make(tokens, *, space=None, settings=None, budget=None, clock=None, population=None):
        store = Store(str(tmp_path / "store.db"), create=True, clock=clock)
        stores.append(store)
        search = store.create_search(
            "tried",
            space="mine",
            task="mine",
            controller="none",
            seed=0,
            replicas=1,
            batch_size=len(tokens),
            threads=1,
            settings=settings or {},
            budget=budget,
        )
        lease = store.take_lease("tried", Owner.this_process())
        proposals = [
            NewChild(
                number=number,
                batch=0,
                policy_step=0,
                origin="policy",
                tries=1,
                tokens=given,
                log_probs=(None,) * len(given),
                canonical_hash=str(number),
                spec=spec_of(space, given),
                seed=100 + number,
                params=None,
                flops=None,
                population=None if population is None else number - number % population,
            )
            for number, given in enumerate(tokens)
        ]
        step = Step(0, None, {"proposed": True}, "", None, None)
        store.commit_step(lease, step, {}, proposals, {})
        return HandMadeSearch(store, search.id, lease, settings or {})

    yield make
    for store in stores:
        store.close()


@pytest.fixture
def settings_of():
    """The settings of a search, as they are stored, with only what a test cares for."""

    def make(*, space="convnet", task="digits", **changes):
        def chosen(reference, **more):
            file = UserFile.read(reference).to_json() if UserFile.is_reference(reference) else None
            return {"name": reference, "options": {}, "file": file} | more

        settings = {
            "space": chosen(space, preset=None),
            "narrowing": {"fix": [], "only": []},
            "schedule": None,
            "task": chosen(task, recipe=None, goal=None, data_dir=None),
        }
        for path, value in changes.items():
            group, _, name = path.partition("__")
            if name:
                settings[group][name] = value
            else:
                settings[group] = value
        return settings

    return make


@pytest.fixture
def order_of(tmp_path):
    """What a pool tells its workers of a search."""

    def make(search, **changes):
        order = WorkerOrder(
            store=search.store.address,
            search_id=search.id,
            settings=search.settings,
            epoch=search.lease.epoch,
            keep=0,
            threads=1,
            early_stop="none",
            recycle_after=1000,
            recycle_growth=2**40,
            gpu_memory=None,
            artefacts=FolderArtefacts(tmp_path / "logs").to_json(),
        )
        return dataclasses.replace(order, **changes)

    return make
