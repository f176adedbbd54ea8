"""Checkpoint files, and children that are killed and go on from them."""

import logging
import os

import keras
import numpy as np
import pytest
import tensorflow as tf

from automl.child_trainers.artefacts import FolderArtefacts
from automl.child_trainers.devices import Compute
from automl.child_trainers.experiment import Experiment
from automl.child_trainers.images.networks import KerasNetwork, make_network
from automl.child_trainers.images.task import ImageClassification
from automl.child_trainers.images.training import DeviceData, ImageTrainer, LossScale, train
from automl.child_trainers.recipes import Recipe
from automl.child_trainers.task import Task, fresh_start
from automl.child_trainers.training import trainer
from automl.child_trainers.training.checkpoints import FileCheckpoint
from automl.child_trainers.workers.claim_report import ClaimReport
from automl.child_trainers.workers.worker import Worker
from automl.db.records import Delivery, Fault, State
from automl.search_spaces.convnet.layers import ConvLayer
from automl.search_spaces.convnet.spec import ConvNet
from automl.search_spaces.decisions import Choice
from automl.search_spaces.space import Space

FIRST = {"w": np.arange(6, dtype=np.float32).reshape(2, 3)}
SECOND = {"w": -FIRST["w"], "half": np.float16([1.5]), "steps": np.int64(2**40), "none": np.zeros((0, 3))}
VALUES = {"history": [{"val_accuracy": 0.1, "loss": 1 / 3}]}


@pytest.fixture
def checkpoint(tmp_path):
    return FileCheckpoint(tmp_path / "checkpoints" / "child-3.checkpoint", "[[1,2],3]")


@pytest.fixture
def warnings(caplog):
    """What was logged so far."""

    def read():
        found = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
        caplog.clear()
        return found

    return read


def files_of(checkpoint):
    return sorted(path.name for path in checkpoint.path.parent.glob("*"))


def assert_holds(checkpoint, arrays, values):
    loaded, found = checkpoint.load()
    assert found == values and loaded.keys() == arrays.keys()
    for name, array in arrays.items():
        assert loaded[name].dtype == array.dtype
        np.testing.assert_array_equal(loaded[name], array)


# Files


def test_what_was_saved_comes_back(checkpoint, warnings):
    assert checkpoint.load() is None
    checkpoint.save(SECOND, VALUES)
    assert_holds(checkpoint, SECOND, VALUES)
    assert_holds(FileCheckpoint(checkpoint.path, checkpoint.identity), SECOND, VALUES)
    assert warnings() == []
    with pytest.raises(ValueError, match="Out of range float values"):
        checkpoint.save(FIRST, {"loss": float("nan")})
    assert_holds(checkpoint, SECOND, VALUES)


def test_the_newest_is_loaded_and_the_one_before_is_kept(checkpoint):
    for epoch in range(1, 5):
        checkpoint.save({"w": np.full(2, epoch)}, {"epoch": epoch})
        assert_holds(checkpoint, {"w": np.full(2, epoch)}, {"epoch": epoch})
    assert files_of(checkpoint) == ["child-3.checkpoint", "child-3.previous"]
    checkpoint.path.unlink()
    assert_holds(checkpoint, {"w": np.full(2, 3)}, {"epoch": 3})


def flipped(content):
    return content[:-40] + bytes([content[-40] ^ 1]) + content[-39:]


