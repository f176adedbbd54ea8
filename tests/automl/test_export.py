"""Exports of a real search on digits: written whole or not at all, and usable without automl."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import subprocess
import sys

import numpy as np
import pytest
from command_line import OURS, isolated_python

from automl.child_trainers.data.digits import load_digits_data
from automl.db import blobs
from automl.db.store import Store
from automl.exporters import EXPORTERS, Exporter, ExportResult

# Keras 3 saves variables through np.array of an object whose __array__ takes no `copy`; nothing of ours can change it.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture
def store(digits, folder):
    """A copy of the digits' store in the current folder."""
    path, _ = digits
    shutil.copy(path, folder / "automl.db")
    return folder / "automl.db"


@pytest.fixture
def export(automl, store):
    def export(kind, to, *flags):
        return automl("export", "digits", "--format", kind, "--to", to, *flags)

    return export


def best_of(store, count=1):
    with contextlib.closing(Store(str(store), readonly=True)) as opened:
        return opened.top(opened.search("digits").id, count)[count - 1]


def names(folder):
    return {path.name for path in folder.iterdir()} - {"automl.db", "automl.db-wal", "automl.db-shm"}


def test_json(export, store, folder):
    ran = export("json", "best.json")
    best = best_of(store)
    assert (ran.code, ran.out) == (
        0,
        f"Exported child {best.number} of digits to best.json: the child as it is stored.\n",
    )
    document = json.loads((folder / "best.json").read_text())
    assert (document["search"], document["space"], document["task"]) == ("digits", "convnet", "digits")
    assert (document["number"], document["tokens"], document["reward"]) == (best.number, best.tokens, best.reward)
    assert [row["epoch"] for row in document["epochs"]] == [1]
    assert document["epochs"][0]["val_accuracy"] == document["metrics"]["val_accuracy"]
    assert len(document["log_probs"]) == len(document["tokens"])
    assert names(folder) == {"best.json"}


def test_a_child_by_number(export, store, folder):
    worst = best_of(store, 3)
    assert export("json", "one.json", "--child", worst.number).code == 0
    assert json.loads((folder / "one.json").read_text())["number"] == worst.number
    with contextlib.closing(Store(str(store), readonly=True)) as opened:
        ready = opened.children(opened.search("digits").id, states=["ready"])[0]
    assert export("json", "none.json", "--child", ready.number).error == (
        f"Child {ready.number} of 'digits' is ready, not trained; see automl top."
    )
    assert names(folder) == {"one.json"}


def test_keras_and_python_without_our_packages(export, store, folder):
    """Loaded by Keras only, the model has the stored accuracy on raw images, and so has the source's model with its
    weights."""
    best = best_of(store)
    stored = best.metrics["val_accuracy"]
    ran = export("keras", "best.keras")
    assert ran.code == 0, ran.err
    assert ran.out == (
        f"Exported child {best.number} of digits to best.keras: validation accuracy {stored:.4f}, as in the search "
        f"({stored:.4f}).\n"
        "It takes raw_image (batch, 8, 8, 1) and gives logits (batch, 10), not probabilities (those are "
        "softmax(logits)); column k is the digit k.\n"
        "Load it with:\n"
        "    import keras\n"
        "    model = keras.models.load_model('best.keras')\n"
    )
    ran = export("python", "best.py")
    assert ran.out == (
        f"Exported child {best.number} of digits to best.py: a Keras model from raw images to logits, without "
        "weights, as readable source.\n"
    )
    assert names(folder) == {"best.keras", "best.py"}
    data = load_digits_data()
    np.savez(folder / "validation.npz", x=data.x_validation, y=data.y_validation)
    code = """
import runpy
import keras
import numpy as np
model = keras.models.load_model("best.keras")
held = np.load("validation.npz")
logits = model.predict(held["x"], verbose=0)
print((logits.argmax(1) == held["y"]).mean())
built = runpy.run_path("best.py")["build"]()
print(built.count_params())
built.set_weights(model.get_weights())
assert np.allclose(built.predict(held["x"], verbose=0), logits, atol=1e-4)
runpy.run_path("best.py", run_name="__main__")
"""
    accuracy, params, *summary = isolated_python(code, folder).splitlines()
    assert float(accuracy) == pytest.approx(stored, abs=1e-3)
    assert int(params) == best.params
    assert any("Total params" in line for line in summary)
    ran = subprocess.run([sys.executable, "best.py"], cwd=folder, capture_output=True, text=True, check=True)
    assert "Total params" in ran.stdout and ran.stderr == ""


