"""The policy's forward pass in numpy, one decision of many children at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from automl.controllers.reinforce.heads import Heads
from automl.controllers.reinforce.policy import Weights

ROWS = 8  # a whole block: in a part of one, a matrix product's last bit depends on the row that a child stands in


class Lockstep:
    """Where the policy stands in each of eight children, all advanced together. Always in eight: products of another
    number of rows differ in the last bit, and a draw is to be the same in any company.

    Learning runs the same function as a graph, over whole children and with gradients (`children_log_probs`). Here the
    generators decide between the steps, and a step of eight children is so small that handing it to a graph takes
    several times as long as taking it.

    Args:
        weights: float32 arrays.
    """

    def __init__(self, weights: Weights, heads: Heads) -> None:
        units = len(weights.start)
        self._weights = weights
        self._lower, self._upper = _Layer(weights.lstm_0), _Layer(weights.lstm_1)
        self._lower.below[:] = weights.start
        self._outputs = self._upper.output
        self._open = np.full(weights.biases.shape, -np.inf, np.float32)  # 0 where a kind has an option
        for kind, row in heads.rows.items():
            self._open[row, : heads.widths[kind]] = 0.0
        self._anchors = np.zeros((ROWS, heads.slots, units), np.float32)
        self._mixed = np.zeros((ROWS, heads.slots, units), np.float32)  # anchors times W_prev

    def advance(self) -> None:
        """Both LSTM layers by one decision, from the inputs that `take_options` and `take_links` set."""
        self._lower.advance()
        self._upper.below[:] = self._lower.output
        self._upper.advance()

    def options(self, kinds: Mapping[int, int]) -> tuple[list[list[float]], list[list[float]]]:
        """Of each of these rows, the logits of the options in the head of its kind, less the highest; and the sums of
        their exponentials up to each option."""
        rows = [kinds.get(row, 0) for row in range(ROWS)]
        # Not a matrix product: its last bit would depend on how far the tables are padded.
        logits = (self._weights.kernels[rows] * self._outputs[:, np.newaxis]).sum(axis=2)
        logits += self._weights.biases[rows]
        logits += self._open[rows]
        logits -= logits.max(axis=1, keepdims=True)
        return logits.tolist(), np.exp(logits, dtype=np.float64).cumsum(axis=1).tolist()

    def link_logits(self) -> list[list[float]]:
        """Of each row, the log-odds of a link to each anchor."""
        current = self._outputs @ self._weights.current_anchor
        mixed = np.tanh(self._mixed + current[:, np.newaxis]) * self._weights.attention
        found: list[list[float]] = mixed.sum(axis=2).tolist()
        return found

    def keep_anchors(self, slots: Mapping[int, int]) -> None:
        """Makes the outputs of these rows anchors, each in its slot."""
        mixed = self._outputs @ self._weights.previous_anchor
        for row, slot in slots.items():
            self._anchors[row, slot] = self._outputs[row]
            self._mixed[row, slot] = mixed[row]

    def take_options(self, kinds: Mapping[int, int], tokens: Sequence[int]) -> None:
        """The next input of these rows: the embedding of an option each."""
        self._lower.below[list(kinds)] = self._weights.embeddings[list(kinds.values()), tokens]

    def take_links(self, row: int, slots: Sequence[int]) -> None:
        """The next input of this row: the mean of these anchors."""
        mean = self._anchors[row, slots].sum(axis=0) / np.float32(len(slots)) if slots else self._weights.nothing
        self._lower.below[row] = mean


class _Layer:
    """One LSTM layer: `lstm_cell` in place.

    Attributes:
        below: float32 (rows, units), what it takes from below.
        output: float32 (rows, units), its last output, which it takes too.
    """

    def __init__(self, kernel: np.ndarray) -> None:
        units = kernel.shape[1] // 4
        # sigmoid(x) = (1 + tanh(x / 2)) / 2, so that one tanh serves all four gates
        self._scale = np.repeat(np.array([0.5, 0.5, 1.0, 0.5], np.float32), units)
        self._shift = np.repeat(np.array([0.5, 0.5, 0.0, 0.5], np.float32), units)
        self._kernel = kernel * self._scale
        self._inputs = np.zeros((ROWS, 2 * units + 1), np.float32)
        self._inputs[:, -1] = 1.0  # for the bias row
        self.below, self.output = self._inputs[:, :units], self._inputs[:, units:-1]
        self._cell = np.zeros((ROWS, units), np.float32)
        self._gates = np.empty((ROWS, 4 * units), np.float32)
        self._parts = np.split(self._gates, 4, axis=1)  # views

    def advance(self) -> None:
        gates, cell = self._gates, self._cell
        np.matmul(self._inputs, self._kernel, out=gates)
        np.tanh(gates, out=gates)
        gates *= self._scale
        gates += self._shift
        input_gate, forget_gate, candidate, output_gate = self._parts
        cell *= forget_gate
        cell += input_gate * candidate
        np.multiply(output_gate, np.tanh(cell), out=self.output)
