"""A worker stepped by hand, over a real store."""

import dataclasses
import math
import os
import subprocess
import sys

import numpy as np
import pytest

from automl.child_trainers.experiment import Experiment
from automl.child_trainers.gpu_faults import GpuLostError
from automl.child_trainers.outcome import Outcome
from automl.child_trainers.task import Objective, SearchFaultError, Task
from automl.child_trainers.training.early_stop import FIRST_CHILDREN, EarlyStopError
from automl.child_trainers.workers import heartbeat, serve
from automl.child_trainers.workers.claim_report import ClaimLostError, ClaimReport
from automl.child_trainers.workers.process import ROOT
from automl.child_trainers.workers.serve import Recycling
from automl.child_trainers.workers.worker import LOG_TAIL, Worker
from automl.db.owner import Owner
from automl.db.records import Delivery, Fault, SearchState, State, StoreError
from automl.db.store import CLAIM_SECONDS
from automl.search_spaces.decisions import Choice
from automl.search_spaces.recorded import decision_to_json
from automl.search_spaces.space import Space


def space():
    return {"size": (yield Choice("size", (10, 20, 30)))}


class FakeTask(Task):
    """Calls the function that a test puts here."""

    floor = 0.0

    def __init__(self):
        self.function = lambda spec, seed, report: Outcome(spec["size"] / 100)

    def evaluate(self, spec, *, seed, report):
        return self.function(spec, seed, report)


@pytest.fixture
def task():
    return FakeTask()


@pytest.fixture
def search(new_search, clock):
    return new_search([(0,), (1,), (2,), (0,)], space=space, clock=clock)


@pytest.fixture
def new_worker(search, task, clock):
    def make(name="1.0.1", **changes):
        settings = {"device": "cpu", "epoch": search.lease.epoch, "keep": 2, "beat": False, "clock": clock} | changes
        return Worker(search.store, search.id, Experiment(Space(space), task), name, **settings)

    return make


def test_claim_train_deliver(search, task, new_worker, clock):
    worker = new_worker()

    def evaluate(spec, seed, report):
        assert (spec, seed) == ({"size": 10}, 100)
        clock.now += 2.5
        report(1, val_accuracy=0.5)
        return Outcome(0.125, {"val_accuracy": 0.5}, seconds={"build": 0.5, "train": 2.0})

    task.function = evaluate
    claim = worker.claim()
    assert (claim.number, search.child(0).state, search.child(0).worker) == (0, State.RUNNING, "1.0.1")
    delivery = worker.train(claim)
    assert search.child(0).state == State.RUNNING
    phases = {"build": 0.5, "train": 2.0}
    assert delivery == Delivery(reward=0.125, metrics={"val_accuracy": 0.5}, seconds=2.5, phases=phases)
    assert worker.deliver(claim, delivery)
    child = search.child(0)
    assert (child.state, child.reward, child.metrics) == (State.TRAINED, 0.125, {"val_accuracy": 0.5})
    assert (child.seconds, child.phases) == (2.5, phases)
    (attempt,) = search.attempts(0)
    assert (attempt.worker, attempt.device, attempt.fault) == ("1.0.1", "cpu", None)
    assert not worker.deliver(claim, delivery)  # once


def test_work_once_until_there_is_nothing(search, new_worker):
    worker = new_worker()
    assert [worker.work_once() for _ in range(5)] == [True, True, True, True, False]
    assert [child.reward for child in search.store.children(search.id)] == [0.1, 0.2, 0.3, 0.1]


def test_nothing_is_claimed_under_another_epoch_or_when_stopping(search, new_worker):
    assert new_worker(epoch=search.lease.epoch + 1).claim() is None
    search.store.set_state(search.lease, SearchState.STOPPING)
    assert not new_worker().work_once()


def test_a_lost_gpu_is_no_fault_of_the_child(search, task, new_worker):
    task.function = raises(RuntimeError("CUDA_ERROR_LAUNCH_FAILED: unspecified launch failure"))
    worker = new_worker()
    claim = worker.claim()
    with pytest.raises(GpuLostError) as caught:
        worker.train(claim)
    assert str(caught.value) == "RuntimeError: CUDA_ERROR_LAUNCH_FAILED: unspecified launch failure"
    assert search.child(claim.number).state == State.RUNNING and search.attempts(claim.number)[0].fault is None