def printed_code(ran):
    """The Python code that an export prints, as a user copies it."""
    assert ran.code == 0, ran.err
    return "\n".join(line.strip() for line in ran.out.splitlines() if line.startswith("    ")) + "\n"


CALLS = {  # names of the outputs, and logits of images in whatever form the format takes
    "keras": "model.output_names, [model(x) for x in (raw, raw.astype('float64'), raw[..., 0])]",
    "savedmodel": (
        "list(model.signatures['serving_default'].structured_outputs), "
        "[model.signatures['serving_default'](raw_image=tf.constant(raw, 'float32'))['logits'], "
        "*(model.serve(x) for x in (raw, raw.astype('float64'), raw[..., 0]))]"
    ),
    "tflite": "list(model(raw_image=floats)), [model(raw_image=floats)['logits']]",
}


def test_every_format_gives_the_same_numbers_under_the_same_names(export, store, folder):
    """Each file is in a folder of its own, and the code that its export prints loads it."""
    images = load_digits_data().x_validation[:5]
    found = {}
    for format, call in CALLS.items():
        (folder / format).mkdir()
        ran = export(format, folder / format / ("best.keras" if format == "keras" else "best"))
        assert ("as float32" in ran.out) == (format == "tflite")
        np.save(folder / format / "images.npy", images)  # uint8
        code = printed_code(ran) + (
            "import json, numpy as np\n"
            "raw = np.load('images.npy')\n"
            "floats = raw.astype('float32')\n"
            f"names, results = {call}\n"
            "print(json.dumps([names, [np.asarray(result).tolist() for result in results]]))\n"
        )
        names, results = json.loads(isolated_python(code, folder / format).splitlines()[-1])
        assert names == ["logits"]
        found[format] = results
    first = np.array(found["keras"][0])
    assert first.shape == (5, 10) and not np.allclose(first.sum(axis=1), 1.0)  # not probabilities
    for results in found.values():
        for result in results:
            np.testing.assert_allclose(result, first, rtol=1e-3, atol=1e-3)


