"""Comparing optimizers, from the command line."""

import dataclasses
import json
import os
import signal

import pytest
from command_line import children_of, lives, running, wait_until

from automl.comparison import Comparison

pytest.importorskip("matplotlib")
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

NETWORK = """import keras


def small(input_shape, num_classes):
    layers = [keras.layers.Flatten(), keras.layers.Dense({}), keras.layers.Dense(num_classes)]
    return keras.Sequential([keras.Input(input_shape), *layers])
"""
QUICK = ("--rates", "0.01,0.1", "--seeds", "2", "--set", "epochs=2", "--set", "num_train=320", "--workers", "1")


def test_every_optimizer_gets_its_own_rate_and_the_table_is_sorted(automl, folder):
    ran = automl("compare-optimizers", "sgd", "Adam", "2 * momentum", *QUICK, "--json", "--plot", "curves.SVG")
    assert ran.code == 0, ran.err
    rows = json.loads(ran.out)
    assert {row["optimizer"] for row in rows} == {"sgd", "Adam", "2 * momentum"}
    means = [sum(row["values"]) / 2 for row in rows]
    assert means == sorted(means, reverse=True)
    for row in rows:
        assert (
            row["rate"] in (0.01, 0.1) and len(row["tests"]) == 2 and [len(curve) for curve in row["curves"]] == [2, 2]
        )
    assert "<svg" in (folder / "curves.SVG").read_text()
    trials = json.loads((folder / "comparison.json").read_text())["trials"]
    assert len(trials) == 3 * 2 + 3 * 2

    def best(name):
        asked = [(json.loads(key), found) for key, found in trials.items()]
        swept = {
            trial["rate"]: found["best"]
            for trial, found in asked
            if trial["optimizer"] == name and trial["recipe"]["epochs"] == 1
        }
        return max(swept, key=lambda rate: swept[rate])

    assert {row["optimizer"]: row["rate"] for row in rows} == {row["optimizer"]: best(row["optimizer"]) for row in rows}
    # Results in the file are not trained again: only the new optimizer is trained.
    before = (folder / "comparison.json").read_text()
    again = automl("compare-optimizers", "sgd", "Adam", "2 * momentum", *QUICK, "--plot", "again.svg")
    assert again.code == 0 and again.out.endswith("\nThe curves are in again.svg.\n")
    assert "<svg" in (folder / "again.svg").read_text() and (folder / "comparison.json").read_text() == before
    data, title, headings, *_ = again.out.splitlines()
    told = "Network small on digits: 2 epochs at the best of 2 rates (each tried for 1 epoch), 2 seeds"
    assert title == told and f"<!-- {told} -->" in (folder / "curves.SVG").read_text()
    assert data.startswith("Data: ") and headings.split() == ["optimizer", "rate", "val_accuracy", "test_accuracy"]


def test_a_comparison_that_is_killed_leaves_no_process_and_goes_on(folder, automl):
    options = ("compare-optimizers", "sgd", "Adam", "momentum", *QUICK)
    with running(*options, folder=folder) as command:
        wait_until(lambda: (folder / "comparison.json").exists(), "a trial", command)
        begun = children_of(command.process.pid)
        assert any(lives(pid) for pid in begun)
        os.kill(command.process.pid, signal.SIGKILL)
        wait_until(lambda: not any(lives(pid) for pid in begun), "the end of its processes")
    kept = json.loads((folder / "comparison.json").read_text())["trials"]
    assert automl(*options).code == 0
    assert kept.items() <= json.loads((folder / "comparison.json").read_text())["trials"].items()


def test_a_network_whose_file_has_changed_is_trained_anew(automl, folder):
    for units in (4, 5):
        (folder / "mine.py").write_text(NETWORK.format(units))
        ran = automl("compare-optimizers", "sgd", *QUICK, "--network", "mine.py:small")
        assert ran.code == 0, ran.err
    trials = json.loads((folder / "comparison.json").read_text())["trials"]
    assert len({tuple(json.loads(trial)["fingerprints"]) for trial in trials}) == 2 and len(trials) == 2 * (2 + 2)


def test_a_comparison_knows_its_data(folder):
    (folder / "cats.txt").write_text("the cat sat\n" * 200)
    comparison = Comparison(("sgd",), task="text:cats.txt", options={"num_train": None, "num_validation": None})
    (of_text,) = comparison.sweep()[0].fingerprints
    (folder / "cats.txt").write_text("a cat sat\n" * 200)
    (of_other,) = dataclasses.replace(comparison).sweep()[0].fingerprints
    assert of_text != of_other and not Comparison(("sgd",)).sweep()[0].fingerprints


def test_a_rule_that_diverges_at_every_rate_says_so(automl):
    ran = automl("compare-optimizers", "exp(exp(2)) + 0.1w", *QUICK[:-2], "--rates", "1e6", "--workers", "1")
    assert ran.code == 0, ran.err
    assert ran.out.splitlines()[-1].split("  ")[0] == "exp(exp(2)) + 0.1w" and "diverged at every rate" in ran.out


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ([], "No optimizer is named: give update rules or Keras optimizers, or a search of update rules with --from."),
        (["sgd", "sgd"], "An optimizer is named twice; name each once."),
        (["g +"], "'g +' is not an update rule: at position 4 expected an operand"),
        (["sgd", "--task", "cifar"], "There is no task called 'cifar'; there is cifar10"),
        (["sgd", "--set", "epohs=5"], "There is no task option called 'epohs'; there is epochs"),
        (
            ["sgd", "--set", "learning_rate=0.5"],
            "learning_rate cannot be set here: each optimizer has the best rate of its own sweep (--rates).",
        ),
        (["sgd", "--set", "momentum=0.5"], "momentum cannot be set here: an optimizer has its own"),
        (["sdg"], "There is no optimizer called 'sdg'; there is sgd, "),
        (["Adm"], "There is no optimizer called 'Adm'; there is Adam"),
        (["LossScaleOptimizer"], "There is no optimizer called 'LossScaleOptimizer'; there is"),
        (["sgd", "--task", "pydoc", "--unseen"], "--unseen is for images, and pydoc is text; leave it out."),
        (["sgd", "--to", "nowhere/a.json"], "The folder nowhere for a.json does not exist; create it first."),
        (["sgd", "--plot", "nowhere/a.svg"], "The folder nowhere for a.svg does not exist; create it first."),
        (["sgd", "--plot", "a.doc"], "--plot a.doc is not an image file; use a name that ends in one of"),
        (
            ["sgd", "--network", "vgg"],
            "There is no network called 'vgg' for images; there is small, resnet20",
        ),
        (["sgd", "--task", "pydoc", "--network", "small"], "Optimizers are compared on text with the network lstm"),
        (["sgd", "--rates", "fast"], "--rates is 'fast'; write numbers with commas between them: 0.001,0.01,0.1"),
        (["sgd", "--rates", "0"], "The rates are (0.0,); they must be numbers above 0."),
        (["sgd", "--to", "taken.json"], "taken.json is not a comparison of optimizers; name another file."),
    ],
)
def test_an_impossible_comparison_is_refused_with_one_sentence(automl, folder, arguments, error):
    (folder / "taken.json").write_text("[]")
    assert automl("compare-optimizers", *arguments).error.startswith(error)