def test_the_budget_gates_claims(new_search, task):
    search = new_search([(0,), (1,)], space=space, budget=1)
    worker = Worker(search.store, search.id, Experiment(Space(space), task), "1.0.1", "cpu", search.lease.epoch, 0)
    assert [worker.work_once(), worker.work_once()] == [True, False]


class ResourceExhaustedError(Exception):
    pass


def raises(error):
    def evaluate(spec, seed, report):
        raise error

    return evaluate


@pytest.mark.parametrize(
    ("evaluate", "fault", "message"),
    [
        (raises(ValueError("no such layer")), Fault.RAISED, "ValueError: no such layer"),
        (raises(ValueError()), Fault.RAISED, "ValueError: ValueError"),
        (raises(SystemExit(3)), Fault.RAISED, "SystemExit: 3"),
        (raises(MemoryError("8 GB")), Fault.OOM, "MemoryError: 8 GB"),
        (raises(ResourceExhaustedError("GPU")), Fault.OOM, "ResourceExhaustedError: GPU"),
        (
            raises(ResourceExhaustedError("OOM when allocating tensor on device:GPU:0")),
            Fault.GPU_OOM,
            "the memory of its GPU is full: ResourceExhaustedError: OOM when allocating tensor on device:GPU:0",
        ),
        (raises(FloatingPointError("overflow")), Fault.DIVERGED, "FloatingPointError: overflow"),
        (
            lambda spec, seed, report: report(2, loss=math.nan),
            Fault.DIVERGED,
            "DivergedError: loss of epoch 2 is nan.",
        ),
        (
            lambda spec, seed, report: report(1, accuracy=0.5, loss=np.float32("inf")),
            Fault.DIVERGED,
            "DivergedError: loss of epoch 1 is inf.",
        ),
    ],
)
def test_faults_are_delivered_with_message_and_log(search, task, new_worker, evaluate, fault, message):
    task.function = evaluate
    assert new_worker().work_once()
    child = search.child(0)
    assert (child.state, child.fault, child.message, child.reward) == (State.FAILED, fault, message, None)
    (attempt,) = search.attempts(0)
    assert (attempt.fault, attempt.charged, attempt.exit_code, attempt.signal) == (fault, True, None, None)
    assert attempt.log.startswith("Traceback") and message.rpartition(": ")[0].rpartition(": ")[2] in attempt.log
    assert search.child(1).state == State.READY


class TogetherTask(FakeTask):
    population = 2


def other_options():
    return {"size": (yield Choice("size", (20, 10, 30)))}


def fewer_options():
    return {"size": (yield Choice("size", (10,)))}


def another_spec():
    return {"size": 2 * (yield Choice("size", (10, 20, 30)))}


def failing():
    size = yield Choice("size", (10, 20, 30))
    raise KeyError(size)


@pytest.mark.parametrize("kind", [FakeTask, TogetherTask])
@pytest.mark.parametrize(
    "changed, sentence",
    [
        (other_options, "from its tokens: 'size' in the spec is 10 where 20 is recorded. A space must"),
        (fewer_options, "from its tokens: Token 1 is out of range for 'size': it has 1 options"),
        (another_spec, "from its tokens: 'size' in the spec is 40 where 20 is recorded. A space must"),
        (failing, "The space now fails on the tokens of child 0 (KeyError: 20). A space must"),
    ],
)
def test_a_child_that_is_not_the_recorded_one_is_nobodys_fault(new_search, kind, changed, sentence):
    """It is not trained, and stays for a worker whose space is the right one."""
    search = new_search([(1,), (1,)], space=space, population=2)
    experiment = Experiment(Space(changed), kind())
    worker = Worker(search.store, search.id, experiment, "1.0.1", "cpu", search.lease.epoch, 0)
    with pytest.raises(SearchFaultError) as caught:
        worker.work_once()
    assert sentence in str(caught.value)
    assert search.child(0).state == State.RUNNING and search.child(0).attempts == 0
    search.store.release(search.lease, SearchState.PAUSED, str(caught.value))
    assert [search.child(number).state for number in (0, 1)] == [State.READY] * 2
    assert all(attempt.fault == Fault.INTERRUPTED and not attempt.charged for attempt in search.attempts(0))


