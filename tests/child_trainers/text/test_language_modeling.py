"""The tasks ptb, pydoc and text: from a file to a reward, and to a Keras model that gives the stored perplexity."""

import ast
import dataclasses
import json
import math
import os
import runpy
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from automl.child_trainers.data.dataset import DataError
from automl.child_trainers.devices import Compute
from automl.child_trainers.outcome import DivergedError, Goal
from automl.child_trainers.recipes import QUICK_TEXT, RECIPES, LanguageRecipe
from automl.child_trainers.task import Objective
from automl.child_trainers.text.task import LanguageModeling
from automl.search_spaces.convnet.layers import ConvLayer
from automl.search_spaces.convnet.spec import ConvNet
from automl.search_spaces.joint.spec import TrainedCell
from automl.search_spaces.recurrent_cell.lstm import LSTM
from automl.search_spaces.recurrent_cell.named import NASCELL
from automl.search_spaces.recurrent_cell.spec import RecurrentCell
from automl.search_spaces.recurrent_cell.tree import CellNode
from automl.search_spaces.update_rule.spec import UpdateRule

# Keras 3 saves variables through np.array of an object whose __array__ takes no `copy`; nothing of ours can change it.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SMALL_CELL = RecurrentCell(
    nodes=(CellNode("add", "sigmoid"), CellNode("add", "tanh"), CellNode("multiply", "tanh")),
    injection=CellNode("add", "identity"),
    memory_node=2,
    injection_node=2,
)
TINY = {"epochs": 2, "batch_size": 4, "unroll": 8, "units": 12, "parameters": None, "num_train": 2_000}


class Report:
    checkpoint = None

    def __init__(self):
        self.epochs = []

    def __call__(self, epoch, **metrics):
        self.epochs.append((epoch, metrics))

    def follow(self, steps_done):
        pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("texts")


@pytest.fixture(scope="module")
def path(folder):
    """A text of 3,000 words with a strange one at the end, in the part for testing."""
    generator = np.random.default_rng(0)
    lines = [" ".join(generator.choice(["the", "cat", "sat", "on", "a", "mat"], 9)) for _ in range(300)]
    path = folder / "cats.txt"
    path.write_text("\n".join([*lines, "a dog"]) + "\n")
    return path


def made(name="pydoc", **changes):
    return LanguageModeling(name, LanguageRecipe(**(QUICK_TEXT | TINY | {"num_validation": 300} | changes)))


@pytest.fixture(scope="module")
def task(path):
    return made(f"text:{path}", vocabulary_size=None)


@pytest.fixture(scope="module", params=["small", "nascell", "shared"])
def child(request, path):
    """A task, a spec and its outcome."""
    shared = request.param == "shared"
    used = made(f"text:{path}", vocabulary_size=None, shared_embeddings=shared, layers=1 if shared else 2)
    spec = NASCELL if request.param == "nascell" else SMALL_CELL
    report = Report()
    return used, spec, used.evaluate(spec, seed=1, report=report), report


def test_a_child_end_to_end(child):
    _, _, outcome, report = child
    perplexities = [metrics["val_perplexity"] for _, metrics in report.epochs]
    assert [epoch for epoch, _ in report.epochs] == [1, 2]
    assert outcome.metrics["val_perplexity"] == min(perplexities) < 9  # a guess among all types has 9
    assert outcome.reward == pytest.approx(80 / min(perplexities) ** 2)
    assert outcome.metrics["units"] == 12 and outcome.metrics["traces"] == 2
    assert outcome.seconds.keys() == {"build", "trace", "train", "validate"}


def test_the_model_gives_the_stored_perplexity(child, tmp_path):
    task, spec, outcome, _ = child
    model = task.model(spec, dict(outcome.weights))
    found = task.validate(model, spec)
    assert found == {"val_perplexity": pytest.approx(outcome.metrics["val_perplexity"], rel=1e-4)}
    assert task.same(found["val_perplexity"], outcome.metrics["val_perplexity"])
    assert not task.same(1.01 * found["val_perplexity"], outcome.metrics["val_perplexity"])
    path = tmp_path / "model.keras"
    model.save(path)
    assert task.validate(keras.models.load_model(path), spec) == pytest.approx(found)
    assert set(task.test(model, spec)) == {"test_perplexity"}


