"""A population of update rules in turn and side by side, with XLA and without, on this machine.

    AUTOML_DATA=… python benchmarks/side_by_side.py [--members 14] [--steps 10]

Images: CIFAR-10, batches of 100. Text: the help of Python, 20 streams of 20 words, 64 units, 2,000 words. Prints the
milliseconds of a member's step: the median of three epochs, after one that traces and compiles.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from pathlib import Path
from typing import Any

from automl.child_trainers.devices import environment
from automl.child_trainers.gpus import visible_gpus

os.environ.update(environment(threads=1, gpu=visible_gpus()[0].value if visible_gpus() else None))

from automl.child_trainers.data.cifar10 import load_cifar10
from automl.child_trainers.data.pydoc_topics import load_pydoc
from automl.child_trainers.images.training import to_device
from automl.child_trainers.recipes import QUICK_RULES_TEXT, RuleTextRecipe
from automl.child_trainers.text.model import LanguageModel
from automl.child_trainers.text.training import to_device as text_to_device
from automl.child_trainers.update_rules.flat_networks import ConvChild, TextChild
from automl.child_trainers.update_rules.grouped_networks import ConvChildren
from automl.child_trainers.update_rules.grouped_text import TextChildren
from automl.child_trainers.update_rules.in_turn import InTurn
from automl.child_trainers.update_rules.population import Member, Population
from automl.child_trainers.update_rules.side_by_side import SideBySide
from automl.search_spaces.recurrent_cell.lstm import LSTM
from automl.search_spaces.update_rule.named import RULES
from automl.search_spaces.update_rule.program import encode


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, default=14)
    parser.add_argument("--steps", type=int, default=10)
    arguments = parser.parse_args()
    count = arguments.members
    networks: dict[str, tuple[Any, Any]] = {"images": images(arguments.steps), "text": text(arguments.steps)}
    for name, (single, grouped) in networks.items():
        populations: dict[str, Population] = {
            "in turn": InTurn(single, count),
            "side by side": SideBySide(grouped, count),
            "side by side with XLA": SideBySide(grouped, count, xla=True),
        }
        for how, population in populations.items():
            first, later = seconds(population, count)
            step = 1000 * later / (count * single.steps_per_epoch)
            print(
                f"{name}, {count} members {how}: {step:.2f} ms a member's step; the first epoch {first:.1f} s",
                flush=True,
            )


def images(steps: int) -> tuple[Any, Any]:
    data = load_cifar10(Path(os.environ["AUTOML_DATA"])).limit(100 * steps, 100)
    single = ConvChild(to_device(data), 10, 100)
    return single, ConvChildren(single)


def text(steps: int) -> tuple[Any, Any]:
    recipe = RuleTextRecipe(**QUICK_RULES_TEXT)
    loaded = load_pydoc(level="word", vocabulary_size=recipe.vocabulary_size)
    loaded = loaded.limit(recipe.batch_size * (recipe.unroll * steps + 1), 100)
    model = LanguageModel(LSTM(), len(loaded.vocabulary), recipe.units, recipe.of_language(), seed=0)
    single = TextChild(model, text_to_device(loaded, recipe.batch_size))
    return single, TextChildren(single)


def seconds(population: Population, count: int) -> tuple[float, float]:
    """Of the first epoch, and the median of three later ones."""
    rules = list(RULES.values())
    for place in range(count):
        population.begin(place, Member(encode(rules[place % len(rules)]), 1e-3, place, 100))
    times = []
    for epoch in range(4):
        began = time.perf_counter()
        population.train_epoch(list(range(count)), [epoch] * count)
        times.append(time.perf_counter() - began)
    return times[0], statistics.median(times[1:])


if __name__ == "__main__":
    main()
