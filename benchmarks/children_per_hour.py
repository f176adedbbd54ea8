"""Children per hour: automl against KerasTuner's RandomSearch on the same children, one after the other in one run.

Twenty networks of the space `small`, drawn at random, are trained on 4,096 CIFAR-10 images for 5 epochs at batch 128
with the same optimizer, schedule and validation images. Times are wall seconds of whole processes, imports included. A
third run tunes KerasTuner: a tf.data pipeline without autotuning, oneDNN switched on, and mixed bfloat16 if the
processor multiplies it (otherwise it is many times slower than float32).

AUTOML_DATA=… python benchmarks/children_per_hour.py [--children 20] [--workers 2]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from paired import interval

import automl

RECIPE = {"batch_size": 128, "augment": False}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--children", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--peer", choices=("default", "tuned"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peer:
        train_with_keras_tuner(Path(arguments.folder), tuned=arguments.peer == "tuned")
        return
    with tempfile.TemporaryDirectory() as folder:
        options = [f"--set=task.{name}={json.dumps(value)}" for name, value in RECIPE.items()]
        command = [str(Path(sys.executable).with_name("automl")), "search", "ours", "--task", "cifar10", *options]
        command += ["--controller", "random", "--early-stop", "none", "--children", str(arguments.children)]
        command += ["--workers", str(arguments.workers), "--store", f"{folder}/ours.db"]
        ours = wall_seconds(command)
        children = automl.Result("ours", f"{folder}/ours.db").children
        trained = [child for child in children if child.state == "trained"]
        Path(folder, "specs.json").write_text(json.dumps([child.spec for child in trained]))
        accuracies = {"ours": {index: (child.metrics or {})["val_accuracy"] for index, child in enumerate(trained)}}
        show("automl", ours, accuracies["ours"])
        ratios = {}
        for peer in ("tuned", "default"):
            tuning = {"TF_ENABLE_ONEDNN_OPTS": "1"} if peer == "tuned" else {}
            seconds = wall_seconds([sys.executable, __file__, "--peer", peer, "--folder", folder], tuning)
            scores = json.loads(Path(folder, f"{peer}.json").read_text())
            accuracies[peer] = {int(index): score for index, score in scores.items()}
            show(f"KerasTuner, {peer}", seconds, accuracies[peer])
            # KerasTuner may train fewer: its random search gives up after too many repeated draws.
            ratios[peer] = (len(trained) / ours) / (len(accuracies[peer]) / seconds)
        for peer, ratio in ratios.items():
            # Only networks that both have trained: the others may be better or worse than these.
            both = sorted(accuracies[peer])
            differences = np.array([accuracies["ours"][index] - accuracies[peer][index] for index in both])
            low, high = interval(differences)
            means = (
                f"accuracy_ours={mean(accuracies['ours'], both):.4f} accuracy_peer={mean(accuracies[peer], both):.4f}"
            )
            print(f"{peer}: ratio={ratio:.2f} {means} difference={differences.mean():+.4f} [{low:+.4f}, {high:+.4f}]")


def wall_seconds(command: list[str], environment: Mapping[str, str] = MappingProxyType({})) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ | environment)
    return time.perf_counter() - began


def mean(accuracies: Mapping[int, float], networks: Iterable[int]) -> float:
    return statistics.fmean(accuracies[index] for index in networks)


def show(who: str, seconds: float, accuracies: Mapping[int, float]) -> None:
    count = len(accuracies)
    speed = f"{count} children in {seconds:.1f} s, {3600 * count / seconds:.0f} an hour"
    print(f"{who}: {speed}, mean val_accuracy {mean(accuracies, accuracies):.4f}", flush=True)


def train_with_keras_tuner(folder: Path, *, tuned: bool) -> None:
    """Trains the networks in `specs.json` as a KerasTuner user does; writes their best accuracies by index."""
    import keras
    import keras_tuner
    import tensorflow as tf

    from automl.child_trainers.data.cifar10 import load_cifar10
    from automl.child_trainers.devices import default_precision
    from automl.child_trainers.images.training import to_device
    from automl.child_trainers.recipes import QUICK
    from automl.search_spaces.convnet.layers import ConvLayer
    from automl.search_spaces.convnet.spec import ConvNet

    specs = json.loads(Path(folder, "specs.json").read_text())
    recipe = QUICK | RECIPE
    data = to_device(load_cifar10(Path(os.environ["AUTOML_DATA"])).limit(recipe["num_train"], recipe["num_validation"]))
    steps = recipe["epochs"] * (recipe["num_train"] // recipe["batch_size"])
    if tuned and default_precision([]) == "bfloat16":
        keras.config.set_dtype_policy("mixed_bfloat16")

    def build(hp: Any) -> keras.Model:
        spec = specs[hp.Choice("network", list(range(len(specs))))]
        net = ConvNet(tuple(ConvLayer(**layer) for layer in spec["layers"]))
        model = net.build((32, 32, 3), 10)
        schedule = keras.optimizers.schedules.CosineDecay(recipe["learning_rate"], steps)
        model.compile(
            keras.optimizers.SGD(schedule, momentum=0.9, nesterov=True, weight_decay=1e-4),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        return model

    tuner = keras_tuner.RandomSearch(
        build, "val_accuracy", max_trials=len(specs), directory=folder, project_name=f"peer_{tuned}", seed=0
    )
    train = tuple(part.numpy() for part in (data.x_train, data.y_train))
    validation = tuple(part.numpy() for part in (data.x_validation, data.y_validation))
    if tuned:
        plain = tf.data.Options()
        plain.autotune.enabled = False

        def pipeline(arrays: Any, size: int) -> tf.data.Dataset:
            return tf.data.Dataset.from_tensor_slices(arrays).batch(size).prefetch(2).with_options(plain)

        shuffled = tf.data.Dataset.from_tensor_slices(train).shuffle(len(train[0])).batch(recipe["batch_size"])
        tuner.search(
            shuffled.prefetch(2).with_options(plain),
            validation_data=pipeline(validation, 512),
            epochs=recipe["epochs"],
            verbose=0,
        )
    else:
        tuner.search(
            *train, validation_data=validation, epochs=recipe["epochs"], batch_size=recipe["batch_size"], verbose=0
        )
    trials = tuner.oracle.get_best_trials(len(specs))
    Path(folder, f"{'tuned' if tuned else 'default'}.json").write_text(
        json.dumps({trial.hyperparameters.get("network"): trial.score for trial in trials})
    )


if __name__ == "__main__":
    main()
