"""Trains a language model: text on the device, one compiled epoch of truncated back-propagation, exact perplexity."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from automl.child_trainers.data.text import TextData
from automl.child_trainers.outcome import DivergedError, Outcome
from automl.child_trainers.recipes import LanguageRecipe
from automl.child_trainers.task import Objective, Report
from automl.child_trainers.text.model import Dropout, LanguageModel, State
from automl.child_trainers.text.sampled_softmax import Rows, add_rows, draw_types, sampled_losses
from automl.child_trainers.training.trainer import Trainer, train_epochs
from automl.child_trainers.training.updates import GradientDescent, KerasUpdate, Update

REWARD_SCALE = 80.0  # c of the reward c / perplexity^2
VALIDATION_CHUNK = 500  # tokens whose products with the input are one operation
METRIC = "val_perplexity"
IGNORES_INPUT = "ignores_input"  # a metric: True if the predictions of a child do not depend on its input
LEAST_GAIN = 1e-5  # nats per token; if the input changes the loss by less, it is ignored


class DeviceText(NamedTuple):
    """Training text as parallel streams, and validation text as a single stream."""

    streams: tf.Tensor  # int32 (tokens, batch)
    validation: tf.Tensor  # int32 (tokens,)


def to_device(text: TextData, batch_size: int) -> DeviceText:
    """Cuts the training text into `batch_size` streams of equal length, and drops the remaining tokens."""
    length = len(text.train) // batch_size
    streams = text.train[: batch_size * length].reshape(batch_size, length)
    return DeviceText(tf.constant(np.ascontiguousarray(streams.T)), tf.constant(text.validation))


def frequency_loss(bias: np.ndarray, tokens: np.ndarray) -> float:
    """The mean loss in nats per token if every prediction is the softmax of the bias.

    Args:
        bias: (types,), of the softmax.
        tokens: int32 (count,), the predicted ones.
    """
    logits = bias.astype(np.float64)
    highest = logits.max()
    return float(highest + np.log(np.exp(logits - highest).sum()) - logits[tokens].mean())


def reward_of(perplexity: float) -> float:
    """80 / perplexity^2, 0 where the square would overflow. Source: Zoph & Le 2017 (arXiv:1611.01578), section 4.2."""
    return REWARD_SCALE / perplexity**2 if perplexity < 1e150 else 0.0


def train_language_model(
    network: LanguageModel,
    data: DeviceText,
    recipe: LanguageRecipe,
    *,
    seed: int,
    report: Report,
    xla: bool = False,
    optimizer: keras.optimizers.Optimizer | None = None,
) -> Outcome:
    """Trains a network and returns its reward, 80 / (lowest validation perplexity of its epochs)^2.

    Args:
        optimizer: used instead of the recipe's, with its own learning rate. The recipe's clipping always applies.

    Raises:
        DivergedError: the training loss of a step is not finite, or the validation perplexity overflows.
    """
    trainer = LanguageTrainer(network, data, recipe, seed, xla=xla, optimizer=optimizer)
    trained = train_epochs(trainer, report, Objective(METRIC, False, recipe.epochs))
    best = trained.history[trained.epoch - 1]
    metrics = {
        **best,
        "epoch": trained.epoch,
        "loss": trained.history[-1]["loss"],
        "units": network.units,
        "traces": trainer.traces,
    }
    return Outcome(reward_of(best[METRIC]), metrics, trained.weights, trained.epoch, dict(trainer.seconds))


class LanguageTrainer(Trainer):
    """Trains one language model. It has two traces: an epoch of training, and the whole validation.

    An epoch reads its streams from their beginning. Each step starts from the state after the previous step, and
    gradients stop at the first token of the step.
    """

    def __init__(
        self,
        network: LanguageModel,
        data: DeviceText,
        recipe: LanguageRecipe,
        seed: int,
        *,
        xla: bool = False,
        optimizer: keras.optimizers.Optimizer | None = None,
    ) -> None:
        self._update: Update = GradientDescent(network) if optimizer is None else KerasUpdate(optimizer, network)
        super().__init__(network, self._update.slots, steps_per_epoch(data, recipe))
        self._model = network
        self._data = data
        self._recipe = recipe
        self._seed = seed
        self._step = tf.function(self._train_step, jit_compile=True) if xla else self._train_step
        self._loss = self._traced(self._validation_loss)

    def metrics(self) -> dict[str, float]:
        """The perplexity of the validation text. Every token but the first is predicted from all tokens before it.

        If the loss is that of the softmax's bias alone, the network has learned only word frequencies, and the metric
        IGNORES_INPUT is true. This happens to cells that multiply small states: the state starts at zero and shrinks in
        every layer, until it no longer changes the logits.

        Raises:
            DivergedError: see `perplexity_of`.
        """
        validation_loss = self._loss()
        with self._phase("validate"):
            loss = float(validation_loss())
        perplexity = perplexity_of(loss, "validation")
        bits = {"val_bits_per_character": loss / math.log(2.0)} if self._recipe.level == "character" else {}
        bias = self._model.trainable["softmax/bias"].numpy()
        ignoring = abs(loss - frequency_loss(bias, self._data.validation.numpy()[1:])) < LEAST_GAIN
        return {METRIC: perplexity} | bits | ({IGNORES_INPUT: True} if ignoring else {})

    def _train_epoch(self, epoch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        steps, unroll = self.steps_per_epoch, self._recipe.unroll
        streams = self._data.streams
        rate = learning_rate(self._recipe, epoch)

        def train(step: tf.Tensor, *state: tf.Tensor) -> tuple[tf.Tensor, ...]:
            first = step * unroll
            shape = (unroll, streams.shape[1])
            inputs = tf.ensure_shape(streams[first : first + unroll], shape)
            targets = tf.ensure_shape(streams[first + 1 : first + unroll + 1], shape)
            layers = list(zip(state[::2], state[1::2], strict=True))
            loss, layers = self._step(
                inputs, targets, layers, rate, tf.stack([self._seed, (epoch * steps + step) * 64])
            )
            return loss, *(part for layer in layers for part in layer)

        silent = self._model.zero_state(int(streams.shape[1]))
        return self._run_steps(train, [part for layer in silent for part in layer])

    def _train_step(
        self, inputs: tf.Tensor, targets: tf.Tensor, state: State, rate: tf.Tensor, seed: tf.Tensor
    ) -> tuple[tf.Tensor, State]:
        """Trains a step. Returns its mean loss in nats, and the state after it; see `step_gradients`."""
        loss, gradients, state = step_gradients(self._model, inputs, targets, state, seed)
        self._update.apply(gradients, rate)
        return loss, state

    def _validation_loss(self) -> tf.Tensor:
        return text_loss(self._model, self._data.validation)


def perplexity_of(loss: float, part: str) -> float:
    """The perplexity for a mean loss in nats per token.

    Args:
        part: of the data, for the message of the error.

    Raises:
        DivergedError: the loss is not finite, or the perplexity overflows.
    """
    if not loss < 700:  # exp would overflow; the loss of a uniform guess over a million types is 14
        raise DivergedError(f"The {part} loss is {loss} nats a token.")
    return math.exp(loss)


def steps_per_epoch(data: DeviceText, recipe: LanguageRecipe) -> int:
    return (int(data.streams.shape[0]) - 1) // recipe.unroll


def step_gradients(
    model: LanguageModel, inputs: tf.Tensor, targets: tf.Tensor, state: State, seed: tf.Tensor
) -> tuple[tf.Tensor, dict[str, tf.Tensor | tf.IndexedSlices], State]:
    """The gradients of one training step.

    Args:
        inputs, targets: int32 (unroll, batch), the tokens that the model reads, and the next token of each.
        state: before the first of these tokens.
        seed: int32 (2,), of dropout and of sampled types.

    Returns:
        The mean loss in nats per token; the clipped gradients by name; and the state after the step. If a step reads
        only some rows of a matrix, its gradient is `tf.IndexedSlices` of these rows.
    """
    recipe, weights = model.recipe, model.trainable
    dropout = Dropout(recipe, seed)
    width = model.cell.num_products * model.units
    taps = [tf.zeros((recipe.unroll, inputs.shape[1], width)) for _ in range(recipe.layers)]
    labels = tf.reshape(targets, (-1,))
    # Rows are gathered outside the tape, so that their gradients are rows and not the whole matrix.
    rows = {"embedding": Rows(tf.reshape(inputs, (-1,)), tf.gather(weights["embedding"], inputs))}
    if recipe.sampled_types is not None:
        drawn = draw_types(recipe.sampled_types, model.num_types, seed)
        scored = tf.concat([labels, drawn], axis=0)
        for name in (model.output_name, "softmax/bias"):
            rows[f"output {name}"] = Rows(scored, tf.gather(weights[name], scored))
    recurrent = {f"layer{index}/recurrent_kernel": index for index in range(recipe.layers)}
    # No set: the order of its texts, and so the rounding of the gradients' norm, would differ between processes.
    row_names = ["embedding"]
    if recipe.sampled_types is not None:
        row_names += [name for name in (model.output_name, "softmax/bias") if name not in row_names]
    dense = [name for name in weights if name not in recurrent and name not in row_names]
    if recipe.sampled_types is None and recipe.shared_embeddings:
        dense.append("embedding")
    with tf.GradientTape() as tape:
        tape.watch([*taps, *(row.values for row in rows.values()), *(weights[name] for name in dense)])
        embedded = rows["embedding"].values
        if (continued := dropout.streams(inputs.shape[1])) is not None:
            state = [(h * continued, c * continued) for h, c in state]
        if (keep := dropout.types(model.num_types)) is not None:
            embedded = embedded * tf.gather(keep, inputs)
        hidden, state, states = model.hidden(embedded, state, dropout=dropout, taps=taps)
        hidden = tf.reshape(hidden, (-1, model.units))
        if recipe.sampled_types is None:
            logits = model.product(hidden, weights[model.output_name], transpose_b=True) + weights["softmax/bias"]
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        else:
            losses = sampled_losses(
                model,
                hidden,
                rows[f"output {model.output_name}"],
                rows["output softmax/bias"],
                num_labels=labels.shape[0],
            )
        loss = tf.reduce_mean(losses)
        # As in Zaremba et al. 2014, gradients are those of the sum over a stream's tokens; the mean is only reported.
        summed = recipe.unroll * loss
    of_dense, of_taps, of_values = tape.gradient(
        summed, [[weights[name] for name in dense], taps, {name: row.values for name, row in rows.items()}]
    )
    gradients: dict[str, tf.Tensor | tf.IndexedSlices] = dict(zip(dense, of_dense, strict=True))
    for name, index in recurrent.items():
        gradients[name] = model.product(states[index], tf.reshape(of_taps[index], (-1, width)), transpose_a=True)
    for name in row_names:
        parts = [Rows(row.indices, of_values[key]) for key, row in rows.items() if key.removeprefix("output ") == name]
        gradients[name] = add_rows(parts, weights[name].shape, gradients.get(name))
    scale = clip_scale(list(gradients.values()), recipe.clip_norm)
    clipped: dict[str, tf.Tensor | tf.IndexedSlices] = {}
    for name, gradient in gradients.items():
        rows_only = isinstance(gradient, tf.IndexedSlices)
        values = scale * (gradient.values if rows_only else gradient)
        clipped[name] = tf.IndexedSlices(values, gradient.indices, gradient.dense_shape) if rows_only else values
    return loss, clipped, [(tf.stop_gradient(h), tf.stop_gradient(c)) for h, c in state]


def text_loss(model: LanguageModel, tokens: tf.Tensor) -> tf.Tensor:
    """The mean loss in nats per token of a text, int32 (tokens,), read as one stream from a state of zeros.

    Every token but the first is predicted once, from all tokens before it. Returns a float32 scalar.
    """
    count = int(tokens.shape[0]) - 1
    chunk = min(VALIDATION_CHUNK, count)
    embedding = model.trainable["embedding"]

    def loss_of(inputs: tf.Tensor, targets: tf.Tensor, state: State) -> tuple[tf.Tensor, State]:
        hidden, state = model.scan(tf.gather(embedding, inputs)[:, tf.newaxis], state)
        logits = model.logits(tf.reshape(hidden, (-1, model.units)))
        return tf.reduce_sum(tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits)), state

    def body(first: tf.Tensor, total: tf.Tensor, state: State) -> tuple[tf.Tensor, tf.Tensor, State]:
        last = tf.minimum(first + chunk, count)
        loss, state = loss_of(tokens[first:last], tokens[first + 1 : last + 1], state)
        return last, total + tf.cast(loss, tf.float64), state

    start = (tf.constant(0), tf.constant(0.0, tf.float64), model.zero_state(1))
    _, total, _ = tf.while_loop(lambda first, *_: first < count, body, start)
    return tf.cast(total / count, tf.float32)


def learning_rate(recipe: LanguageRecipe, epoch: tf.Tensor) -> tf.Tensor:
    """The learning rate of an epoch, numbered from 0: constant at first, then multiplied by `recipe.decay` every epoch
    (Zaremba et al. 2014, section 4.1)."""
    decays = tf.maximum(epoch + 1 - recipe.steady_epochs, 0)
    return recipe.learning_rate * tf.pow(recipe.decay, tf.cast(decays, tf.float32))


def clip_scale(gradients: Sequence[tf.Tensor | tf.IndexedSlices], clip_norm: float) -> tf.Tensor:
    """The factor that scales gradients to a global norm of at most `clip_norm`; float32 scalar.

    Source: Pascanu et al. 2013 (arXiv:1211.5063), section 3.2.
    """
    plain = [gradient.values if isinstance(gradient, tf.IndexedSlices) else gradient for gradient in gradients]
    norm = tf.sqrt(tf.add_n([tf.reduce_sum(tf.square(gradient)) for gradient in plain]))
    return clip_norm / tf.maximum(norm, clip_norm)
