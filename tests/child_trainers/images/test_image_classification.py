import re
import types

import keras
import numpy as np
import pytest

from automl.child_trainers.behaviour import Behaviour
from automl.child_trainers.data.dataset import DataError
from automl.child_trainers.devices import Compute
from automl.child_trainers.images.task import SHAPES, ImageClassification
from automl.child_trainers.outcome import DivergedError, Goal
from automl.child_trainers.recipes import DIGITS, Recipe
from automl.child_trainers.task import Objective
from automl.search_spaces.convnet.layers import ConvLayer
from automl.search_spaces.convnet.spec import ConvNet
from automl.search_spaces.joint.spec import TrainedNet
from automl.search_spaces.update_rule.spec import UpdateRule

NET = ConvNet((ConvLayer(3, 3, 8, (), pool=True), ConvLayer(3, 3, 16, (0,)), ConvLayer(1, 1, 8, (0, 1))))


class FakeReport:
    checkpoint = None

    def __init__(self):
        self.epochs = []
        self.accuracies = []

    def __call__(self, epoch, **metrics):
        self.epochs.append((epoch, metrics))
        self.accuracies.append(metrics["val_accuracy"])

    def follow(self, steps_done):
        pass


@pytest.fixture(scope="module")
def task():
    return ImageClassification("digits", Recipe(**(DIGITS | {"epochs": 3})))


@pytest.fixture(scope="module")
def trained(task):
    report = FakeReport()
    return task.evaluate(NET, seed=5, report=report), report


@pytest.fixture
def npz(tmp_path):
    """Bright and dark images of 6 x 4 pixels with 3 channels, told apart by which half is bright."""
    generator = np.random.Generator(np.random.PCG64(0))
    y = generator.integers(2, size=200)
    x = generator.integers(60, size=(200, 6, 4, 3))
    x[y == 0, :3] += 150
    x[y == 1, 3:] += 150
    path = tmp_path / "halves.npz"
    np.savez(path, x_train=x.astype(np.uint8), y_train=y)
    return path


def test_the_digits_end_to_end(trained):
    outcome, report = trained
    assert len(report.accuracies) == 3
    assert outcome.metrics["val_accuracy"] == max(report.accuracies) > 0.5  # a guess is right in one of ten
    assert outcome.reward == outcome.metrics["val_accuracy"] ** 3
    assert outcome.epoch == 1 + report.accuracies.index(max(report.accuracies))
    assert outcome.seconds.keys() == {"build", "trace", "train", "validate"} and min(outcome.seconds.values()) > 0


# Keras 3 saves variables through np.array of an object whose __array__ takes no `copy`; nothing of ours can change it.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_the_model_takes_raw_images_and_gives_the_stored_accuracy(task, trained, tmp_path):
    outcome, _ = trained
    model = task.model(NET, outcome.weights)
    assert task.validate(model) == {"val_accuracy": outcome.metrics["val_accuracy"]}
    model.save(tmp_path / "child.keras")
    loaded = keras.saving.load_model(tmp_path / "child.keras")  # needs nothing of ours
    assert task.validate(loaded) == {"val_accuracy": outcome.metrics["val_accuracy"]}
    assert loaded.input_shape == (None, 8, 8, 1) and loaded.output_shape == (None, 10)
    raw = task.data.x_validation[:4].astype(np.float32)
    np.testing.assert_array_equal(loaded(raw), model(raw))
    np.testing.assert_allclose(
        loaded(raw * 3 + 20), loaded(raw), rtol=0.01, atol=0.01
    )  # standardization is its first layer


def test_the_source_takes_raw_images_too(task, trained, tmp_path):
    """The file's model, given the child's weights, is the child's model: standardization is its first layer as well."""
    outcome, _ = trained
    path = tmp_path / "child.py"
    path.write_text(task.source(NET).text)
    module = types.ModuleType("child")
    exec(compile(path.read_text(), path, "exec"), vars(module))
    written = module.build()
    written.set_weights(task.model(NET, outcome.weights).get_weights())
    assert task.validate(written) == {"val_accuracy": outcome.metrics["val_accuracy"]}


