"""The search loop with a real store and workers that are stepped by hand."""

from __future__ import annotations

import itertools

import pytest
from stepping import Bench, Killed, KillingStore, SteppedPool, Tally, digest, worth

from automl.child_trainers.outcome import DivergedError
from automl.controllers.base import Cost, ResultState
from automl.db.records import Fault, Origin, SearchState, State
from automl.endings import Ending, Stop
from automl.proposer import Limits
from automl.runtime import with_counts

BUDGET = 5
SHAPES = [(1, 1, False), (1, 3, True), (2, 1, True), (2, 3, False)]  # replicas, workers, whether there are requests
ASKED = [(2, 0, 2, 0), (2, 0), (2, 1, 2, 1), (2, 0, 2, 0), (0, 2, 1, 2), (1, 1, 1, 1)]
WRITES = {"take_lease", "set_budget", "commit_step", "claim", "measure", "deliver", "release"}


TOO_SHORT = (
    "The tokens end before 'digit2': the space asks for more than the 2 given. Was this child sampled from another "
    "search space?"
)


def answers_in(store):
    """The answer to each request: its child's number, the reason for its refusal, or None."""
    requests = store.requests(store.search("search").id, answered=True)
    return [request.child if request.refusal is None else request.refusal for request in requests]


def requested_children(store):
    """Tokens of the requested children, by number."""
    children = store.children(store.search("search").id)
    return {child.number: tuple(child.tokens) for child in children if child.origin == Origin.USER}


class Meanwhile(KillingStore):
    """A store that lets another process act just before the n-th delivery."""

    def __init__(self, store, delivery, happens):
        super().__init__(store)
        self._left = delivery
        self._happens = happens

    def __getattr__(self, name):
        if name == "deliver":
            self._left -= 1
            if self._left == 0:
                self._happens()
        return super().__getattr__(name)


@pytest.mark.parametrize("replicas", [1, 2])
def test_the_search_is_the_same_however_many_workers_there_are(tmp_path, replicas):
    digests = set()
    for workers in (1, 2, 3, 5):
        (tmp_path / str(workers)).mkdir()
        bench = Bench(tmp_path / str(workers), replicas=replicas, workers=workers)
        store = bench.new_store()
        assert bench.run(store, BUDGET).state == SearchState.FINISHED
        digests.add(digest(store))
    assert len(digests) == 1


def test_the_lag_is_part_of_the_search(tmp_path):
    """With two replicas, the third batch is drawn before the controller has learned from the second."""
    digests = []
    for replicas in (1, 2):
        (tmp_path / str(replicas)).mkdir()
        bench = Bench(tmp_path / str(replicas), replicas=replicas)
        store = bench.new_store()
        bench.run(store, 8)
        search = store.search("search")
        digests.append([child.tokens for child in store.children(search.id)][:8])
        policy_step = [child.policy_step for child in store.children(search.id)]
        assert policy_step[:8:2] == [max(0, batch + 1 - replicas) for batch in range(4)]
    assert digests[0][: 2 * 1] == digests[1][: 2 * 1]
    assert digests[0] != digests[1]


def test_a_larger_budget_later_equals_the_same_budget_at_once(tmp_path):
    bench = Bench(tmp_path, replicas=2, workers=3)
    whole, parts = bench.new_store(), bench.new_store()
    bench.run(whole, 20)
    for budget in (1, 10, 13, 20):
        assert bench.run(parts, budget).state == SearchState.FINISHED
        assert parts.search("search").num_trained == budget
    assert digest(parts) == digest(whole)


@pytest.mark.parametrize(("replicas", "workers", "ask"), SHAPES)
def test_killed_at_any_store_call_and_resumed_it_is_the_same_search(tmp_path, replicas, workers, ask):
    """For every n, all objects are dropped at the n-th call: before the call, and after it, so that its answer is lost.

    A call that only reads changes nothing, so a kill after it equals a kill before the next call.
    """
    bench = Bench(tmp_path, replicas=replicas, workers=workers)
    asked = ASKED if ask else []
    reference = bench.new_store(asked)
    counting = KillingStore(reference)
    bench.run(counting, BUDGET)
    expected = digest(reference), answers_in(reference), requested_children(reference)
    if ask:
        assert requested_children(reference) == {0: ASKED[0], 1: ASKED[2], 2: ASKED[4], 3: ASKED[5]}
        assert answers_in(reference) == [0, TOO_SHORT, 1, "the search has it already", 2, 3]
    for number, call in enumerate(counting.calls):
        for after in (False, True) if call in WRITES else (False,):
            store = bench.new_store(asked)
            with pytest.raises(Killed):
                bench.run(KillingStore(store, number, after=after), BUDGET)
            bench.run(store, BUDGET)
            where = f"{'after' if after else 'before'} call {number}, {call}"
            assert (digest(store), answers_in(store), requested_children(store)) == expected, where
            assert store.counts(store.search("search").id)[State.RUNNING] == 0, where
            store.close()
    assert set(counting.calls) >= WRITES


