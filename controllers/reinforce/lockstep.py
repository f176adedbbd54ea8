"""The policy's forward pass in NumPy, one decision of several children at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from automl.controllers.reinforce.heads import Heads
from automl.controllers.reinforce.policy import Weights

ROWS = 8  # a full block of the matrix product: in a partial block, the last bit depends on the child's row


class Lockstep:
    """The policy's state for eight children that advance together.

    There are always eight rows: a matrix product with another number of rows differs in the last bit, and a draw must
    not depend on the other draws.

    Learning runs the same function on whole children, as a graph with gradients (`children_log_probs`). Drawing runs
    the space's generators between the steps, and a step of eight children is so small that a call of a graph takes
    several times as long as NumPy.

    Args:
        weights: float32 arrays.
    """

    def __init__(self, weights: Weights, heads: Heads) -> None:
        units = len(weights.start)
        self._weights = weights
        self._lower, self._upper = _Layer(weights.lstm_0), _Layer(weights.lstm_1)
        self._lower.input[:] = weights.start
        self._outputs = self._upper.output
        self._mask = np.full(weights.biases.shape, -np.inf, np.float32)  # 0 where a kind has an option
        for kind, row in heads.rows.items():
            self._mask[row, : heads.widths[kind]] = 0.0
        self._anchors = np.zeros((ROWS, heads.slots, units), np.float32)
        self._projected = np.zeros((ROWS, heads.slots, units), np.float32)  # anchors times W_prev

    def advance(self) -> None:
        """Runs both LSTM layers for one decision, on the inputs that `set_option_inputs` and `set_links_input` set."""
        self._lower.advance()
        self._upper.input[:] = self._lower.output
        self._upper.advance()

    def options(self, kinds: Mapping[int, int]) -> tuple[list[list[float]], list[list[float]]]:
        """The logits of each child's options minus their maximum, and the cumulative sums of their exponentials.

        Args:
            kinds: children's rows, each with the row of its kind in the tables.

        Returns:
            Two lists (ROWS, width); rows that are not in `kinds` have no meaning.
        """
        table_rows = [kinds.get(row, 0) for row in range(ROWS)]
        # Not a matrix product: its last bit would depend on the padding of the tables.
        logits = (self._weights.kernels[table_rows] * self._outputs[:, np.newaxis]).sum(axis=2)
        logits += self._weights.biases[table_rows]
        logits += self._mask[table_rows]
        logits -= logits.max(axis=1, keepdims=True)
        return logits.tolist(), np.exp(logits, dtype=np.float64).cumsum(axis=1).tolist()

    def link_logits(self) -> list[list[float]]:
        """The log-odds of each child's link to each anchor, a list (ROWS, slots)."""
        current = self._outputs @ self._weights.current_anchor
        mixed = np.tanh(self._projected + current[:, np.newaxis]) * self._weights.attention
        logits: list[list[float]] = mixed.sum(axis=2).tolist()
        return logits

    def store_anchors(self, slots: Mapping[int, int]) -> None:
        """Stores the outputs of these rows as anchors, each in its slot."""
        projected = self._outputs @ self._weights.previous_anchor
        for row, slot in slots.items():
            self._anchors[row, slot] = self._outputs[row]
            self._projected[row, slot] = projected[row]

    def set_option_inputs(self, kinds: Mapping[int, int], tokens: Sequence[int]) -> None:
        """Sets the next input of these rows to the embeddings of their options.

        Args:
            kinds: as in `options`.
            tokens: in the order of `kinds`.
        """
        self._lower.input[list(kinds)] = self._weights.embeddings[list(kinds.values()), tokens]

    def set_links_input(self, row: int, slots: Sequence[int]) -> None:
        """Sets the next input of this row to the mean of the anchors in these slots."""
        mean = self._anchors[row, slots].sum(axis=0) / np.float32(len(slots)) if slots else self._weights.nothing
        self._lower.input[row] = mean


class _Layer:
    """One LSTM layer: `lstm_cell` in place.

    Attributes:
        input: float32 (rows, units), to be set before `advance`.
        output: float32 (rows, units), the latest output, which is also the recurrent input.
    """

    def __init__(self, kernel: np.ndarray) -> None:
        units = kernel.shape[1] // 4
        # sigmoid(x) = (1 + tanh(x / 2)) / 2, so that one tanh serves all four gates
        self._scale = np.repeat(np.array([0.5, 0.5, 1.0, 0.5], np.float32), units)
        self._shift = np.repeat(np.array([0.5, 0.5, 0.0, 0.5], np.float32), units)
        self._kernel = kernel * self._scale
        self._inputs = np.zeros((ROWS, 2 * units + 1), np.float32)
        self._inputs[:, -1] = 1.0  # for the bias row
        self.input, self.output = self._inputs[:, :units], self._inputs[:, units:-1]  # views
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