def test_a_child_is_told_by_the_decisions_that_were_recorded(new_search, task):
    """Here its spec is the same, but the option that it was drawn from stands elsewhere among others."""
    search = new_search([(1,)], space=space)
    recorded = decision_to_json(Choice("size", (10, 20, 30)))
    search.store.change_settings(search.lease, {}, decisions={0: recorded}, of_children={0: [0]})

    def make(function):
        return Worker(search.store, search.id, Experiment(Space(function), task), "1.0.1", "cpu", search.lease.epoch, 0)

    def more_options():
        return {"size": (yield Choice("size", (10, 20, 30, 40)))}

    with pytest.raises(
        SearchFaultError, match=r"'size' has the options \[10, 20, 30, 40\] where it had \[10, 20, 30\]"
    ):
        make(more_options).work_once()
    search.store.release(search.lease, SearchState.PAUSED, None)
    lease = search.store.take_lease("tried", Owner.this_process())
    worker = dataclasses.replace(make(space), epoch=lease.epoch)
    assert worker.work_once() == 1
    assert search.child(0).state == State.TRAINED


def test_messages_and_logs_are_cut(search, task, new_worker):
    task.function = raises(ValueError("x" * 50_000))
    new_worker().work_once()
    assert len(search.child(0).message) == 1000
    assert len(search.attempts(0)[0].log) == LOG_TAIL


@pytest.mark.parametrize("error", [KeyboardInterrupt, StoreError])
def test_what_is_not_the_child_s_goes_through(search, task, new_worker, error):
    task.function = raises(error)
    with pytest.raises(error):
        new_worker().work_once()
    assert search.child(0).state == State.RUNNING


def test_measures_are_written_per_epoch(search, task, new_worker):
    def evaluate(spec, seed, report):
        report(1, val_accuracy=np.float32(0.5), steps=np.int64(12))
        report(np.int64(2), val_accuracy=0.75, early=True)
        report(2, val_accuracy=0.8, early=False)  # the same epoch again replaces
        return Outcome(0.5)

    task.function = evaluate
    new_worker().work_once()
    measured = [(row.epoch, row.metrics) for row in search.store.measurements(search.child(0).id)]
    assert measured == [(1, {"val_accuracy": 0.5, "steps": 12}), (2, {"val_accuracy": 0.8, "early": False})]


def test_a_report_reads_the_count_that_it_follows(search, new_worker):
    report = ClaimReport(search.store, new_worker().claim())
    assert report.steps == 0  # the user's own function may count nothing
    done = [3]
    report.follow(lambda: done[0])
    assert report.steps == 3
    done[0] = 12
    report(1, loss=1.0)
    assert report.steps == 12
    report.follow(lambda: 5)
    assert report.steps == 5


def test_a_report_renews_the_claim(search, new_worker, clock):
    claim = new_worker().claim()
    before = search.child(0).lease_until
    clock.now += 20
    ClaimReport(search.store, claim)(1, loss=1.0)
    assert search.child(0).lease_until == before + 20


def lose(search, clock, new_worker):
    """Another worker takes what the first one's lease has left behind."""
    clock.now += CLAIM_SECONDS + 1
    taken = new_worker("1.1.1").claim()
    assert taken.number == 0
    return taken


def everything(search):
    children = [dataclasses.asdict(child) for child in search.store.children(search.id)]
    return children, search.attempts(0), search.store.measurements(search.child(0).id)


def test_a_lost_claim_drops_the_training_and_changes_nothing(search, task, new_worker, clock):
    worker = new_worker()
    claim = worker.claim()
    seen = {}

    def evaluate(spec, seed, report):
        report(1, val_accuracy=0.5)
        lose(search, clock, new_worker)
        seen["before"] = everything(search)
        report(2, val_accuracy=0.9)
        raise AssertionError("not reached")

    task.function = evaluate
    assert worker.train(claim) is None
    assert everything(search) == seen["before"]
    assert search.child(0).worker == "1.1.1"


