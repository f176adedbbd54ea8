"""Turns the store's records of children into the results for a controller, and packs and restores its state."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from automl.controllers import base
from automl.controllers.base import Controller, ControllerState, Cost, Result, ResultState
from automl.db import blobs
from automl.db.records import Child, Origin, State, Step
from automl.db.store import Store

STATES = {
    State.TRAINED: ResultState.TRAINED,
    State.FAILED: ResultState.FAILED,
}  # children in other states are lost to the controller


def results_of(children: Sequence[Child], rewards: Mapping[int, float | None]) -> list[Result]:
    """The results of a batch for the controller.

    Args:
        rewards: what the controller learns from, by the child's number.
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
    """Restores a new controller from the state of the search's last step, or replays all batches if it keeps no state.

    Raises:
        StoreError: the state is damaged.
    """
    step = store.last_step(search_id)
    if step is None:
        return
    if step.blob is not None and controller.state() is not None:
        controller.restore(unpack_state(step.blob, step.blob_sha256))
        controller.forget({child.number for child in store.children(search_id, states=[State.FAILED])})
        if controller.remembers:
            controller.remember(_consumed(store, search_id, step))
    else:
        controller.replay(_consumed(store, search_id, step))


def _consumed(store: Store, search_id: int, step: Step) -> Iterator[list[Result]]:
    """The results of all batches that the controller has received, in their order."""
    for batch in range(0 if step.consumed_batch is None else step.consumed_batch + 1):
        children = store.children(search_id, batch=batch)
        yield results_of(children, {child.number: child.reward for child in children})


def pack_state(state: ControllerState) -> bytes:
    """Packs a controller's arrays and values as one blob; the values are JSON in an array of bytes."""
    text = json.dumps(state.values, allow_nan=False).encode()
    return blobs.pack({**state.arrays, "values.json": np.frombuffer(text, np.uint8)})


def unpack_state(blob: bytes, sha256: str | None) -> ControllerState:
    """Unpacks a state that `pack_state` packed. Raises StoreError if the blob is damaged."""
    arrays = blobs.unpack(blob, sha256)
    return ControllerState(arrays, json.loads(arrays.pop("values.json").tobytes()))