def test_a_search_that_is_killed_many_times_ends_as_the_same_search(tmp_path):
    bench = Bench(tmp_path, replicas=2, workers=2)
    reference = bench.new_store()
    bench.run(reference, BUDGET)
    store = bench.new_store()
    for _ in range(200):
        killing = KillingStore(store, 32)  # long enough to deliver a child
        try:
            bench.run(killing, BUDGET)
            break
        except Killed:
            continue
    assert digest(store) == digest(reference)


def test_failed_children_get_the_floor_and_do_not_count(tmp_path):
    def evaluate(spec, report):
        if spec[0] == 1:
            raise DivergedError("too steep")
        return worth(spec, report)

    told = {}

    class Listener(Tally):
        def learn(self, results):
            told.update({result.number: result.state == ResultState.TRAINED for result in results})
            return super().learn(results)

    bench = Bench(tmp_path, evaluate=evaluate, floor=-1.0, keep_going=True, controller=Listener)
    store = bench.new_store()
    assert bench.run(store, 12).state == SearchState.FINISHED
    children = store.children(store.search("search").id)
    failed = [child for child in children if child.state == State.FAILED]
    assert failed and all(child.fault == Fault.DIVERGED for child in failed)
    assert {child.reward for child in failed if child.consumed_by is not None} == {-1.0}
    assert sum(child.state == State.TRAINED for child in children) == 12
    consumed = {child.number: child.state == State.TRAINED for child in children if child.consumed_by is not None}
    assert told == consumed


def test_without_a_floor_a_failed_child_gets_the_lowest_reward_of_earlier_batches(tmp_path):
    def evaluate(spec, report):
        if spec[0] == 1:
            raise ValueError("no")
        return worth(spec, report)

    bench = Bench(tmp_path, evaluate=evaluate, batch_size=3, keep_going=True)
    store = bench.new_store()
    bench.run(store, 20)
    children = store.children(store.search("search").id)
    checked = 0
    for child in children:
        if child.state != State.FAILED or child.consumed_by is None:
            continue
        earlier = [other.reward for other in children if other.batch < child.batch]
        own = [other.reward for other in children if other.batch == child.batch and other.state == State.TRAINED]
        assert child.reward == (min(earlier) if earlier else min(own, default=0.0))
        checked += 1
    assert checked >= 3


def test_three_failures_at_the_start_pause_the_search(tmp_path):
    def evaluate(spec):
        raise RuntimeError(f"no data for {sum(spec) * 0}")

    bench = Bench(tmp_path, evaluate=evaluate)
    store = bench.new_store()
    ending = bench.run(store, 10)
    assert ending.state == SearchState.PAUSED
    assert ending.cause == (
        "The first 3 children failed (raised: RuntimeError: no data for 0). Fix the cause and resume, or resume with "
        "--keep-going."
    )
    assert store.counts(store.search("search").id)[State.FAILED] == 3


def fails(spec):
    raise RuntimeError("no data")


def test_the_first_three_children_to_end_pause_the_search_whatever_their_numbers_are(tmp_path):
    """In a batch the child with the most FLOPs begins first: here the last numbers."""
    bench = Bench(tmp_path, evaluate=fails, batch_size=8, cost=lambda spec: Cost(None, sum(spec)))
    store = bench.new_store()
    ending = bench.run(store, 10)
    assert (ending.state, ending.failed, ending.exit_code) == (SearchState.PAUSED, True, 3)
    assert "The first 3 children failed (raised: RuntimeError: no data)." in (ending.cause or "")
    failed = store.children(store.search("search").id, states=[State.FAILED])
    assert len(failed) == 3 and [child.number for child in failed] != [0, 1, 2]


