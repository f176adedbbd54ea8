"""What a GPU does with this project: a smoke test of every space and task, then one ratio a row, in one run.

    python benchmarks/gpu.py --to gpu.json [--part rules] [--images cifar10] [--text ptb] [--data-dir DIR]

Each row compares ours with what a user of Keras would run on the same card: `Model.fit` without `jit_compile`. All take
at most five minutes on a data-center GPU; `--part` chooses single rows, and `--part cifar` takes five minutes more.
Without a GPU the sizes are small, to show that every part works; such rows say nothing about a GPU.

Images are `digits`, or cifar10 or an npz file with `--images`; the text is `pydoc`, or ptb with `--text`.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import automl
from automl.child_trainers.devices import default_precision, environment
from automl.child_trainers.gpus import visible_gpus
from automl.child_trainers.peak import published_peak

AUTOML = str(Path(sys.executable).with_name("automl"))
HAS_GPU = bool(visible_gpus())
RULES = ("sgd", "momentum", "adam", "rmsprop", "powersign", "powersign-ld", "addsign", "addsign-cd")

SMOKE = {  # of every space and kind of task: options of a search that takes seconds
    "networks": ("--task", "digits", "--set", "task.epochs=1", "--set", "task.num_train=320"),
    "cells": (
        "--space",
        "recurrent-cell",
        "--set",
        "task.epochs=1",
        "--set",
        "task.num_train=4000",
        "--set",
        "task.units=16",
    ),
    "rules on images": (
        "--space",
        "update-rule",
        "--task",
        "digits",
        "--set",
        "task.epochs=1",
        "--set",
        "task.num_train=320",
    ),
    "rules on text": ("--space", "update-rule", "--task", "pydoc", "--set", "task.epochs=1", "--set", "task.units=16")
    + ("--set", "task.num_train=4000", "--set", "task.vocabulary_size=100"),
    "networks with their rules": ("--space", "joint", "--task", "digits", "--set", "task.epochs=1"),
    "a landscape": (
        "--space",
        "landscape",
    ),
}


class Sizes:
    """How much each part trains."""

    rules = 64 if HAS_GPU else 4
    rule_images = 5_000 if HAS_GPU else 200
    peer_rules = 2 if HAS_GPU else 1
    children = 112 if HAS_GPU else 4
    child_images = 8_192 if HAS_GPU else 320
    child_epochs = 3 if HAS_GPU else 1
    peer_children = 8 if HAS_GPU else 2
    cell_parameters = 4_650_000 if HAS_GPU else 100_000
    cell_steps = 25 if HAS_GPU else 3
    wide_layers = 20 if HAS_GPU else 3
    wide_batch = 512 if HAS_GPU else 32
    wide_images = 16_384 if HAS_GPU else 96


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=[*PARTS, "cifar"], help="only this part; repeatable")
    parser.add_argument("--to", type=Path, help="JSON file of the rows")
    parser.add_argument("--images", default="digits", help="digits, cifar10 or npz:FILE")
    parser.add_argument("--text", default="pydoc", help="pydoc, ptb or text:FILE")
    parser.add_argument("--data-dir", default=os.environ.get("AUTOML_DATA"))
    parser.add_argument("--measure", choices=MEASURES, help=argparse.SUPPRESS)
    parser.add_argument("--specs", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(MEASURES[arguments.measure](arguments)))
        return
    card = name_of_card()
    print(f"{card}; {'sizes of a GPU' if HAS_GPU else 'small sizes, which say nothing about a GPU'}", flush=True)
    rows = []
    for part in arguments.part or PARTS:
        began = time.perf_counter()
        rows.append(row := (cifar if part == "cifar" else PARTS[part])(arguments))
        print(f"{line(row)}   ({time.perf_counter() - began:.0f} s)", flush=True)
        if arguments.to:
            arguments.to.write_text(json.dumps({"card": card, "rows": rows}, indent=1) + "\n")
    if any(row["measured"] is False for row in rows):
        sys.exit(1)


def name_of_card() -> str:
    if not HAS_GPU:
        return "no GPU"
    listed = subprocess.run(
        ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True, check=True
    )
    return listed.stdout.splitlines()[0].strip()


def row_of(name: str, ours: float, baseline: float | None, bar: float | None, **more: Any) -> dict[str, Any]:
    ratio = None if baseline is None else ours / baseline
    return {
        "name": name,
        "ours": ours,
        "baseline": baseline,
        "ratio": ratio,
        "bar": bar,
        "measured": HAS_GPU or None,
    } | more


def line(row: dict[str, Any]) -> str:
    numbers = [f"{key} {row[key]:.4g}" for key in ("ours", "baseline", "ratio", "bar") if row[key] is not None]
    return f"{row['name']}: {', '.join(numbers)}"


# The parts


def smoke(arguments: argparse.Namespace) -> dict[str, Any]:
    """Two children of every space and task. A search that trains none ends the whole run."""
    for name, options in SMOKE.items():
        few = ("--children", "2", "--batch-size", "2", "--replicas", "1", "--controller", "random")
        with searched("smoke", *few, *options) as (children, _):
            trained = sum(child.state == "trained" for child in children)
            if trained < 2:
                faults = [child.message for child in children if child.message]
                sys.exit(f"The smoke test of {name} trained {trained} of 2 children: {faults}")
            print(f"  {name}: trained", flush=True)
    return row_of("smoke test: searches that train", len(SMOKE), None, len(SMOKE))


def rules(arguments: argparse.Namespace) -> dict[str, Any]:
    ours, peer = measure("rules", arguments), measure("rules-keras", arguments)
    return row_of("update rules an hour", ours["an_hour"], peer["an_hour"], 100.0, ours_details=ours, peer_details=peer)


def children(arguments: argparse.Namespace) -> dict[str, Any]:
    """Networks an hour after the first tenth of them has ended, and the same networks by `Model.fit`."""
    sizes = [f"task.num_train={Sizes.child_images}", f"task.epochs={Sizes.child_epochs}", "task.batch_size=128"]
    options = [option for size in sizes for option in ("--set", size)]
    count = Sizes.children
    with searched(
        "children", "--task", arguments.images, "--children", str(count), "--controller", "random", *options,
        data_dir=arguments.data_dir,
    ) as (found, _):  # fmt: skip
        ends = sorted(child.finished for child in found if child.finished)
        skipped = len(ends) // 10
        an_hour = 3600 * (len(ends) - 1 - skipped) / (ends[-1] - ends[skipped])
        accuracy = statistics.fmean(
            (child.metrics or {})["val_accuracy"] for child in found if child.state == "trained"
        )
        specs = [child.spec for child in found if child.state == "trained"][: Sizes.peer_children]
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(specs, file)
        file.flush()
        peer = measure("children-keras", arguments, "--specs", file.name)
    return row_of("networks an hour", an_hour, peer["an_hour"], 20.0, accuracy=accuracy, peer_accuracy=peer["accuracy"])


def first(arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds from the start of the command to the result of its first child, of three searches."""
    seconds = []
    for _ in range(3 if HAS_GPU else 1):
        with searched("first", "--children", "1", "--set", "task.epochs=1", "--set", "task.num_train=320") as (
            found,
            began,
        ):
            seconds.append(found[0].finished - began)
    return row_of("seconds to the first child", statistics.median(seconds), None, 8.0)


