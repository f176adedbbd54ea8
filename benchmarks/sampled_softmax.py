"""What the sampled softmax costs in perplexity and saves in time: 60,000 words of the Penn Treebank, recipe `quick`.

AUTOML_DATA=… python benchmarks/sampled_softmax.py [--words 60000]
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from automl.child_trainers.devices import Compute, default_precision, environment
from automl.child_trainers.recipes import RECIPES, LanguageRecipe
from automl.child_trainers.task import Record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--words", type=int, default=60_000)
    arguments = parser.parse_args()
    os.environ.update(environment(threads=1, gpu=None))
    from automl.child_trainers.text.task import LanguageModeling
    from automl.search_spaces.recurrent_cell.lstm import LSTM
    from automl.search_spaces.recurrent_cell.named import NASCELL

    print("| cell | units | types weighed | val_perplexity | seconds of training |\n|---|---|---|---|---|")
    for name, cell in (("LSTM", LSTM()), ("NASCell", NASCELL)):
        for sampled in (None, 1000, 500):
            recipe = LanguageRecipe(
                **(RECIPES["ptb"]["quick"] | {"num_train": arguments.words, "sampled_types": sampled})
            )
            compute = Compute(default_precision([]))
            task = LanguageModeling("ptb", recipe, data_dir=Path(os.environ["AUTOML_DATA"]), compute=compute)
            outcome = task.evaluate(cell, seed=0, report=Record())
            columns = f"{outcome.metrics['val_perplexity']:.1f} | {outcome.seconds['train']:.1f}"
            print(f"| {name} | {outcome.metrics['units']} | {sampled or 'all'} | {columns} |", flush=True)


if __name__ == "__main__":
    main()