def test_a_lost_claim_s_delivery_changes_nothing(search, new_worker, clock):
    worker = new_worker()
    claim = worker.claim()
    delivery = worker.train(claim)
    taken = lose(search, clock, new_worker)
    before = everything(search)
    assert not worker.deliver(claim, delivery)
    assert not worker.deliver(claim, Delivery(fault=Fault.RAISED, message="late"))
    with pytest.raises(ClaimLostError):
        ClaimReport(search.store, claim)(1, loss=1.0)
    assert everything(search) == before
    assert [attempt.fault for attempt in search.attempts(0)] == [Fault.NODE_LOST, None]
    assert new_worker("1.1.1").deliver(taken, delivery)
    assert search.child(0).state == State.TRAINED


def test_an_expired_claim_that_nobody_took_is_still_its_owner_s(search, new_worker, clock):
    worker = new_worker()
    claim = worker.claim()
    clock.now += 1000
    assert worker.deliver(claim, worker.train(claim))
    assert search.child(0).state == State.TRAINED


def test_the_claim_is_renewed_while_a_child_trains(search, task, new_worker, clock, monkeypatch):
    monkeypatch.setattr(heartbeat.Heartbeat.__init__, "__defaults__", (0.001,))
    claim_until = []

    def evaluate(spec, seed, report):
        claim_until.append(search.child(0).lease_until)
        clock.now += 10
        report.follow(lambda: 5)
        while search.child(0).progress != 5:
            pass
        claim_until.append(search.child(0).lease_until)
        return Outcome(1.0)

    task.function = evaluate
    new_worker(beat=True).work_once()
    assert claim_until == [1000.0 + CLAIM_SECONDS, 1010.0 + CLAIM_SECONDS]


# Stopping early


@pytest.fixture
def long_search(new_search, clock):
    return new_search([(0,)] * (FIRST_CHILDREN + 4), space=space, clock=clock)


@pytest.fixture
def early(long_search, task, clock):
    """A worker that stops children early, after as many children as that takes: 0.5 after one epoch and 0.6 to 0.67
    after two, and a reward that is ten times the latter."""
    search = long_search
    task.objective = Objective("val_accuracy", maximize=True, epochs=3)
    of_children = Experiment(Space(space), task)
    settings = {"early_stop": "median", "beat": False, "clock": clock}
    made = Worker(search.store, search.id, of_children, "1.0.1", "cpu", search.lease.epoch, 2, **settings)

    def evaluate(spec, seed, report):
        value = 0.6 + (seed - 100) / 100
        report(1, val_accuracy=0.5)
        report(2, val_accuracy=value)
        report(3, val_accuracy=value)
        return Outcome(10 * value, {"val_accuracy": value})

    task.function = evaluate
    made.warm_up()
    while made.store.progress(search.id).trained < FIRST_CHILDREN:
        made.work_once()
    return made


def test_a_stopped_child_is_trained_and_its_reward_predicted(long_search, early, task, clock):
    seen = []

    def evaluate(spec, seed, report):
        try:
            report(1, val_accuracy=0.4, loss=3.0)
            clock.now += 2.5
            report(2, val_accuracy=np.float32(0.625), loss=2.0)
        except Exception as error:  # the user's own function may clean up
            seen.append(error)
            raise
        raise AssertionError("not reached")

    early_value = float(np.float32(0.625))
    task.function = evaluate
    claim = early.claim()
    delivery = early.train(claim)
    (error,) = seen
    assert isinstance(error, EarlyStopError) and error.epoch == 2
    assert delivery.reward == pytest.approx(10 * early_value)
    assert delivery == Delivery(
        reward=delivery.reward, metrics={"val_accuracy": early_value, "loss": 2.0}, stopped_at=2, seconds=2.5
    )
    assert early.deliver(claim, delivery)
    child = long_search.child(claim.number)
    assert (child.state, child.fault, child.metrics) == (State.TRAINED, None, dict(delivery.metrics))
    assert child.stopped_at == 2
    assert long_search.store.progress(long_search.id).trained == FIRST_CHILDREN + 1
    measured = [(row.epoch, row.metrics["val_accuracy"]) for row in long_search.store.measurements(child.id)]
    assert measured == [(1, 0.4), (2, early_value)]
    (attempt,) = long_search.attempts(claim.number)
    assert (attempt.fault, attempt.charged) == (None, False)