@pytest.mark.parametrize("compute", [Compute("bfloat16"), Compute("float16"), Compute("bfloat16", xla=True)], ids=str)
def test_the_model_gives_the_stored_accuracy_however_the_child_was_trained(compute):
    """Stored weights are float32, and so is every validation."""
    task = ImageClassification("digits", Recipe(**(DIGITS | {"num_train": 640})), compute=compute)
    outcome = task.evaluate(NET, seed=5, report=FakeReport())
    assert (outcome.metrics["precision"], outcome.metrics["xla"]) == (compute.precision, compute.xla)
    assert {weight.dtype for weight in outcome.weights.values()} == {np.dtype(np.float32)}
    model = task.model(NET, outcome.weights)
    assert {variable.dtype for variable in model.variables} == {"float32"}
    # Two ways to sum the same numbers: one image in 250 may stand between two classes.
    assert task.validate(model)["val_accuracy"] == pytest.approx(outcome.metrics["val_accuracy"], abs=1 / 250)


class Built:
    """A spec of a space that only builds Keras models, deep enough for two-digit numbers of weights."""

    def build(self, input_shape, num_classes):
        model = keras.Sequential([keras.Input(input_shape), keras.layers.Flatten()])
        for _ in range(3):
            model.add(keras.layers.Dense(16, activation="relu"))
            model.add(keras.layers.BatchNormalization(momentum=0.9))
        model.add(keras.layers.Dense(num_classes))
        return model


def test_a_spec_that_only_builds_keras_is_trained_too(task):
    outcome = task.evaluate(Built(), seed=5, report=FakeReport())
    assert outcome.metrics["val_accuracy"] > 0.5 and outcome.metrics["traces"] == 1
    model = task.model(Built(), outcome.weights)
    assert task.validate(model) == {"val_accuracy": outcome.metrics["val_accuracy"]}


def test_a_model_of_other_outputs_than_there_are_classes(task):
    class Narrow(Built):
        def build(self, input_shape, num_classes):
            return super().build(input_shape, num_classes - 1)

    with pytest.raises(
        ValueError, match=re.escape("outputs of shape (None, 9); they must be the logits of 10 classes")
    ):
        task.evaluate(Narrow(), seed=5, report=FakeReport())


def test_whole_numbers_are_constants_of_a_recipe_too(task):
    plain = dict(DIGITS) | {"epochs": 1, "num_train": 64}
    whole, fractions = (
        ImageClassification("digits", Recipe(**plain, **constants)).evaluate(NET, seed=5, report=FakeReport())
        for constants in ({"momentum": 0, "weight_decay": 0}, {"momentum": 0.0, "weight_decay": 0.0})
    )
    assert whole.metrics == fractions.metrics


def test_a_spec_that_only_builds_keras_is_trained_in_float32_whatever_was_asked():
    recipe = Recipe(**(DIGITS | {"epochs": 1, "num_train": 64}))
    task = ImageClassification("digits", recipe, compute=Compute("bfloat16", xla=True))
    metrics = task.evaluate(Built(), seed=5, report=FakeReport()).metrics
    assert (metrics["precision"], metrics["xla"]) == ("float32", False)
    plain = ImageClassification("digits", recipe).evaluate(Built(), seed=5, report=FakeReport()).metrics
    assert metrics == plain


def test_own_images_end_to_end(npz):
    task = ImageClassification(f"npz:{npz}", Recipe(epochs=2, batch_size=20, learning_rate=0.05, augment=False))
    assert task.shapes == ((6, 4, 3), 2)
    outcome = task.evaluate(ConvNet((ConvLayer(6, 4, 4, ()),)), seed=0, report=FakeReport())
    model = task.model(ConvNet((ConvLayer(6, 4, 4, ()),)), outcome.weights)
    assert task.validate(model) == {"val_accuracy": outcome.metrics["val_accuracy"]}


def test_shapes_are_known_without_data_and_are_the_data_s(task):
    assert ImageClassification("cifar10", Recipe()).shapes == SHAPES["cifar10"] == ((32, 32, 3), 10)
    assert task.shapes == (task.data.input_shape, task.data.num_classes)


