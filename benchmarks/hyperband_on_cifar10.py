"""An hour of search on CIFAR-10, automl beside KerasTuner's Hyperband; then the best network of each is retrained.

Both search the space `small` within 12 million FLOPs, with the recipe `quick` on the same 4,096 training and 2,048
validation images. They run at the same time until the time limit, each in one process with one thread, pinned to its
own core. The best network of each is then retrained with the same recipe, side by side, on 45,000 images, with as many
epochs as fit the second time limit. The result is the accuracy on the 10,000 test images, which neither search reads.

    AUTOML_DATA=… python benchmarks/hyperband_on_cifar10.py --folder FOLDER [--search 60m] [--train 60m]

Results that are already in the folder are not computed again.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from printed import PrintedRecord

import automl
from automl.child_trainers.devices import Compute, default_precision, environment
from automl.settings.parsing import parse_seconds

MAX_FLOPS = 12_000_000
WHO = ("automl", "hyperband")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--search", default="60m")
    parser.add_argument("--train", default="60m")
    parser.add_argument("--role", choices=("hyperband", "train"), help=argparse.SUPPRESS)
    parser.add_argument("--who", choices=WHO, help=argparse.SUPPRESS)
    parser.add_argument("--epochs", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    folder = arguments.folder
    if arguments.role == "hyperband":
        del os.environ["TF_DETERMINISTIC_OPS"]  # Keras's random layers do not run in deterministic mode
        search_with_hyperband(folder, parse_seconds(arguments.search))
    elif arguments.role == "train":
        train_again(folder, arguments.who, arguments.epochs)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        compare(folder, arguments.search, arguments.train)


def compare(folder: Path, search: str, train: str) -> None:
    this = [sys.executable, __file__, "--folder", str(folder)]
    if not (folder / "best_hyperband.json").exists():
        ours = [str(Path(sys.executable).with_name("automl")), "search", "nets", "--task", "cifar10", "--workers", "1"]
        ours += ["--max-flops", str(MAX_FLOPS), "--time", search, "--store", f"{folder}/nets.db"]
        side_by_side({"automl": ours, "hyperband": [*this, "--role", "hyperband", "--search", search]})
        result = automl.Result("nets", f"{folder}/nets.db")
        (folder / "best_automl.json").write_text(json.dumps(result.best.child.spec))
        trained = [child for child in result.children if child.state == "trained"]
        stopped = sum(child.stopped_at is not None for child in trained)
        accuracies = [child.metrics["val_accuracy"] for child in trained if child.metrics]
        print(
            f"automl: {len(trained)} children, {stopped} of them stopped early, best {max(accuracies):.4f}", flush=True
        )
    if not (folder / "tested_hyperband.json").exists():
        began = time.perf_counter()
        side_by_side({who: [*this, "--role", "train", "--who", who, "--epochs", "1"] for who in WHO})
        epochs = max(2, int(parse_seconds(train) / (time.perf_counter() - began)))
        print(f"An epoch takes at most {time.perf_counter() - began:.0f} s; {epochs} epochs each", flush=True)
        side_by_side({who: [*this, "--role", "train", "--who", who, "--epochs", str(epochs)] for who in WHO})
    for who in WHO:
        print(f"{who}: {(folder / f'tested_{who}.json').read_text()}")


def side_by_side(commands: dict[str, list[str]]) -> None:
    """Runs two commands at the same time, each pinned to its own core. Raises CalledProcessError if one fails."""
    running = {}
    for core, (name, command) in enumerate(commands.items()):
        pinned = ["taskset", "--cpu-list", str(core), *command]
        running[name] = subprocess.Popen(pinned, env=os.environ | environment(threads=1, gpu=None))
    for name, process in running.items():
        if process.wait():
            raise subprocess.CalledProcessError(process.returncode, commands[name])


def search_with_hyperband(folder: Path, seconds: float) -> None:
    """Searches the same space as a KerasTuner user does. Writes the best network to `best_hyperband.json`."""
    import keras
    import keras_tuner

    from automl.child_trainers.data.cifar10 import load_cifar10
    from automl.child_trainers.images.training import to_device
    from automl.child_trainers.recipes import QUICK, Recipe
    from automl.search_spaces.convnet.layers import ConvLayer
    from automl.search_spaces.convnet.space import PRESETS
    from automl.search_spaces.convnet.spec import ConvNet

    began = time.monotonic()
    space, recipe = PRESETS["small"], Recipe(**QUICK)
    data = to_device(load_cifar10(Path(os.environ["AUTOML_DATA"])).limit(recipe.num_train or 0, recipe.num_validation))
    steps = recipe.epochs * ((recipe.num_train or 0) // recipe.batch_size)
    shift = keras.layers.RandomTranslation(4 / 32, 4 / 32, fill_mode="constant", interpolation="nearest")
    augment = keras.Sequential([shift, keras.layers.RandomFlip("horizontal")])

    def net_of(hp: Any) -> ConvNet:
        layers = []
        depths = space["depths"]
        depth = hp.Choice("depth", depths)
        for index in range(max(depths)):
            with hp.conditional_scope("depth", [deep for deep in depths if deep > index]):
                height = hp.Choice(f"layer{index}/filter_height", space["filter_heights"])
                width = hp.Choice(f"layer{index}/filter_width", space["filter_widths"])
                filters = hp.Choice(f"layer{index}/num_filters", space["num_filters"])
                inputs = tuple(earlier for earlier in range(index) if hp.Boolean(f"layer{index}/reads{earlier}"))
            if index < depth:
                layers.append(ConvLayer(height, width, filters, inputs, pool=index in space["pooling"]))
        return ConvNet(tuple(layers))

    def build(hp: Any) -> keras.Model:
        image = keras.Input((32, 32, 3))
        model = keras.Model(image, net_of(hp).build((32, 32, 3), 10)(augment(image)))
        schedule = keras.optimizers.schedules.CosineDecay(recipe.learning_rate, steps)
        model.compile(
            keras.optimizers.SGD(schedule, momentum=0.9, nesterov=True, weight_decay=recipe.weight_decay),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        return model

    class TimeOver(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            if time.monotonic() - began > seconds:
                raise KeyboardInterrupt

    tuner = keras_tuner.Hyperband(
        build,
        "val_accuracy",
        max_epochs=recipe.epochs,
        hyperband_iterations=10_000,
        directory=folder,
        project_name="hyperband",
        seed=0,
    )
    draw = tuner.oracle._random_values

    def within_flops() -> dict[str, Any] | None:
        """Draws networks over the limit again, as automl does. Otherwise they would take most of the hour."""
        while values := draw():
            hp = keras_tuner.HyperParameters()
            hp.values = dict(values)
            if net_of(hp).count((32, 32, 3), 10).flops <= MAX_FLOPS:
                return dict(values)
        return None

    tuner.oracle._random_values = within_flops
    train = tuple(part.numpy() for part in (data.x_train, data.y_train))
    validation = tuple(part.numpy() for part in (data.x_validation, data.y_validation))
    with contextlib.suppress(KeyboardInterrupt):
        tuner.search(
            *train, validation_data=validation, batch_size=recipe.batch_size, callbacks=[TimeOver()], verbose=0
        )
    completed = [trial for trial in tuner.oracle.trials.values() if trial.score is not None]
    best = max(completed, key=lambda trial: trial.score)
    (folder / "best_hyperband.json").write_text(json.dumps(dataclasses.asdict(net_of(best.hyperparameters))))
    print(f"hyperband: {len(completed)} trials with a score, best {best.score:.4f}", flush=True)


def train_again(folder: Path, who: str, epochs: int) -> None:
    """Trains a best network on all training images. Writes its accuracies to `tested_WHO.json`."""
    from automl.child_trainers.images.task import ImageClassification
    from automl.child_trainers.recipes import PAPER, Recipe
    from automl.child_trainers.training.checkpoints import FileCheckpoint
    from automl.search_spaces.convnet.layers import ConvLayer
    from automl.search_spaces.convnet.spec import ConvNet

    spec = json.loads((folder / f"best_{who}.json").read_text())
    net = ConvNet(tuple(ConvLayer(**layer) for layer in spec["layers"]))
    recipe = Recipe(**(PAPER | {"epochs": epochs, "schedule": "cosine"}))
    compute = Compute(default_precision([]))
    task = ImageClassification("cifar10", recipe, data_dir=Path(os.environ["AUTOML_DATA"]), compute=compute)

    checkpoint = FileCheckpoint(folder / f"train_{who}.checkpoint", f"{who} {epochs}")
    outcome = task.evaluate(net, seed=0, report=PrintedRecord(who, checkpoint))
    if epochs > 1:
        tested = task.test(task.model(net, dict(outcome.weights or {})))
        cost = net.count((32, 32, 3), 10)
        result = {"epochs": epochs, "params": cost.params, "flops": cost.flops, **outcome.metrics, **tested}
        (folder / f"tested_{who}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
