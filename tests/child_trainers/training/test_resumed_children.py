"""A child whose worker dies goes on from its checkpoint, and what it came to before is not judged again."""

import numpy as np
import pytest
import tensorflow as tf

from automl.child_trainers.artefacts import FolderArtefacts
from automl.child_trainers.experiment import Experiment
from automl.child_trainers.outcome import Outcome
from automl.child_trainers.task import Objective, Task
from automl.child_trainers.training import trainer
from automl.child_trainers.training.early_stop import FIRST_CHILDREN
from automl.child_trainers.training.trainer import Trainer, train_epochs
from automl.child_trainers.workers.worker import Worker
from automl.db.records import Fault, State, Step
from automl.search_spaces.decisions import Choice
from automl.search_spaces.space import Space

EPOCHS = 9
LATE = 6  # children that are poor until their worker dies, and better than all others in the end
DIES_AT = 7
NUM_CHILDREN = 60


class Killed(BaseException):
    """The worker's process ends here."""


class Network:
    """One weight, that counts epochs."""

    def __init__(self):
        self.trainable = {"epochs": tf.Variable(0.0)}
        self.moving = {}
        self.state = {}


class Counting(Trainer):
    """Trains nothing; its accuracy is that of a curve."""

    def __init__(self, curve, dies_at):
        super().__init__(Network(), {}, steps_per_epoch=1)
        self._curve = curve
        self._dies_at = dies_at

    def train_epoch(self, epoch):
        weight = self.network.trainable["epochs"]
        assert int(weight.numpy()) == epoch
        if epoch == self._dies_at:
            raise Killed
        weight.assign_add(1.0)
        return 1.0

    def _train_epoch(self, epoch):
        raise AssertionError("`train_epoch` compiles nothing here.")

    def metrics(self):
        return {"accuracy": self._curve[int(self.network.trainable["epochs"].numpy()) - 1]}


class CurveTask(Task):
    """Children whose accuracies by epoch a test says, by their seeds; and after how many epochs their worker dies."""

    objective = Objective("accuracy", maximize=True, epochs=EPOCHS)

    def __init__(self):
        self.curves = {}
        self.deaths = {}
        self.begun = []

    def evaluate(self, spec, *, seed, report):
        self.begun.append(seed)
        made = Counting(self.curves[seed], self.deaths.pop(seed, None))
        trained = train_epochs(made, report, self.objective)
        return Outcome(trained.history[-1]["accuracy"], {"accuracy": trained.history[-1]["accuracy"]})


def space():
    return {"size": (yield Choice("size", (10, 20)))}


@pytest.fixture(params=[True, False], ids=["with its checkpoint", "without"])
def keeps_checkpoints(request, monkeypatch):
    """Whether a child writes a checkpoint after every epoch, or is too quick to write one."""
    monkeypatch.setattr(trainer, "CHECKPOINT_SECONDS", 0 if request.param else 1e9)
    return request.param


@pytest.fixture
def task():
    return CurveTask()


@pytest.fixture
def new_worker(new_search, task, clock, tmp_path):
    search = new_search([(0,)] * NUM_CHILDREN, space=space, clock=clock)
    made = []

    def make(early_stop):
        """A fresh process: it knows nothing but what the store and the checkpoints say."""
        made.append(early_stop)
        worker = Worker(
            search.store,
            search.id,
            Experiment(Space(space), task),
            f"1.0.{len(made)}",
            "cpu",
            search.lease.epoch,
            0,
            early_stop,
            artefacts=FolderArtefacts(tmp_path),
            beat=False,
        )
        worker.warm_up()
        return worker

    make.search = search
    return make


def seed_of(search, number):
    return search.child(number).seed


def epochs_of(search, number):
    return [row.epoch for row in search.store.measurements(search.child(number).id)]


@pytest.mark.parametrize("early_stop", ["median", "hyperband", "asha"])
def test_a_child_is_not_stopped_by_epochs_that_it_has_passed(new_worker, task, clock, early_stop, keeps_checkpoints):
    search = new_worker.search
    seeds = [seed_of(search, number) for number in range(NUM_CHILDREN)]
    late = [0.01 + epoch / 1000 for epoch in range(DIES_AT)] + [0.99] * (EPOCHS - DIES_AT)
    good = np.linspace(0.5, 0.8, EPOCHS).tolist()
    task.curves = dict.fromkeys(seeds[:LATE], late) | {
        seed: [value + index / 1000 for value in good] for index, seed in enumerate(seeds[LATE:])
    }
    # No child has ended yet, so none is stopped; then their workers die, and the store gives these children back.
    worker = new_worker(early_stop)
    claims = [worker.claim() for _ in range(LATE)]
    for claim in claims:
        task.deaths = {claim.seed: DIES_AT}
        with pytest.raises(Killed):
            worker.train(claim)
        assert epochs_of(search, claim.number) == list(range(1, DIES_AT + 1))
    # Better ones end meanwhile.
    others = new_worker(early_stop)
    while search.store.progress(search.id).trained < FIRST_CHILDREN + 4:
        clock.now += 1
        assert others.work_once()
    for claim in claims:
        assert search.store.fail_attempt(claim, Fault.CRASHED)
    again = new_worker(early_stop)
    clock.now += 1
    task.begun.clear()
    while any(search.child(number).state != State.TRAINED for number in range(LATE)):
        clock.now += 1
        assert again.work_once()
    assert set(seeds[:LATE]) <= set(task.begun)
    for number in range(LATE):
        child = search.child(number)
        assert (child.stopped_at, child.reward) == (None, 0.99)
        assert epochs_of(search, number) == list(range(1, EPOCHS + 1))


def test_a_child_that_asha_has_promoted_keeps_its_rung(new_worker, task, clock, keeps_checkpoints):
    search = new_worker.search
    seeds = [seed_of(search, number) for number in range(NUM_CHILDREN)]
    chosen = FIRST_CHILDREN  # among the best third at epoch 1; at epoch 3 the fourth of nine

    def curve(first, third):
        return [first, first, *[third] * (EPOCHS - 2)]

    better, worse = [curve(0.5, 0.6)] * 3, [curve(0.5, 0.4)] * (FIRST_CHILDREN - 3)
    promising = [curve(0.8, 0.1)] * (NUM_CHILDREN - chosen - 1)
    task.curves = dict(zip(seeds, [*better, *worse, curve(0.7, 0.51), *promising], strict=True))
    worker = new_worker("asha")

    def train(count):
        for _ in range(count):
            clock.now += 1
            assert worker.work_once()

    train(FIRST_CHILDREN + 1)
    assert search.child(chosen).stopped_at == 3
    step = Step(1, 0, {"proposed": True}, "", None, None)
    search.store.commit_step(search.lease, step, {chosen: 0.4}, [], {})
    train(3)  # now it is the fourth of twelve
    clock.now += 1
    promoted = worker.claim()
    assert promoted.number == chosen
    task.deaths = {promoted.seed: 5}
    with pytest.raises(Killed):
        worker.train(promoted)
    assert epochs_of(search, chosen) == [1, 2, 3, 4, 5]
    train(3)  # and no longer among the best third at epoch 1
    assert search.store.fail_attempt(promoted, Fault.CRASHED)
    clock.now += 1
    again = new_worker("asha")
    assert again.work_once()
    child = search.child(chosen)
    assert (child.state, child.stopped_at, child.reward) == (State.TRAINED, None, 0.51)
    assert epochs_of(search, chosen) == list(range(1, EPOCHS + 1))