def test_the_recipe_limits_the_images():
    limited = ImageClassification("digits", Recipe(num_train=100, num_validation=50)).data
    assert (len(limited.x_train), len(limited.x_validation)) == (100, 50)
    task = ImageClassification("digits", Recipe(num_train=5000))
    with pytest.raises(DataError, match="digits has 1297 training images, so it cannot be limited to 5000"):
        task.prepare()


def test_missing_data_are_found_before_workers_start(tmp_path):
    with pytest.raises(DataError, match=r"none\.npz is not a file"):
        ImageClassification(f"npz:{tmp_path}/none.npz", Recipe()).prepare()


def test_floor_and_description(task):
    assert task.floor == 0.0
    assert ImageClassification("digits", Recipe(), goal=Goal("loss", minimize=True)).floor is None
    described = task.describe()
    assert (described["data"], described["epochs"], described["momentum"]) == ("digits", 3, 0.9)


@pytest.mark.parametrize(
    ("goal", "objective"),
    [
        (None, Objective("val_accuracy", maximize=True, epochs=3)),
        (Goal("loss", minimize=True), Objective("loss", maximize=False, epochs=3)),
        (Goal("val_accuracy", minimize=False), Objective("val_accuracy", maximize=True, epochs=3)),
    ],
)
def test_what_early_stopping_goes_by(goal, objective):
    task = ImageClassification("digits", Recipe(epochs=3, num_train=64), goal=goal)
    assert task.objective == objective
    report = FakeReport()
    task.evaluate(ConvNet((ConvLayer(1, 1, 4, ()),)), seed=0, report=report)
    assert [epoch for epoch, metrics in report.epochs if objective.metric in metrics] == [1, 2, 3]


def test_another_goal(task):
    other = ImageClassification("digits", Recipe(epochs=1, num_train=64), goal=Goal("loss", minimize=True))
    outcome = other.evaluate(ConvNet((ConvLayer(1, 1, 4, ()),)), seed=0, report=FakeReport())
    assert outcome.reward == -outcome.metrics["loss"] < 0


def test_a_rule_that_diverges_is_worth_nothing_unless_another_metric_counts():
    spec = TrainedNet(NET, UpdateRule.parse("exp(exp(2)) * g"), 1e30)
    recipe = Recipe(**(DIGITS | {"num_train": 24}))
    judged = ImageClassification("digits", recipe, goal=Goal("val_accuracy", minimize=False))
    outcome = judged.evaluate(spec, seed=5, report=FakeReport())
    assert (outcome.reward, outcome.metrics, outcome.ending) == (0.0, {"val_accuracy": 0.0}, "diverged")
    other = ImageClassification("digits", recipe, goal=Goal("loss", minimize=True))
    with pytest.raises(DivergedError):
        other.evaluate(spec, seed=5, report=FakeReport())


class Probabilities:
    """A network of the user's that ends in a softmax."""

    def build(self, input_shape, num_classes):
        flat = [keras.Input(input_shape), keras.layers.Flatten()]
        return keras.Sequential([*flat, keras.layers.Dense(num_classes, activation="softmax")])


def test_a_softmax_is_refused_and_an_earlier_search_exports_what_it_trained():
    recipe = Recipe(**(DIGITS | {"epochs": 1}))
    with pytest.raises(ValueError, match="The model that was built ends in a softmax"):
        ImageClassification("digits", recipe).evaluate(Probabilities(), seed=0, report=FakeReport())
    earlier = ImageClassification("digits", recipe, behaviour=Behaviour.of_settings({}))
    outcome = earlier.evaluate(Probabilities(), seed=0, report=FakeReport())
    exported = earlier.model(Probabilities(), outcome.weights)
    outputs = exported(earlier.data.x_validation)
    np.testing.assert_allclose(np.sum(outputs, axis=1), 1.0, rtol=1e-5)
    assert earlier.validate(exported) == {"val_accuracy": outcome.metrics["val_accuracy"]}
