"""Update rules evaluated per hour: two of our workers against `keras.Model.fit`, one rule at a time, on the same rules.

Each rule is trained on CIFAR-10 with a batch of 100: a sweep of 7 rates with one epoch each, then 5 epochs at the best
rate, all validated on 1,000 images. All rules are published ones, so none ends early on either side. Keras has both
cores. It runs once with its defaults and once with oneDNN, which TensorFlow leaves off on processors without AVX-512.

    AUTOML_DATA=… python benchmarks/rules_per_hour.py

The time includes tracing, but not the loading of TensorFlow and the data. The last line is `ratio=R`: at 5,000 images,
over Keras with its defaults.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from automl.child_trainers.devices import environment
from automl.child_trainers.recipes import RULE_RECIPES, RuleRecipe

RULES = ("sgd", "momentum", "adam", "rmsprop", "powersign", "powersign-ld", "addsign", "addsign-cd")
IMAGES = {1_000: RULES, 5_000: RULES, 20_000: RULES}  # the rules that automl evaluates
PEER = {
    1_000: RULES[4:8],
    5_000: RULES[2:6],
    20_000: RULES[4:5],
}  # rules take about the same time, so the slower side gets fewer
WORKERS = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--role", choices=("ours", "keras"), help=argparse.SUPPRESS)
    parser.add_argument("--images", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--rules", nargs="*", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.role is not None:
        judge = judge_in_population if arguments.role == "ours" else judge_in_keras
        print(json.dumps(judge(arguments.images, arguments.rules)))
        return
    compare()


def compare() -> None:
    ratios = {}
    for images, rules in IMAGES.items():
        shares = [rules[index::WORKERS] for index in range(WORKERS)]
        threads = environment(threads=1, gpu=None)
        ours = run_side_by_side([("ours", images, share, threads) for share in shares])
        seconds = max(one["seconds"] for one in ours)
        trace = sum(one["trace"] for one in ours) / sum(one["seconds"] for one in ours)
        rate = len(rules) / seconds * 3600
        accuracies = {name: value for one in ours for name, value in one["accuracies"].items()}
        print(f"{images:,} images: automl {rate:.1f} rules an hour ({trace:.1%} of the time tracing)", flush=True)
        for what, onednn in (("as it comes", None), ("with oneDNN", "1")):
            variables = {} if onednn is None else {"TF_ENABLE_ONEDNN_OPTS": onednn}
            (peer,) = run_side_by_side([("keras", images, PEER[images], variables)])
            peer_rate = len(PEER[images]) / peer["seconds"] * 3600
            same = [(accuracies[name], value) for name, value in peer["accuracies"].items()]
            mean = [sum(values) / len(values) for values in zip(*same, strict=True)]
            ratios[images, what] = rate / peer_rate
            print(
                f"    Model.fit {what}: {peer_rate:.1f} an hour, {peer['trace'] / peer['seconds']:.1%} tracing; ratio "
                f"{rate / peer_rate:.2f}; mean accuracy of its rules, ours {mean[0]:.4f}, its own {mean[1]:.4f}",
                flush=True,
            )
    print(f"ratio={ratios[5_000, 'as it comes']:.2f}")


def run_side_by_side(orders: list[tuple[str, int, tuple[str, ...], dict[str, str]]]) -> list[dict[str, Any]]:
    """Runs processes at the same time; returns what each prints. Raises CalledProcessError if one fails."""
    running = []
    for role, images, rules, variables in orders:
        command = [sys.executable, __file__, "--role", role, "--images", str(images), "--rules", *rules]
        running.append(subprocess.Popen(command, env=os.environ | variables, stdout=subprocess.PIPE, text=True))
    results = []
    for process in running:
        printed, _ = process.communicate()
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, process.args)
        results.append(json.loads(printed.splitlines()[-1]))
    return results


def recipe_of(images: int) -> RuleRecipe:
    return RuleRecipe(**(RULE_RECIPES["cifar10"]["quick"] | {"num_train": images, "screened": False}))


def judge_in_population(images: int, rules: list[str]) -> dict[str, Any]:
    from automl.child_trainers.outcome import Outcome
    from automl.child_trainers.task import Assignment, Record
    from automl.child_trainers.update_rules.task import ImageRules
    from automl.search_spaces.update_rule.named import RULES as NAMED

    task = ImageRules("cifar10", recipe_of(images), data_dir=Path(os.environ["AUTOML_DATA"]))
    task.warm_up()
    began = time.perf_counter()
    accuracies, trace = {}, 0.0
    for index, outcome in task.evaluate_together([Assignment(NAMED[name], 0, Record()) for name in rules]):
        assert isinstance(outcome, Outcome), outcome
        accuracies[rules[index]] = outcome.metrics["val_accuracy"]
        trace += outcome.seconds["trace"]
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "accuracies": accuracies, "trace": trace}


def judge_in_keras(images: int, rules: list[str]) -> dict[str, Any]:
    """Evaluates rules as a Keras user does: with a new model for every rate, and `fit`."""
    import keras

    from automl.child_trainers.update_rules.flat_networks import ConvChild, keras_child
    from automl.child_trainers.update_rules.in_turn import InTurn
    from automl.child_trainers.update_rules.population import Member
    from automl.child_trainers.update_rules.task import ImageRules
    from automl.search_spaces.update_rule.named import RULES as NAMED
    from automl.search_spaces.update_rule.program import encode

    recipe = recipe_of(images)
    task = ImageRules("cifar10", recipe, data_dir=Path(os.environ["AUTOML_DATA"]))
    data = task.network.device_data
    x, y, *validation = (part.numpy() for part in data)
    population = InTurn(ConvChild(data, 10, recipe.batch_size), 1)
    population.begin(0, Member(encode(NAMED["sgd"]), 0.1, 0, 1))
    weights = population.weights(0)
    first_batches = 0.0

    class FirstBatch(keras.callbacks.Callback):  # the first batch of a model is mostly its trace
        def on_train_begin(self, logs: Any = None) -> None:
            self.began = time.perf_counter()

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            nonlocal first_batches
            if self.began:
                first_batches += time.perf_counter() - self.began
            self.began = 0.0

    def accuracies(rule: str, rate: float, epochs: int) -> list[float]:
        keras.backend.clear_session()
        model = keras_child((32, 32, 3), 10, weights=weights)
        optimizer = NAMED[rule].optimizer(learning_rate=rate, decay_steps=epochs * (len(x) // recipe.batch_size))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer, loss, metrics=["accuracy"])
        fit = functools.partial(model.fit, x, y, batch_size=recipe.batch_size, epochs=epochs, verbose=0)
        history = fit(validation_data=validation, callbacks=[keras.callbacks.TerminateOnNaN(), FirstBatch()])
        return list(history.history.get("val_accuracy", [0.0]))

    began = time.perf_counter()
    best = {}
    for rule in rules:
        swept = [max(accuracies(rule, rate, recipe.sweep_epochs)) for rate in recipe.rates]
        best[rule] = max(accuracies(rule, recipe.rates[swept.index(max(swept))], recipe.epochs))
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "accuracies": best, "trace": first_batches}


if __name__ == "__main__":
    main()