def test_a_model_that_is_sure_of_the_wrong_has_diverged(child):
    task, spec, _, _ = child
    types = len(task.data.vocabulary)

    def model(inputs):
        words, *states = inputs
        logits = tf.one_hot(tf.zeros_like(words, tf.int32), types, on_value=0.0, off_value=-1e6)
        return [logits, *states]

    with pytest.raises(DivergedError, match="The test loss is "):
        task.test(model, spec)


def test_a_text_is_read_piece_by_piece(child):
    task, spec, outcome, _ = child
    model = task.model(spec, dict(outcome.weights))
    words = np.array([["the", "cat", "sat", "on", "the", "mat"]])
    states = [tf.zeros((1, 12))] * (2 * task.recipe.layers)
    whole, *_ = model([tf.constant(words), *states])
    first, *states = model([tf.constant(words[:, :2]), *states])
    second, *_ = model([tf.constant(words[:, 2:]), *states])
    np.testing.assert_allclose(np.concatenate([first, second], axis=1), whole, rtol=1e-4, atol=1e-5)


def test_the_source_needs_only_keras(child, tmp_path):
    task, spec, _, _ = child
    path = tmp_path / "cell.py"
    path.write_text(task.source(spec).text)
    done = subprocess.run(
        [sys.executable, "-P", path.name],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"COLUMNS": "100"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Total params" in done.stdout
    assert "automl" not in path.read_text().replace('register_keras_serializable("automl")', "").replace(
        "that automl found", ""
    )


def test_a_name_in_a_store_does_not_become_part_of_the_source():
    name = 'text:/tmp/x"""\nraise SystemExit("ran")\n"""\\'
    reading = {"options": {"vocabulary_size": None, "level": "word"}, "vocabulary": ["<unk>", "the", "cat", "dog"]}
    task = LanguageModeling(name, LanguageRecipe(**TINY), reading=reading)
    text = task.source(SMALL_CELL).text
    (first, *_) = ast.parse(text).body
    assert first.value.value.startswith("A recurrent cell that automl found") and "SystemExit" in first.value.value


def test_a_saved_model_loads_with_the_source_alone(child, tmp_path):
    task, spec, outcome, _ = child
    (tmp_path / "cell.py").write_text(task.source(spec).text)
    task.model(spec, dict(outcome.weights)).save(tmp_path / "model.keras")
    program = (
        "import sys; sys.path = [p for p in sys.path if not p.endswith('/main')]\n"
        "import cell, keras, numpy as np, json, tensorflow as tf\n"
        "model = keras.models.load_model('model.keras')\n"
        "assert 'automl' not in sys.modules\n"
        f"zeros = [tf.zeros((1, 12))] * {2 * task.recipe.layers}\n"
        "words = tf.constant([['the', 'cat', 'dog']])\n"
        "print(json.dumps(np.asarray(model([words, *zeros])[0])[0].tolist()))\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    words = tf.constant([["the", "cat", "dog"]])
    zeros = [tf.zeros((1, 12))] * (2 * task.recipe.layers)
    expected = np.asarray(task.model(spec, dict(outcome.weights))([words, *zeros])[0])[0]
    np.testing.assert_allclose(json.loads(done.stdout.splitlines()[-1]), expected, rtol=1e-4, atol=1e-5)


def test_the_model_of_the_source_is_the_child(child, tmp_path):
    task, spec, outcome, _ = child
    path = tmp_path / "cell.py"
    path.write_text(task.source(spec).text)
    keras_class = keras.saving.get_registered_object("automl>TreeCell")
    model = runpy.run_path(str(path))["build"]()
    keras.saving.get_custom_objects()["automl>TreeCell"] = keras_class  # what the file has registered in its place
    weights = dict(outcome.weights)
    assert model.count_params() == sum(weight.size for weight in weights.values())
    for variable in model.weights:
        layer, *_, name = variable.path.split("/")
        stored = {"embedding": "embedding", "logits": f"softmax/{name}"}.get(layer, f"{layer}/{name}")
        variable.assign(weights[stored].T if layer == "logits" else weights[stored])
    words = [["the", "cat", "sat"]]
    numbers = np.array([[task.data.vocabulary.index(word) for word in words[0]]])
    zeros = [tf.zeros((1, 12))] * (2 * task.recipe.layers)
    expected = task.model(spec, weights)([tf.constant(words), *zeros])[0]
    np.testing.assert_allclose(model(numbers), expected, rtol=1e-4, atol=1e-5)


def test_a_cell_that_brings_its_rule_is_trained_by_it(task):
    by_rule = TrainedCell(SMALL_CELL, UpdateRule.parse("g"), 1.0)
    plain = made(task.name, vocabulary_size=None, steady_epochs=2)  # whose rate stays 1
    perplexities = [
        used.evaluate(spec, seed=1, report=Report()).metrics["val_perplexity"]
        for used, spec in ((task, by_rule), (plain, SMALL_CELL))
    ]
    assert perplexities[0] == pytest.approx(perplexities[1], rel=1e-4)


def test_the_source_of_a_cell_that_brings_its_rule(task, tmp_path):
    path = tmp_path / "cell.py"
    path.write_text(task.source(TrainedCell(SMALL_CELL, UpdateRule.parse("drop(g, 0.5) + m"), 0.5)).text)
    cell_class = keras.saving.get_registered_object("automl>TreeCell")
    found = runpy.run_path(str(path))
    keras.saving.get_custom_objects()["automl>TreeCell"] = cell_class  # what the file has registered in its place
    model = found["build"]()
    model.compile(found["FoundRule"](), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(np.ones((2, 3), np.int32), np.ones((2, 3), np.int32), verbose=0)
    assert "FoundRule at a learning rate of 0.5." in found["__doc__"]


def test_a_rule_that_diverges_is_a_result(task):
    outcome = task.evaluate(TrainedCell(SMALL_CELL, UpdateRule.parse("exp(exp(2))"), 1e38), seed=1, report=Report())
    assert outcome.reward == 0.0 and outcome.weights is None
    assert outcome.ending == "diverged"
    assert outcome.metrics["val_perplexity"] == len(task.data.vocabulary)  # that of a guess


def test_an_lstm_is_a_child_too(task):
    outcome = task.evaluate(LSTM(), seed=0, report=Report())
    model = task.model(LSTM(), dict(outcome.weights))
    assert task.validate(model, LSTM())["val_perplexity"] == pytest.approx(outcome.metrics["val_perplexity"], rel=1e-4)


def test_characters_have_bits(path):
    task = made(f"text:{path}", level="character", vocabulary_size=None)
    metrics = task.evaluate(SMALL_CELL, seed=0, report=Report()).metrics
    assert metrics["val_bits_per_character"] == pytest.approx(math.log2(metrics["val_perplexity"]))


def test_a_goal_of_a_person(path):
    recipe = LanguageRecipe(**(QUICK_TEXT | TINY | {"num_validation": 300, "vocabulary_size": None}))
    task = LanguageModeling(f"text:{path}", recipe, goal=Goal("loss", minimize=True))
    outcome = task.evaluate(SMALL_CELL, seed=0, report=Report())
    assert outcome.reward == -outcome.metrics["loss"] and task.floor is None
    assert task.objective == Objective("loss", False, 2)


def test_what_a_child_costs(task):
    params, flops = task.count(SMALL_CELL)
    types = len(task.data.vocabulary)
    assert params == types * 12 + types + 2 * (2 * 12 * 24)  # shared embeddings
    assert flops == 2 * 12 * (2 * 2 * 2 * 12 + types)


def test_what_it_cannot_train_is_refused(task):
    with pytest.raises(ValueError) as caught:
        task.check(ConvNet((ConvLayer(3, 3, 8, ()),)))
    assert str(caught.value) == (
        f"The task {task.name} trains recurrent cells, and this space makes ConvNet; choose --space recurrent-cell, "
        "--space joint with the preset cells, or a task for it."
    )
    task.check(NASCELL)


@pytest.mark.parametrize(
    ("compute", "message"),
    [
        (
            Compute("float16"),
            "Language models are trained in float32 or bfloat16; choose one of them with --precision.",
        ),
        (Compute(devices=2), "A language model is trained on one GPU; drop --gpus-per-child."),
    ],
)
def test_ways_of_computing_that_it_has_not(compute, message):
    with pytest.raises(ValueError) as caught:
        LanguageModeling("pydoc", LanguageRecipe(), compute=compute)
    assert str(caught.value) == message


def test_a_text_that_is_too_short(folder):
    path = folder / "short.txt"
    path.write_text("a b\nc d\n" * 5)
    with pytest.raises(DataError) as caught:
        made(f"text:{path}", num_train=None, num_validation=None).prepare()
    assert str(caught.value) == (
        f"{path} has 24 words to train on and 3 to validate; 4 streams of 9 need 36. Take a longer text, or lower "
        "task.batch_size or task.unroll."
    )


def test_another_text_or_vocabulary_than_the_search_began_with(path):
    first = made(f"text:{path}", vocabulary_size=None).fingerprint
    assert first is not None
    for options in ({"vocabulary_size": 3}, {"level": "character", "vocabulary_size": None}):
        recipe = LanguageRecipe(**(QUICK_TEXT | TINY | {"num_validation": 300} | options))
        task = LanguageModeling(f"text:{path}", recipe, fingerprint=first)
        with pytest.raises(DataError, match=r"is not the text that the search began with, or is read with another "):
            task.prepare()
    assert made("ptb").fingerprint is None and made("pydoc").fingerprint is not None


@pytest.mark.parametrize("kind", ["ptb", "pydoc", "text"])
def test_every_recipe_is_one(kind):
    for constants in RECIPES[kind].values():
        LanguageRecipe(**constants)


@pytest.mark.parametrize(
    ("constants", "message"),
    [
        ({"unroll": 0}, "task.unroll is 0; it must be a whole number above 0."),
        ({"units": 0}, "task.units is 0; it must be a whole number above 0, or null for the other."),
        ({"dropout": 1.0}, "task.dropout is 1.0; it must be a number in [0, 1)."),
        ({"level": "letter"}, "task.level is 'letter'; it is one of word, character."),
        ({"decay": -1}, "task.decay is -1; it must be a number above 0."),
        ({"steady_epochs": -1}, "task.steady_epochs is -1; it must be a whole number, 0 or more."),
        ({"vocabulary_size": 1}, "task.vocabulary_size is 1; a text has at least 2 types."),
        ({"shared_embeddings": 1}, "task.shared_embeddings is 1; it must be true or false."),
        (
            {"parameters": None},
            "task.parameters and task.units are both null; one of them must set the size of a model.",
        ),
    ],
)
def test_wrong_constants_are_refused(constants, message):
    with pytest.raises(ValueError) as caught:
        LanguageRecipe(**constants)
    assert str(caught.value) == message


def test_describing_says_how_children_are_trained(task):
    described = task.describe()
    assert described["data"] == task.name and described["unroll"] == 8 and described["precision"] == "float32"
    json.dumps(described)
    assert Path(described["data"].removeprefix("text:")).exists()


@pytest.mark.parametrize("level", ["character", "word"])
def test_a_text_of_one_line_is_trained_on(folder, level):
    path = folder / "one.txt"
    path.write_text("the quick brown fox jumps over the lazy dog " * 60)
    recipe = LanguageRecipe(**{**QUICK_TEXT, **TINY, "epochs": 1, "num_train": None, "level": level})
    task = LanguageModeling(f"text:{path}", dataclasses.replace(recipe, num_validation=None))
    task.prepare()
    assert task.data_summary().line.startswith("432 training, " if level == "word" else "2,111 training, ")
    outcome = task.evaluate(SMALL_CELL, seed=0, report=Report())
    assert math.isfinite(outcome.metrics["val_perplexity"]) and outcome.reward > 0