DAMAGE = {
    "empty": lambda content: b"",
    "cut": lambda content: content[:-1],
    "header only": lambda content: content.partition(b"\n")[0],
    "zeros": lambda content: bytes(len(content)),
    "one bit": flipped,
    "no text": lambda content: b"\xff" + content,
    "no object": lambda content: b"[1]\n" + content.partition(b"\n")[2],
    "no keys": lambda content: b"{}\n" + content.partition(b"\n")[2],
    "another sum": lambda content: content.replace(b'"sha256": "', b'"sha256": "0', 1),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_of_a_damaged_checkpoint_the_one_before_is_loaded(checkpoint, warnings, damage):
    checkpoint.save(FIRST, {"epoch": 1})
    checkpoint.save(SECOND, {"epoch": 2})
    checkpoint.path.write_bytes(damage(checkpoint.path.read_bytes()))
    assert_holds(checkpoint, FIRST, {"epoch": 1})
    assert warnings() == [f"The checkpoint {checkpoint.path} is damaged and was not used."]
    checkpoint.previous.write_bytes(damage(checkpoint.previous.read_bytes()))
    assert checkpoint.load() is None
    assert [str(path) in line for path, line in zip([checkpoint.path, checkpoint.previous], warnings(), strict=True)]


def test_the_checkpoint_of_another_child_is_set_aside(checkpoint, warnings):
    checkpoint.save(FIRST, VALUES)
    other = FileCheckpoint(checkpoint.path, "[[1,2],4]")
    assert other.load() is None
    assert warnings() == [f"The checkpoint {checkpoint.path} is of another training and was not used."]
    other.save(SECOND, VALUES)
    assert_holds(other, SECOND, VALUES)
    assert_holds(checkpoint, FIRST, VALUES)  # from the file before


def test_a_checkpoint_that_cannot_be_written_leaves_the_old_one(checkpoint, warnings, monkeypatch):
    checkpoint.save(FIRST, VALUES)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        checkpoint.save(SECOND, VALUES)
    assert warnings() == [f"The checkpoint {checkpoint.path} cannot be written: No space left on device."]
    assert files_of(checkpoint) == ["child-3.checkpoint"]
    assert_holds(checkpoint, FIRST, VALUES)
    checkpoint.save(SECOND, VALUES)
    assert_holds(checkpoint, SECOND, VALUES)


class Killed(BaseException):
    pass


@pytest.mark.parametrize("dies_at", ["write", "set aside", "put in place"])
def test_one_that_is_killed_while_it_saves_has_the_old_one(checkpoint, warnings, monkeypatch, dies_at):
    checkpoint.save(FIRST, VALUES)
    replaced = []

    really_replace = os.replace

    def replace(path, target, **folders):
        if dies_at != "write" and len(replaced) == ["set aside", "put in place"].index(dies_at):
            raise Killed
        replaced.append(target)
        really_replace(path, target, **folders)

    def fsync(descriptor):
        if dies_at == "write":
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        patch.setattr(os, "fsync", fsync)
        patch.setattr(os, "getpid", lambda: 2**22)
        with pytest.raises(Killed):
            checkpoint.save(SECOND, VALUES)
    assert_holds(checkpoint, FIRST, VALUES)
    checkpoint.save(SECOND, VALUES)
    assert_holds(checkpoint, SECOND, VALUES)
    assert warnings() == []
    checkpoint.remove()
    assert files_of(checkpoint) == []


def test_remove_takes_both_files_and_nothing_else(checkpoint):
    checkpoint.remove()  # there is none yet
    other = FileCheckpoint(checkpoint.path.with_name("child-33.checkpoint"), "other")
    for _ in range(2):
        checkpoint.save(FIRST, VALUES)
        other.save(SECOND, VALUES)
    checkpoint.remove()
    assert checkpoint.load() is None
    assert files_of(checkpoint) == ["child-33.checkpoint", "child-33.previous"]
    checkpoint.remove()
    assert_holds(other, SECOND, VALUES)


def test_a_folder_that_cannot_be_written_only_warns(checkpoint, warnings, monkeypatch):
    def refuse(path, *arguments, **options):
        raise OSError(30, "Read-only file system")

    with monkeypatch.context() as patch:
        # As a read-only file system does, which does not even look whether a file is there.
        for name in ("mkdir", "open", "unlink", "replace"):
            patch.setattr(os, name, refuse)
        checkpoint.save(FIRST, VALUES)
        assert warnings() == [f"The checkpoint {checkpoint.path} cannot be written: Read-only file system."]
        assert checkpoint.load() is None
        checkpoint.remove()


def test_a_file_where_the_folder_should_be_only_warns(checkpoint, warnings):
    checkpoint.path.parent.write_text("a file")
    checkpoint.save(FIRST, VALUES)
    assert warnings() == [f"The checkpoint {checkpoint.path} cannot be written: File exists."]
    assert checkpoint.load() is None
    checkpoint.remove()
    assert checkpoint.path.parent.read_text() == "a file"


# Training


NET = ConvNet((ConvLayer(3, 3, 4, (), pool=True), ConvLayer(3, 1, 4, (0,)), ConvLayer(1, 1, 4, (0, 1))))
SHAPES = ((6, 6, 1), 3)
RECIPE = Recipe(epochs=4, batch_size=16, learning_rate=0.1, schedule="cosine", augment=True, last_epochs=3)


@pytest.fixture(scope="module")
def data():
    generator = np.random.Generator(np.random.PCG64(0))
    images = [generator.normal(size=(count, *SHAPES[0])).astype(np.float32) for count in (64, 32)]
    labels = [generator.integers(SHAPES[1], size=count).astype(np.int32) for count in (64, 32)]
    return DeviceData(*map(tf.constant, (images[0], labels[0], images[1], labels[1])))


class Report:
    """Dies after an epoch, with its checkpoint written."""

    def __init__(self, checkpoint=None, dies_after=None):
        self.checkpoint = checkpoint
        self.rows = []
        self.steps_done = None
        self._dies_after = dies_after

    def __call__(self, epoch, **metrics):
        self.rows.append((epoch, metrics))
        if epoch == self._dies_after:
            raise Killed

    def restore(self, history):
        for epoch, metrics in enumerate(history, start=1):
            self(epoch, **metrics)

    def follow(self, steps_done):
        self.steps_done = steps_done


def run(data, report, compute, recipe=RECIPE, seed=5, net=NET):
    network, compute = make_network(net, *SHAPES, seed=seed, compute=compute)
    outcome = train(network, data, recipe, seed=seed, report=report, compute=compute)
    weights = {name: weight.tobytes() for name, weight in outcome.weights.items()}
    return outcome.reward, outcome.metrics, outcome.epoch, weights, report.rows, report.steps_done()


@pytest.fixture(scope="module")
def uninterrupted(data):
    """By precision."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LossScale, "PATIENCE", 3)
        return {precision: run(data, Report(), Compute(precision)) for precision in ("float32", "float16")}


@pytest.fixture
def every_epoch(monkeypatch):
    monkeypatch.setattr(trainer, "CHECKPOINT_SECONDS", 0)
    monkeypatch.setattr(LossScale, "PATIENCE", 3)  # so that it changes within these few steps


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("epoch", [1, 2, 3, 4])
def test_a_child_that_is_killed_goes_on_to_the_very_same(
    data, uninterrupted, every_epoch, checkpoint, warnings, precision, epoch
):
    interrupted = Report(checkpoint, dies_after=epoch)
    with pytest.raises(Killed):
        run(data, interrupted, Compute(precision))
    assert len(interrupted.rows) == epoch
    assert run(data, Report(checkpoint), Compute(precision)) == uninterrupted[precision]
    assert warnings() == []


def test_a_child_that_is_killed_again_and_again_still_ends_as_the_same(data, uninterrupted, every_epoch, checkpoint):
    for epoch in (1, 2, 2, 3):
        with pytest.raises(Killed):
            run(data, Report(checkpoint, dies_after=epoch), Compute())
    assert run(data, Report(checkpoint), Compute()) == uninterrupted["float32"]


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_all_that_training_goes_on_from_is_restored(data, every_epoch, precision):
    def made(seed):
        network, compute = make_network(NET, *SHAPES, seed=seed, compute=Compute(precision))
        return ImageTrainer(network, data, RECIPE, 5, compute)

    one, other = made(5), made(6)
    for epoch in range(2):
        one.train_epoch(epoch)
    arrays = {name: np.copy(array) for name, array in one.arrays(FIRST).items()}
    if precision == "float16":
        assert (arrays["slot/scale"], arrays["slot/good_steps"]) == (2.0**17, 2)  # doubled after steps 3 and 6 of 8
    assert other.restore(arrays).keys() == FIRST.keys()
    again = other.arrays(FIRST)
    assert arrays.keys() == again.keys() and other.steps_done() == 8
    for name, array in arrays.items():
        np.testing.assert_array_equal(again[name], array)
    assert other.train_epoch(2) == one.train_epoch(2)


def test_epochs_since_the_last_checkpoint_are_trained_again(data, uninterrupted, every_epoch, checkpoint, monkeypatch):
    with pytest.raises(Killed):
        run(data, Report(checkpoint, dies_after=1), Compute())
    monkeypatch.setattr(trainer, "CHECKPOINT_SECONDS", 1e9)
    with pytest.raises(Killed):
        run(data, Report(checkpoint, dies_after=3), Compute())
    assert len(checkpoint.load()[1]["history"]) == 1
    assert run(data, Report(checkpoint), Compute()) == uninterrupted["float32"]


def test_a_damaged_checkpoint_costs_epochs_and_changes_nothing(data, uninterrupted, every_epoch, checkpoint):
    with pytest.raises(Killed):
        run(data, Report(checkpoint, dies_after=3), Compute())
    checkpoint.path.write_bytes(flipped(checkpoint.path.read_bytes()))
    assert run(data, Report(checkpoint), Compute()) == uninterrupted["float32"]


def test_a_keras_model_with_dropout_goes_on_to_the_very_same(data, every_epoch, checkpoint):
    def of_keras(report):
        fresh_start(3)
        layers = [keras.layers.Flatten(), keras.layers.Dropout(0.5), keras.layers.Dense(SHAPES[1])]
        network = KerasNetwork(keras.Sequential([keras.Input(SHAPES[0]), *layers]))
        outcome = train(network, data, RECIPE, seed=3, report=report)
        return report.rows, {name: weight.tobytes() for name, weight in outcome.weights.items()}

    with pytest.raises(Killed):
        of_keras(Report(checkpoint, dies_after=2))
    assert of_keras(Report(checkpoint)) == of_keras(Report())


def test_a_child_that_is_quick_writes_no_checkpoint(data, checkpoint):
    run(data, Report(checkpoint), Compute(), recipe=Recipe(epochs=2, batch_size=32))
    assert not checkpoint.path.parent.exists()


# A worker's child


class TrainingTask(Task):
    def __init__(self, data, recipe=RECIPE):
        self._data = data
        self.recipe = recipe

    def evaluate(self, spec, *, seed, report):
        network, compute = make_network(spec, *SHAPES, seed=seed, compute=Compute())
        return train(network, self._data, self.recipe, seed=seed, report=report, compute=compute)

    def describe(self):
        return {"epochs": self.recipe.epochs, "batch_size": self.recipe.batch_size}


def space():
    return ConvNet((ConvLayer(1, 1, (yield Choice("filters", (4, 8))), ()),))


@pytest.fixture
def new_worker(new_search, data, tmp_path):
    search = new_search([(0,), (1,)], space=space)

    def make(name, task=None):
        experiment = Experiment(Space(space), task or TrainingTask(data))
        return Worker(
            search.store, search.id, experiment, name, "cpu", 1, 2, artefacts=FolderArtefacts(tmp_path), beat=False
        )

    make.search = search
    return make


def die_in_epoch(worker, epoch, monkeypatch):
    """Its process ends once the epoch is measured; its attempt is ended as the pool would."""
    measure = ClaimReport.__call__

    def measure_and_die(report, number, **metrics):
        measure(report, number, **metrics)
        if number == epoch:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(ClaimReport, "__call__", measure_and_die)
        claim = worker.claim()
        with pytest.raises(Killed):
            worker.train(claim)
    assert worker.store.fail_attempt(claim, Fault.CRASHED)
    return claim


def test_the_next_worker_goes_on_and_measures_the_earlier_epochs_again(
    new_worker, data, every_epoch, monkeypatch, tmp_path
):
    search, folder = new_worker.search, tmp_path / "checkpoints"
    claim = die_in_epoch(new_worker("1.0.1"), 2, monkeypatch)
    assert search.store.measurements(claim.child_id) == []  # those of a lost attempt do not count
    assert sorted(path.name for path in folder.iterdir()) == ["child-0.checkpoint", "child-0.previous"]
    trained = []
    monkeypatch.setattr(ImageTrainer, "train_epoch", spied(ImageTrainer.train_epoch, trained))
    assert new_worker("1.0.2").work_once()
    assert trained == [2, 3]  # epochs from 0
    child, rows = search.child(0), search.store.measurements(claim.child_id)
    assert child.state == State.TRAINED and child.fence > claim.fence
    assert {row.fence for row in rows} == {child.fence}
    net = ConvNet((ConvLayer(1, 1, 4, ()),))
    reward, metrics, _, weights, reported, _ = run(data, Report(), Compute(), seed=100, net=net)
    assert [(row.epoch, row.metrics) for row in rows] == reported
    assert (child.reward, child.metrics) == (reward, metrics)
    kept = search.store.weights(claim.child_id)
    assert {name: weight.tobytes() for name, weight in kept.items()} == weights
    assert list(folder.iterdir()) == []


def spied(train_epoch, trained):
    def train_and_tell(trainer, epoch):
        trained.append(epoch)
        return train_epoch(trainer, epoch)

    return train_and_tell


def test_a_child_that_is_trained_otherwise_by_now_begins_anew(new_worker, data, every_epoch, monkeypatch, warnings):
    die_in_epoch(new_worker("1.0.1"), 2, monkeypatch)
    trained = []
    monkeypatch.setattr(ImageTrainer, "train_epoch", spied(ImageTrainer.train_epoch, trained))
    other = TrainingTask(data, Recipe(epochs=3, batch_size=16))
    assert new_worker("1.0.2", other).work_once()
    assert trained == [0, 1, 2]
    assert len(warnings()) == 2  # of both files


def test_a_child_in_another_precision_begins_anew(new_worker, every_epoch, monkeypatch, warnings):
    """A search that is made anew under its old name meets the old one's files."""

    def digits(precision):
        recipe = Recipe(epochs=3, batch_size=32, num_train=64, num_validation=32)
        return ImageClassification("digits", recipe, compute=Compute(precision))

    die_in_epoch(new_worker("1.0.1", digits("float32")), 2, monkeypatch)
    assert new_worker("1.0.2", digits("float16")).work_once()
    child = new_worker.search.child(0)
    assert (child.state, child.message) == (State.TRAINED, None)
    assert len(warnings()) == 2


def test_a_delivery_that_comes_too_late_leaves_the_checkpoint_to_whoever_trains_the_child(
    new_worker, every_epoch, monkeypatch, tmp_path
):
    search, late = new_worker.search, new_worker("1.0.1")
    claim = late.claim()
    delivery = late.train(claim)
    before = sorted((tmp_path / "checkpoints").iterdir())
    assert search.store.fail_attempt(claim, Fault.NODE_LOST)
    assert not late.deliver(claim, delivery)
    assert sorted((tmp_path / "checkpoints").iterdir()) == before != []
    assert new_worker("1.0.2").work_once()
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_a_child_that_fails_leaves_no_checkpoint(new_worker, every_epoch, tmp_path):
    worker = new_worker("1.0.1")
    claim = worker.claim()
    worker.train(claim)
    assert list((tmp_path / "checkpoints").iterdir())
    assert worker.deliver(claim, Delivery(fault=Fault.DIVERGED))
    assert list((tmp_path / "checkpoints").iterdir()) == []