def test_the_first_three_children_pause_the_search_whatever_each_failed_of(tmp_path):
    errors = iter([RuntimeError("no data"), MemoryError("too large"), RuntimeError("no data")])

    def fails_otherwise(spec):
        raise next(errors)

    bench = Bench(tmp_path, evaluate=fails_otherwise, batch_size=8)
    store = bench.new_store()
    ending = bench.run(store, 10)
    assert (ending.state, ending.failed, ending.exit_code) == (SearchState.PAUSED, True, 3)
    told = "The first 3 children failed (raised: RuntimeError: no data; oom: MemoryError: too large)."
    assert told in (ending.cause or "")


class Quiet(SteppedPool):
    """Workers whose children end between two polls of the pool, so that the pool has no news of them."""

    def tend(self):
        super().tend()
        return False


@pytest.mark.parametrize("budget", [None, 2, 100])
def test_three_failures_pause_a_search_whose_space_has_no_more(tmp_path, monkeypatch, budget):
    monkeypatch.setattr("stepping.SteppedPool", Quiet)
    few = {"cost": lambda spec: Cost(sum(spec) + (spec[3] > 0), None), "limits": Limits(params=1)}
    bench = Bench(tmp_path, evaluate=fails, batch_size=8, **few)
    store = bench.new_store()
    ending = bench.run(store, budget)
    assert store.counts(store.search("search").id)[State.FAILED] == 4  # all children of the space
    assert (ending.state, ending.exit_code) == (SearchState.PAUSED, 3)
    ending = with_counts(store, "search", bench.run(store, budget))
    assert (ending.state, ending.failures, ending.exit_code, ending.ok) == (SearchState.EXHAUSTED, 4, 4, False)


def test_lost_children_are_failures_too(tmp_path):
    class Losing(KillingStore):
        """The machine of every child is lost in each attempt."""

        def __getattr__(self, name):
            call = super().__getattr__(name)
            return call if name != "deliver" else self._lose

        def _lose(self, claim, delivery, *, keep):
            return self._store.fail_attempt(claim, Fault.NODE_LOST, message="its machine is gone")

    bench = Bench(tmp_path)
    store = bench.new_store()
    ending = bench.run(Losing(store), 10)
    assert ending.state == SearchState.PAUSED
    assert "The first 3 children failed (node_lost: its machine is gone)" in (ending.cause or "")
    assert store.counts(store.search("search").id)[State.LOST] == 3


def test_failures_after_something_was_trained_are_not_the_first(tmp_path):
    numbers = iter(range(1000))

    def evaluate(spec, report):
        if 2 <= next(numbers) < 8:
            raise RuntimeError("the disk is full")
        return worth(spec, report)

    bench = Bench(tmp_path, evaluate=evaluate)
    store = bench.new_store()
    assert bench.run(store, 2).state == SearchState.FINISHED
    assert bench.run(store, 9).state == SearchState.FINISHED


@pytest.mark.parametrize("keep_going", [False, True])
def test_children_that_are_made_ready_again_are_trained_by_the_next_run(tmp_path, keep_going):
    broken = [True]

    def evaluate(spec, report):
        if broken:
            raise RuntimeError("no data")
        return worth(spec, report)

    few = {"cost": lambda spec: Cost(sum(spec), None), "limits": Limits(params=1)}
    bench = Bench(tmp_path, evaluate=evaluate, batch_size=2, keep_going=keep_going, floor=-1.0, **few)
    store = bench.new_store()
    ending = bench.run(store, None)
    assert ending.state == (SearchState.EXHAUSTED if keep_going else SearchState.PAUSED)
    search = store.search("search")
    failed = [child.number for child in store.children(search.id, states=[State.FAILED])]
    assert store.retry("search", gone=lambda owner: True) == failed
    broken.clear()
    ending = with_counts(store, "search", bench.run(store, None))
    assert (ending.state, ending.trained, ending.failures, ending.exit_code) == (SearchState.EXHAUSTED, 5, 0, 0)
    children = store.children(search.id)
    assert [child.state for child in children] == [State.TRAINED] * 5
    assert all(child.consumed_by is not None and child.reward >= 0 for child in children)


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        (Ending(SearchState.FINISHED, trained=4, failures=2), 0),  # a budget counts what is trained
        (Ending(SearchState.EXHAUSTED, "no more", trained=4), 0),
        (Ending(SearchState.EXHAUSTED, "no more", trained=4, failures=1), 4),
        (Ending(SearchState.EXHAUSTED, "no more", failures=4), 4),
        (Ending(SearchState.PAUSED, "the time given with --time is over", trained=1), 0),
        (Ending(SearchState.PAUSED, "the time that was given is over", trained=1, failures=3), 0),
        (Ending(SearchState.PAUSED, "the time given with --time is over"), 4),
        (Ending(SearchState.PAUSED, "stopped by automl stop", trained=1), 3),
        (Ending(SearchState.PAUSED, "stopped by SIGTERM", trained=1), 3),
        (Ending(SearchState.PAUSED, "The first 3 children failed", failed=True, failures=3), 3),
        (Ending(SearchState.PAUSED, "stopped by SIGINT", trained=1), 130),
    ],
)
def test_exit_codes(ending, code):
    assert (ending.exit_code, ending.ok) == (code, code == 0)


