"""Workers and coordinators act in any order: invariants of the store."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from store_helpers import HERE, Clock, make_child, make_search, make_step

from automl.db.records import Claim, Delivery, Fault, Lease, LeaseHeldError, SearchState, StaleLeaseError, State
from automl.db.store import CLAIM_SECONDS, LEASE_SECONDS, Store

CHILDREN = 6
FLOPS = (10, None, 20, 10, 30, 30)
BUDGET = 3
TEMPLATE: Path | None = None


class StoreMachine(RuleBasedStateMachine):
    """Keeps the expected facts beside the store: the owner of each child, and its delivered result."""

    def __init__(self) -> None:
        super().__init__()
        assert TEMPLATE is not None
        self.folder = Path(tempfile.mkdtemp())
        self.clock = Clock()
        self.store = Store(str(shutil.copy(TEMPLATE, self.folder / "store.db")), clock=self.clock)
        self.search_id = make_search(self.store, budget=BUDGET).id
        self.leases = [self.store.take_lease("tiny", HERE)]
        proposals = [
            dataclasses.replace(make_child(number, batch=number // 3), flops=FLOPS[number])
            for number in range(CHILDREN)
        ]
        self.store.commit_step(self.leases[0], make_step(0), {}, proposals, {})
        self.claims: list[Claim] = []  # all that were ever given
        self.holder: dict[int, Claim] = {}  # by child, the one that counts
        self.until: dict[int, float] = {}
        self.rewards: dict[int, float] = {}
        self.fences = dict.fromkeys(range(1, CHILDREN + 1), 0)
        self.released = False
        self.lease_until = self.clock.now + LEASE_SECONDS
        self.stop_requested = False
        self.answers: dict[int, int | str | None] = {}  # by request; None where there is none yet
        self.steps = 1

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.folder)

    def some_claim(self, data: st.DataObject) -> Claim:
        return data.draw(st.sampled_from(self.claims))

    def holds(self, claim: Claim) -> bool:
        return self.holder.get(claim.child_id) == claim

    @rule(worker=st.sampled_from(["a", "b", "c"]))
    def claim(self, worker: str) -> None:
        claimed = self.store.claim(self.search_id, worker, "cpu")
        if not self.released:
            expired = [child for child, until in self.until.items() if until < self.clock.now]
            for child in expired:
                del self.holder[child], self.until[child]
        if claimed is None:
            return
        assert not self.released
        assert claimed.child_id not in self.holder
        assert claimed.child_id not in self.rewards
        self.check_choice(claimed)
        self.claims.append(claimed)
        self.holder[claimed.child_id] = claimed
        self.until[claimed.child_id] = self.clock.now + CLAIM_SECONDS

    def check_choice(self, claimed: Claim) -> None:
        """Among the lowest numbers that the budget admits, the earliest batch; in it, the most FLOPs."""
        children = self.store.children(self.search_id)
        ready = [child for child in children if child.state == State.READY or child.id == claimed.child_id]
        let_in = ready[: BUDGET - len(self.rewards) - len(self.holder)]
        best = min(let_in, key=lambda child: (child.batch, -(child.flops or 0), child.number))
        assert best.id == claimed.child_id

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), progress=st.integers(0, 99))
    def renew(self, data: st.DataObject, progress: int) -> None:
        claim = self.some_claim(data)
        assert self.store.renew(claim, progress) == self.holds(claim)
        self.renewed(claim)

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), epoch=st.integers(0, 2))
    def measure(self, data: st.DataObject, epoch: int) -> None:
        claim = self.some_claim(data)
        assert self.store.measure(claim, epoch, {"accuracy": 0.5}) == self.holds(claim)
        self.renewed(claim)

    def renewed(self, claim: Claim) -> None:
        if self.holds(claim):
            self.until[claim.child_id] = self.clock.now + CLAIM_SECONDS

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), reward=st.floats(0, 1))
    def deliver(self, data: st.DataObject, reward: float) -> None:
        claim = self.some_claim(data)
        accepted = self.store.deliver(claim, Delivery(reward=reward, metrics={"accuracy": reward}))
        assert accepted == self.holds(claim)
        if accepted:
            assert claim.child_id not in self.rewards
            self.rewards[claim.child_id] = reward
            self.ended(claim)

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), fault=st.sampled_from(Fault))
    def fail(self, data: st.DataObject, fault: Fault) -> None:
        claim = self.some_claim(data)
        assert self.store.fail_attempt(claim, fault) == self.holds(claim)
        self.ended(claim)

    def ended(self, claim: Claim) -> None:
        if self.holds(claim):
            del self.holder[claim.child_id], self.until[claim.child_id]

    @rule(seconds=st.sampled_from([1, 31, 100, 200]))
    def wait(self, seconds: int) -> None:
        self.clock.pass_seconds(seconds)

    @rule()
    def take_over(self) -> None:
        self.leases.append(self.store.take_lease("tiny", HERE, gone=lambda owner: True))
        self.holder.clear()
        self.until.clear()
        self.released = False
        self.lease_until = self.clock.now + LEASE_SECONDS
        self.stop_requested = False

    @rule()
    def retry(self) -> None:
        final = (State.FAILED, State.LOST)
        over = [child.number for child in self.store.children(self.search_id, states=final)]
        if not self.released and self.lease_until >= self.clock.now:
            with pytest.raises(LeaseHeldError):
                self.store.retry("tiny")
        else:
            assert self.store.retry("tiny") == over
            assert self.store.children(self.search_id, states=final) == []

    @rule()
    def request_stop(self) -> None:
        self.store.request_stop("tiny", gone=lambda owner: False)
        self.stop_requested |= not self.released and self.lease_until >= self.clock.now

    @rule()
    def request_child(self) -> None:
        request = self.store.request_child("tiny", (len(self.answers),))
        assert request.id not in self.answers
        self.answers[request.id] = None

    @precondition(lambda self: None in self.answers.values())
    @rule(data=st.data(), answer=st.one_of(st.integers(0, 9), st.just("no")))
    def answer(self, data: st.DataObject, answer: int | str) -> None:
        lease: Lease = data.draw(st.sampled_from(self.leases))
        request = data.draw(st.sampled_from([waiting for waiting, found in self.answers.items() if found is None]))
        step = make_step(self.steps)
        if lease == self.leases[-1]:
            self.store.commit_step(lease, step, {}, [], {}, {request: answer})
            self.steps += 1
            self.answers[request] = answer
        else:
            with pytest.raises(StaleLeaseError):
                self.store.commit_step(lease, step, {}, [], {}, {request: answer})

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        lease: Lease = data.draw(st.sampled_from(self.leases))
        if lease == self.leases[-1]:
            self.store.release(lease, SearchState.PAUSED, None)
            self.holder.clear()
            self.until.clear()
            self.released = True
        else:
            with pytest.raises(StaleLeaseError):
                self.store.release(lease, SearchState.PAUSED, None)

    @invariant()
    def the_store_agrees(self) -> None:
        children = {child.id: child for child in self.store.children(self.search_id)}
        states = [child.state for child in children.values()]
        assert {child.id: child.reward for child in children.values() if child.state == State.TRAINED} == self.rewards
        assert {child.id for child in children.values() if child.state == State.RUNNING} == set(self.holder)
        assert self.store.search("tiny").num_trained == len(self.rewards)
        assert states.count(State.TRAINED) + states.count(State.RUNNING) <= BUDGET
        assert self.store.progress(self.search_id).stop_requested == self.stop_requested
        requests = self.store.requests(self.search_id, answered=True)
        answers = {request.id: request.refusal if request.child is None else request.child for request in requests}
        assert list(answers.items()) == list(self.answers.items())
        for child in children.values():
            assert child.fence >= self.fences[child.id]
            self.fences[child.id] = child.fence
            accepted = [attempt for attempt in self.store.attempts(child.id) if attempt.ended and not attempt.fault]
            assert len(accepted) == (child.state == State.TRAINED)


def test_anything_in_any_order(sqlite_template: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "TEMPLATE", sqlite_template)
    short = settings(max_examples=25, stateful_step_count=30, deadline=None, derandomize=True, database=None)
    run_state_machine_as_test(StoreMachine, settings=short)
