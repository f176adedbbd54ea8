"""Turns the store's records of children into the results that a controller is told, and keeps its state there."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np

from automl.controllers import base
from automl.controllers.base import Controller, ControllerState, Cost, Result, ResultState
from automl.db import blobs
from automl.db.records import Child, Origin, State
from automl.db.store import Store

STATES = {State.TRAINED: ResultState.TRAINED, State.FAILED: ResultState.FAILED}  # all others have no result


def results_of(children: Sequence[Child], rewards: Mapping[int, float | None]) -> list[Result]:
    """The results of a batch.

    Args:
        rewards: that the controller learns from, by the child's number.
    """
    return [_result(child, rewards[child.number]) for child in children]


def _result(child: Child, reward: float | None) -> Result:
    state = STATES.get(State(child.state), ResultState.LOST)
    return Result(
        child.number,
        tuple(child.tokens),
        tuple(child.log_probs),
        None if state == ResultState.LOST else reward,
        state,
        fault=child.fault,
        metrics=child.metrics or {},
        cost=Cost(child.params, child.flops, child.seconds),
        origin=base.Origin.USER if child.origin == Origin.USER else base.Origin.DRAWN,
        stopped_at=child.stopped_at,
    )


def restore_controller(store: Store, search_id: int, controller: Controller) -> None:
    """Brings a fresh controller to where the search stands: by the state of its last step, or by replaying what it was
    told. Raises StoreError where the state is damaged."""
    step = store.last_step(search_id)
    if step is None:
        return
    if step.blob is not None and controller.state() is not None:
        controller.restore(unpack_state(step.blob, step.blob_sha256))
        controller.forget({child.number for child in store.children(search_id, states=[State.FAILED])})
    elif step.consumed_batch is not None:
        children = (store.children(search_id, batch=batch) for batch in range(step.consumed_batch + 1))
        controller.replay(results_of(batch, {child.number: child.reward for child in batch}) for batch in children)


def pack_state(state: ControllerState) -> bytes:
    """A controller's arrays and values as one blob; the values are JSON in an array of bytes."""
    text = json.dumps(state.values, allow_nan=False).encode()
    return blobs.pack({**state.arrays, "values.json": np.frombuffer(text, np.uint8)})


def unpack_state(blob: bytes, sha256: str | None) -> ControllerState:
    """The state of `pack_state`. Raises StoreError where the blob is damaged."""
    arrays = blobs.unpack(blob, sha256)
    return ControllerState(arrays, json.loads(arrays.pop("values.json").tobytes()))