def words(arguments: argparse.Namespace) -> dict[str, Any]:
    ours, peer = measure("words", arguments), measure("words-keras", arguments)
    lstm = measure("words-lstm", arguments)
    rate = ours["words_a_second"]
    return row_of(
        "words of a searched cell a second", rate, peer["words_a_second"], 8.0, keras_lstm=lstm["words_a_second"]
    )


def peak(arguments: argparse.Namespace) -> dict[str, Any]:
    """The FLOP/s of the training of a deep network, of the card's published peak; of a large matrix product where no
    peak is published."""
    found = measure("wide", arguments)
    baseline = published_peak(name_of_card()) or found["product"]
    return row_of("FLOP/s of a network of 20 layers, of the peak", found["flops"], baseline, 0.2, **found)


def cifar(arguments: argparse.Namespace) -> dict[str, Any]:
    """Three minutes of search on all images of CIFAR-10, then two minutes of training of the best child."""
    minutes = ("3m", 2.0) if HAS_GPU else ("20s", 0.1)
    sizes = () if HAS_GPU else ("--set", "task.num_train=512", "--set", "task.num_validation=256")
    with searched(
        "cifar", "--task", "cifar10", "--time", minutes[0], "--set", "task.epochs=3", "--set", "task.num_train=null",
        *sizes, data_dir=arguments.data_dir,
    ) as (found, _):  # fmt: skip
        best = max((child for child in found if child.state == "trained"), key=lambda child: child.reward or 0.0)
        an_epoch = ((best.phases or {}).get("train", 0.0) + (best.phases or {}).get("validate", 0.0)) / 3
        epochs = max(1, int(60 * minutes[1] / max(an_epoch, 1e-3)))
        trained = subprocess.run(
            [AUTOML, "train", "cifar", "--seeds", "1", "--set", f"task.epochs={epochs}", "--json", "--store", STORE],
            check=True, capture_output=True, text=True, env=with_data(arguments.data_dir),
        )  # fmt: skip
    (run,) = json.loads(trained.stdout)
    return row_of(
        "test accuracy on CIFAR-10 after 3 + 2 minutes", run["metrics"]["test_accuracy"], None, 0.9, epochs=epochs
    )


PARTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "smoke": smoke, "rules": rules, "children": children, "first": first, "words": words, "peak": peak,
}  # fmt: skip


# Searches and measurements in processes of their own

STORE = "gpu.db"


@contextlib.contextmanager
def searched(name: str, *options: str, data_dir: str | None = None) -> Iterator[tuple[list[Any], float]]:
    """Runs a search in a new folder, in which the block runs, too. Yields its children, and when the command began, in
    seconds since 1970."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        began = time.time()
        subprocess.run(
            [AUTOML, "search", name, *options, "--store", STORE, "--early-stop", "none"],
            check=True, stdout=subprocess.DEVNULL, env=with_data(data_dir),
        )  # fmt: skip
        yield automl.Result(name, STORE).children, began


def with_data(data_dir: str | None) -> dict[str, str]:
    return os.environ | ({} if data_dir is None else {"AUTOML_DATA": data_dir})


def measure(name: str, arguments: argparse.Namespace, *more: str) -> dict[str, Any]:
    """What a measurement prints in a new process. Ours has the environment of a worker, the baseline that of a user."""
    command = [
        sys.executable,
        __file__,
        "--measure",
        name,
        "--images",
        arguments.images,
        "--text",
        arguments.text,
        *more,
    ]
    variables = with_data(arguments.data_dir)
    if "-" not in name:
        variables |= environment(threads=1, gpu=visible_gpus()[0].value if HAS_GPU else None)
    ran = subprocess.run(command, capture_output=True, text=True, env=variables)
    if ran.returncode:
        sys.exit(f"The measurement {name} failed:\n{ran.stderr}")
    return json.loads(ran.stdout.splitlines()[-1])


def rule_task(arguments: argparse.Namespace) -> Any:
    from automl.child_trainers.recipes import RuleRecipe
    from automl.child_trainers.update_rules.task import ImageRules

    recipe = RuleRecipe(num_train=Sizes.rule_images, batch_size=100, screened=False, population=8)
    return ImageRules(arguments.images, recipe, data_dir=data_folder())


def data_folder() -> Path | None:
    return Path(os.environ["AUTOML_DATA"]) if "AUTOML_DATA" in os.environ else None


def measure_rules(arguments: argparse.Namespace) -> dict[str, Any]:
    """Rules an hour, the second time: the first time compiles the functions that serve all rules."""
    from automl.child_trainers.task import Assignment, Record
    from automl.search_spaces.update_rule.named import RULES as NAMED

    task = rule_task(arguments)
    task.warm_up()
    assigned = [Assignment(NAMED[RULES[index % len(RULES)]], index, Record()) for index in range(Sizes.rules)]
    seconds, accuracies = [], {}
    for _ in range(2):
        began = time.perf_counter()
        for index, outcome in task.evaluate_together(assigned):
            accuracies[RULES[index % len(RULES)]] = outcome.metrics["val_accuracy"]
        seconds.append(time.perf_counter() - began)
    steps = Sizes.rule_images // task.recipe.batch_size * (len(task.recipe.rates) + task.recipe.epochs) * Sizes.rules
    return {
        "an_hour": 3600 * Sizes.rules / seconds[1],
        "first_seconds": seconds[0],
        "milliseconds_a_step": 1000 * seconds[1] / steps,
        "accuracies": accuracies,
    }


def measure_rules_keras(arguments: argparse.Namespace) -> dict[str, Any]:
    """Rules an hour of a Keras user: a new model for each rate, and `fit`."""
    import keras

    from automl.child_trainers.update_rules.flat_networks import ConvChild, keras_child
    from automl.search_spaces.update_rule.named import RULES as NAMED

    task = rule_task(arguments)
    recipe, shapes, data = task.recipe, task.network.shapes, task.network.device_data
    x, y, *validation = (part.numpy() for part in data)
    seconds = 0.0
    best = {}
    for rule in RULES[: Sizes.peer_rules]:
        swept: list[float] = []
        for rate, epochs in [*((rate, recipe.sweep_epochs) for rate in recipe.rates), (None, recipe.epochs)]:
            began = time.perf_counter()
            keras.backend.clear_session()
            model = keras_child(*shapes)
            chosen = recipe.rates[swept.index(max(swept))] if rate is None else rate
            steps = epochs * ConvChild(data, shapes[1], recipe.batch_size).steps_per_epoch
            model.compile(
                NAMED[rule].optimizer(learning_rate=chosen, decay_steps=steps),
                keras.losses.SparseCategoricalCrossentropy(from_logits=True),
                metrics=["accuracy"],
                jit_compile=False,
            )
            callbacks = [keras.callbacks.TerminateOnNaN()]
            fitted = model.fit(
                x,
                y,
                batch_size=recipe.batch_size,
                epochs=epochs,
                verbose=0,
                validation_data=validation,
                callbacks=callbacks,
            )
            reached = max(fitted.history.get("val_accuracy", [0.0]))
            seconds += time.perf_counter() - began
            if rate is None:
                best[rule] = reached
            else:
                swept.append(reached)
    return {"an_hour": 3600 * Sizes.peer_rules / seconds, "accuracies": best}


def measure_children_keras(arguments: argparse.Namespace) -> dict[str, Any]:
    import keras

    from automl.child_trainers.images.task import ImageClassification
    from automl.child_trainers.recipes import Recipe
    from automl.search_spaces.convnet.layers import ConvLayer
    from automl.search_spaces.convnet.spec import ConvNet

    recipe = Recipe(num_train=Sizes.child_images, epochs=Sizes.child_epochs, batch_size=128)
    task = ImageClassification(arguments.images, recipe, data_dir=data_folder())
    x, y, *validation = (part.numpy() for part in task.device_data)
    specs = json.loads(Path(arguments.specs).read_text())
    (height, width, channels), classes = task.shapes
    seconds, accuracies = [], []
    for spec in specs:
        began = time.perf_counter()
        keras.backend.clear_session()
        model = ConvNet(tuple(ConvLayer(**layer) for layer in spec["layers"])).build((height, width, channels), classes)
        model.compile(
            keras.optimizers.SGD(recipe.learning_rate, momentum=0.9, nesterov=True, weight_decay=1e-4),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
            jit_compile=False,
        )
        fitted = model.fit(
            x, y, batch_size=recipe.batch_size, epochs=recipe.epochs, verbose=0, validation_data=validation
        )
        accuracies.append(max(fitted.history["val_accuracy"]))
        seconds.append(time.perf_counter() - began)
    counted = seconds[1:] or seconds  # the first one loads the libraries of the device
    return {"an_hour": 3600 * len(counted) / sum(counted), "accuracy": statistics.fmean(accuracies)}


def cell_and_text(arguments: argparse.Namespace) -> tuple[Any, Any, Any]:
    """A random cell, the text and the recipe of its training."""
    from automl.child_trainers.recipes import LanguageRecipe
    from automl.child_trainers.text.task import LanguageModeling
    from automl.search_spaces.recurrent_cell.space import recurrent_cell
    from automl.search_spaces.space import Space
    from automl.testing.spaces import sample

    recipe = LanguageRecipe(batch_size=20, unroll=35, parameters=Sizes.cell_parameters, vocabulary_size=None)
    text = LanguageModeling(arguments.text, recipe, data_dir=data_folder()).data
    text = text.limit(recipe.batch_size * (recipe.unroll * Sizes.cell_steps + 1), 500)
    return sample(Space(recurrent_cell), 0).spec, text, recipe


def measure_words(arguments: argparse.Namespace) -> dict[str, Any]:
    from automl.child_trainers.text.model import LanguageModel
    from automl.child_trainers.text.sizes import units_within
    from automl.child_trainers.text.training import LanguageTrainer, to_device

    cell, text, recipe = cell_and_text(arguments)
    types = len(text.vocabulary)
    precision = default_precision(visible_gpus())
    model = LanguageModel(cell, types, units_within(cell, types, recipe), recipe, seed=0, precision=precision)
    trainer = LanguageTrainer(model, to_device(text, recipe.batch_size), recipe, 0)
    return words_a_second(recipe, trainer.train_epoch)


def measure_words_keras(arguments: argparse.Namespace, *, lstm: bool = False) -> dict[str, Any]:
    import keras
    import numpy as np

    from automl.child_trainers.text.sizes import units_within
    from automl.search_spaces.recurrent_cell.lstm import LSTM

    cell, text, recipe = cell_and_text(arguments)
    types, size, unroll = len(text.vocabulary), recipe.batch_size, recipe.unroll
    units = units_within(LSTM() if lstm else cell, types, recipe)
    tokens = keras.Input((unroll,), dtype="int32")
    x = keras.layers.Embedding(types, units)(tokens)
    for _ in range(recipe.layers):
        layer = (
            keras.layers.LSTM(units, return_sequences=True)
            if lstm
            else keras.layers.RNN(cell.cell(units), return_sequences=True)
        )
        x = layer(x)
    model = keras.Model(tokens, keras.layers.Dense(types)(x))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(1.0, global_clipnorm=5.0), loss, jit_compile=False)
    streams = text.train[: size * (unroll * Sizes.cell_steps + 1)].reshape(size, -1)
    rows = np.concatenate([streams[:, step * unroll : (step + 1) * unroll + 1] for step in range(Sizes.cell_steps)])
    fit = functools.partial(model.fit, rows[:, :-1], rows[:, 1:], batch_size=size, shuffle=False, verbose=0)
    return words_a_second(recipe, lambda epoch: fit())


def words_a_second(recipe: Any, train: Callable[[int], Any]) -> dict[str, Any]:
    """Trains an epoch that is not timed, and then three that are."""
    train(0)
    began = time.perf_counter()
    for epoch in range(1, 4):
        train(epoch)
    seconds = time.perf_counter() - began
    return {"words_a_second": 3 * Sizes.cell_steps * recipe.batch_size * recipe.unroll / seconds}


def measure_wide(arguments: argparse.Namespace) -> dict[str, Any]:
    """FLOP/s of training, three times those of the forward pass, and of one large matrix product."""
    import tensorflow as tf

    from automl.child_trainers.devices import Compute
    from automl.child_trainers.images.training import DeviceData, ImageTrainer
    from automl.child_trainers.recipes import Recipe
    from automl.search_spaces.convnet.layers import ConvLayer
    from automl.search_spaces.convnet.spec import ConvNet

    layers = [ConvLayer(3, 3, 48, (index - 1,) if index else ()) for index in range(Sizes.wide_layers)]
    net, shape, count = ConvNet(tuple(layers)), (32, 32, 3), Sizes.wide_images
    images = tf.random.stateless_normal((count, *shape), (0, 0))
    labels = tf.random.stateless_uniform((count,), (0, 1), 0, 10, tf.int32)
    precision, rates = default_precision(visible_gpus()), {}
    for xla in (False, True) if HAS_GPU else (False,):
        network = net.network(shape, 10, seed=0, precision=precision, xla=xla)
        recipe = Recipe(batch_size=Sizes.wide_batch, epochs=4, learning_rate=0.01)
        trainer = ImageTrainer(
            network, DeviceData(images, labels, images[:32], labels[:32]), recipe, 0, Compute(precision, xla, 1)
        )
        trainer.train_epoch(0)
        began = time.perf_counter()
        for epoch in (1, 2):
            trainer.train_epoch(epoch)
        steps = 2 * trainer.steps_per_epoch
        rates["with XLA" if xla else "without XLA"] = steps * Sizes.wide_batch / (time.perf_counter() - began)
    size = 8192 if HAS_GPU else 1024
    matrix = tf.cast(tf.random.stateless_normal((size, size), (0, 2)), precision)
    product = tf.function(lambda a: tf.reduce_sum(tf.cast(tf.matmul(a, a), tf.float32)))
    product(matrix).numpy()
    began = time.perf_counter()
    for _ in range(10):
        product(matrix).numpy()
    best = 3.0 * net.count(shape, 10).flops * max(rates.values())
    return {"flops": best, "product": 10 * 2.0 * size**3 / (time.perf_counter() - began), "images_a_second": rates}


MEASURES: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "rules": measure_rules,
    "rules-keras": measure_rules_keras,
    "children-keras": measure_children_keras,
    "words": measure_words,
    "words-keras": measure_words_keras,
    "words-lstm": functools.partial(measure_words_keras, lstm=True),
    "wide": measure_wide,
}

if __name__ == "__main__":
    main()
