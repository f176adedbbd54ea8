"""Words per second of the whole machine: random cells in our trainer against an LSTM in `keras.Model.fit`.

Both train language models of two layers and equal parameters on the Penn Treebank, in batches of 20 streams of 35
words, with the whole vocabulary. Our cells are drawn at random. Each process trains one cell with one thread, as a
worker does, once with the sampled softmax of the recipe `quick` and once without; all processes train at the same time.
Keras has the machine to itself, with its defaults. Only training is timed, after a first epoch that traces.

    AUTOML_DATA=… python benchmarks/words_per_second.py [--workers 2] [--parameters 4650000]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from automl.child_trainers.devices import default_precision, environment
from automl.child_trainers.recipes import RECIPES

BATCH, UNROLL, STEPS, EPOCHS = 20, 35, 25, 3
ROLES = ("ours", "keras")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--parameters", type=int, default=4_650_000)
    parser.add_argument("--role", choices=ROLES, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--sampled-types", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.role == "ours":
        train_cell(arguments.seed, arguments.parameters, arguments.sampled_types)
    elif arguments.role == "keras":
        train_keras(arguments.parameters)
    else:
        compare(arguments.workers, arguments.parameters)


def compare(workers: int, parameters: int) -> None:
    command = [sys.executable, __file__, "--parameters", str(parameters), "--role"]
    printed = subprocess.run([*command, "keras"], check=True, stdout=subprocess.PIPE, text=True).stdout
    peer = json.loads(printed.splitlines()[-1])
    show("keras.layers.LSTM in Model.fit", peer)
    sampled = RECIPES["ptb"]["quick"]["sampled_types"]
    for name, options in (("ratio_whole_softmax", []), ("ratio", ["--sampled-types", str(sampled)])):
        total = train_cells([*command, "ours", *options], workers)
        print(f"{name}={total / peer['words_per_second']:.2f}", flush=True)


def train_cells(command: list[str], workers: int) -> float:
    """Words per second of all processes together."""
    processes = [
        subprocess.Popen(
            [*command, "--seed", str(seed)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | environment(threads=1, gpu=None),
        )
        for seed in range(workers)
    ]
    for process in processes:  # all have traced before the first is timed
        assert process.stdout is not None and "ready" in process.stdout.readline()
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    results = [json.loads(process.communicate()[0].splitlines()[-1]) for process in processes]
    for result in results:
        show("a random cell", result)
    total = sum(result["words_per_second"] for result in results)
    print(f"{workers} workers of one thread in {default_precision([])}: {total:.0f} words a second", flush=True)
    return float(total)


def show(who: str, result: dict[str, Any]) -> None:
    print(f"{who}: {result['words_per_second']:.0f} words a second, {result['parameters']:,} parameters", flush=True)


def load() -> Any:
    from automl.child_trainers.data.ptb import load_ptb

    return load_ptb(Path(os.environ["AUTOML_DATA"])).limit(BATCH * (UNROLL * STEPS + 1), 1000)


def train_cell(seed: int, parameters: int, sampled_types: int | None) -> None:
    from automl.child_trainers.recipes import LanguageRecipe
    from automl.child_trainers.text.model import LanguageModel
    from automl.child_trainers.text.sizes import num_parameters, units_within
    from automl.child_trainers.text.training import LanguageTrainer, to_device
    from automl.search_spaces.recurrent_cell.space import recurrent_cell
    from automl.search_spaces.recurrent_cell.spec import RecurrentCell
    from automl.search_spaces.space import Space
    from automl.search_spaces.walk import possible_answers

    generator = random.Random(seed)
    walk = Space(recurrent_cell).walk(0)
    while (decision := walk.decision) is not None:
        walk.answer(generator.choice(list(possible_answers(decision))))
    cell = walk.spec
    assert isinstance(cell, RecurrentCell)
    text = load()
    recipe = LanguageRecipe(batch_size=BATCH, unroll=UNROLL, parameters=parameters, sampled_types=sampled_types)
    types = len(text.vocabulary)
    units = units_within(cell, types, recipe)
    network = LanguageModel(cell, types, units, recipe, seed=seed, precision=default_precision([]))
    trainer = LanguageTrainer(network, to_device(text, BATCH), recipe, seed)
    trainer.train_epoch(0)
    print("ready", flush=True)
    sys.stdin.readline()
    began = time.perf_counter()
    for epoch in range(EPOCHS):
        trainer.train_epoch(epoch)
    seconds = time.perf_counter() - began
    words = EPOCHS * trainer.steps_per_epoch * BATCH * UNROLL
    count = num_parameters(cell, types, units, recipe)
    print(json.dumps({"words_per_second": words / seconds, "parameters": count}))


def train_keras(parameters: int) -> None:
    import keras
    import numpy as np

    from automl.child_trainers.recipes import LanguageRecipe
    from automl.child_trainers.text.sizes import units_within
    from automl.search_spaces.recurrent_cell.lstm import LSTM

    text = load()
    types = len(text.vocabulary)
    units = units_within(LSTM(), types, LanguageRecipe(parameters=parameters))
    words = keras.Input((UNROLL,), dtype="int32")
    x = keras.layers.Embedding(types, units)(words)
    for _ in range(2):
        x = keras.layers.LSTM(units, return_sequences=True)(x)
    model = keras.Model(words, keras.layers.Dense(types)(x))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(1.0, global_clipnorm=5.0), loss)
    streams = text.train[: BATCH * (UNROLL * STEPS + 1)].reshape(BATCH, -1)
    pieces = [streams[:, step * UNROLL : (step + 1) * UNROLL + 1] for step in range(STEPS)]
    rows = np.concatenate(pieces)  # the streams of the first step, of the second, …
    model.fit(rows[:, :-1], rows[:, 1:], batch_size=BATCH, shuffle=False, verbose=0)
    began = time.perf_counter()
    model.fit(rows[:, :-1], rows[:, 1:], batch_size=BATCH, epochs=EPOCHS, shuffle=False, verbose=0)
    seconds = time.perf_counter() - began
    result = {"words_per_second": EPOCHS * STEPS * BATCH * UNROLL / seconds, "parameters": model.count_params()}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
