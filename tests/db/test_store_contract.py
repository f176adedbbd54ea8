"""The contract of the store, on every database that it supports."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import update
from store_helpers import (
    HERE,
    START,
    THERE,
    Clock,
    child_of,
    claim,
    dump,
    make_child,
    make_donor,
    make_search,
    make_step,
    make_training,
    packed,
    start,
    trained,
)

from automl.db import blobs
from automl.db.records import (
    ATTEMPTS,
    MACHINE_FAULTS,
    Claim,
    Curve,
    Delivery,
    Fault,
    Lease,
    LeaseHeldError,
    NameTakenError,
    NewChild,
    Progress,
    Search,
    SearchState,
    StaleLeaseError,
    State,
    StoreError,
    UnknownSearchError,
)
from automl.db.schema import ArtefactRow, ChildRow, StepRow
from automl.db.store import CLAIM_SECONDS, LEASE_SECONDS, UNCLEAN_TAKEOVERS, Store

CHARGED = [fault for fault in Fault if fault != Fault.INTERRUPTED]


# Searches


def test_a_search_comes_back_as_it_was_created(store: Store) -> None:
    created = make_search(store, budget=3, seed=2**62)
    assert store.search("tiny") == created
    assert store.searches() == [created]
    assert (created.seed, created.settings, created.budget) == (2**62, {"rate": 0.5}, 3)
    assert (created.state, created.epoch, created.num_trained, created.created) == (SearchState.PAUSED, 0, 0, START)
    assert created.owner is None and created.lease_until is None


def test_unknown_name_is_answered_with_the_nearest(store: Store) -> None:
    with pytest.raises(UnknownSearchError) as caught:
        store.search("first")
    assert str(caught.value) == f"There is no search called 'first' in {store}; it has none yet."
    for name in ("zebra", "frist"):
        make_search(store, name)
    with pytest.raises(UnknownSearchError) as caught:
        store.search("first")
    assert str(caught.value) == f"There is no search called 'first' in {store}; it has frist, zebra."


def test_taken_name_is_refused_with_the_way_out(store: Store) -> None:
    make_search(store)
    before = dump(store)
    with pytest.raises(NameTakenError) as caught:
        make_search(store)
    assert str(caught.value).startswith(f"A search called 'tiny' is already in {store}. Go on with it: automl resume ")
    assert str(caught.value).endswith("; or choose another name.")
    assert dump(store) == before


@pytest.mark.parametrize(
    "name", ["'; DROP TABLE searches; --", '"quoted"', "../up", "%s %(x)s :name", "\u202ertl", "-rf"]
)
def test_names_are_data(store: Store, name: str) -> None:
    make_search(store, name)
    assert store.search(name).name == name
    store.delete(name)
    assert store.searches() == []


def test_settings_must_be_json(store: Store) -> None:
    search, lease = start(store)
    before = dump(store)
    with pytest.raises(ValueError, match="Out of range float values"):
        store.change_settings(lease, {"rate": math.nan})
    assert dump(store) == before
    store.change_settings(lease, {"rate": 0.125})
    assert store.search(search.name).settings == {"rate": 0.125}


# Claiming


def test_children_come_back_as_they_were_proposed(store: Store) -> None:
    search, _ = start(store)
    children = store.children(search.id)
    assert [child.number for child in children] == [0, 1, 2, 3]
    for child in children:
        proposed = make_child(child.number)
        for field in dataclasses.fields(proposed):
            value = getattr(proposed, field.name)
            assert getattr(child, field.name) == (list(value) if isinstance(value, tuple) else value)
        assert (child.state, child.reward, child.metrics, child.fence) == (State.READY, None, None, 0)
    assert store.hashes(search.id) == {f"hash-{number}" for number in range(4)}


def test_children_can_be_chosen(store: Store) -> None:
    search, lease = start(store)
    store.commit_step(lease, make_step(1), {}, [make_child(4, batch=1), make_child(5, batch=1)], {})
    claim(store, search)

    def numbers(**choice) -> list[int]:
        return [child.number for child in store.children(search.id, **choice)]

    assert numbers(batch=1) == [4, 5]
    assert numbers(number=2) == [2]
    assert numbers(states=[State.RUNNING]) == [0]
    assert numbers(first=3, states=[State.READY]) == [3, 4, 5]


def test_lowest_number_is_claimed_first(store: Store) -> None:
    search = make_search(store)
    lease = store.take_lease("tiny", HERE)
    store.commit_step(lease, make_step(0), {}, [make_child(number) for number in (2, 0, 1)], {})
    first = claim(store, search)
    assert (first.number, first.tokens, first.seed, first.worker, first.fence) == (0, (0, 1), 2**62, "worker-a", 1)
    assert [claim(store, search).number for _ in range(2)] == [1, 2]
    assert store.claim(search.id, "worker-a", "cpu") is None


def start_with_flops(
    store: Store, *batches: Sequence[int | None], name: str = "tiny", budget: int | None = None
) -> tuple[Search, Lease]:
    """A running search with children of these FLOPs, batch by batch."""
    make_search(store, name, budget=budget)
    lease = store.take_lease(name, HERE)
    children: list[NewChild] = []
    for batch, flops in enumerate(batches):
        for costs in flops:
            child = make_child(len(children), batch=batch, canonical_hash=f"{name}-{len(children)}")
            children.append(dataclasses.replace(child, flops=costs))
    store.commit_step(lease, make_step(0), {}, children, {})
    return store.search(name), lease


def numbers_claimed(store: Store, search: Search, count: int) -> list[int]:
    return [claim(store, search).number for _ in range(count)]


@pytest.mark.parametrize(
    ("flops", "numbers"),
    [
        ([None] * 4, [0, 1, 2, 3]),
        ([30, 30, 30], [0, 1, 2]),  # of equals the lowest number
        ([10, 40, 20, 40], [1, 3, 2, 0]),
        ([None, 20, 10**12, None], [2, 1, 0, 3]),  # unknown FLOPs count as 0
    ],
)
def test_of_a_batch_the_child_of_most_flops_is_claimed_first(
    store: Store, flops: list[int | None], numbers: list[int]
) -> None:
    search, _ = start_with_flops(store, flops)
    assert numbers_claimed(store, search, len(flops)) == numbers
    assert store.claim(search.id, "worker-a", "cpu") is None


def test_an_earlier_batch_is_claimed_first_whatever_its_flops(store: Store, clock: Clock) -> None:
    search, _ = start_with_flops(store, [1, None, 2], [90, 80, 99])
    assert numbers_claimed(store, search, 4) == [2, 0, 1, 5]
    clock.pass_seconds(CLAIM_SECONDS + 1)  # all four are ready again
    again = claim(store, search)
    assert (again.number, numbers_claimed(store, search, 3)) == (2, [0, 1, 5])
    assert store.fail_attempt(again, Fault.NODE_LOST)
    assert numbers_claimed(store, search, 3) == [2, 3, 4]


def test_the_order_by_flops_does_not_exceed_the_budget(store: Store) -> None:
    search, lease = start_with_flops(store, [1, 2, 3, 4, 5, 6, 7, 8], budget=3)
    claims = {claimed.number: claimed for claimed in (claim(store, search) for _ in range(3))}
    assert list(claims) == [2, 1, 0]
    assert store.claim(search.id, "worker-a", "cpu") is None
    assert store.deliver(claims[2], trained())
    assert store.deliver(claims[0], Delivery(fault=Fault.DIVERGED))  # the next child by number takes its place
    assert numbers_claimed(store, search, 1) == [3]
    assert store.claim(search.id, "worker-a", "cpu") is None
    assert store.fail_attempt(claims[1], Fault.CRASHED)  # ready again
    store.set_budget(lease, 5)
    assert numbers_claimed(store, search, 3) == [5, 4, 1]
    assert store.claim(search.id, "worker-a", "cpu") is None


def test_without_a_budget_the_lowest_numbers_are_compared(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("automl.db.store.MOST_COMPARED", 3)
    search, _ = start_with_flops(store, [1, 2, 3, 4, 5])
    assert numbers_claimed(store, search, 5) == [2, 3, 4, 1, 0]


def train_up_to(store: Store, search: Search, budget: int, order: random.Random, *, failing: set[int]) -> None:
    """Five workers that claim and deliver in any order; some attempts die, and some children fail."""
    claims: list[Claim] = []
    while True:
        claimed = store.claim(search.id, "worker-a", "cpu") if len(claims) < 5 and order.random() < 0.7 else None
        if claimed is not None:
            claims.append(claimed)
        elif claims:
            ended = claims.pop(order.randrange(len(claims)))
            if order.random() < 0.2:
                assert store.fail_attempt(ended, Fault.INTERRUPTED)
            elif ended.number in failing:
                assert store.deliver(ended, Delivery(fault=Fault.DIVERGED))
            else:
                assert store.deliver(ended, trained())
        elif store.search(search.name).num_trained == budget:
            return


@pytest.mark.parametrize("seed", range(3))
def test_a_budget_of_ten_and_ten_more_trains_the_same_children_as_twenty(store: Store, seed: int) -> None:
    order = random.Random(seed)
    flops = [[order.choice((None, 10, 20, 30)) for _ in range(6)] for _ in range(6)]
    failing = set(order.sample(range(24), 5))
    found = []
    for name, budgets in (("parts", (10, 20)), ("whole", (20,))):
        search, lease = start_with_flops(store, *flops, name=name)
        for budget in budgets:
            store.set_budget(lease, budget)
            train_up_to(store, search, budget, order, failing=failing)
            numbers = [child.number for child in store.children(search.id, states=[State.TRAINED])]
            assert numbers == [number for number in range(36) if number not in failing][:budget]
        found.append(numbers)
    assert found[0] == found[1]


def test_a_claim_is_recorded_as_an_attempt(store: Store, clock: Clock) -> None:
    search, _ = start(store)
    claimed = claim(store, search)
    child = child_of(store, search, 0)
    assert (child.state, child.worker, child.started) == (State.RUNNING, "worker-a", START)
    assert child.lease_until == START + CLAIM_SECONDS
    (attempt,) = store.attempts(claimed.child_id)
    assert (attempt.fence, attempt.worker, attempt.device, attempt.started) == (1, "worker-a", "cpu", START)
    assert (attempt.ended, attempt.fault, attempt.charged) == (None, None, False)
    assert store.claims_of(search.id, "worker-a") == [claimed]
    assert store.claims_of(search.id, "worker-b") == []


def test_budget_gates_claims(store: Store) -> None:
    search, lease = start(store, budget=2)
    first, second = claim(store, search), claim(store, search)
    assert store.claim(search.id, "worker-b", "cpu") is None  # two run
    assert store.deliver(first, trained())
    assert store.claim(search.id, "worker-b", "cpu") is None  # one is trained, one runs
    assert store.deliver(second, Delivery(fault=Fault.DIVERGED))
    third = claim(store, search)  # a failed child does not count
    assert third.number == 2
    assert store.deliver(third, trained())
    assert store.claim(search.id, "worker-b", "cpu") is None
    assert store.search("tiny").num_trained == 2
    store.set_budget(lease, 3)
    assert claim(store, search).number == 3


@pytest.mark.parametrize("state", [state for state in SearchState if state != SearchState.RUNNING])
def test_only_a_running_search_gives_children(store: Store, state: SearchState) -> None:
    search, lease = start(store)
    store.set_state(lease, state)
    before = dump(store)
    assert store.claim(search.id, "worker-a", "cpu") is None
    assert dump(store) == before
    store.set_state(lease, SearchState.RUNNING)
    assert claim(store, search).number == 0


def test_only_workers_of_the_present_epoch_get_children(store: Store) -> None:
    search, lease = start(store)
    assert store.claim(search.id, "worker-a", "cpu", epoch=lease.epoch + 1) is None
    assert store.claim(search.id, "worker-a", "cpu", epoch=lease.epoch - 1) is None
    assert store.claim(search.id, "worker-a", "cpu", epoch=lease.epoch) is not None


def test_no_search_gives_no_children(store: Store) -> None:
    assert store.claim(99, "worker-a", "cpu") is None
    assert not store.claimable(99)


def test_claimable_looks_and_writes_nothing(store: Store, clock: Clock) -> None:
    search, _ = start(store, children=1)
    before = dump(store)
    assert store.claimable(search.id)
    assert dump(store) == before
    claim(store, search)
    assert not store.claimable(search.id)
    clock.pass_seconds(CLAIM_SECONDS + 1)
    assert store.claimable(search.id)  # the claim has expired


def test_claimable_knows_the_budget_and_the_state(store: Store) -> None:
    search, lease = start(store, budget=1)
    claimed = claim(store, search)
    assert not store.claimable(search.id)
    assert store.fail_attempt(claimed, Fault.RAISED)
    assert store.claimable(search.id)
    store.set_state(lease, SearchState.STOPPING)
    assert not store.claimable(search.id)


def test_searches_do_not_share_children(store: Store) -> None:
    one, _ = start(store, name="one")
    two, _ = start(store, name="two")
    assert store.deliver(claim(store, one), trained())
    assert store.counts(one.id) == {"ready": 3, "running": 0, "trained": 1, "failed": 0, "lost": 0}
    assert store.counts(two.id) == {"ready": 4, "running": 0, "trained": 0, "failed": 0, "lost": 0}
    assert (store.search("one").num_trained, store.search("two").num_trained) == (1, 0)


# What a claim allows


def test_renew_prolongs_and_reports_progress(store: Store, clock: Clock) -> None:
    search, _ = start(store)
    claimed = claim(store, search)
    clock.pass_seconds(20)
    assert store.renew(claimed, 17)
    child = child_of(store, search, 0)
    assert (child.progress, child.lease_until) == (17, START + 20 + CLAIM_SECONDS)


def test_the_same_epoch_again_replaces_its_measurement(store: Store, clock: Clock) -> None:
    search, _ = start(store)
    claimed = claim(store, search)
    for epoch, accuracy in ((1, 0.5), (0, 0.25), (1, 0.75)):
        clock.pass_seconds(1)
        assert store.measure(claimed, epoch, {"accuracy": accuracy})
    found = store.measurements(claimed.child_id)
    assert [(row.epoch, row.metrics, row.at) for row in found] == [
        (0, {"accuracy": 0.25}, START + 2),
        (1, {"accuracy": 0.75}, START + 3),
    ]
    assert child_of(store, search, 0).lease_until == START + 3 + CLAIM_SECONDS


def test_measurements_are_those_of_the_last_attempt(store: Store) -> None:
    search, _ = start(store)
    first = claim(store, search)
    assert store.measure(first, 0, {"accuracy": 0.1})
    assert store.fail_attempt(first, Fault.NODE_LOST)
    assert store.measurements(first.child_id) == []
    second = claim(store, search)
    assert store.measure(second, 0, {"accuracy": 0.9})
    assert store.deliver(second, trained(0.9))
    assert [row.metrics for row in store.measurements(second.child_id)] == [{"accuracy": 0.9}]


def test_measurements_of_a_failed_child_are_kept(store: Store) -> None:
    search, _ = start(store)
    claimed = claim(store, search)
    assert store.measure(claimed, 0, {"accuracy": 0.1})
    assert store.deliver(claimed, Delivery(fault=Fault.DIVERGED, message="loss is nan", log="trace"))
    assert [row.epoch for row in store.measurements(claimed.child_id)] == [0]


def test_a_trained_child_has_its_reward(store: Store, clock: Clock) -> None:
    search, _ = start(store)
    claimed = claim(store, search)
    clock.pass_seconds(5)
    assert store.deliver(claimed, dataclasses.replace(trained(0.75), log="all good"))
    child = child_of(store, search, 0)
    assert (child.state, child.reward, child.metrics) == ("trained", 0.75, {"accuracy": 0.75, "seconds": 3.0})
    assert (child.finished, child.seconds, child.attempts, child.lease_until) == (START + 5, 3.0, 1, None)
    (attempt,) = store.attempts(child.id)
    assert (attempt.ended, attempt.fault, attempt.charged, attempt.log) == (START + 5, None, False, "all good")


def test_where_a_childs_time_went_is_kept(store: Store) -> None:
    search, _ = start(store)
    timed, untimed, failed = (claim(store, search) for _ in range(3))
    assert child_of(store, search, 0).phases is None
    phases = {"compile": 1.25, "train": 1.5, "validate": 0.25}
    assert store.deliver(timed, dataclasses.replace(trained(), phases=phases))
    assert store.deliver(untimed, trained())
    assert store.deliver(failed, Delivery(fault=Fault.DIVERGED, phases={"train": 1.0}))
    assert [child.phases for child in store.children(search.id)] == [phases, {}, None, None]


def test_a_failed_child_has_its_fault(store: Store, clock: Clock) -> None:
    search, _ = start(store)
    claimed = claim(store, search)
    clock.pass_seconds(5)
    assert store.fail_attempt(claimed, Fault.OOM, message="out of memory", exit_code=1, signal=9, log="tail")
    child = child_of(store, search, 0)
    assert (child.state, child.fault, child.message, child.reward) == ("failed", "oom", "out of memory", None)
    assert (child.finished, child.seconds, child.attempts, child.worker) == (START + 5, 5.0, 1, "worker-a")
    (attempt,) = store.attempts(child.id)
    assert (attempt.fault, attempt.exit_code, attempt.signal, attempt.charged, attempt.log) == (
        "oom",
        1,
        9,
        True,
        "tail",
    )


@pytest.mark.parametrize("reward", [None, math.nan, math.inf])
def test_a_reward_must_be_finite(store: Store, reward: float | None) -> None:
    search, _ = start(store)
    claimed = claim(store, search)
    before = dump(store)
    with pytest.raises(
        ValueError, match=f"A trained child's reward must be finite, got {reward}; deliver it as diverged"
    ):
        store.deliver(claimed, Delivery(reward=reward))
    assert dump(store) == before


def test_metrics_must_be_finite(store: Store) -> None:
    search, _ = start(store)
    claimed = claim(store, search)
    before = dump(store)
    with pytest.raises(ValueError, match="Out of range float values"):
        store.measure(claimed, 0, {"loss": math.inf})
    with pytest.raises(ValueError, match="Out of range float values"):
        store.deliver(claimed, Delivery(reward=0.5, metrics={"loss": math.nan}))
    assert dump(store) == before


# What a lost claim forbids


def every_worker_write(store: Store, stale: Claim) -> list[bool]:
    return [
        store.renew(stale, 5),
        store.measure(stale, 0, {"accuracy": 0.9}),
        store.deliver(stale, trained(0.99, weights=b"weights"), keep=10),
        store.deliver(stale, Delivery(fault=Fault.RAISED, message="late")),
        store.fail_attempt(stale, Fault.CRASHED),
        store.fail_attempt(stale, Fault.INTERRUPTED),
    ]


def lose_by_delivery(store: Store, clock: Clock, claimed: Claim) -> None:
    assert store.deliver(claimed, trained(0.5, weights=b"first"), keep=10)


def lose_by_failure(store: Store, clock: Clock, claimed: Claim) -> None:
    assert store.deliver(claimed, Delivery(fault=Fault.RAISED, message="first"))


def lose_by_crash(store: Store, clock: Clock, claimed: Claim) -> None:
    assert store.fail_attempt(claimed, Fault.CRASHED)  # ready again


def lose_by_expiry(store: Store, clock: Clock, claimed: Claim) -> None:
    clock.pass_seconds(CLAIM_SECONDS + 1)
    taken = store.claim(claimed.search_id, "worker-b", "cpu")
    assert taken is not None and taken.child_id == claimed.child_id


def lose_by_takeover(store: Store, clock: Clock, claimed: Claim) -> None:
    store.take_lease("tiny", THERE, gone=lambda owner: True)


def lose_by_release(store: Store, clock: Clock, claimed: Claim) -> None:
    store.release(Lease(claimed.search_id, 1), SearchState.PAUSED, "Ctrl-C")


def lose_by_deletion(store: Store, clock: Clock, claimed: Claim) -> None:
    store.delete("tiny", gone=lambda owner: True)


LOSSES = [
    lose_by_delivery,
    lose_by_failure,
    lose_by_crash,
    lose_by_expiry,
    lose_by_takeover,
    lose_by_release,
    lose_by_deletion,
]


@pytest.mark.parametrize("lose", LOSSES)
def test_a_lost_claim_changes_nothing(store: Store, clock: Clock, lose: Callable[..., None]) -> None:
    search, _ = start(store)
    claimed = claim(store, search)
    lose(store, clock, claimed)
    before = dump(store)
    assert every_worker_write(store, claimed) == [False] * 6
    assert dump(store) == before


def test_a_forged_claim_changes_nothing(store: Store) -> None:
    search, _ = start(store)
    claimed = claim(store, search)
    before = dump(store)
    for forged in (dataclasses.replace(claimed, fence=2), dataclasses.replace(claimed, child_id=99)):
        assert every_worker_write(store, forged) == [False] * 6
    assert dump(store) == before


def test_an_expired_claim_that_nobody_took_is_still_its_owners(store: Store, clock: Clock) -> None:
    search, _ = start(store)
    claimed = claim(store, search)
    clock.pass_seconds(1000)
    assert store.measure(claimed, 0, {"accuracy": 0.5})
    clock.pass_seconds(1000)
    assert store.renew(claimed, 1)
    clock.pass_seconds(1000)
    assert store.deliver(claimed, trained())


def test_a_claim_expires_after_its_lease_and_not_at_its_end(store: Store, clock: Clock) -> None:
    search, _ = start(store, children=1)
    first = claim(store, search)
    clock.pass_seconds(CLAIM_SECONDS)
    assert store.claim(search.id, "worker-b", "cpu") is None
    clock.pass_seconds(0.5)
    second = claim(store, search, "worker-b")
    assert (second.child_id, second.fence > first.fence) == (first.child_id, True)
    lost, _running = store.attempts(first.child_id)
    assert (lost.fault, lost.charged, lost.ended) == ("node_lost", True, START + CLAIM_SECONDS + 0.5)
    assert store.deliver(second, trained())


def test_what_a_child_prints_is_stored_without_nul(store: Store) -> None:
    search, _ = start(store, children=1)
    claimed = claim(store, search)
    assert store.fail_attempt(claimed, Fault.CRASHED, message="it\0 ended", log="a\0b")
    (attempt,) = store.attempts(claimed.child_id)
    assert attempt.log == "a\N{REPLACEMENT CHARACTER}b"


def test_claims_of_a_living_worker_are_renewed_for_it(store: Store, clock: Clock) -> None:
    search, _ = start(store)
    held, other = claim(store, search), claim(store, search, "worker-b")
    clock.pass_seconds(CLAIM_SECONDS - 1)
    store.renew_claims(search.id, ["worker-a"])
    clock.pass_seconds(2)
    stolen = claim(store, search, "worker-c")
    assert stolen.child_id == other.child_id
    assert store.deliver(held, trained())
    assert not store.deliver(other, trained())


@pytest.mark.parametrize("days", [-1, 1])
def test_a_clock_jump_loses_no_claim_and_gives_no_negative_time(store: Store, clock: Clock, days: int) -> None:
    search, lease = start(store)
    delivering, failing = claim(store, search), claim(store, search)
    clock.pass_seconds(days * 86400)
    store.renew_lease(lease)
    assert store.renew(delivering, 1)
    assert store.deliver(delivering, trained())
    assert store.fail_attempt(failing, Fault.TIMEOUT)
    assert store.search("tiny").lease_until == clock.now + LEASE_SECONDS
    seconds = child_of(store, search, 1).seconds
    assert seconds is not None and seconds >= 0


def test_without_a_clock_the_database_tells_the_time(address: str) -> None:
    import time

    with_own_clock = Store(address)
    before = time.time()
    found = with_own_clock.now()
    with_own_clock.close()
    assert before - 0.1 <= found <= time.time() + 0.1  # SQLite's clock has milliseconds


# Attempts


@pytest.mark.parametrize("fault", CHARGED)
def test_every_fault_has_its_number_of_attempts(store: Store, fault: Fault) -> None:
    search, _ = start(store, children=1)
    for attempt in range(1, ATTEMPTS[fault] + 1):
        assert child_of(store, search, 0).state == State.READY
        assert store.fail_attempt(claim(store, search), fault, message=f"attempt {attempt}")
    child = child_of(store, search, 0)
    assert child.state == (State.LOST if fault in MACHINE_FAULTS else State.FAILED)
    assert (child.fault, child.message) == (fault, f"attempt {ATTEMPTS[fault]}")
    assert (child.attempts, len(store.attempts(child.id))) == (ATTEMPTS[fault],) * 2
    assert store.claim(search.id, "worker-a", "cpu") is None


def test_the_numbers_of_attempts() -> None:
    assert {fault: ATTEMPTS[fault] for fault in CHARGED} == {
        Fault.RAISED: 1,
        Fault.DIVERGED: 1,
        Fault.INVALID: 1,
        Fault.OOM: 1,
        Fault.GPU_OOM: 1,
        Fault.TIMEOUT: 1,
        Fault.CRASHED: 2,
        Fault.NODE_LOST: 5,
        Fault.STORE_LOST: 5,
    }


def test_attempts_are_counted_by_fault(store: Store) -> None:
    search, _ = start(store, children=1)
    for fault in (Fault.NODE_LOST, Fault.CRASHED, Fault.NODE_LOST, Fault.STORE_LOST):
        assert store.fail_attempt(claim(store, search), fault)
    assert child_of(store, search, 0).state == State.READY
    assert store.fail_attempt(claim(store, search), Fault.CRASHED)
    assert child_of(store, search, 0).state == State.FAILED


def test_interruptions_are_never_charged(store: Store) -> None:
    search, _ = start(store, children=1)
    for _ in range(12):
        assert store.fail_attempt(claim(store, search), Fault.INTERRUPTED)
    child = child_of(store, search, 0)
    assert (child.state, child.attempts, child.fault) == (State.READY, 0, None)
    assert not any(attempt.charged for attempt in store.attempts(child.id))


def test_fences_only_rise(store: Store) -> None:
    search, _ = start(store, children=1)
    fences = []
    for _ in range(4):
        claimed = claim(store, search)
        fences.append(claimed.fence)
        assert store.fail_attempt(claimed, Fault.NODE_LOST)
    assert fences == sorted(set(fences))


# The coordinator's lease


def test_a_lease_makes_its_owner_the_coordinator(store: Store) -> None:
    make_search(store)
    lease = store.take_lease("tiny", HERE)
    search = store.search("tiny")
    assert lease == Lease(search.id, 1)
    assert (search.owner, search.epoch, search.state) == (HERE.to_json(), 1, SearchState.RUNNING)
    assert search.lease_until == START + LEASE_SECONDS


def test_a_held_lease_is_refused_with_its_holder(store: Store, clock: Clock) -> None:
    start(store)
    before = dump(store)
    with pytest.raises(LeaseHeldError) as caught:
        store.take_lease("tiny", THERE)
    assert str(caught.value) == (
        "The search 'tiny' is running in process 11 on this-host; stop it there with Ctrl-C or with: automl stop tiny "
        f"{store.option}"
    )
    clock.pass_seconds(LEASE_SECONDS)
    with pytest.raises(LeaseHeldError):
        store.take_lease("tiny", THERE)
    assert dump(store) == before


def test_an_expired_lease_is_taken_and_the_old_coordinator_is_refused(store: Store, clock: Clock) -> None:
    _, old = start(store)
    clock.pass_seconds(LEASE_SECONDS + 0.5)
    new = store.take_lease("tiny", THERE)
    assert new.epoch == old.epoch + 1
    with pytest.raises(StaleLeaseError):
        store.renew_lease(old)


def test_an_expired_lease_that_nobody_took_is_still_its_owners(store: Store, clock: Clock) -> None:
    _, lease = start(store)
    clock.pass_seconds(10 * LEASE_SECONDS)
    store.set_budget(lease, 9)
    store.renew_lease(lease)
    found = store.search("tiny")
    assert (found.budget, found.lease_until) == (9, clock.now + LEASE_SECONDS)
    with pytest.raises(LeaseHeldError):
        store.take_lease("tiny", THERE)


def test_a_coordinator_that_is_gone_is_replaced_at_once(store: Store) -> None:
    start(store)
    asked = []
    store.take_lease("tiny", THERE, gone=lambda owner: asked.append(owner) is None)
    assert asked == [HERE]


STALE_WRITES = [
    lambda store, lease: store.renew_lease(lease),
    lambda store, lease: store.release(lease, SearchState.PAUSED, "late"),
    lambda store, lease: store.set_state(lease, SearchState.STOPPING),
    lambda store, lease: store.set_budget(lease, 1),
    lambda store, lease: store.change_settings(lease, {}),
    lambda store, lease: store.begin_segment(lease, segment()),
    lambda store, lease: store.end_segment(lease, 0, "late"),
    lambda store, lease: store.commit_step(lease, make_step(1, 0), {0: 0.5}, [make_child(9, batch=1)], {"late": 1}),
]


def segment() -> dict[str, object]:
    empty: dict[str, object] = {name: {} for name in ("versions", "machine", "user_files", "changes")}
    return {"children": 10, "time": 60.0, "workers": 2} | empty


@pytest.mark.parametrize("write", STALE_WRITES)
@pytest.mark.parametrize("end", ["takeover", "deletion"])
def test_a_lost_lease_changes_nothing(store: Store, write: Callable[..., None], end: str) -> None:
    search, lease = start(store)
    store.begin_segment(lease, segment())
    claim(store, search)
    if end == "takeover":
        store.take_lease("tiny", THERE, gone=lambda owner: True)
        claim(store, search)
    else:
        store.delete("tiny", gone=lambda owner: True)
    before = dump(store)
    with pytest.raises(StaleLeaseError) as caught:
        write(store, lease)
    assert str(caught.value) == "Another process has taken this search over (or deleted it); nothing was written."
    assert dump(store) == before


def test_release_readies_running_children_uncharged(store: Store) -> None:
    search, lease = start(store)
    claimed = claim(store, search)
    store.release(lease, SearchState.PAUSED, "Ctrl-C")
    found = store.search("tiny")
    assert (found.state, found.cause, found.owner, found.lease_until) == (SearchState.PAUSED, "Ctrl-C", None, None)
    child = child_of(store, search, 0)
    assert (child.state, child.attempts, child.worker) == (State.READY, 0, None)
    (attempt,) = store.attempts(claimed.child_id)
    assert (attempt.fault, attempt.charged) == ("interrupted", False)
    store.take_lease("tiny", THERE)
    assert store.search("tiny").unclean == 0
    assert store.search("tiny").cause is None


def unclean_takeover(store: Store) -> None:
    store.take_lease("tiny", HERE, gone=lambda owner: True)


def test_the_child_that_may_kill_the_machine_is_charged_once(store: Store) -> None:
    search, _ = start(store, children=2)
    for number in range(1, UNCLEAN_TAKEOVERS + 1):
        claim(store, search)
        unclean_takeover(store)
        child = child_of(store, search, 0)
        assert (child.state, child.attempts) == (State.READY, int(number == UNCLEAN_TAKEOVERS))
    assert [attempt.fault for attempt in store.attempts(child.id)] == ["interrupted"] * 4 + ["crashed"]
    assert child_of(store, search, 1).attempts == 0
    # Five more, and it has crashed as often as a child may.
    for _ in range(UNCLEAN_TAKEOVERS):
        assert child_of(store, search, 0).attempts == 1
        claim(store, search)
        unclean_takeover(store)
    child = child_of(store, search, 0)
    assert (child.state, child.fault) == (State.FAILED, "crashed")
    assert child.message == "it was running 5 times in a row when its coordinator died"


def test_a_delivery_between_unclean_takeovers_starts_the_count_again(store: Store) -> None:
    search, _ = start(store, children=2)
    for _ in range(UNCLEAN_TAKEOVERS - 1):
        claim(store, search)
        unclean_takeover(store)
    suspect, other = claim(store, search), claim(store, search)
    assert store.deliver(other, trained())
    for _ in range(UNCLEAN_TAKEOVERS - 1):
        unclean_takeover(store)
        child = child_of(store, search, suspect.number)
        assert (child.state, child.attempts) == (State.READY, 0)
        claim(store, search)
    unclean_takeover(store)
    assert child_of(store, search, suspect.number).attempts == 1


def test_a_clean_end_starts_the_count_again(store: Store) -> None:
    search, _ = start(store, children=1)
    for _ in range(3):
        for _ in range(UNCLEAN_TAKEOVERS - 1):
            claim(store, search)
            unclean_takeover(store)
        store.release(Lease(search.id, store.search("tiny").epoch), SearchState.PAUSED, None)
        store.take_lease("tiny", HERE)
    assert child_of(store, search, 0).attempts == 0


def test_segments_are_numbered(store: Store, clock: Clock) -> None:
    search, lease = start(store)
    assert [store.begin_segment(lease, segment()) for _ in range(2)] == [0, 1]
    clock.pass_seconds(60)
    store.end_segment(lease, 1, "finished")
    first, second = store.segments(search.id)
    assert (first.number, first.started, first.ended, first.ending, first.workers) == (0, START, None, None, 2)
    assert (second.number, second.ended, second.ending) == (1, START + 60, "finished")


# Controller steps


def test_a_stopped_child_goes_on_once_the_controller_has_learned_from_it(store: Store) -> None:
    search, lease = start(store, children=2)
    for stopped_at in (1, None):
        delivery = Delivery(reward=0.5, metrics={"stopped": 3}, stopped_at=stopped_at)
        assert store.deliver(claim(store, search), delivery)

    def again(number: int, epoch: int = lease.epoch) -> Claim | None:
        return store.claim_again(search.id, number, "worker-a", "cpu", epoch=epoch)

    assert again(0) is None  # its reward may not change before it is learned from
    store.commit_step(lease, make_step(1, 0), {0: 0.5, 1: 0.5}, [], {})
    assert again(1) is None and again(0, lease.epoch - 1) is None
    claimed = again(0)
    assert claimed is not None and again(0) is None
    assert store.search("tiny").num_trained == 1
    assert store.deliver(claimed, trained(0.75))
    child = child_of(store, search, 0)
    assert (child.reward, child.consumed_by, child.stopped_at) == (0.75, 1, None)


def test_a_step_marks_what_it_consumed(store: Store) -> None:
    search, lease = start(store, children=3)
    assert store.deliver(claim(store, search), trained(0.5))
    assert store.deliver(claim(store, search), Delivery(fault=Fault.RAISED))
    step = make_step(1, consumed_batch=0)
    store.commit_step(lease, step, {0: 0.5, 1: 0.0, 2: None}, [make_child(3, batch=1)], {"repeat": 2})
    found = [(child.consumed_by, child.reward) for child in store.children(search.id)]
    assert found == [(1, 0.5), (1, 0.0), (1, None), (None, None)]
    assert store.last_step(search.id) == step
    assert [row.number for row in store.steps(search.id)] == [0, 1]
    assert all(row.blob is None for row in store.steps(search.id))
    assert store.search("tiny").refused == {"repeat": 2}


def test_a_search_without_steps_has_no_last_step(store: Store) -> None:
    assert store.last_step(make_search(store).id) is None


BROKEN_STEPS = {
    "a child that is there already": (1, [make_child(9, canonical_hash="hash-0")]),
    "two equal children": (1, [make_child(9), make_child(10, canonical_hash="hash-9")]),
    "a number that is taken": (1, [make_child(9), make_child(0, canonical_hash="new")]),
    "a step that is there already": (0, [make_child(9)]),
}


@pytest.mark.parametrize("why", BROKEN_STEPS)
def test_a_step_is_written_whole_or_not_at_all(store: Store, why: str) -> None:
    number, proposals = BROKEN_STEPS[why]
    search, lease = start(store)
    assert store.deliver(claim(store, search), trained())
    before = dump(store)
    with pytest.raises(StoreError, match=f"The store {store} refused: ".replace("+", r"\+")) as caught:
        store.commit_step(lease, make_step(number, 0), {0: 0.125}, proposals, {"repeat": 9})
    assert "\n" not in str(caught.value)
    assert dump(store) == before
    store.commit_step(lease, make_step(1, 0), {0: 0.5}, [make_child(9)], {})  # the right step still goes in


def test_blobs_of_the_last_two_steps_and_of_every_hundredth_are_kept(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    search, lease = start(store)
    monkeypatch.setattr("automl.db.store.KEPT_EVERY", 4)
    for number in range(1, 11):
        store.commit_step(lease, make_step(number), {}, [], {})
    kept = {row["number"] for row in steps_with_blobs(store)}
    assert kept == {0, 4, 8, 9, 10}
    assert len(store.steps(search.id)) == 11


def steps_with_blobs(store: Store) -> list[dict[str, object]]:
    with store._engine.connect() as connection:
        rows = connection.execute(StepRow.__table__.select().where(StepRow.blob.is_not(None)))
        return [dict(row._mapping) for row in rows]


def test_a_damaged_step_is_noticed(store: Store) -> None:
    search, _ = start(store)
    with store._engine.begin() as connection:
        connection.execute(update(StepRow).values(blob=b"damaged"))
    step = store.last_step(search.id)
    assert step is not None and step.blob is not None
    with pytest.raises(StoreError, match="Stored arrays are damaged"):
        blobs.unpack(step.blob, step.blob_sha256)


# Looking


def deliver_all(store: Store, search: Search, rewards: list[float | None]) -> None:
    """Delivers the next children with these rewards; None for a child that fails."""
    for reward in rewards:
        outcome = Delivery(fault=Fault.RAISED) if reward is None else trained(reward)
        assert store.deliver(claim(store, search), outcome)


def test_top_is_best_first_and_of_equals_the_older(store: Store) -> None:
    search, lease = start(store, children=6)
    deliver_all(store, search, [0.5, None, 0.75, 0.25, 0.75])
    store.commit_step(lease, make_step(1, 0), {1: 0.99}, [], {})  # a failed child's reward is no success
    assert [child.number for child in store.top(search.id, 3)] == [2, 4, 0]
    assert [child.number for child in store.top(search.id, 99)] == [2, 4, 0, 3]


def test_latest_is_of_the_highest_numbers_highest_first(store: Store, clock: Clock) -> None:
    search, _ = start(store, children=6)
    first, *others = (claim(store, search) for _ in range(5))
    for claimed, reward in zip(others, [0.5, None, 0.75, 0.25], strict=True):
        clock.pass_seconds(1)
        assert store.deliver(claimed, Delivery(fault=Fault.RAISED) if reward is None else trained(reward))
    assert [child.number for child in store.latest(search.id, 2)] == [4, 3]
    assert store.deliver(first, trained(0.99))  # the last to come has the lowest number
    assert [child.number for child in store.latest(search.id, 99)] == [4, 3, 1, 0]
    assert store.latest(search.id, 1) == store.children(search.id, number=4)
    assert store.latest(search.id + 1, 9) == []


def test_progress_is_of_one_search(store: Store) -> None:
    start(store, name="other")
    search, _ = start(store, children=6)
    deliver_all(store, search, [0.5, None, 0.75])
    claim(store, search)
    assert store.progress(search.id) == Progress(trained=2, ready=2, running=1, stop_requested=False)


def train_with(
    store: Store,
    search: Search,
    epochs: list[dict[str, object]],
    reward: float = 0.5,
    *,
    stopped_at: int | None = None,
    **final: object,
) -> None:
    """Trains the next child, with these metrics by epoch and these final metrics."""
    claimed = claim(store, search)
    for epoch, metrics in enumerate(epochs):
        assert store.measure(claimed, epoch, metrics)
    assert store.deliver(claimed, Delivery(reward=reward, metrics=final, stopped_at=stopped_at))


def test_curves_are_a_metric_by_epoch_in_number_order(store: Store, clock: Clock) -> None:
    search, _ = start(store)
    other, _ = start(store, name="other")
    train_with(store, other, [{"accuracy": 0.99}])
    late, early = claim(store, search), claim(store, search)
    for claimed, epoch, accuracy in ((early, 1, 0.5), (late, 0, 0.125), (early, 0, 0.25), (late, 1, 0.375)):
        assert store.measure(claimed, epoch, {"accuracy": accuracy, "loss": 1.5})
    assert store.deliver(early, trained(0.5))
    clock.pass_seconds(5)
    assert store.deliver(late, trained(0.375))
    assert store.curves(search.id, "accuracy") == [
        Curve(0, 0.375, START + 5, stopped=False, values={0: 0.125, 1: 0.375}),
        Curve(1, 0.5, START, stopped=False, values={0: 0.25, 1: 0.5}),
    ]
    assert [list(curve.values) for curve in store.curves(search.id, "accuracy")] == [[0, 1], [0, 1]]
    assert store.curves(search.id + 9, "accuracy") == []


def test_curves_are_of_trained_children_and_their_last_attempt(store: Store) -> None:
    search, _ = start(store, children=5)
    lost = claim(store, search)
    for epoch in range(3):
        assert store.measure(lost, epoch, {"accuracy": 0.9})
    assert store.fail_attempt(lost, Fault.NODE_LOST)
    train_with(store, search, [{"accuracy": 0.25}], 0.25)  # the same child again
    for delivery in (Delivery(fault=Fault.DIVERGED), Delivery(reward=0.75), None):  # failed, unmeasured, running
        claimed = claim(store, search)
        if delivery is None or delivery.fault is not None:
            assert store.measure(claimed, 0, {"accuracy": 0.5})
        assert delivery is None or store.deliver(claimed, delivery)
    assert [(curve.number, curve.values) for curve in store.curves(search.id, "accuracy")] == [(0, {0: 0.25})]


def test_curves_of_children_that_were_stopped_say_so(store: Store) -> None:
    search, _ = start(store)
    train_with(store, search, [{"accuracy": 0.25}], 0.5, stopped_at=1, accuracy=0.5)
    train_with(store, search, [{"accuracy": 0.25}], 0.25, accuracy=0.25)
    train_with(store, search, [{"accuracy": 0.25, "stopped": 1}], 0.25, stopped=1)  # a metric of the task's own
    assert [curve.stopped for curve in store.curves(search.id, "accuracy")] == [True, False, False]


def test_curves_since_a_time(store: Store, clock: Clock) -> None:
    search, _ = start(store)
    for _ in range(3):
        clock.pass_seconds(10)
        train_with(store, search, [{"accuracy": 0.5}])

    def numbers(since: float) -> list[int]:
        return [curve.number for curve in store.curves(search.id, "accuracy", finished_since=since)]

    assert numbers(START + 20) == [1, 2]  # that moment is in
    assert numbers(START + 20.25) == [2]
    assert numbers(START + 31) == []


def test_a_missing_metric_is_a_gap_in_a_curve(store: Store) -> None:
    search, _ = start(store)
    train_with(store, search, [{"loss": 1.5}, {"loss": 1.25, "accuracy": 0.25}, {"accuracy": 0.0}, {"accuracy": 0.5}])
    train_with(store, search, [{"loss": 1.5}])
    assert [curve.values for curve in store.curves(search.id, "accuracy")] == [{1: 0.25, 2: 0.0, 3: 0.5}, {}]
    assert [curve.values for curve in store.curves(search.id, "loss")] == [{0: 1.5, 1: 1.25}, {0: 1.5}]
    assert [curve.values for curve in store.curves(search.id, "nothing")] == [{}, {}]


def test_counts(store: Store) -> None:
    search, _ = start(store, children=5)
    deliver_all(store, search, [0.5, None, 0.75])
    claim(store, search)
    assert store.counts(search.id) == {"ready": 1, "running": 1, "trained": 2, "failed": 1, "lost": 0}


def test_lowest_reward_is_of_consumed_children_of_earlier_batches(store: Store) -> None:
    search, lease = start(store, children=2)
    store.commit_step(lease, make_step(1), {}, [make_child(2, batch=1), make_child(3, batch=2)], {})
    deliver_all(store, search, [0.5, 0.25, 0.125, 0.0625])
    assert store.lowest_reward(search.id, before_batch=1) is None  # nothing is consumed yet
    store.commit_step(lease, make_step(2, 0), {0: 0.5, 1: 0.25}, [], {})
    store.commit_step(lease, make_step(3, 1), {2: 0.125}, [], {})
    assert store.lowest_reward(search.id, before_batch=0) is None
    assert store.lowest_reward(search.id, before_batch=1) == 0.25
    assert store.lowest_reward(search.id, before_batch=2) == 0.125
    assert store.lowest_reward(search.id, before_batch=9) == 0.125


# Weights


def train_all(store: Store, search: Search, rewards: list[float], keep: int) -> list[int]:
    ids = []
    for reward in rewards:
        claimed = claim(store, search)
        assert store.deliver(claimed, trained(reward, weights=packed(reward)), keep=keep)
        ids.append(claimed.child_id)
    return ids


@pytest.mark.parametrize("largest", [10, 2**20], ids=["in files", "in the store"])
def test_weights_of_the_best_children_are_kept(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, largest: int
) -> None:
    monkeypatch.setattr("automl.db.store.LARGEST_BLOB", largest)
    search, _ = start(store, children=6)
    rewards = [0.5, 0.25, 0.75, 0.25, 0.875, 0.125]
    ids = train_all(store, search, rewards, keep=2)
    for child_id, reward in zip(ids, rewards, strict=True):
        weights = store.weights(child_id)
        if reward in (0.75, 0.875):
            np.testing.assert_array_equal(weights["w"], np.full((2, 2), reward, np.float32))
        else:
            assert weights is None
    files = list(tmp_path.glob("artefacts/*"))
    assert len(files) == (2 if largest == 10 else 0)
    store.delete("tiny", gone=lambda owner: True)
    assert not list(tmp_path.glob("artefacts/*"))
    assert dump(store)["artefacts"] == []


def test_of_equal_children_the_older_keeps_its_weights(store: Store) -> None:
    search, _ = start(store)
    ids = train_all(store, search, [0.5, 0.5, 0.5], keep=1)
    assert [store.weights(child_id) is not None for child_id in ids] == [True, False, False]


def test_no_weights_are_kept_where_none_are_wanted(store: Store) -> None:
    search, _ = start(store)
    train_all(store, search, [0.5], keep=0)
    assert store.deliver(claim(store, search), trained(0.75), keep=2)
    assert dump(store)["artefacts"] == []


def test_equal_weights_of_two_children_are_two_files(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("automl.db.store.LARGEST_BLOB", 10)
    ids = []
    for name in ("one", "two"):
        search, _ = start(store, name=name)
        ids += train_all(store, search, [0.5], keep=1)
    store.delete("one", gone=lambda owner: True)
    assert store.weights(ids[0]) is None
    np.testing.assert_array_equal(store.weights(ids[1])["w"], np.full((2, 2), 0.5, np.float32))


@pytest.mark.parametrize("damage", ["row", "file", "missing"])
def test_damaged_weights_are_noticed(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, damage: str
) -> None:
    monkeypatch.setattr("automl.db.store.LARGEST_BLOB", 2**20 if damage == "row" else 10)
    search, _ = start(store)
    (child_id,) = train_all(store, search, [0.5], keep=1)
    if damage == "row":
        with store._engine.begin() as connection:
            connection.execute(update(ArtefactRow).values(blob=packed(0.6)))
    else:
        (file,) = tmp_path.glob("artefacts/*")
        file.write_bytes(file.read_bytes()[:-1]) if damage == "file" else file.unlink()
    expected = (
        "The weights file .* cannot be read: No such file" if damage == "missing" else "Stored arrays are damaged"
    )
    with pytest.raises(StoreError, match=expected):
        store.weights(child_id)


def test_weights_that_cannot_be_written_deliver_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("automl.db.store.LARGEST_BLOB", 10)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    search, _ = start(store)
    claimed = claim(store, search)
    before = dump(store)
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(StoreError, match=r"Weights cannot be written to .*: No space left on device"):
            store.deliver(claimed, trained(0.5, weights=packed(0.5)), keep=1)
    assert dump(store) == before
    assert not list(tmp_path.glob("artefacts/*"))
    assert store.deliver(claimed, trained(0.5, weights=packed(0.5)), keep=1)


# What a search received from earlier ones


def test_donors_are_kept_with_their_search(store: Store) -> None:
    donors = [make_donor("one"), make_donor("two")]
    assert store.donors(make_search(store, donors=donors).id) == donors
    assert store.donors(make_search(store, "without").id) == []


# Deleting


def test_delete_takes_all_that_belongs_to_the_search(store: Store) -> None:
    empty = dump(store)
    search, lease = start(store, donors=[make_donor()])
    store.begin_segment(lease, segment())
    store.change_settings(lease, {"rate": 0.5}, decisions={0: {"name": "depth", "options": [1, 2]}})
    claimed = claim(store, search)
    assert store.measure(claimed, 0, {"accuracy": 0.5})
    assert store.deliver(claimed, trained(0.5, weights=b"w"), keep=1)
    store.request_child("tiny", (1, 2))
    store.keep_training(make_training(claimed.child_id), b"w")
    assert all(dump(store).values())
    store.release(lease, SearchState.PAUSED, None)
    store.delete("tiny")
    assert dump(store) == empty


def test_delete_refuses_while_a_coordinator_holds_the_search(store: Store, clock: Clock) -> None:
    start(store)
    before = dump(store)
    with pytest.raises(LeaseHeldError, match="is running in process 11 on this-host"):
        store.delete("tiny")
    assert dump(store) == before
    clock.pass_seconds(LEASE_SECONDS + 1)
    store.delete("tiny")
    with pytest.raises(UnknownSearchError):
        store.delete("tiny")


# The digest


def test_digest_of_a_tiny_search(store: Store) -> None:
    search, lease = start(store)
    deliver_all(store, search, [0.5, None])
    store.commit_step(lease, make_step(1, 0), {0: 0.5, 1: 0.0}, [], {})
    # Pinned: after a change, earlier searches would no longer have equal digests.
    assert store.digest(search.id) == "00a3fd45bb98ae28888a9eaae0435ebdc1484bd92862dce25bd4825bf074c29d"


def test_digest_ignores_times_workers_and_attempts(store: Store, clock: Clock) -> None:
    plain, _ = start(store, name="plain")
    deliver_all(store, plain, [0.5, 0.25])
    rough, _ = start(store, name="rough")
    assert store.fail_attempt(claim(store, rough, "worker-x"), Fault.NODE_LOST)
    second, first = claim(store, rough, "worker-y"), claim(store, rough, "worker-z")
    first, second = sorted((first, second), key=lambda claimed: claimed.number)
    clock.pass_seconds(5)
    slow = Delivery(reward=0.25, metrics={"seconds": 99.0, "accuracy": 0.25}, seconds=99.0)
    assert store.deliver(second, slow)  # in another order, too
    assert store.deliver(first, trained(0.5))
    assert store.digest(rough.id) == store.digest(plain.id)


@pytest.mark.parametrize(
    "change",
    [
        {"reward": 0.75},
        {"state": State.FAILED},
        {"canonical_hash": "other"},
        {"tokens": [1, 0]},
        {"seed": 1},
        {"metrics": {"accuracy": 0.75}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_digest_changes_with_a_child(store: Store, change: dict[str, object]) -> None:
    search, _ = start(store)
    deliver_all(store, search, [0.5])
    before = store.digest(search.id)
    with store._engine.begin() as connection:
        connection.execute(update(ChildRow).where(ChildRow.number == 0).values(**change))
    assert store.digest(search.id) != before


def test_digest_changes_with_a_step(store: Store) -> None:
    search, lease = start(store)
    before = store.digest(search.id)
    with store._engine.begin() as connection:
        connection.execute(update(StepRow).values(state_hash="other"))
    changed = store.digest(search.id)
    store.commit_step(lease, make_step(1), {}, [], {})
    assert len({before, changed, store.digest(search.id)}) == 3


def test_digest_ignores_unfinished_children(store: Store) -> None:
    search, _ = start(store)
    before = store.digest(search.id)
    claim(store, search)
    assert store.digest(search.id) == before


# Errors


def test_a_refusal_of_the_database_is_one_sentence(store: Store) -> None:
    search, _ = start(store)
    with store._engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE measurements RENAME TO gone")
    try:
        with pytest.raises(StoreError) as caught:
            store.measurements(search.id)
        assert str(caught.value).startswith(f"The store {store} ")
        assert "gone" not in str(caught.value) and "SELECT" not in str(caught.value)
        assert "\n" not in str(caught.value)
    finally:
        with store._engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE gone RENAME TO measurements")


def test_early_endings_are_counted(store):
    search, _ = start(store)
    for ending, screened, reward in (("screened", True, 0.0), ("hopeless", True, 0.25), (None, False, 0.5)):
        metrics = {"ended": "at last", "screened": 3.5}  # the task's own
        store.deliver(claim(store, search), Delivery(reward=reward, metrics=metrics, ending=ending, screened=screened))
    told = {(count.why, count.screened, count.count, count.best) for count in store.endings(search.id)}
    assert told == {("screened", True, 1, 0.0), ("hopeless", True, 1, 0.25), (None, False, 1, 0.5)}


# Made ready again


def test_failed_and_lost_children_are_made_ready_again(store: Store) -> None:
    search, lease = start(store, children=4)
    deliver_all(store, search, [0.5, None])
    crashes(store, search, 2)
    while child_of(store, search, 3).state == State.READY:
        store.fail_attempt(claim(store, search), Fault.NODE_LOST)
    assert [(row.state, row.fault, row.count) for row in store.failures(search.id)] == [
        ("failed", "raised", 1),
        ("failed", "crashed", 1),
        ("lost", "node_lost", 1),
    ]
    store.commit_step(lease, make_step(1, 0), {0: 0.5, 1: -1.0, 2: -1.0, 3: None}, [], {})
    store.release(lease, SearchState.EXHAUSTED, "the space has no more")
    before = {number: store.attempts(child_of(store, search, number).id) for number in range(4)}
    assert store.retry("tiny", faults=[Fault.TIMEOUT]) == store.retry("tiny", number=0) == []
    assert store.search("tiny").state == SearchState.EXHAUSTED
    assert store.retry("tiny", faults=[Fault.CRASHED]) == [2]
    assert store.retry("tiny") == [1, 3]
    assert store.failures(search.id) == []
    found = store.search("tiny")
    assert (found.state, found.cause, found.num_trained) == (SearchState.PAUSED, None, 1)
    for number in (1, 2, 3):
        child = child_of(store, search, number)
        assert (child.state, child.fault, child.message, child.reward) == (State.READY, None, None, None)
        assert (child.attempts, child.finished, child.seconds) == (0, None, None)
        assert child.consumed_by == 1  # what was learned stays learned
        kept = [dataclasses.replace(attempt, charged=False) for attempt in before[number]]
        assert kept and store.attempts(child.id) == kept
    assert child_of(store, search, 0).reward == 0.5


def crashes(store: Store, search: Search, number: int) -> None:
    """Crashes the child until it has no attempts left."""
    while child_of(store, search, number).state == State.READY:
        store.fail_attempt(claim(store, search), Fault.CRASHED, exit_code=7)


def test_a_child_that_was_made_ready_again_has_all_its_attempts(store: Store) -> None:
    search, lease = start(store, children=2)
    crashes(store, search, 0)
    store.release(lease, SearchState.PAUSED, None)
    for _ in range(2):
        assert store.retry("tiny") == [0]
        lease = store.take_lease("tiny", HERE)
        assert store.fail_attempt(claim(store, search), Fault.CRASHED)
        assert child_of(store, search, 0).state == State.READY  # as before, one crash does not end it
        assert store.fail_attempt(claim(store, search), Fault.CRASHED)
        assert child_of(store, search, 0).state == State.FAILED
        store.release(lease, SearchState.PAUSED, None)
    assert store.retry("tiny") == [0]
    store.take_lease("tiny", HERE)
    assert store.deliver(claim(store, search), trained(0.75))
    child = child_of(store, search, 0)
    assert (child.state, child.reward, child.fault, child.attempts) == (State.TRAINED, 0.75, None, 1)
    assert [attempt.fault for attempt in store.attempts(child.id)] == ["crashed"] * 6 + [None]
    assert store.search("tiny").num_trained == 1


def test_only_the_coordinator_makes_children_of_a_running_search_ready_again(store: Store) -> None:
    search, lease = start(store, children=2)
    deliver_all(store, search, [None])
    before = dump(store)
    with pytest.raises(LeaseHeldError):
        store.retry("tiny")
    with pytest.raises(StaleLeaseError):
        store.retry("tiny", lease=Lease(lease.search_id, lease.epoch + 1))
    assert dump(store) == before
    assert store.retry("tiny", lease=lease) == [0]
