"""Language models: what a step computes, against the same written plainly, and what validation says."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import tensorflow as tf

from automl.child_trainers.data.text import make_text
from automl.child_trainers.outcome import DivergedError
from automl.child_trainers.recipes import LanguageRecipe
from automl.child_trainers.text import training as language_training
from automl.child_trainers.text.model import Dropout, LanguageModel
from automl.child_trainers.text.sampled_softmax import Rows, add_rows, draw_types, expected_counts
from automl.child_trainers.text.sizes import num_parameters, units_within
from automl.child_trainers.text.training import (
    LanguageTrainer,
    clip_scale,
    learning_rate,
    perplexity_of,
    reward_of,
    step_gradients,
    text_loss,
    to_device,
    train_language_model,
)
from automl.child_trainers.training import trainer
from automl.child_trainers.training.checkpoints import FileCheckpoint
from automl.search_spaces.recurrent_cell.lstm import LSTM
from automl.search_spaces.recurrent_cell.named import NASCELL
from automl.search_spaces.recurrent_cell.spec import RecurrentCell

RECIPE = LanguageRecipe(
    epochs=2, batch_size=3, unroll=4, units=5, parameters=None, learning_rate=0.5, clip_norm=0.3, init_scale=0.4
)
TYPES = 7
CELLS = {"lstm": LSTM(), "nascell": NASCELL}


@pytest.fixture(scope="module")
def text():
    drawn = np.random.default_rng(0).integers(0, TYPES, 120)
    letters = ["abcdefg"[index] for index in drawn]
    return make_text("letters", {"train": letters[:80], "validation": letters[80:100], "test": letters[100:]})


class Report:
    def __init__(self, checkpoint=None, dies_after=None):
        self.checkpoint = checkpoint
        self.rows = []
        self._dies_after = dies_after

    def __call__(self, epoch, **metrics):
        self.rows.append((epoch, metrics))
        if epoch == self._dies_after:
            raise KeyboardInterrupt

    def restore(self, history):
        self.rows += enumerate(history, start=1)

    def follow(self, steps_done):
        self.steps_done = steps_done


def made(cell="lstm", recipe=RECIPE, seed=3, **options):
    return LanguageModel(CELLS[cell], TYPES, recipe.units, recipe, seed=seed, **options)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm_loss(weights, tokens, layers):
    """The mean loss of a text, one token after another, in NumPy and double precision."""
    weights = {name: weight.astype(np.float64) for name, weight in weights.items()}
    units = weights["embedding"].shape[1]
    states = [(np.zeros(units), np.zeros(units)) for _ in range(layers)]
    total = 0.0
    for read, wanted in itertools.pairwise(tokens):
        x = weights["embedding"][read]
        for index, (h, c) in enumerate(states):
            layer = {name: weights[f"layer{index}/{name}"] for name in ("kernel", "recurrent_kernel", "bias")}
            i, f, g, o = np.split(x @ layer["kernel"] + h @ layer["recurrent_kernel"] + layer["bias"], 4)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            x = sigmoid(o) * np.tanh(c)
            states[index] = (x, c)
        kernel = weights.get("softmax/kernel", weights["embedding"]).T
        logits = x @ kernel + weights["softmax/bias"]
        total += np.log(np.exp(logits).sum()) - logits[wanted]
    return total / (len(tokens) - 1)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("chunk", [1, 4, 7, 500])
def test_validation_carries_its_state_through_the_whole_text(text, shared, chunk, monkeypatch):
    monkeypatch.setattr(language_training, "VALIDATION_CHUNK", chunk)
    recipe = dataclasses.replace(RECIPE, shared_embeddings=shared)
    model = made(recipe=recipe)
    expected = lstm_loss(trainer.weights_of(model), text.validation, recipe.layers)
    assert float(text_loss(model, tf.constant(text.validation))) == pytest.approx(expected, rel=1e-5)
    found = LanguageTrainer(model, to_device(text, 3), recipe, 0).metrics()
    assert found == {"val_perplexity": pytest.approx(math.exp(expected), rel=1e-5)}


def plain_step(model, read, wanted, states, recipe, rate, seed):
    """A step as one would write it without a thought for speed: a plain loop and plain gradients."""
    dropout = Dropout(recipe, seed)
    weights = model.trainable
    with tf.GradientTape() as tape:
        x = tf.gather(weights["embedding"], read)
        if (keep := dropout.types(TYPES)) is not None:
            x *= tf.gather(keep, read)
        after = []
        for index, (h, c) in enumerate(states):
            if (keep := dropout.inputs(read.shape[1], model.units)) is not None:
                x *= keep
            of_state = dropout.state(read.shape[1], model.units)
            outputs = []
            for x_t in tf.unstack(x):
                products = x_t @ weights[f"layer{index}/kernel"]
                if model.cell.biased:
                    products += weights[f"layer{index}/bias"]
                masked = h if of_state is None else h * of_state
                h, c = model.cell.step(products, masked @ weights[f"layer{index}/recurrent_kernel"], c)
                outputs.append(h)
            x = tf.stack(outputs)
            after.append((h, c))
        if (keep := dropout.inputs(read.shape[1], model.units)) is not None:
            x *= keep
        matrix = weights["embedding" if recipe.shared_embeddings else "softmax/kernel"]
        hidden, labels = tf.reshape(x, (-1, model.units)), tf.reshape(wanted, (-1,))
        if recipe.sampled_types is None:
            logits = hidden @ tf.transpose(matrix) + weights["softmax/bias"]
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        else:
            drawn = draw_types(recipe.sampled_types, TYPES, seed)
            counts = expected_counts(drawn, recipe.sampled_types, TYPES)
            logits = hidden @ tf.transpose(matrix) + weights["softmax/bias"]
            own = tf.gather(logits, labels, batch_dims=1)
            shares = tf.exp(tf.gather(logits, drawn, axis=1)) / counts
            others = tf.reduce_sum(tf.where(labels[:, tf.newaxis] == drawn, 0.0, shares), axis=1)
            losses = tf.math.log(tf.exp(own) + others) - own
        loss = tf.reduce_mean(losses)
        summed = tf.reduce_sum(losses) / read.shape[1]
    gradients = [tf.convert_to_tensor(found) for found in tape.gradient(summed, list(weights.values()))]
    clipped, _ = tf.clip_by_global_norm(gradients, recipe.clip_norm)
    return (
        loss,
        {name: weight - rate * part for (name, weight), part in zip(weights.items(), clipped, strict=True)},
        after,
    )


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"shared_embeddings": True},
        {"clip_norm": 100.0},
        {"embedding_dropout": 0.3, "dropout": 0.4, "recurrent_dropout": 0.2},
        {"sampled_types": 4},
        {"sampled_types": 3, "shared_embeddings": True},
        {"embedding_dropout": 0.3, "dropout": 0.4, "recurrent_dropout": 0.2, "shared_embeddings": True, "layers": 1},
    ],
    ids=str,
)
def test_an_epoch_is_that_of_the_plain_loop(text, cell, changes):
    recipe = dataclasses.replace(RECIPE, **changes)
    model, plain, data = made(cell, recipe), made(cell, recipe), to_device(text, recipe.batch_size)
    training = LanguageTrainer(model, data, recipe, seed=11)
    assert training.steps_per_epoch == 6  # 80 // 3 = 26 tokens a stream, 25 of which have one after them
    loss = training.train_epoch(0)
    states, losses = plain.zero_state(recipe.batch_size), []
    for step in range(6):
        first = step * recipe.unroll
        read, wanted = data.streams[first : first + 4], data.streams[first + 1 : first + 5]
        seed = tf.constant([11, step * 64])
        step_loss, weights, states = plain_step(plain, read, wanted, states, recipe, recipe.learning_rate, seed)
        losses.append(float(step_loss))
        for name, weight in weights.items():
            plain.trainable[name].assign(weight)
    assert loss == pytest.approx(np.mean(losses), rel=1e-5)
    for name, weight in plain.trainable.items():
        np.testing.assert_allclose(model.trainable[name], weight, rtol=2e-4, atol=2e-6, err_msg=name)


def test_a_word_read_twice_in_a_step_counts_once_in_the_norm():
    # Rows of one type add up before they are squared: (1 + 1)^2 = 4, not 1 + 1.
    sparse = add_rows([Rows(tf.constant([2, 2]), tf.ones((1, 2, 1)))], tf.TensorShape((7, 1)))
    assert sparse.indices.numpy().tolist() == [2] and sparse.values.numpy().tolist() == [[2.0]]
    assert float(clip_scale([sparse], 1.0)) == pytest.approx(0.5)
    assert float(clip_scale([sparse, tf.constant([[0.0]])], 5.0)) == 1.0


def test_rows_are_added_to_the_gradient_of_the_whole():
    parts = [Rows(tf.constant([0, 2, 0]), tf.constant([[1.0], [2.0], [3.0]])), Rows(tf.constant([1]), tf.ones((1, 1)))]
    shape = tf.TensorShape((3, 1))
    assert add_rows(parts, shape, tf.ones((3, 1))).numpy().tolist() == [[5.0], [2.0], [3.0]]
    alone = add_rows(parts, shape)
    assert dict(zip(alone.indices.numpy().tolist(), alone.values.numpy()[:, 0].tolist(), strict=True)) == {
        0: 4.0,
        2: 2.0,
        1: 1.0,
    }


def test_types_are_drawn_as_often_as_is_counted_on():
    count, types, draws = 40, 25, 2000
    drawn = np.concatenate([draw_types(count, types, tf.constant([1, step * 64])).numpy() for step in range(draws)])
    assert drawn.min() == 0 and drawn.max() == types - 1
    expected = expected_counts(tf.range(types), count, types).numpy()
    assert expected.sum() == pytest.approx(count, rel=1e-5)
    found = np.bincount(drawn, minlength=types) / draws
    assert (abs(found - expected) < 5 * np.sqrt(expected / draws)).all()


def test_drawn_types_stand_for_all():
    # With every logit the same, the loss is that of a guess among all types, not among the few drawn.
    recipe = dataclasses.replace(RECIPE, sampled_types=400, init_scale=1e-6)
    model = LanguageModel(LSTM(), 1000, 5, recipe, seed=0)
    text = make_text("t", {"train": [str(n % 1000) for n in range(3000)], "validation": ["1"], "test": ["1"]})
    loss = LanguageTrainer(model, to_device(text, 3), dataclasses.replace(recipe, learning_rate=1e-9), 0).train_epoch(0)
    assert loss == pytest.approx(math.log(1000), abs=0.05)


@pytest.mark.parametrize("shared", [False, True])
def test_the_order_of_gradients_is_the_same_in_every_process(text, shared):
    """The rounding of their norm depends on it, so it must not be that of a set of texts."""
    recipe = dataclasses.replace(RECIPE, sampled_types=4, shared_embeddings=shared)
    model = made(recipe=recipe)
    inputs, targets = (tf.constant(text.train[first : first + 12].reshape(3, 4).T) for first in (0, 1))
    _, gradients, _ = step_gradients(model, inputs, targets, model.zero_state(3), tf.constant([1, 0]))
    rows = ["embedding", "softmax/bias"] if shared else ["embedding", "softmax/kernel", "softmax/bias"]
    assert list(gradients)[-len(rows) :] == rows


def test_streams_are_contiguous_and_stand_side_by_side(text):
    streams = to_device(text, 3).streams.numpy()
    assert streams.shape == (26, 3)
    np.testing.assert_array_equal(streams[:, 1], text.train[26:52])


def test_the_rate_is_steady_and_then_decays():
    recipe = LanguageRecipe(steady_epochs=4, decay=0.5)
    rates = [float(learning_rate(recipe, tf.constant(epoch))) for epoch in range(7)]
    assert rates == [1, 1, 1, 1, 0.5, 0.25, 0.125]


def test_the_reward_is_eighty_over_the_square():
    assert reward_of(4.0) == 5.0
    assert reward_of(perplexity_of(699.0, "validation")) == 0.0


def test_what_is_left_out_is_the_same_for_all_tokens_of_a_step():
    recipe = dataclasses.replace(RECIPE, embedding_dropout=0.5, dropout=0.25, recurrent_dropout=0.25)
    one, same, other = (Dropout(recipe, tf.constant([1, number])) for number in (0, 0, 64))
    masks = [dropout.inputs(40, 50).numpy() for dropout in (one, same, other)]
    np.testing.assert_array_equal(masks[0], masks[1])
    assert not np.array_equal(masks[0], masks[2])
    assert masks[0].shape == (1, 40, 50) and set(np.unique(masks[0])) == {0.0, np.float32(1 / 0.75)}
    assert abs(np.mean(masks[0] == 0) - 0.25) < 0.05
    assert not np.array_equal(one.inputs(40, 50), masks[0])  # the next layer's are others
    assert one.types(9).shape == (9, 1) and one.state(2, 3).shape == (2, 3)
    assert Dropout(RECIPE, tf.constant([1, 0])).inputs(2, 3) is None


def test_streams_whose_state_is_reset_learn_as_from_zeros(text):
    recipe = dataclasses.replace(RECIPE, batch_size=4, state_reset=0.5)
    model = made("nascell", recipe, 3)
    streams, seed = to_device(text, 4).streams, tf.constant([1, 0])
    read, wanted = streams[: recipe.unroll], streams[1 : recipe.unroll + 1]
    full = [(tf.fill((4, model.units), 0.3), tf.fill((4, model.units), -0.4)) for _ in range(recipe.layers)]
    kept = Dropout(recipe, seed).streams(4).numpy()
    assert set(kept.flatten()) == {0.0, 1.0}

    _, _, after = step_gradients(model, read, wanted, full, seed)
    plain = dataclasses.replace(recipe, state_reset=0.0)
    model.recipe = plain
    assert Dropout(plain, seed).streams(4) is None
    for start, rows in ((full, kept[:, 0] == 1), (model.zero_state(4), kept[:, 0] == 0)):
        _, _, expected = step_gradients(model, read, wanted, start, seed)
        for one, other in zip(after, expected, strict=True):
            np.testing.assert_allclose(one[0].numpy()[rows], other[0].numpy()[rows], rtol=1e-5)
            np.testing.assert_allclose(one[1].numpy()[rows], other[1].numpy()[rows], rtol=1e-5)


def run(text, recipe=RECIPE, report=None, seed=3, cell="nascell", **options):
    model = made(cell, recipe, seed, **options)
    outcome = train_language_model(
        model, to_device(text, recipe.batch_size), recipe, seed=seed, report=report or Report()
    )
    weights = {name: weight.tobytes() for name, weight in outcome.weights.items()}
    return outcome.reward, {**outcome.metrics}, outcome.epoch, weights


def test_the_reward_is_that_of_the_best_epoch(text, monkeypatch):
    given = iter([9.0, 6.0, 8.0])
    monkeypatch.setattr(LanguageTrainer, "metrics", lambda training: {"val_perplexity": next(given)})
    reward, metrics, epoch, _ = run(text, dataclasses.replace(RECIPE, epochs=3))
    assert (reward, metrics["val_perplexity"], epoch) == (80 / 36, 6.0, 2)


@pytest.mark.parametrize("loss", [700.0, math.inf, math.nan])
def test_a_perplexity_that_cannot_be_written_down_has_diverged(loss):
    assert perplexity_of(math.log(80.0), "test") == pytest.approx(80.0) and math.isfinite(perplexity_of(699.9, "test"))
    with pytest.raises(DivergedError, match=f"The test loss is {loss} nats a token."):
        perplexity_of(loss, "test")


def test_equal_seeds_give_equal_children_and_others_do_not(text):
    recipe = dataclasses.replace(RECIPE, dropout=0.3)
    assert run(text, recipe) == run(text, recipe)
    assert run(text, recipe, seed=4)[0] != run(text, recipe)[0]


def test_a_child_that_is_killed_goes_on_to_the_very_same(text, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "CHECKPOINT_SECONDS", 0)
    recipe = dataclasses.replace(RECIPE, epochs=4, dropout=0.2)
    whole = run(text, recipe)
    checkpoint = FileCheckpoint(tmp_path / "child.checkpoint", "it")
    for epoch in (1, 3):
        with pytest.raises(KeyboardInterrupt):
            run(text, recipe, Report(checkpoint, dies_after=epoch))
    report = Report(checkpoint)
    assert run(text, recipe, report) == whole
    assert [epoch for epoch, _ in report.rows] == [1, 2, 3, 4] and report.steps_done() == 24


def test_learning_lowers_the_perplexity(text):
    alternating = make_text("ab", {"train": list("ab" * 200), "validation": list("ab" * 20), "test": list("ab")})
    recipe = dataclasses.replace(RECIPE, epochs=10, units=8, learning_rate=2.0, clip_norm=5.0, steady_epochs=10)
    model = LanguageModel(LSTM(), 2, 8, recipe, seed=0)
    outcome = train_language_model(model, to_device(alternating, 3), recipe, seed=0, report=Report())
    assert outcome.metrics["val_perplexity"] < 1.2


def product_cell(root):
    """A cell of two leaves, x W + h U each, whose product has this activation: of a state near 0 it makes a square."""
    leaf, none = {"combination": "add", "activation": "tanh"}, {"combination": "add", "activation": "identity"}
    nodes = (leaf, leaf, {"combination": "multiply", "activation": root})
    return RecurrentCell(nodes, none, memory_node=0, injection_node=0)


def test_a_state_that_dies_out_leaves_the_frequencies_of_words(text):
    """Different functions, and each a child of its own: but adding what they give to the bias changes no bit."""
    assert product_cell("tanh").canonical() != product_cell("relu").canonical()
    recipe = dataclasses.replace(RECIPE, init_scale=0.001, layers=2)
    found = []
    for cell in (product_cell("tanh"), product_cell("relu")):
        model = LanguageModel(cell, TYPES, recipe.units, recipe, seed=3)
        found.append(train_language_model(model, to_device(text, 3), recipe, seed=3, report=Report()).metrics)
    assert found[0]["val_perplexity"] == found[1]["val_perplexity"]
    assert [metrics.get("ignores_input") for metrics in found] == [True, True]
    frequencies = np.bincount(text.train[:78], minlength=TYPES) / 78
    assert found[0]["val_perplexity"] == pytest.approx(
        math.exp(-np.log(frequencies)[text.validation[1:]].mean()), rel=0.2
    )


def test_a_cell_that_reads_is_not_said_to_ignore_its_input(text):
    outcome = train_language_model(made(), to_device(text, 3), RECIPE, seed=3, report=Report())
    assert "ignores_input" not in outcome.metrics


def test_a_loss_that_is_not_finite_ends_the_child_at_its_step(text):
    model = made()
    model.trainable["softmax/bias"].assign(np.full(TYPES, np.nan, np.float32))
    with pytest.raises(DivergedError, match=r"^The training loss of step 1 of epoch 1 is nan\.$"):
        LanguageTrainer(model, to_device(text, 3), RECIPE, 0).train_epoch(0)
    with pytest.raises(DivergedError, match=r"^The validation loss is nan nats a token\.$"):
        LanguageTrainer(model, to_device(text, 3), RECIPE, 0).metrics()


def test_on_a_gpu_the_loss_is_looked_at_after_several_steps(text, monkeypatch):
    data = to_device(text, 3)
    each = LanguageTrainer(made(), data, RECIPE, 0)
    losses = [each.train_epoch(epoch) for epoch in range(2)]
    monkeypatch.setattr(trainer, "trains_on_gpu", lambda: True)
    monkeypatch.setattr(trainer, "STEPS_BETWEEN_CHECKS", 4)  # of six
    several = LanguageTrainer(made(), data, RECIPE, 0)
    assert [several.train_epoch(epoch) for epoch in range(2)] == losses
    assert several.steps_done() == each.steps_done() == 12
    model = made()
    model.trainable["softmax/bias"].assign(np.full(TYPES, np.nan, np.float32))
    with pytest.raises(DivergedError, match=r"^The training loss of step 4 of epoch 1 is nan\.$"):
        LanguageTrainer(model, data, RECIPE, 0).train_epoch(0)


def test_two_traces_and_the_seconds_of_each_phase(text):
    training = LanguageTrainer(made(), to_device(text, 3), RECIPE, 0)
    for epoch in range(2):
        training.train_epoch(epoch)
        training.metrics()
    assert training.traces == 2 and training.steps_done() == 12
    assert training.seconds.keys() == {"trace", "train", "validate"}


def test_bfloat16_learns_nearly_the_same(text):
    plain, mixed = run(text, cell="lstm"), run(text, cell="lstm", precision="bfloat16")
    assert mixed[1]["val_perplexity"] == pytest.approx(plain[1]["val_perplexity"], rel=0.02)
    assert mixed[3] != plain[3]


def test_under_xla_it_is_the_same(text):
    data = to_device(text, 3)
    models = [made("nascell"), made("nascell")]
    pairs = zip(models, (False, True), strict=True)
    losses = [LanguageTrainer(model, data, RECIPE, 0, xla=xla).train_epoch(0) for model, xla in pairs]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    for name, weight in models[0].trainable.items():
        np.testing.assert_allclose(models[1].trainable[name], weight, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("shared", [False, True])
def test_parameters_are_counted_and_fill_the_budget(cell, shared):
    recipe = LanguageRecipe(parameters=50_000, shared_embeddings=shared)
    units = units_within(CELLS[cell], 1000, recipe)
    count = num_parameters(CELLS[cell], 1000, units, recipe)
    model = LanguageModel(CELLS[cell], 1000, units, recipe, seed=0)
    assert count == sum(int(np.prod(weight.shape)) for weight in model.trainable.values()) <= 50_000
    assert num_parameters(CELLS[cell], 1000, units + 1, recipe) > 50_000


def test_a_budget_that_the_vocabulary_alone_exceeds():
    with pytest.raises(ValueError) as caught:
        units_within(NASCELL, 10_000, LanguageRecipe(parameters=10_000))
    assert str(caught.value) == (
        "A model of 10,000 parameters cannot have 10,000 types; raise task.parameters or lower task.vocabulary_size."
    )


def test_zaremba_s_small_model_has_its_published_size():
    # 10,000 types, two layers of 200: 4.65 million, of which 4 are embedding and softmax.
    recipe = LanguageRecipe(units=200, parameters=None)
    assert num_parameters(LSTM(), 10_000, 200, recipe) == 2 * 10_000 * 200 + 10_000 + 2 * (2 * 200 * 800 + 800)
