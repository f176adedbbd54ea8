"""A worker: claims children, trains them and delivers the results. It keeps no state between children."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import gc
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from automl.child_trainers.artefacts import Artefacts, WorkerLog
from automl.child_trainers.experiment import Experiment
from automl.child_trainers.gpu_faults import GpuLostError, lost_gpu
from automl.child_trainers.outcome import Outcome, fault_of
from automl.child_trainers.task import Assignment, SearchFaultError
from automl.child_trainers.training.checkpoints import Checkpoint, identity_of
from automl.child_trainers.training.early_stop import EarlyStopError, Stopper, make_stopper
from automl.child_trainers.workers.claim_report import ClaimLostError, ClaimReport
from automl.child_trainers.workers.heartbeat import Heartbeat
from automl.child_trainers.workers.process import child_mark
from automl.db import blobs
from automl.db.records import Claim, Delivery, Fault, StoreError
from automl.db.store import Store
from automl.search_spaces.recorded import WHY, ChildMismatchError, Record, child_mismatch, decode_recorded

logger = logging.getLogger(__name__)
LOG_TAIL = 10_000  # characters
MOST_TOGETHER = 512  # children that one call of a task trains: after so many, the worker is checked for its memory


@dataclasses.dataclass
class Worker:
    """Trains the children of a search. `claim`, `train` and `deliver` are separate: a worker may die between them.

    `work_once` and `train` raise GpuLostError if a GPU of this process cannot be used any more. The claims stay, so
    that the pool ends these attempts with the worker.

    Attributes:
        store: the store of the search.
        search_id: the id of the search.
        experiment: the space and the task of the search.
        name: unique among all past and present workers of the search.
        device: the device on which children are trained, for the user.
        epoch: the epoch of the coordinator; the worker claims children only under this epoch.
        keep: the number of best children whose weights are kept.
        early_stop: the name of the pruner, or `none`.
        slot: the index of its slot in the pool, for the user; None if there is only one worker.
        artefacts: the storage of checkpoints, or None for no checkpoints.
        log: where this process prints, or None if that is a user's terminal.
        beat: whether a thread renews the claim while a child trains.
        clock: returns monotonic time in seconds.
    """

    store: Store
    search_id: int
    experiment: Experiment
    name: str
    device: str
    epoch: int
    keep: int
    early_stop: str = "none"
    slot: int | None = None
    artefacts: Artefacts | None = None
    log: WorkerLog | None = None
    beat: bool = True
    clock: Callable[[], float] = time.monotonic
    _decisions: list[Record] = dataclasses.field(default_factory=list)  # decisions of the search that were already read

    def warm_up(self) -> None:
        """Does slow work once, before the first child.

        `gc.freeze` excludes the several 100,000 objects of TensorFlow from garbage collection, which would otherwise
        take a fifth of a second each time.
        """
        self.experiment.task.warm_up()
        if self._stopper is not None:
            self._stopper.warm_up()
        gc.collect()
        gc.freeze()

    def work_once(self) -> int:
        """Claims, trains and delivers one child or population. Returns the number of children, 0 if none was ready."""
        if self.experiment.task.population > 1:
            claims = self._claim_population()
            if len(claims) > 1:
                self._train_together(claims)
                return len(claims)
            claim = claims[0] if claims else None
        else:
            claim = self.claim()
        if claim is None:
            return 0
        process = os.getpid()
        delivery = self.train(claim)
        if os.getpid() != process:
            os._exit(0)  # the child has forked, and this is the forked process: it must not become a second worker
        if delivery is not None:
            self.deliver(claim, delivery)
        return 1

    def _claim_population(self) -> list[Claim]:
        return self.store.claim_together(self.search_id, self.name, self.device, epoch=self.epoch, slot=self.slot)

    def claim(self) -> Claim | None:
        """Claims a paused child that the pruner resumes, otherwise a new child. None if none is ready."""
        for number in () if self._stopper is None else self._stopper.to_continue():
            claim = self.store.claim_again(
                self.search_id, number, self.name, self.device, epoch=self.epoch, slot=self.slot
            )
            if claim is not None:
                return claim
        return self.store.claim(self.search_id, self.name, self.device, epoch=self.epoch, slot=self.slot)

    def train(self, claim: Claim) -> Delivery | None:
        """Trains a child. Returns its delivery, or None if the claim was lost during training."""
        if self.log is None:
            return self._train(claim)
        print(child_mark(claim.number), flush=True)
        start = self.log.end()
        delivery = self._train(claim)
        sys.stdout.flush()
        sys.stderr.flush()
        return None if delivery is None else dataclasses.replace(delivery, log=self.log.read(start))

    def _train(self, claim: Claim) -> Delivery | None:
        checkpoint = self._checkpoint(claim)
        report = ClaimReport(self.store, claim, self._stopper, checkpoint)
        started = self.clock()
        try:
            with self._beating(lambda: self.store.renew(claim, report.steps)):
                if self._stopper is not None:
                    self._stopper.begin(claim.number, passed=self.store.epochs_before(claim))
                outcome = self.experiment.task.evaluate(self._spec(claim), seed=claim.seed, report=report)
            return self._trained(outcome, self.clock() - started)
        except EarlyStopError as stop:
            assert self._stopper is not None
            reward = self._stopper.predicted_reward()
            seconds = self.clock() - started
            return Delivery(reward=reward, metrics=report.last, stopped_at=stop.epoch, seconds=seconds)
        except ClaimLostError:
            self._lost(claim)
            return None
        except (StoreError, SearchFaultError, GpuLostError):
            raise
        except (Exception, SystemExit) as error:  # a task that calls sys.exit ends its child, not this process
            return self._failed(claim, error, self.clock() - started)

    def _spec(self, claim: Claim) -> Any:
        """The spec of a child's tokens.

        Raises:
            SearchFaultError: the spec differs from the recorded one, or the space raises an exception.
        """
        if claim.decisions is not None and max(claim.decisions, default=-1) >= len(self._decisions):
            self._decisions = self.store.decisions(claim.search_id)
        decisions = None if claim.decisions is None else [self._decisions[number] for number in claim.decisions]
        try:
            return decode_recorded(self.experiment.space, claim.tokens, claim.spec, decisions).spec
        except ChildMismatchError as error:
            raise SearchFaultError(child_mismatch(claim.number, error)) from error
        except Exception as error:
            raise SearchFaultError(
                f"The space now fails on the tokens of child {claim.number} ({type(error).__name__}: {error}). {WHY}"
            ) from error

    @staticmethod
    def _lost(claim: Claim) -> None:
        logger.warning("The claim of child %d was lost; its training was dropped.", claim.number)

    @staticmethod
    def _failed(claim: Claim, error: BaseException, seconds: float) -> Delivery:
        """The delivery of a child that failed. Raises GpuLostError if its GPU cannot be used any more."""
        fault = _child_fault(error)
        logger.info("Child %d failed.", claim.number, exc_info=error)
        message = str(error).strip() or type(error).__name__
        full = "the memory of its GPU is full: " if fault is Fault.GPU_OOM else ""
        return Delivery(
            fault=fault,
            message=f"{full}{type(error).__name__}: {message}"[:1000],
            log="".join(traceback.format_exception(error))[-LOG_TAIL:],
            seconds=seconds,
        )

    def _train_together(self, claims: Sequence[Claim]) -> None:
        """Trains a population and delivers each child as soon as its outcome is known.

        A task whose device has room for more children receives those of the next ready population. If training raises
        an exception, the remaining children are released, each to be trained alone.
        """
        start = 0 if self.log is None else self.log.end()
        reports: list[ClaimReport] = []
        left: dict[int, Claim] = {}

        def assign(claims: Sequence[Claim]) -> list[Assignment]:
            for claim in claims:
                if self.log is not None:
                    print(child_mark(claim.number), flush=True)
                left[len(reports)] = claim
                reports.append(ClaimReport(self.store, claim))
            added = reports[len(reports) - len(claims) :]
            return [
                Assignment(self._spec(claim), claim.seed, report) for claim, report in zip(claims, added, strict=True)
            ]

        def more() -> list[Assignment]:
            return assign(self._claim_population()) if len(reports) < MOST_TOGETHER else []

        def renew() -> bool:
            renewed = [self.store.renew(claim, reports[index].steps) for index, claim in list(left.items())]
            return any(renewed)

        try:
            with self._beating(renew):
                for index, ended in self.experiment.task.evaluate_with_more(assign(claims), more):
                    delivery = self._delivery_of(left[index], ended)
                    if delivery is not None:
                        log = None if self.log is None else self.log.read(start)
                        self.deliver(left[index], dataclasses.replace(delivery, log=delivery.log or log))
                    del left[index]
                if left:
                    raise RuntimeError("The task did not yield an outcome for every child.")
        except (StoreError, SearchFaultError, GpuLostError):
            raise
        except (Exception, SystemExit) as error:
            fault = _child_fault(error)
            logger.info(
                "Children %s were trained together; each is now trained alone.", list(left.values()), exc_info=True
            )
            message = f"{type(error).__name__}: {error}"[:1000]
            trace = traceback.format_exc()[-LOG_TAIL:]
            self.store.release_population(list(left.values()), fault, message=message, log=trace)

    def _delivery_of(self, claim: Claim, ended: Outcome | Exception) -> Delivery | None:
        """The delivery of a child of a population, or None if its claim was lost during training."""
        if isinstance(ended, Outcome):
            return self._trained(ended, sum(ended.seconds.values()))
        if isinstance(ended, ClaimLostError):
            self._lost(claim)
            return None
        if isinstance(ended, StoreError):
            raise ended
        return self._failed(claim, ended, 0.0)

    @functools.cached_property
    def _stopper(self) -> Stopper | None:
        return make_stopper(self.early_stop, self.store, self.search_id, self.experiment.task.objective)

    def deliver(self, claim: Claim, delivery: Delivery) -> bool:
        """Writes a result to the store and removes the checkpoint, if it is not needed any more. False if the claim was
        lost."""
        accepted = self.store.deliver(claim, delivery, keep=self.keep)
        checkpoint = self._checkpoint(claim)
        paused = self._stopper is not None and self._stopper.pauses and delivery.stopped_at is not None
        if accepted and checkpoint is not None and not paused:
            checkpoint.remove()
        return accepted

    def _checkpoint(self, claim: Claim) -> Checkpoint | None:
        if self.artefacts is None:
            return None
        return self.artefacts.checkpoint(
            claim.number, identity_of(claim.tokens, claim.seed, self.experiment.task.describe())
        )

    @staticmethod
    def _trained(outcome: Outcome, seconds: float) -> Delivery:
        return Delivery(
            reward=outcome.reward,
            metrics=outcome.metrics,
            ending=outcome.ending,
            screened=outcome.screened,
            seconds=seconds,
            phases=outcome.seconds,
            weights=None if outcome.weights is None else blobs.pack(outcome.weights),
            weights_epoch=outcome.epoch,
        )

    @contextlib.contextmanager
    def _beating(self, renew: Callable[[], bool]) -> Iterator[None]:
        if not self.beat:
            yield
            return
        with Heartbeat(renew):
            yield


def _child_fault(error: BaseException) -> Fault:
    """The fault of a child that raised an exception. Raises GpuLostError if the GPU is at fault."""
    fault = fault_of(error)
    if fault is Fault.NODE_LOST:
        raise GpuLostError(f"{type(error).__name__}: {lost_gpu(str(error))}") from error
    return fault