def test_ten_failures_in_a_row_pause_the_search_and_resume_goes_on_past_them(tmp_path):
    numbers = iter(range(1000))

    def evaluate(spec, report):
        if 5 <= next(numbers) < 15:
            raise RuntimeError("the disk is full")
        return worth(spec, report)

    bench = Bench(tmp_path, evaluate=evaluate)
    store = bench.new_store()
    ending = bench.run(store, 20)
    assert ending.state == SearchState.PAUSED and "10 children in a row failed" in (ending.cause or "")
    assert bench.run(store, 20).state == SearchState.FINISHED


def test_ten_failures_of_several_faults_do_not_pause(tmp_path):
    numbers = iter(range(1000))

    def evaluate(spec, report):
        number = next(numbers)
        if 1 <= number < 13:
            raise (DivergedError("a") if number % 2 else ValueError("b"))
        return worth(spec, report)

    bench = Bench(tmp_path, evaluate=evaluate)
    assert bench.run(bench.new_store(), 4).state == SearchState.FINISHED


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_space_is_exhausted_to_its_last_child(tmp_path, replicas):
    """81 children in batches of 4, the last batch of one: no child twice, none left, and the end is not a failure."""
    bench = Bench(tmp_path, replicas=replicas, workers=3, batch_size=4)
    store = bench.new_store()
    ending = bench.run(store, 200)
    assert ending.state == SearchState.EXHAUSTED
    assert ending.cause == "exhausted 81/200: the space has no more"
    children = store.children(store.search("search").id)
    assert len({tuple(child.tokens) for child in children}) == len(children) == 81
    assert [child.number for child in children] == list(range(81))
    assert all(child.consumed_by is not None for child in children)
    assert bench.run(store, 200).state == SearchState.EXHAUSTED


def test_a_stop_ends_the_claiming_and_a_resume_gives_the_same_search(tmp_path):
    bench = Bench(tmp_path, replicas=2, workers=3)
    reference, store = bench.new_store(), bench.new_store()
    bench.run(reference, 9)
    stop = Stop()
    ending = bench.run(Meanwhile(store, 5, lambda: stop.request("stopped by SIGINT")), 9, stop)
    assert (ending.state, ending.cause) == (SearchState.PAUSED, "stopped by SIGINT")
    assert store.counts(store.search("search").id)[State.RUNNING] == 0
    assert 4 < store.search("search").num_trained < 9
    bench.run(store, 9)
    assert digest(store) == digest(reference)


def ask_to_stop(store):
    store.request_stop("search", gone=lambda owner: False)


@pytest.mark.parametrize("workers", [1, 3])
def test_a_stop_request_of_another_process_works_like_ctrl_c(tmp_path, workers):
    bench = Bench(tmp_path, replicas=2, workers=workers)
    reference, store = bench.new_store(), bench.new_store()
    bench.run(reference, 9)
    watched = Meanwhile(store, 4, lambda: ask_to_stop(store))
    ending = bench.run(watched, 9)
    assert (ending.state, ending.cause, ending.failed) == (SearchState.PAUSED, "stopped by automl stop", False)
    assert watched.calls.count("set_state") == 1  # stopping: running children go on, no other child is claimed
    assert store.counts(store.search("search").id)[State.RUNNING] == 0
    assert 4 <= store.search("search").num_trained < 4 + workers
    assert bench.run(store, 9).state == SearchState.FINISHED  # it was not asked to stop
    assert digest(store) == digest(reference)


