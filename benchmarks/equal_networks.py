"""Accuracies of equal networks: our training against `Model.fit`, from the same weights, on the same images.

Twenty networks of the space `small`, drawn at random, are trained as in `children_per_hour.py` (4,096 CIFAR-10 images,
5 epochs, batch 128, no augmentation), each with three seeds, by our training in float32 and in bfloat16 and by Keras in
float32. Keras starts from our initial weights and reads the images in our order, so a pair differs in arithmetic
and in weight decay: ours is part of the gradient, as in the paper; Keras's is decoupled from it. Prints the mean of the
paired differences of the best validation accuracy, with 95% intervals, by pairs and by the means over each network's
seeds.

AUTOML_DATA=… python benchmarks/equal_networks.py [--networks 20] [--seeds 3] [--to equal_networks.jsonl]
Several processes may share a file. Each then gets a part of the networks, such as --part 0/3, 1/3 and 2/3.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from paired import interval

from automl.child_trainers.devices import Compute, environment

os.environ.update(environment(threads=1, gpu=None))  # before TensorFlow is imported

import keras
import tensorflow as tf

from automl.child_trainers.data.cifar10 import load_cifar10
from automl.child_trainers.images.training import DeviceData, batches, to_device, train
from automl.child_trainers.recipes import QUICK, Recipe
from automl.child_trainers.task import Record
from automl.controllers.base import Draw
from automl.controllers.random_search import RandomSearch
from automl.search_spaces.convnet.network import ConvNetwork
from automl.search_spaces.convnet.space import PRESETS, convnet
from automl.search_spaces.convnet.spec import ConvNet
from automl.search_spaces.space import Space

SHAPE, NUM_CLASSES = (32, 32, 3), 10
RECIPE = Recipe(**(QUICK | {"batch_size": 128, "augment": False}))
Trained = list[float]  # validation accuracy after each epoch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--to",
        type=Path,
        default=Path("equal_networks.jsonl"),
        help="file of the results; an existing one is continued",
    )
    parser.add_argument("--part", default="0/1", help="K/N: train only networks K, K + N, K + 2N, …")
    arguments = parser.parse_args()
    part, parts = map(int, arguments.part.split("/"))
    data = to_device(load_cifar10(Path(os.environ["AUTOML_DATA"])).limit(QUICK["num_train"], QUICK["num_validation"]))
    done = read(arguments.to)
    for seed in range(arguments.seeds):
        for index, net in list(enumerate(networks(arguments.networks)))[part::parts]:
            for name, trainer in TRAINERS.items():
                if (index, seed, name) in done:
                    continue
                began = time.perf_counter()
                done[index, seed, name] = trainer(net, data, seed)
                line = {"network": index, "seed": seed, "trainer": name, "val_accuracy": done[index, seed, name]}
                with arguments.to.open("a") as file:
                    file.write(json.dumps(line) + "\n")
                best = max(done[index, seed, name])
                seconds = time.perf_counter() - began
                print(f"network {index}, seed {seed}, {name}: {best:.4f} in {seconds:.0f} s", flush=True)
    show(done)


def networks(count: int) -> list[ConvNet]:
    """The first networks that a random search with seed 0 draws."""
    space = Space(functools.partial(convnet, **PRESETS["small"]))
    draws = RandomSearch(space, seed=0).ask([Draw(number) for number in range(count)])
    specs = [space.decode(draw.tokens).spec for draw in draws]
    return [spec for spec in specs if isinstance(spec, ConvNet)]


def ours(precision: str) -> Callable[[ConvNet, DeviceData, int], Trained]:
    def trained(net: ConvNet, data: DeviceData, seed: int) -> Trained:
        record = Record()
        network = net.network(SHAPE, NUM_CLASSES, seed=seed, precision=precision)
        train(network, data, RECIPE, seed=seed, report=record, compute=Compute(precision))
        return [epoch["val_accuracy"] for epoch in record.epochs]

    return trained


def by_keras(net: ConvNet, data: DeviceData, seed: int) -> Trained:
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    model = net.build(SHAPE, NUM_CLASSES)
    first = ConvNetwork(net, SHAPE, NUM_CLASSES, seed=seed)
    for variable in model.weights:
        variable.assign((first.trainable | first.moving)[variable.path])
    size, steps = batches(len(data.x_train), RECIPE.batch_size)
    schedule = keras.optimizers.schedules.CosineDecay(RECIPE.learning_rate, RECIPE.epochs * steps)
    model.compile(
        keras.optimizers.SGD(schedule, RECIPE.momentum, nesterov=True, weight_decay=RECIPE.weight_decay),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    accuracies = []
    for epoch in range(RECIPE.epochs):
        order = tf.random.experimental.stateless_shuffle(tf.range(len(data.x_train)), seed=[seed, epoch])
        images, labels = tf.gather(data.x_train, order), tf.gather(data.y_train, order)
        validation = (data.x_validation, data.y_validation)
        history = model.fit(images, labels, batch_size=size, shuffle=False, validation_data=validation, verbose=0)
        accuracies.append(float(history.history["val_accuracy"][0]))
    return accuracies


TRAINERS = {"ours float32": ours("float32"), "Keras float32": by_keras, "ours bfloat16": ours("bfloat16")}


def read(path: Path) -> dict[tuple[int, int, str], Trained]:
    lines = map(json.loads, path.read_text().splitlines()) if path.exists() else ()
    return {(line["network"], line["seed"], line["trainer"]): line["val_accuracy"] for line in lines}


def show(done: dict[tuple[int, int, str], Trained]) -> None:
    pairs = sorted({(index, seed) for index, seed, _ in done})
    pairs = [pair for pair in pairs if all((*pair, name) in done for name in TRAINERS)]  # the file may be incomplete
    best = {name: np.array([max(done[(*pair, name)]) for pair in pairs]) for name in TRAINERS}
    for name, accuracies in best.items():
        print(f"{name}: mean best val_accuracy {accuracies.mean():.4f} of {len(accuracies)} trainings")
    for one, other in (
        ("ours float32", "Keras float32"),
        ("ours bfloat16", "Keras float32"),
        ("ours bfloat16", "ours float32"),
    ):
        differences = best[one] - best[other]
        of_network = np.array([index for index, _ in pairs])
        means = np.array([differences[of_network == index].mean() for index in np.unique(of_network)])
        print(f"{one} less {other}: {differences.mean():+.4f}, the largest {np.abs(differences).max():.4f}")
        for what, values in ((f"{len(pairs)} pairs", differences), (f"means of {len(means)} networks", means)):
            low, high = interval(values)
            print(f"  95% by {what}: from {low:+.4f} to {high:+.4f}")


if __name__ == "__main__":
    main()