def test_a_stopped_child_is_told_no_more_than_half_of_the_others_reached(early, task):
    def evaluate(spec, seed, report):
        report(2, val_accuracy=0.634)

    task.function = evaluate
    claim = early.claim()
    delivery = early.train(claim)
    assert delivery.reward == pytest.approx(6.34)
    early.deliver(claim, delivery)
    task.function = lambda spec, seed, report: report(2, val_accuracy=-5.0)
    assert early.train(early.claim()).reward == pytest.approx(6.0)  # nor less than any


def test_children_after_a_stopped_one_are_trained_as_ever(long_search, early, task):
    usual = task.function
    for number in range(FIRST_CHILDREN, FIRST_CHILDREN + 4):
        hopeless = number % 2 == 0
        task.function = (lambda spec, seed, report: report(2, val_accuracy=0.0)) if hopeless else usual
        assert early.work_once()
        assert (long_search.child(number).stopped_at == 2) == hopeless


def test_a_function_that_does_not_listen_is_trained_to_its_end(long_search, early, task):
    def evaluate(spec, seed, report):
        for epoch in (1, 2, 3):
            try:
                report(epoch, val_accuracy=0.0)
            except Exception:
                continue
        return Outcome(0.75, {"val_accuracy": 0.0})

    task.function = evaluate
    claim = early.claim()
    delivery = early.train(claim)
    assert (delivery.reward, delivery.metrics) == (0.75, {"val_accuracy": 0.0})


def test_a_child_that_diverges_is_not_stopped(early, task):
    task.function = lambda spec, seed, report: report(2, val_accuracy=math.nan)
    assert early.train(early.claim()).fault == Fault.DIVERGED


def test_a_child_that_is_another_s_by_now_is_not_stopped(early, task, clock):
    task.function = lambda spec, seed, report: report(2, val_accuracy=0.0)
    claim = early.claim()
    clock.now += CLAIM_SECONDS + 1
    other = dataclasses.replace(early, name="1.1.1").claim()
    assert other.number == claim.number
    assert early.train(claim) is None
    assert early.train(other).stopped_at == 2


@pytest.mark.parametrize(("early_stop", "objective"), [("none", True), ("median", False)])
def test_nobody_is_stopped_where_nobody_asks_for_it(early, task, early_stop, objective):
    if not objective:
        task.objective = None
    never = dataclasses.replace(early, early_stop=early_stop, name="1.1.1")
    never.warm_up()

    def evaluate(spec, seed, report):
        for epoch in (1, 2, 3):
            report(epoch, val_accuracy=0.0)
        return Outcome(0.125)

    task.function = evaluate
    delivery = never.train(never.claim())
    assert (delivery.reward, delivery.metrics) == (0.125, {})


# When a worker makes room for a fresh one


@pytest.fixture
def resident(monkeypatch):
    held = [1000]
    monkeypatch.setattr(serve, "own_resident_bytes", lambda: held[0])
    return held


def test_a_worker_makes_room_after_so_many_children(resident):
    recycling = Recycling(after=3, growth=10)
    due = [recycling.due()]
    for _ in range(4):
        recycling.trained(1)
        due.append(recycling.due())
    assert due == [False, False, False, True, True]
    recycling = Recycling(after=3, growth=10)
    recycling.trained(8)  # a population
    assert recycling.due() and recycling.children == 8


def test_a_worker_makes_room_once_it_has_grown(resident):
    """Libraries that the first child loads, such as those of CUDA, are no growth."""
    recycling = Recycling(after=100, growth=10)
    resident[0] = 3000
    due = [recycling.due()]
    recycling.trained(1)
    for held in (3000, 2500, 3010, 3011, 3010):
        resident[0] = held
        due.append(recycling.due())
        recycling.trained(1)
    assert due == [False, False, False, False, True, False]


def test_weights_of_the_best_are_kept(search, task, new_worker):
    def evaluate(spec, seed, report):
        return Outcome(spec["size"] / 100, weights={"w": np.full(2, spec["size"], np.float32)}, epoch=7)

    task.function = evaluate
    worker = new_worker(keep=2)
    while worker.work_once():
        pass
    # Rewards are 0.1, 0.2, 0.3, 0.1: children 2 and 1 are the best.
    kept = [search.store.weights(search.child(number).id) for number in range(4)]
    assert [None if weights is None else weights["w"].tolist() for weights in kept] == [None, [20, 20], [30, 30], None]