def test_a_stop_request_of_another_process_waits_no_longer_than_ctrl_c(tmp_path):
    seconds = itertools.count(0.0, 6.0)
    bench = Bench(tmp_path, workers=6, batch_size=6)
    store = bench.new_store()
    ending = bench.run(Meanwhile(store, 1, lambda: ask_to_stop(store)), 9, Stop(clock=lambda: next(seconds)))
    assert (ending.state, ending.cause) == (SearchState.PAUSED, "stopped by automl stop")
    search = store.search("search")
    assert search.num_trained < 6 and store.counts(search.id)[State.RUNNING] == 0
    faults = [row.fault for child in store.children(search.id) for row in store.attempts(child.id)]
    assert faults.count(Fault.INTERRUPTED) == 6 - search.num_trained


@pytest.mark.parametrize(
    ("dies_at", "state"),
    [("deliver", SearchState.RUNNING), ("set_state", SearchState.RUNNING), ("release", SearchState.STOPPING)],
)
def test_a_takeover_clears_the_stop_mark(tmp_path, dies_at, state):
    class Dying(Meanwhile):
        def __getattr__(self, name):
            call = super().__getattr__(name)
            if name == dies_at and self._left <= 0:
                raise Killed
            return call

    bench = Bench(tmp_path, workers=2)
    store = bench.new_store()
    with pytest.raises(Killed):
        bench.run(Dying(store, 2, lambda: ask_to_stop(store)), 6)
    search = store.search("search")
    assert search.state == state and search.stop_requested is not None
    assert bench.run(store, 6).state == SearchState.FINISHED
    assert store.search("search").stop_requested is None


def test_a_search_that_ends_during_a_stop_request_has_learned(tmp_path):
    digests = set()
    for stops in (False, True):
        (tmp_path / str(stops)).mkdir()
        bench = Bench(tmp_path / str(stops), batch_size=2)
        store = bench.new_store()
        happens = (lambda: ask_to_stop(store)) if stops else (lambda: None)  # noqa: B023 - called at once
        assert bench.run(Meanwhile(store, 4, happens), 4).state == SearchState.FINISHED
        digests.add(digest(store))
    assert len(digests) == 1
    assert all(child.consumed_by is not None for child in store.children(store.search("search").id)[:4])


@pytest.mark.parametrize(("budget", "last", "ends"), [(4, 1, SearchState.FINISHED), (None, 2, SearchState.EXHAUSTED)])
def test_children_that_end_between_two_looks_are_learned_from_before_the_search_ends(tmp_path, budget, last, ends):
    class Late(KillingStore):
        """Answers once that the last batch is not complete, as it was just before its last child ended."""

        told = False

        def __getattr__(self, name):
            call = super().__getattr__(name)
            if name != "is_complete":
                return call

            def is_complete(search_id, batch):
                late = batch == last and not self.told and call(search_id, batch)
                self.told |= late
                return call(search_id, batch) and not late

            return is_complete

    bench = Bench(tmp_path, batch_size=2, cost=lambda spec: Cost(sum(spec), None), limits=Limits(params=budget or 1))
    store = bench.new_store()
    late = Late(store)
    assert bench.run(late, budget).state == ends
    assert late.told
    trained = store.children(store.search("search").id, states=[State.TRAINED])
    assert all(child.consumed_by is not None for child in trained)


# Requests


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_request_is_answered_with_the_next_batch(tmp_path, replicas):
    """Batches 0 to K - 1 are drawn at once. A child requested while batch 0 is trained is the first of batch K."""
    bench = Bench(tmp_path, replicas=replicas, batch_size=3)
    store = bench.new_store()
    tokens = (2, 1, 2, 1)
    bench.run(Meanwhile(store, 2, lambda: store.request_child("search", tokens)), 12)
    number = 3 * replicas
    assert answers_in(store) == [number]
    assert requested_children(store) == {number: tokens}
    (child,) = store.children(store.search("search").id, number=number)
    assert (child.batch, child.policy_step, child.tries) == (replicas, 1, 0)
    assert child.log_probs == [-1.0] * 4 and child.spec == list(tokens)
    assert child.state == State.TRAINED and child.consumed_by is not None  # learned from like any other


