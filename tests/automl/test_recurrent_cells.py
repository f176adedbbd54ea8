"""A search for recurrent cells from the command line: a user's text, from the first child to an exported model."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import clean_environment, isolated_python, run_automl

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

OPTIONS = ("units=8", "parameters=null", "epochs=2", "batch_size=4", "unroll=5", "num_train=1000", "num_validation=200")
SETTINGS = [part for option in OPTIONS for part in ("--set", f"task.{option}")]
CELLS = ("--space", "recurrent-cell", "--preset", "small", *SETTINGS)


def write_text(path, seed=0):
    generator = np.random.default_rng(seed)
    lines = [" ".join(generator.choice(["the", "cat", "sat", "on", "a", "mat"], 9)) for _ in range(200)]
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A folder with a text and the store of a search on it."""
    folder = tmp_path_factory.mktemp("cells")
    write_text(folder / "cats.txt")
    environment = clean_environment() | {"HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    arguments = ("search", "cells", *CELLS, "--task", "text:cats.txt", "--children", "4", "--workers", "1")
    ran = run_automl(*arguments, folder=folder, env=environment)
    assert ran.code == 0, ran.err
    return folder, ran


@pytest.fixture
def cells(searched, folder):
    for name in ("automl.db", "cats.txt"):
        shutil.copy(searched[0] / name, folder / name)
    return folder


@pytest.fixture
def best(automl, cells):
    return json.loads(automl("top", "cells", "--json").out)[0]


def test_the_search(searched):
    _, ran = searched
    assert "Space recurrent-cell, task text:" in ran.out
    assert "Done: 4 children trained." in ran.out


def test_what_show_and_top_print(automl, best, cells):
    assert best["reward"] == pytest.approx(80 / best["metrics"]["val_perplexity"] ** 2)
    assert best["params"] > 0 and best["flops"] > 0
    line = automl("top", "cells", "-n", "1").out.splitlines()[1]
    assert ("val_perplexity" in line and "x + h" in line) or "x * h" in line
    shown = automl("show", "cells").out
    assert "    next h\n" in shown and "└─ " in shown and "[next c: before " in shown


def test_json_has_the_spec(automl, best, cells):
    assert automl("export", "cells", "--format", "json", "--to", "cell.json").code == 0
    document = json.loads((cells / "cell.json").read_text())
    assert len(document["spec"]["nodes"]) == 7 and document["spec"] == best["spec"]


def test_a_keras_model_and_its_source_without_our_packages(automl, best, cells):
    ran = automl("export", "cells", "--format", "keras", "--to", "model.keras")
    assert ran.code == 0, ran.err
    perplexity = best["metrics"]["val_perplexity"]
    assert f"Exported child {best['number']} of cells to model.keras: validation perplexity {perplexity:.2f}" in ran.out
    assert automl("export", "cells", "--format", "python", "--to", "cell.py").code == 0
    found = isolated_python(
        "import sys\n"
        "sys.path.insert(0, '.')\n"
        "import cell, keras, numpy as np, tensorflow as tf\n"
        "model = keras.models.load_model('model.keras')\n"
        "words = open('cats.txt').read().replace('\\n', ' <eos> ').split()\n"
        "part = words[len(words) * 8 // 10:][:200]\n"
        "logits = np.asarray(model([tf.constant([part]), *[tf.zeros((1, 8))] * 4])[0])[0]\n"
        "names = model.get_layer('vocabulary').get_vocabulary(include_special_tokens=False)\n"
        "place = {name: index for index, name in enumerate(names)}\n"
        "losses = [np.log(np.exp(row).sum()) - row[place[word]] for row, word in zip(logits, part[1:])]\n"
        "print(float(np.exp(np.mean(losses))))\n",
        folder=cells,
    )
    assert float(found.splitlines()[-1]) == pytest.approx(perplexity, rel=1e-3)


def test_a_keras_file_loads_by_the_lines_that_are_printed(automl, cells):
    """In a folder that has only the exported files, where none of our packages can be imported."""
    elsewhere = cells / "else where"
    elsewhere.mkdir()
    before = automl("export", "cells", "--format", "keras", "--to", elsewhere / "best-1.keras")
    assert before.code == 0, before.err
    assert f"Load it, in the folder {elsewhere}, with:" in before.out
    assert {path.name for path in elsewhere.iterdir()} == {"best-1.keras", "best_1_cell.py"}
    lines = [line.strip() for line in before.out.splitlines() if line.startswith("    ")]
    assert lines == ["import keras, best_1_cell", "model = keras.models.load_model('best-1.keras')"]
    call = (
        "import json, numpy as np\n"
        "outputs = {run}([np.array([['the', 'dog']]), *[np.zeros((1, 8))] * 4])\n"
        "print(json.dumps([np.asarray(output).tolist() for output in outputs]))\n"
    )
    here = "import sys\nsys.path.insert(0, '')\n"  # as in an ordinary `python`
    names = "print(model.output_names)\n"
    out = isolated_python(here + "\n".join(lines) + "\n" + names + call.format(run="model"), elsewhere).splitlines()
    assert out[-2] == "['logits', 'next_h0', 'next_c0', 'next_h1', 'next_c1']"
    ran = automl("export", "cells", "--format", "savedmodel", "--to", elsewhere / "saved")
    assert ran.code == 0 and not (elsewhere / "saved_cell.py").exists()
    lines = [line.strip() for line in ran.out.splitlines() if line.startswith("    ")]
    named = "print(sorted(model.signatures['serving_default'].structured_outputs), model.vocabulary()[:2].shape)\n"
    saved = isolated_python("\n".join(lines) + "\n" + named + call.format(run="model.serve"), elsewhere).splitlines()
    assert saved[-2] == "['logits', 'next_c0', 'next_c1', 'next_h0', 'next_h1'] (2,)"
    for one, other in zip(json.loads(out[-1]), json.loads(saved[-1]), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)
    # The file of classes beside it is not overwritten without --force, except by equal content.
    (elsewhere / "best-1.keras").unlink()
    assert automl("export", "cells", "--format", "keras", "--to", elsewhere / "best-1.keras").code == 0
    (elsewhere / "best-1.keras").unlink()
    (elsewhere / "best_1_cell.py").write_text("precious")
    for force in ((), ("--force",)):
        assert automl("export", "cells", "--format", "keras", "--to", elsewhere / "best-1.keras", *force).error == (
            f"{elsewhere / 'best_1_cell.py'} already exists and was not exported; choose another name than "
            "best-1.keras."
        )
        assert (elsewhere / "best_1_cell.py").read_text() == "precious"
        assert not (elsewhere / "best-1.keras").exists()


def test_a_model_refuses_the_classes_of_another_cell(automl, best, cells):
    others = [child["number"] for child in json.loads(automl("top", "cells", "--json").out)]
    for number in others[:2]:
        flags = ("--child", number, "--to", f"n{number}.keras")
        assert automl("export", "cells", "--format", "keras", *flags).code == 0
    found = isolated_python(
        "import sys\nsys.path.insert(0, '')\n"
        f"import importlib, keras, n{others[0]}_cell as right, n{others[1]}_cell\n"
        f"path = 'n{others[0]}.keras'\n"
        "try:\n    keras.models.load_model(path)\n"
        "except Exception as error:\n    print('The model was saved with another cell' in str(error))\n"
        "importlib.reload(right)\n"
        "keras.models.load_model(path)\n",
        cells,
    )
    assert found.splitlines()[-1] == "True"


def test_a_saved_model_runs_without_our_packages(automl, best, cells):
    ran = automl("export", "cells", "--format", "savedmodel", "--to", "model")
    assert ran.code == 0, ran.err
    found = isolated_python(
        "import numpy as np, tensorflow as tf\n"
        "loaded = tf.saved_model.load('model')\n"
        "states = [tf.zeros((1, 8))] * 4\n"
        "logits, *states = loaded.serve([tf.constant([['the', 'cat']]), *states])\n"
        "print(logits.shape, len(states))\n",
        folder=cells,
    )
    assert found.splitlines()[-1] == "(1, 2, 7) 4"


@pytest.mark.parametrize("kind", ["tflite", "onnx"])
def test_formats_without_texts(automl, cells, kind):
    pytest.importorskip("onnxruntime" if kind == "onnx" else "tensorflow")
    ran = automl("export", "cells", "--format", kind, "--to", f"model.{kind}")
    assert ran.error == f"The model reads words, which {kind} cannot look up; export it as savedmodel or keras."


def test_a_drawing(automl, cells, monkeypatch):
    fake = cells / "bin"
    fake.mkdir()
    (fake / "dot").write_text(f"#!{sys.executable}\nimport sys\nprint('<svg>', len(sys.stdin.read()), '</svg>')\n")
    (fake / "dot").chmod(0o755)
    monkeypatch.setenv("PATH", str(fake))
    assert automl("export", "cells", "--format", "svg", "--to", "cell.svg").code == 0
    assert (cells / "cell.svg").read_text().startswith("<svg> ")
    monkeypatch.setenv("PATH", str(cells))
    assert automl("export", "cells", "--format", "svg", "--to", "other.svg").error == (
        "A drawing needs Graphviz: install its program dot, or export the graph as dot."
    )
    ran = automl("export", "cells", "--format", "dot", "--to", "cell.dot")
    assert ran.code == 0 and '"injection" ->' in (cells / "cell.dot").read_text()
    (fake / "dot").write_text(f"#!{sys.executable}\nimport sys\nsys.exit('a syntax error\\nin line 1')\n")
    monkeypatch.setenv("PATH", str(fake))
    assert automl("export", "cells", "--format", "svg", "--to", "other.svg").error == (
        "Graphviz cannot draw it (a syntax error); export the graph as dot."
    )


@pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz is not installed")
def test_graphviz_draws_it(automl, cells):
    assert automl("export", "cells", "--format", "svg", "--to", "cell.svg").code == 0
    assert "next h" in (cells / "cell.svg").read_text()


def test_training_again(automl, best, cells):
    ran = automl("train", "cells", "--recipe", "quick", *SETTINGS, "--seeds", "2")
    assert ran.code == 0, ran.err
    assert "val_perplexity over 2 seeds: " in ran.out and "test_perplexity over 2 seeds: " in ran.out
    ran = automl("export", "cells", "--format", "keras", "--to", "model.keras")
    assert "as in training again with seed" in ran.out


def test_training_again_reads_the_text_as_the_search_did(automl, folder):
    write_text(folder / "cats.txt")
    flags = (*CELLS, "--task", "text:cats.txt", "--set", "task.vocabulary_size=4", "--children", "1", "--workers", "0")
    assert automl("search", "few", *flags).code == 0
    ran = automl("train", "few", "--set", "epochs=1", "--set", "units=8", "--seeds", "1")  # all words, by its recipe
    assert ran.code == 0, ran.err
    assert "test_perplexity over 1 seeds: " in ran.out


def test_resuming_with_the_same_text(automl, cells):
    ran = automl("resume", "cells", "--children", "6", "--workers", "0")
    assert ran.code == 0, ran.err
    assert "Done: 6 children trained." in ran.out


def test_resuming_with_another_text_or_vocabulary(automl, cells):
    assert automl("resume", "cells", "--children", "6", "--set", "task.vocabulary_size=5").error == (
        "task.vocabulary_size cannot be changed after a search has begun: rewards would no longer be comparable."
    )
    # The search names the file by its absolute path at the start of the search.
    stored = Path(json.loads(automl("show", "cells", "--json").out)["settings"]["task"]["name"].removeprefix("text:"))
    before = stored.read_text()
    try:
        write_text(stored, seed=1)
        assert automl("resume", "cells", "--children", "6").error == (
            f"{stored} is not the text that the search began with, or is read with another vocabulary; restore the old "
            "one, give its path with --data text:PATH, or start a new search with this one."
        )
    finally:
        stored.write_text(before)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ("--space", "recurrent-cell", "--task", "digits"),
            "The task digits trains image classifiers, and this space makes RecurrentCell, which has no method "
            "build(input_shape, num_classes); choose another task or space.",
        ),
        (
            ("--task", "pydoc"),
            "The task pydoc trains recurrent cells, and this space makes ConvNet; choose --space recurrent-cell, "
            "--space joint with the preset cells, or a task for it.",
        ),
        (
            ("--space", "recurrent-cell", "--set", "space.base=3"),
            "base is 3; a complete tree has 2, 4, 8 or 16 leaves.",
        ),
        (("--space", "recurrent-cell", "--task", "text"), "The task text needs a file: write text:PATH."),
        (
            ("--space", "recurrent-cell", "--set", "task.parameters=100"),
            "A model of 100 parameters cannot have 2,000 types; raise task.parameters or lower task.vocabulary_size.",
        ),
        (
            ("--space", "recurrent-cell", "--precision", "float16"),
            "Language models are trained in float32 or bfloat16; choose one of them with --precision.",
        ),
    ],
    ids=str,
)
def test_impossible_settings_are_refused_in_one_sentence(automl, folder, flags, message):
    ran = automl("search", "refused", *flags)
    assert ran.error == message
    assert "No search" in automl("list").out or not (folder / "automl.db").exists()


def test_the_paper_s_preset_says_how_many_are_in_flight(automl, folder):
    write_text(folder / "cats.txt")
    arguments = ("--task", "text:cats.txt", "--children", "1", "--workers", "0", "--replicas", "3")
    ran = automl("search", "paper", *CELLS, *arguments, "--controller-preset", "paper-cells")
    assert ran.code == 0, ran.err
    shown = json.loads(automl("show", "paper", "--json").out)
    assert (shown["replicas"], shown["batch_size"]) == (3, 1)


def test_a_space_has_a_task_of_its_own(automl, folder):
    ran = automl("search", "own", *CELLS, "--set", "task.vocabulary_size=50", "--children", "1", "--workers", "0")
    assert ran.code == 0, ran.err
    assert json.loads(automl("show", "own", "--json").out)["task"] == "pydoc"