def test_onnx_by_its_names(export, folder):
    pytest.importorskip("tf2onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    assert export("onnx", "best.onnx").code == 0
    session = onnxruntime.InferenceSession("best.onnx")
    assert [tensor.name for tensor in session.get_outputs()] == ["logits"]
    assert [tensor.name for tensor in session.get_inputs()] == ["raw_image"]


OWN_LAYER = """
import dataclasses
import keras
from automl import Choice

{register}
class Scale(keras.layers.Layer):
    def call(self, x):
        return 2.0 * x

@dataclasses.dataclass(frozen=True)
class Net:
    units: int

    def build(self, input_shape, num_classes):
        x = image = keras.Input(input_shape)
        x = Scale()(keras.layers.Flatten()(x))
        return keras.Model(image, keras.layers.Dense(num_classes)(x))

def space():
    return Net((yield Choice("units", (4, 8, 16))))
"""


def test_a_layer_of_the_user_s_own(automl, folder):
    """The message names the layer, or the reason why Keras cannot load the model."""
    (folder / "mine.py").write_text(OWN_LAYER.format(register="@keras.saving.register_keras_serializable()"))
    (folder / "plain.py").write_text(OWN_LAYER.format(register=""))
    for module in ("mine", "plain"):
        few = ("--controller", "random", "--children", "1", "--workers", "0", "--set", "task.epochs=1")
        ran = automl("search", module, "--space", f"{module}.py:space", "--task", "digits", *few)
        assert ran.code == 0, ran.err
    ran = automl("export", "mine", "--format", "keras", "--to", "own.keras")
    assert printed_code(ran) == "import keras, mine\nmodel = keras.models.load_model('own.keras')\n"
    error = automl("export", "plain", "--format", "keras", "--to", "plain.keras").error
    assert error.startswith("Keras cannot load the file that it wrote (") and error.endswith(
        "): layers of your own need @keras.saving.register_keras_serializable() and get_config; or export it as "
        "savedmodel."
    )
    assert not (folder / "plain.keras").exists()
    assert automl("export", "plain", "--format", "savedmodel", "--to", "plain").code == 0


def test_an_existing_file_is_kept_unless_forced(export, folder):
    (folder / "best.json").write_text("precious")
    assert export("json", "best.json").error == "best.json already exists; choose another path or add --force."
    assert (folder / "best.json").read_text() == "precious"
    assert export("json", "best.json", "--force").code == 0
    assert json.loads((folder / "best.json").read_text())["search"] == "digits"


@pytest.mark.parametrize("flags", [(), ("--force",)])
def test_a_link_is_never_followed(export, folder, flags):
    (folder / "precious.txt").write_text("precious")
    for name, target in (("link.json", "precious.txt"), ("dangling.json", "nothing.txt")):
        (folder / name).symlink_to(target)
        assert export("json", name, *flags).error == f"{name} is a link; choose another path."
    assert (folder / "precious.txt").read_text() == "precious"
    assert not (folder / "nothing.txt").exists()


def test_nothing_is_left_of_an_export_that_fails(export, folder, monkeypatch):
    def broken(wanted, path):
        path.write_text("half of")
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(EXPORTERS, "json", Exporter(broken, ".json"))
    assert "No space left on device" in export("json", "best.json").error
    assert names(folder) == set()
    (folder / "best.json").write_text("precious")
    assert "No space left on device" in export("json", "best.json", "--force").error
    assert (folder / "best.json").read_text() == "precious" and names(folder) == {"best.json"}


def test_a_file_that_appears_meanwhile_is_kept(export, folder, monkeypatch):
    def slow(wanted, path):
        path.write_text("ours")
        (folder / "best.json").write_text("precious")
        return ExportResult("slowly")

    monkeypatch.setitem(EXPORTERS, "json", Exporter(slow, ".json"))
    assert "already exists" in export("json", "best.json").error
    assert (folder / "best.json").read_text() == "precious" and names(folder) == {"best.json"}


def tamper(store, change):
    """Replaces the bytes of the best child's weights."""
    child = best_of(store).id
    connection = sqlite3.connect(store)
    (blob,) = connection.execute("SELECT blob FROM artefacts WHERE child_id=?", (child,)).fetchone()
    blob, sha256 = change(blob)
    connection.execute("UPDATE artefacts SET blob=?, sha256=? WHERE child_id=?", (blob, sha256, child))
    connection.commit()
    connection.close()


def test_damaged_weights_are_refused(export, store, folder):
    def flip(blob):
        return blob[:-1] + bytes([blob[-1] ^ 1]), blobs.sha256(blob)

    tamper(store, flip)
    assert export("keras", "best.keras").error.startswith("Stored arrays are damaged: their checksum should be ")
    assert names(folder) == set()


def test_weights_of_another_model_are_refused(export, store, folder):
    """Their checksum is right, so another person has put them there."""

    def zeros(blob):
        arrays = {name: np.zeros_like(array) for name, array in blobs.unpack(blob, blobs.sha256(blob)).items()}
        forged = blobs.pack(arrays)
        return forged, blobs.sha256(forged)

    tamper(store, zeros)
    error = export("keras", "best.keras").error
    assert error.startswith("The exported model has validation accuracy 0.") and "nothing was written" in error
    assert names(folder) == set()

    def other_shapes(blob):
        forged = blobs.pack({"weight0000": np.zeros(3, np.float32)})
        return forged, blobs.sha256(forged)

    tamper(store, other_shapes)
    error = export("keras", "best.keras").error
    assert error.startswith(f"The stored weights do not fit child {best_of(store).number}: ")
    assert names(folder) == set()


def test_a_child_whose_weights_were_not_kept(export, store, folder):
    child = best_of(store)
    connection = sqlite3.connect(store)
    connection.execute("DELETE FROM artefacts WHERE child_id=?", (child.id,))
    connection.commit()
    connection.close()
    assert export("keras", "best.keras").error == (
        f"No weights are stored for child {child.number} of 'digits': a search keeps those of its best 10 children "
        f"(--keep). Train it again with: automl train digits --child {child.number}"
    )
    assert names(folder) == set()


def test_unknown_formats(export):
    assert export("kears", "a").error == (
        "There is no format called 'kears'; there is keras, svg, json, tflite, savedmodel, python, dot, onnx."
    )
    assert export("h5", "a").error.startswith("There is no format called 'h5'; there is ")


def test_formats_that_a_users_space_and_task_do_not_have(automl, mine, folder):
    assert automl("search", "mine", *OURS, "--children", "2", "--workers", "0").code == 0
    before = names(folder)
    assert automl("export", "mine", "--format", "python", "--to", "a.py").error == (
        "Children of 'mine' cannot be written as Python: that takes a space whose specs have a method "
        "source(input_shape, num_classes, preprocessing), and a task with images. Export them as json."
    )
    assert automl("export", "mine", "--format", "keras", "--to", "a.keras").error == (
        "The task mine.py:evaluate keeps no models; export its children as json."
    )
    assert names(folder) == before


LAYERS = """
from automl import Choice, Links

def space():
    depth = yield Choice("depth", (3, 4))
    layers = []
    for index in range(depth):
        units = yield Choice(f"layer{index}/units", (16, 32, 64))
        inputs = yield Links(f"layer{index}/inputs", count=index)
        layers.append({"units": units, "inputs": inputs})
    return layers

def evaluate(spec):
    return 0.5
"""


def test_graphs_of_a_network_and_of_a_user_s_layers(automl, export, mine, folder):
    ran = export("dot", "best.dot")
    assert ran.code == 0 and "a graph for Graphviz" in ran.out
    text = (folder / "best.dot").read_text()
    assert "convolution" in text and '-> "logits"' in text
    (folder / "layers.py").write_text(LAYERS)
    own = ("--space", "layers.py:space", "--task", "layers.py:evaluate", "--controller", "random", "--workers", "0")
    assert automl("search", "layers", *own, "--children", "1", "--fix", "layer1/inputs=0").code == 0
    assert automl("export", "layers", "--format", "dot", "--to", "layers.dot").code == 0
    text = (folder / "layers.dot").read_text()
    assert '"layer 0" -> "layer 1"' in text and '-> "result"' in text and "units: " in text
    if shutil.which("dot") is not None:
        assert automl("export", "layers", "--format", "svg", "--to", "layers.svg").code == 0
        assert "<svg" in (folder / "layers.svg").read_text()
    assert automl("search", "mine", *OURS, "--children", "1", "--workers", "0").code == 0
    assert automl("export", "mine", "--format", "dot", "--to", "mine.dot").error == (
        "Children of 'mine' cannot be drawn: that takes specs with a method dot(), or with a list or dict of layers "
        "whose 'inputs' are numbers or names of layers. Export them as json."
    )


def test_nothing_to_export_yet(automl, mine, folder):
    (folder / "mine.py").write_text(mine.read_text() + "\ndef broken(spec):\n    raise RuntimeError\n")
    flags = ("--space", "mine.py:space", "--task", "mine.py:broken", "--controller", "random", "--workers", "0")
    assert automl("search", "mine", *flags, "--children", "2").code == 3
    assert automl("export", "mine", "--format", "json", "--to", "a.json").error == (
        "No child of 'mine' is trained yet; go on with: automl resume mine"
    )