@pytest.mark.parametrize(("replicas", "answered_at_first"), [(1, 4), (2, 6)])
def test_more_requests_than_a_batch_are_answered_by_the_batches_that_follow(tmp_path, replicas, answered_at_first):
    tokens = [(2, 2, last, 0) for last in range(3)] + [(2, 1, last, 0) for last in range(3)]
    bench = Bench(tmp_path, replicas=replicas, batch_size=4)
    store = bench.new_store(tokens)
    bench.run(store, 3)
    assert answers_in(store) == [number if number < answered_at_first else None for number in range(6)]
    bench.run(store, 8)
    assert answers_in(store) == [0, 1, 2, 3, 4, 5]
    assert requested_children(store) == dict(enumerate(tokens))
    drawn = [child for child in store.children(store.search("search").id, batch=1) if child.origin != Origin.USER]
    assert [child.number for child in drawn] == [6, 7]


def test_requests_of_an_exhausted_space_are_answered_too(tmp_path):
    bench = Bench(tmp_path, batch_size=4, cost=lambda spec: Cost(sum(spec), None), limits=Limits(params=1))
    store = bench.new_store([(0, 1, 0, 0), (0, 1, 1, 0), (1, 0, 0, 0)])
    ending = bench.run(store, 9)
    assert ending.state == SearchState.EXHAUSTED
    assert ending.cause == "exhausted 5/9: the space has no more within --max-params"
    assert answers_in(store) == [0, "it is over a limit of the search", 1]
    children = store.children(store.search("search").id)
    assert [child.number for child in children] == list(range(5))
    assert sorted(sum(child.tokens) for child in children) == [0, 1, 1, 1, 1]


# The order of training


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_larger_budget_trains_the_same_children_whatever_their_order(tmp_path, replicas):
    """Within a batch the child with the most FLOPs begins first.

    The order must not change which children a budget admits, even if some fail.
    """

    def evaluate(spec, report):
        if spec[3] == 1:
            raise DivergedError("too steep")
        return worth(spec, report)

    digests, begun = set(), set()
    for workers in (1, 3):
        (tmp_path / str(workers)).mkdir()
        bench = Bench(
            tmp_path / str(workers),
            replicas=replicas,
            workers=workers,
            batch_size=5,
            evaluate=evaluate,
            cost=lambda spec: Cost(None, 1 + (7 * spec[0] + 5 * spec[1] + 3 * spec[2] + spec[3]) % 11),
            keep_going=True,
        )
        for budgets in ((20,), (10, 20), (3, 11, 20)):
            store = bench.new_store()
            for budget in budgets:
                assert bench.run(store, budget).state == SearchState.FINISHED
                search = store.search("search")
                trained = [child.number for child in store.children(search.id, states=[State.TRAINED])]
                left = [child.number for child in store.children(search.id, states=[State.READY])]
                assert len(trained) == search.num_trained == budget and max(trained) < min(left, default=999)
            digests.add(digest(store))
            children = store.children(store.search("search").id, batch=0)
            first = sorted(children, key=lambda child: store.attempts(child.id)[0].started)
            begun.add(tuple(child.number for child in first))
    assert len(digests) == 1
    assert begun != {(0, 1, 2, 3, 4)}


def test_a_stop_waits_ten_seconds_for_running_children(tmp_path):
    now = [0.0]
    stop = Stop(clock=lambda: now[0])
    assert not stop.overdue
    stop.request("first")
    stop.request("second")
    now[0] = 10.0
    assert (stop.cause, stop.overdue) == ("first", False)
    now[0] = 10.1
    assert stop.overdue


def test_the_tally_shows_lost_and_doubled_rewards(tmp_path):
    """The tests above rely on this: with a lost or doubled reward, a search is another one."""

    class Deaf(Tally):
        def learn(self, results):
            return {}

    for name in ("listening", "deaf"):
        (tmp_path / name).mkdir()
    listening, deaf = Bench(tmp_path / "listening"), Bench(tmp_path / "deaf", controller=Deaf)
    stores = listening.new_store(), deaf.new_store()
    listening.run(stores[0], BUDGET)
    deaf.run(stores[1], BUDGET)
    assert digest(stores[0]) != digest(stores[1])
