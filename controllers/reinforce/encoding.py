"""Encodes whole children as arrays, the input of the update."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from automl.controllers.reinforce.heads import Heads, Places
from automl.controllers.reinforce.policy import ANCHORS, EMBEDDING, START, Current, Previous
from automl.search_spaces.decisions import Choice
from automl.search_spaces.walk import Walk


class Sequences(NamedTuple):
    """A batch of children as arrays, (steps, batch, …): one step per decision, padded to one of a few lengths."""

    previous: Previous
    current: Current
    token: np.ndarray  # int32 (steps, batch), the option taken
    free_choice: np.ndarray  # float32 (steps, batch), 1 at a choice that was drawn
    bits: np.ndarray  # float32 (steps, batch, slots), 1 at the linked anchors
    free_bits: np.ndarray  # float32 (steps, batch, slots), 1 at a bit that was drawn
    old_log_probs: np.ndarray  # float32 (steps, batch), log-probabilities when drawn; NaN where unknown


class Encoded(NamedTuple):
    """One finished child.

    Attributes:
        steps: arrays without batch axis and padding; `old_log_probs` is all NaN.
        decision: int64 (tokens,), the step of each token.
    """

    steps: Sequences
    decision: np.ndarray


TokenLogProbs = Sequence[float | None]  # one for each token of a child, None where forced; empty if unknown


def collate(children: Sequence[Encoded], heads: Heads, log_probs: Sequence[TokenLogProbs] = ()) -> Sequences:
    """Makes a batch of children that were encoded for these heads.

    Args:
        log_probs: log-probabilities when drawn, for the leading children; the rest have none.
    """
    lengths = [len(child.steps.token) for child in children]
    batch = _blank((heads.padded_length(max(lengths)), len(children)), heads)
    for column, (child, length) in enumerate(zip(children, lengths, strict=True)):
        for array, part in zip(_arrays(batch), _arrays(child.steps), strict=True):
            array[:length, column] = part
    for column, token_log_probs in enumerate(log_probs):
        child = children[column]
        if len(token_log_probs) == len(child.decision):
            values = [value or 0.0 for value in token_log_probs]
            batch.old_log_probs[: lengths[column], column] = np.bincount(child.decision, values, lengths[column])
    return batch


def _blank(shape: tuple[int, ...], heads: Heads) -> Sequences:
    slots = (*shape, heads.slots)
    return Sequences(
        Previous(
            np.full(shape, START, np.int32),
            np.zeros(shape, np.int32),
            np.zeros(shape, np.int32),
            np.zeros(slots, np.float32),
        ),
        Current(np.zeros(shape, np.int32), np.ones((*shape, heads.width), bool), np.zeros(slots, np.float32)),
        np.zeros(shape, np.int32),
        np.zeros(shape, np.float32),
        np.zeros(slots, np.float32),
        np.zeros(slots, np.float32),
        np.full(shape, np.nan, np.float32),
    )


def _arrays(sequences: Sequences) -> tuple[np.ndarray, ...]:
    previous, current, *rest = sequences
    return (*previous, *current, *rest)


def encode(walk: Walk, heads: Heads) -> Encoded:
    """Encodes a finished walk. Raises NewKindError."""
    # Collect values in lists and write each array once: one write to an array costs as much as ten appends to a list.
    places, width = Places(heads), heads.width
    modes, kinds, tokens, free, num_options = [], [], [], [], []
    narrowed: list[tuple[int, tuple[bool, ...]]] = []
    filled: list[tuple[int, int]] = []  # step and slot of each `Links`
    bit_steps: list[int] = []
    bit_slots: list[int] = []
    bits: list[int] = []
    forced_bits: list[int | None] = []
    for step, (decision, answer) in enumerate(zip(walk.decisions, walk.answers.values(), strict=True)):
        if isinstance(decision, Choice):
            modes.append(EMBEDDING)
            kinds.append(places.row(decision))
            tokens.append(answer[0])
            # A child that the user proposed may have a masked option. No draw can take it, so it has no probability.
            free.append(decision.forced[0] is None and decision.allows(answer[0]))
            num_options.append(len(decision.options))
            if decision.allowed is not None:
                narrowed.append((step, decision.allowed))
        else:
            modes.append(ANCHORS)
            kinds.append(0)
            tokens.append(0)
            free.append(False)
            num_options.append(width)
            slot, earlier = places.slot(decision)
            filled.append((step, slot))
            bit_steps += [step] * len(earlier)
            bit_slots += earlier
            bits += answer
            forced_bits += decision.forced
    steps = _blank((len(modes),), heads)
    previous, current = steps.previous, steps.current
    previous.mode[1:], previous.kind[1:], previous.token[1:] = modes[:-1], kinds[:-1], tokens[:-1]
    current.kind[:], steps.token[:], steps.free_choice[:] = kinds, tokens, free
    current.allowed[:] = np.arange(width) < np.reshape(num_options, (-1, 1))
    for step, allowed in narrowed:
        current.allowed[step, : len(allowed)] = allowed
    if filled:
        current.slot[tuple(np.transpose(filled))] = 1.0
    if bits:
        steps.bits[bit_steps, bit_slots] = bits
        steps.free_bits[bit_steps, bit_slots] = [bit is None for bit in forced_bits]
        previous.chosen[1:] = steps.bits[:-1]
    lengths = [decision.num_tokens for decision in walk.decisions]
    return Encoded(steps, np.repeat(np.arange(len(lengths)), lengths))