def test_weights_that_would_need_pickle_are_a_fault(search, task, new_worker):
    task.function = lambda spec, seed, report: Outcome(1.0, weights={"w": np.array([object()])})
    new_worker().work_once()
    assert search.child(0).fault == Fault.RAISED
    assert search.store.weights(search.child(0).id) is None


def test_importing_a_worker_imports_nothing_slow():
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import automl.child_trainers.workers.serve; "
        "slow = {'tensorflow', 'keras', 'sklearn', 'alembic', 'optuna', 'automl.controllers', 'automl.coordinator'}; "
        "print(slow & set(sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-P", "-c", code, ROOT], capture_output=True, text=True, check=True)
    assert ran.stdout == "set()\n"


def test_a_worker_without_orders_ends():
    code = "import sys; sys.path.insert(0, sys.argv[1]); from automl.child_trainers.workers.serve import main; main(2)"
    with open(os.devnull) as nothing:
        ran = subprocess.run([sys.executable, "-P", "-c", code, ROOT], stdin=nothing, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (1, "The coordinator ended before it sent an order.\n")


class TogetherTask(FakeTask):
    """Trains three at a time; what each comes to is what the test's function says, in the order that it says."""

    population = 3

    def __init__(self):
        super().__init__()
        self.together = []

    def evaluate_together(self, children):
        self.together.append([child.spec["size"] for child in children])
        yield from self.endings(children)

    def endings(self, children):
        for index, child in enumerate(children):
            child.report(1, size=child.spec["size"])
            yield index, Outcome(child.spec["size"] / 100, seconds={"train": 2.0})


@pytest.fixture
def population(new_search, clock):
    search = new_search([(0,), (1,), (2,), (0,), (1,)], space=space, clock=clock, population=3)
    task = TogetherTask()
    worker = Worker(
        search.store, search.id, Experiment(Space(space), task), "1.0.1", "cpu", search.lease.epoch, 2, beat=False
    )
    return search, task, worker


def states(search):
    return "".join(child.state[0] for child in search.store.children(search.id))


def test_a_population_is_claimed_together_and_delivered_one_by_one(population):
    search, task, worker = population
    seen = []

    def endings(children):
        for index in (2, 0, 1):
            yield index, Outcome(children[index].spec["size"] / 100, seconds={"train": 2.0})
            seen.append(states(search))

    task.endings = endings
    assert worker.work_once()
    assert task.together == [[10, 20, 30]]
    assert seen == ["rrtrr", "trtrr", "tttrr"]
    assert [search.child(number).reward for number in range(3)] == [0.1, 0.2, 0.3]
    assert [search.child(number).seconds for number in range(3)] == [2.0] * 3
    del task.endings
    assert worker.work_once() and not worker.work_once()
    assert task.together == [[10, 20, 30], [10, 20]] and states(search) == "ttttt"


def test_a_task_with_room_for_more_children_receives_the_next_population(population):
    search, task, worker = population
    seen = []

    def evaluate_with_more(children, more):
        children = list(children)
        yield 1, Outcome(0.5)
        children += more()
        seen.append((states(search), [child.spec["size"] for child in children], more()))
        yield from ((index, Outcome(child.spec["size"] / 100)) for index, child in enumerate(children) if index != 1)

    task.evaluate_with_more = evaluate_with_more
    assert worker.work_once() and not worker.work_once()
    assert seen == [("rtrrr", [10, 20, 30, 10, 20], [])]
    assert [child.state for child in search.store.children(search.id)] == [State.TRAINED] * 5
    assert [search.child(number).reward for number in range(5)] == [0.1, 0.5, 0.3, 0.1, 0.2]


def test_what_fails_later_leaves_each_that_was_added_alone(population):
    search, task, worker = population

    def evaluate_with_more(children, more):
        more()
        yield 3, Outcome(0.5)
        raise MemoryError("too many")

    task.evaluate_with_more = evaluate_with_more
    assert worker.work_once()
    assert states(search) == "rrrtr" and [search.child(number).isolated for number in (0, 4)] == [True, True]


def test_marks_of_children_are_printed_into_a_log_only(population, capfd):
    *_, worker = population
    assert worker.work_once()
    assert capfd.readouterr().out == ""


def test_a_population_is_cut_where_the_budget_ends(population):
    search, task, worker = population
    search.store.set_budget(search.lease, 2)
    assert worker.work_once() and not worker.work_once()
    assert task.together == [[10, 20]] and states(search) == "ttrrr"


def test_members_fail_one_by_one(population):
    search, task, worker = population

    def endings(children):
        yield 1, ValueError("no good")
        yield 0, Outcome(0.5)
        yield 2, Outcome(0.25)

    task.endings = endings
    assert worker.work_once()
    child = search.child(1)
    assert (child.state, child.fault, child.message) == (State.FAILED, Fault.RAISED, "ValueError: no good")
    assert (search.child(0).reward, search.child(2).reward) == (0.5, 0.25)


@pytest.mark.parametrize("whole", [False, True])
def test_a_lost_gpu_fails_no_member(population, whole):
    """Whether one of them meets it or the whole training: the claims stay for the pool."""
    search, task, worker = population

    def endings(children):
        yield 0, Outcome(0.5)
        lost = RuntimeError("CUDA_ERROR_NO_DEVICE: none")
        if whole:
            raise lost
        yield 1, lost

    task.endings = endings
    with pytest.raises(GpuLostError, match="RuntimeError: CUDA_ERROR_NO_DEVICE: none"):
        worker.work_once()
    assert [search.child(number).state for number in range(3)] == [State.TRAINED, State.RUNNING, State.RUNNING]


def test_what_fails_all_of_them_charges_none_and_leaves_each_alone(population):
    search, task, worker = population

    def endings(children):
        yield 0, Outcome(0.5)
        raise MemoryError("too many")

    task.endings = endings
    assert worker.work_once()
    for number in (1, 2):
        child = search.child(number)
        (attempt,) = search.attempts(number)
        assert (child.state, child.isolated, child.attempts) == (State.READY, True, 0)
        assert (attempt.fault, attempt.charged) == (Fault.OOM, False) and "too many" in attempt.log
    task.function = lambda spec, seed, report: Outcome(0.75)
    assert worker.work_once()
    assert [child.state for child in search.store.children(search.id)][:3] == [
        State.TRAINED,
        State.TRAINED,
        State.READY,
    ]
    assert search.child(1).reward == 0.75 and len(task.together) == 1  # by itself, through `evaluate`


def test_a_member_taken_by_another_worker_is_dropped_and_the_rest_delivered(population):
    search, task, worker = population

    def endings(children):
        (taken,) = [claim for claim in search.store.claims_of(search.id, "1.0.1") if claim.number == 1]
        search.store.fail_attempt(taken, Fault.INTERRUPTED)
        for index, child in enumerate(children):
            try:
                child.report(1, size=1.0)
            except ClaimLostError as error:
                yield index, error
            else:
                yield index, Outcome(0.5)

    task.endings = endings
    assert worker.work_once()
    assert states(search)[:3] == "trt" and search.child(1).state == State.READY


def test_leases_that_run_out_together_charge_none(population, clock):
    search, _, _ = population
    assert len(search.store.claim_together(search.id, "1.1.1", "cpu")) == 3
    clock.now += CLAIM_SECONDS + 1
    (claim,) = search.store.claim_together(search.id, "1.2.1", "cpu")
    assert claim.number == 0
    assert [(child.isolated, child.attempts) for child in search.store.children(search.id)][:3] == [(True, 0)] * 3
    clock.now += CLAIM_SECONDS + 1
    assert search.store.claim(search.id, "1.3.1", "cpu") is not None
    assert search.child(0).attempts == 1  # a death alone is charged


def test_every_member_has_a_fence_of_its_own(population):
    search, _, _ = population
    first, second, third = search.store.claim_together(search.id, "1.1.1", "cpu")
    search.store.release_population([first, second], Fault.CRASHED, message="its worker ended")
    assert not search.store.deliver(first, Delivery(reward=1.0))
    assert search.store.deliver(third, Delivery(reward=1.0))
    assert states(search) == "rrtrr" and search.child(0).state == State.READY
