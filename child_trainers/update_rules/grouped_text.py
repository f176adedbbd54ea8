"""Many language models of one kind as one function; see `grouped_networks`."""

from __future__ import annotations

import tensorflow as tf

from automl.child_trainers.text.model import Dropout, recurrence
from automl.child_trainers.text.training import VALIDATION_CHUNK
from automl.child_trainers.update_rules.flat_networks import TextChild
from automl.child_trainers.update_rules.grouped_networks import unflatten_each

Layers = list[tuple[tf.Tensor, tf.Tensor]]  # h and c of each layer, (members, batch, units)


class TextChildren:
    """Several `TextChild` networks, whose matrix products are batched. The recipe of update rules has a softmax over
    the whole vocabulary with the embedding as its matrix, and resets of states, but no other dropout."""

    def __init__(self, single: TextChild, dtype: str = "float32") -> None:
        self.single = single
        self.dtype = dtype
        self._recipe = single.model.recipe
        model = single.model
        # Of each token the logits and their gradients, and the products, gates and states of each layer.
        per_token = 3 * model.num_types + 4 * model.recipe.layers * model.cell.num_products * model.units
        self.step_values = model.recipe.unroll * single.batch * per_token

    def epoch_states(self, states: tf.Tensor) -> tf.Tensor:
        return tf.zeros_like(states)

    def plans(self, seeds: tf.Tensor, epochs: tf.Tensor) -> tf.Tensor:
        """1 for each stream whose state goes on in a step, 0 for each whose state is reset: (members, steps, batch)."""
        steps, batch = self.single.steps_per_epoch, self.single.batch

        def plan(member: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
            first = self.single.plan(*member)

            def of_step(step: tf.Tensor) -> tf.Tensor:
                drawn = Dropout(self._recipe, self.single.seed(first, step)).streams(batch)
                return tf.ones(batch) if drawn is None else drawn[:, 0]

            return tf.map_fn(of_step, tf.range(steps), fn_output_signature=tf.float32)

        if self._recipe.state_reset == 0.0:
            return tf.ones((tf.shape(seeds)[0], steps, batch))
        return tf.map_fn(plan, (seeds, epochs), fn_output_signature=tf.float32)

    def gradients(
        self, weights: tf.Tensor, states: tf.Tensor, plans: tf.Tensor, step: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        unroll, batch, streams = self._recipe.unroll, self.single.batch, self.single.data.streams
        members = weights.shape[0]
        tokens = tf.slice(streams, (step * unroll, 0), (unroll + 1, batch))
        goes_on = tf.cast(tf.slice(plans, (0, step, 0), (members, 1, batch)), self.dtype)
        before = [tuple(part * goes_on[:, 0, :, tf.newaxis] for part in layer) for layer in self._layers(states)]
        with tf.GradientTape() as tape:
            tape.watch(weights)
            named = unflatten_each(weights, self.single.shapes)
            hidden, after = self._read(named, tokens[:-1], before)
            losses = tf.reduce_mean(self._losses(named, hidden, tokens[1:]), axis=(1, 2))
            # As in `step_gradients`, gradients are those of the sum over a stream's tokens.
            summed = unroll * losses
        gradients = tape.gradient(summed, weights)
        norms = tf.norm(gradients, axis=1, keepdims=True)
        gradients *= self._recipe.clip_norm / tf.maximum(norms, self._recipe.clip_norm)
        return losses, gradients, self._flat(after)

    def validate(self, weights: tf.Tensor, states: tf.Tensor) -> tf.Tensor:
        """The perplexities of the validation text, read as one stream."""
        tokens = self.single.data.validation
        count, members = int(tokens.shape[0]) - 1, weights.shape[0]
        named = unflatten_each(weights, self.single.shapes)
        # Every chunk has the same length, as XLA needs it: of the last one, only the first tokens count.
        chunk = min(VALIDATION_CHUNK, count)
        padded = tf.concat([tokens, tf.zeros(chunk, tokens.dtype)], axis=0)

        def body(first: tf.Tensor, total: tf.Tensor, states: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            text = tf.slice(padded, (first,), (chunk + 1,))[:, tf.newaxis]
            hidden, after = self._read(named, text[:-1], self._layers(states))
            losses = self._losses(named, hidden, text[1:])[:, :, 0]
            counted = tf.where(first + tf.range(chunk) < count, losses, 0.0)
            return first + chunk, total + tf.reduce_sum(tf.cast(counted, tf.float64), axis=1), self._flat(after)

        units = self.single.model.units
        silent = tf.zeros((members, 2 * self._recipe.layers * units), self.dtype)
        start = (tf.constant(0), tf.zeros(members, tf.float64), silent)
        _, total, _ = tf.while_loop(lambda first, *_: first < count, body, start)
        return tf.exp(tf.cast(total / count, self.dtype))

    def _read(self, weights: dict[str, tf.Tensor], tokens: tf.Tensor, before: Layers) -> tuple[tf.Tensor, Layers]:
        """The outputs of the last layer, (members, tokens, batch, units), and the states after the last token.

        Args:
            weights: of each member, by name.
            tokens: int32 (tokens, batch).
        """
        cell = self.single.model.cell
        length, batch = tokens.shape
        x = tf.gather(weights["embedding"], tokens, axis=1)
        after = []
        for index, (h, c) in enumerate(before):
            kernel, recurrent = (weights[f"layer{index}/{name}"] for name in ("kernel", "recurrent_kernel"))
            members, units, width = kernel.shape
            products = tf.reshape(x, (members, length * batch, units)) @ kernel
            if cell.biased:
                products += weights[f"layer{index}/bias"][:, tf.newaxis]
            products = tf.transpose(tf.reshape(products, (members, length, batch, width)), (1, 0, 2, 3))
            outputs, h, c = recurrence(cell, products, recurrent, h, c)
            x = tf.transpose(outputs, (1, 0, 2, 3))
            after.append((h, c))
        return x, after

    def _losses(self, weights: dict[str, tf.Tensor], hidden: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        """The cross-entropy of each token in nats, (members, tokens, batch)."""
        members, length, batch, units = hidden.shape
        matrix = weights[self.single.model.output_name]
        logits = tf.matmul(tf.reshape(hidden, (members, length * batch, units)), matrix, transpose_b=True)
        logits = tf.reshape(logits + weights["softmax/bias"][:, tf.newaxis], (members, length, batch, -1))
        labels = tf.repeat(targets[tf.newaxis], members, axis=0)
        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)

    def _layers(self, states: tf.Tensor) -> Layers:
        """The h and c of each layer from states, (members, size), of any batch."""
        count = 2 * self._recipe.layers
        parts = tf.split(states, count, axis=1)
        shape = (states.shape[0], -1, self.single.model.units)
        parts = [tf.reshape(part, shape) for part in parts]
        return list(zip(parts[::2], parts[1::2], strict=True))

    @staticmethod
    def _flat(layers: Layers) -> tf.Tensor:
        return tf.concat([tf.reshape(part, (part.shape[0], -1)) for layer in layers for part in layer], axis=1)
