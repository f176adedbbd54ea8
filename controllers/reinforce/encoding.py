"""Whole children as the arrays that the update takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from controllers.reinforce.heads import Heads, Places
from controllers.reinforce.policy import ANCHORS, EMBEDDING, START, Current, Previous
from search_spaces.decisions import Choice
from search_spaces.walk import Walk


class Sequences(NamedTuple):
    """Children as arrays, one step per decision, padded to one of a few lengths: (steps, batch, …)."""

    previous: Previous
    current: Current
    token: np.ndarray  # int32 (steps, batch), the option taken
    free_choice: np.ndarray  # float32 (steps, batch), 1 where a choice was drawn and not forced
    bits: np.ndarray  # float32 (steps, batch, slots), the links drawn
    free_bits: np.ndarray  # float32 (steps, batch, slots), 1 where a bit was drawn and not forced
    old_log_probs: np.ndarray  # float32 (steps, batch), those that children were drawn with, NaN where unknown


TokenLogProbs = Sequence[float | None]  # of each token of a child, None where forced; empty where unknown


def encode(walks: Sequence[Walk], heads: Heads, log_probs: Sequence[TokenLogProbs] = ()) -> Sequences:
    """Finished walks, the first of them with the log-probabilities that they were drawn with. Raises NewKindError."""
    steps = heads.padded_length(max(len(walk.decisions) for walk in walks))
    shape, slots = (steps, len(walks)), (steps, len(walks), heads.slots)
    sequences = Sequences(
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
    for column, walk in enumerate(walks):
        _encode_child(sequences, column, walk, heads)
    for column, of_tokens in enumerate(log_probs):
        if len(of_tokens) == len(walks[column].tokens):
            sequences.old_log_probs[: len(walks[column].decisions), column] = _by_decision(walks[column], of_tokens)
    return sequences


def _by_decision(walk: Walk, of_tokens: TokenLogProbs) -> list[float]:
    """The log-probability of each answer, which may be of several tokens."""
    left = iter(of_tokens)
    return [sum(next(left) or 0.0 for _ in range(decision.num_tokens)) for decision in walk.decisions]


def _encode_child(sequences: Sequences, column: int, walk: Walk, heads: Heads) -> None:
    # Numbers are gathered in lists and written at once: writing one element of an array costs as much as a list's ten.
    previous, current = sequences.previous, sequences.current
    places = Places(heads)
    width = heads.width
    masks = {count: [True] * count + [False] * (width - count) for count in {*heads.widths.values(), width}}
    modes, kinds, tokens, free, allowed = [], [], [], [], []
    filled: list[tuple[int, int]] = []  # step and slot of each `Links`
    bits: list[tuple[int, int, int, bool]] = []  # step, slot, bit, and whether it is free
    for step, (decision, answer) in enumerate(zip(walk.decisions, walk.answers.values(), strict=True)):
        if isinstance(decision, Choice):
            modes.append(EMBEDDING)
            kinds.append(places.row(decision))
            tokens.append(answer[0])
            # A person's own child may have an option that narrowing masks: no draw takes it, so it has no probability.
            free.append(decision.forced[0] is None and decision.allows(answer[0]))
            mask = masks[len(decision.options)]
            allowed.append(mask if decision.allowed is None else [*decision.allowed, *mask[len(decision.options) :]])
        else:
            modes.append(ANCHORS)
            kinds.append(0)
            tokens.append(0)
            free.append(False)
            slot, earlier = places.slot(decision)
            filled.append((step, slot))
            drawn = zip(earlier, answer, decision.forced, strict=True)
            bits += [(step, other, bit, forced is None) for other, bit, forced in drawn]
            allowed.append(masks[width])
    steps = len(modes)
    if not steps:
        return
    previous.mode[1:steps, column] = modes[:-1]
    previous.kind[1:steps, column] = kinds[:-1]
    previous.token[1:steps, column] = tokens[:-1]
    current.kind[:steps, column] = kinds
    current.allowed[:steps, column] = allowed
    sequences.token[:steps, column] = tokens
    sequences.free_choice[:steps, column] = free
    if filled:
        at, slot = np.transpose(filled)
        current.slot[at, column, slot] = 1.0
    if bits:
        at, slot, bit, is_free = np.transpose(bits)
        sequences.bits[at, column, slot] = bit
        sequences.free_bits[at, column, slot] = is_free
        followed = at + 1 < steps
        previous.chosen[at[followed] + 1, column, slot[followed]] = bit[followed]
