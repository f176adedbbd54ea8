"""Requests of other processes to a search: to stop, and to train the user's child."""

from __future__ import annotations

import dataclasses

import pytest
from store_helpers import HERE, START, THERE, Clock, dump, make_child, make_search, make_step, start

from automl.db.records import (
    LeaseHeldError,
    Origin,
    Progress,
    Request,
    SearchState,
    StaleLeaseError,
    UnknownSearchError,
)
from automl.db.store import LEASE_SECONDS, Store

# To stop


def test_a_running_search_is_asked_to_stop(store: Store, clock: Clock) -> None:
    search, lease = start(store)
    assert (search.stop_requested, store.progress(search.id).stop_requested) == (None, False)
    clock.pass_seconds(LEASE_SECONDS)  # the lease's last moment
    assert store.request_stop("tiny") == search
    assert store.search("tiny") == dataclasses.replace(search, stop_requested=START + LEASE_SECONDS)
    assert store.progress(search.id) == Progress(trained=0, ready=4, running=0, stop_requested=True)
    store.renew_lease(lease)  # the coordinator continues until it has stopped
    assert store.progress(search.id).stop_requested


def test_asking_twice_is_no_error(store: Store, clock: Clock) -> None:
    start(store)
    store.request_stop("tiny")
    clock.pass_seconds(1)
    assert store.request_stop("tiny").stop_requested == START
    assert store.search("tiny").stop_requested == START + 1


def test_only_the_named_search_is_asked(store: Store) -> None:
    one, _ = start(store, name="one")
    two, _ = start(store, name="two")
    store.request_stop("two")
    assert [store.progress(search.id).stop_requested for search in (one, two)] == [False, True]


@pytest.mark.parametrize("why", ["never started", "released", "expired", "gone"])
def test_a_search_that_is_not_running_takes_no_request(store: Store, clock: Clock, why: str) -> None:
    if why == "never started":
        make_search(store)
    else:
        _, lease = start(store)
    if why == "released":
        store.release(lease, SearchState.PAUSED, "Ctrl-C")
    if why == "expired":
        clock.pass_seconds(LEASE_SECONDS + 0.5)
    before = dump(store)
    found = store.request_stop("tiny", gone=lambda owner: why == "gone")
    assert found == store.search("tiny")
    assert (found.owner is None) == (why in ("never started", "released"))
    assert dump(store) == before


def test_only_the_owner_of_a_live_lease_is_checked(store: Store, clock: Clock) -> None:
    start(store)
    asked = []
    store.request_stop("tiny", gone=lambda owner: asked.append(owner) is not None)
    assert asked == [HERE]
    clock.pass_seconds(LEASE_SECONDS + 0.5)
    store.request_stop("tiny", gone=lambda owner: asked.append(owner) is not None)
    assert asked == [HERE]


def test_a_restart_clears_the_stop_mark(store: Store) -> None:
    search, lease = start(store)
    store.request_stop("tiny")
    with pytest.raises(LeaseHeldError):
        store.take_lease("tiny", THERE)
    assert store.progress(search.id).stop_requested  # a refused start takes nothing back
    store.release(lease, SearchState.PAUSED, "stopped")
    store.take_lease("tiny", THERE)
    assert store.search("tiny").stop_requested is None
    assert not store.progress(search.id).stop_requested


def test_a_takeover_clears_the_stop_mark(store: Store) -> None:
    search, _ = start(store)
    store.request_stop("tiny")
    store.take_lease("tiny", THERE, gone=lambda owner: True)
    assert not store.progress(search.id).stop_requested


# To train a child


def test_a_request_comes_back_as_it_was_made(store: Store, clock: Clock) -> None:
    search = make_search(store)
    clock.pass_seconds(5)
    made = store.request_child("tiny", (3, 0, 1))
    assert made == Request(made.id, search.id, [3, 0, 1], made=START + 5, child=None, refusal=None)
    assert store.requests(search.id) == store.requests(search.id, answered=True) == [made]


def test_requests_come_in_the_order_they_were_made(store: Store, clock: Clock) -> None:
    one, _ = start(store, name="one")
    two, _ = start(store, name="two")
    made = []
    for name, seconds in (("one", 5), ("two", 5), ("one", -60), ("one", 5)):  # a clock may be set back
        clock.pass_seconds(seconds)
        made.append(store.request_child(name, (len(made),)))
    assert store.requests(one.id) == [made[0], made[2], made[3]]
    assert store.requests(two.id) == store.requests(two.id, answered=True) == [made[1]]


def test_the_same_tokens_may_be_requested_twice(store: Store) -> None:
    search, _ = start(store)
    first, second = (store.request_child("tiny", (1, 2)) for _ in range(2))
    assert store.requests(search.id) == [first, second]


def test_an_answer_is_the_childs_number_or_the_reason_for_the_refusal(store: Store) -> None:
    search, lease = start(store)
    accepted, refused, later = (store.request_child("tiny", (number,)) for number in range(3))
    child = dataclasses.replace(make_child(4, batch=1), origin=Origin.USER, tokens=(0,))
    store.commit_step(lease, make_step(1), {}, [child], {}, {accepted.id: 4, refused.id: "it is there already"})
    assert store.requests(search.id) == [later]
    answers = [
        dataclasses.replace(accepted, child=4),
        dataclasses.replace(refused, refusal="it is there already"),
    ]
    assert store.requests(search.id, answered=True) == [*answers, later]
    (found,) = store.children(search.id, number=4)
    assert (found.origin, found.tokens) == (Origin.USER, [0])
    store.commit_step(lease, make_step(2), {}, [], {}, {later.id: "too large"})
    assert store.requests(search.id) == []
    assert store.requests(search.id, answered=True) == [*answers, dataclasses.replace(later, refusal="too large")]


def test_the_first_child_is_an_answer_too(store: Store) -> None:
    search = make_search(store)
    request = store.request_child("tiny", (0, 1))
    lease = store.take_lease("tiny", HERE)
    store.commit_step(lease, make_step(0), {}, [make_child(0)], {}, {request.id: 0})
    assert store.requests(search.id) == []
    assert store.requests(search.id, answered=True) == [dataclasses.replace(request, child=0)]


@pytest.mark.parametrize("answer", [4, "no"])
def test_a_step_that_is_refused_answers_nothing(store: Store, answer: int | str) -> None:
    search, lease = start(store)
    request = store.request_child("tiny", (1,))
    before = dump(store)
    store.take_lease("tiny", THERE, gone=lambda owner: True)
    taken = dump(store)
    with pytest.raises(StaleLeaseError):
        store.commit_step(lease, make_step(1), {}, [make_child(4)], {}, {request.id: answer})
    assert dump(store) == taken
    assert taken["requests"] == before["requests"]
    assert store.requests(search.id) == [request]


@pytest.mark.parametrize("name", ["tinny", ""])
def test_a_search_that_is_not_there_cannot_be_asked(store: Store, name: str) -> None:
    start(store)
    before = dump(store)
    for ask in (lambda: store.request_stop(name), lambda: store.request_child(name, (1,))):
        with pytest.raises(UnknownSearchError, match=f"There is no search called '{name}' in .*; it has tiny"):
            ask()
    assert dump(store) == before


def test_a_search_without_requests_has_none(store: Store) -> None:
    search, _ = start(store)
    store.request_child("tiny", (1,))
    assert store.requests(search.id + 1) == store.requests(search.id + 1, answered=True) == []
