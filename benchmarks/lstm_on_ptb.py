"""Reproduces a known result: the small LSTM of Zaremba et al. 2014 (arXiv:1409.2329), in our trainer.

Two layers of 200 units, 13 epochs, no dropout, the whole text. The paper has only larger models. With the code that its
authors published, the test perplexity of this model is about 115.

    AUTOML_DATA=… python benchmarks/lstm_on_ptb.py [--threads 2] [--checkpoint FILE]
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from printed import PrintedRecord

from automl.child_trainers.devices import Compute, default_precision, environment
from automl.child_trainers.training.checkpoints import FileCheckpoint


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--checkpoint", type=Path, help="file from which an interrupted training continues")
    arguments = parser.parse_args()
    os.environ.update(environment(arguments.threads, None))
    from automl.child_trainers.recipes import SMALL_LSTM, LanguageRecipe
    from automl.child_trainers.text.task import LanguageModeling
    from automl.search_spaces.recurrent_cell.lstm import LSTM

    compute = Compute(default_precision([]))
    recipe = LanguageRecipe(**SMALL_LSTM)
    task = LanguageModeling("ptb", recipe, data_dir=Path(os.environ["AUTOML_DATA"]), compute=compute)
    checkpoint = None if arguments.checkpoint is None else FileCheckpoint(arguments.checkpoint, str(task.describe()))
    outcome = task.evaluate(LSTM(), seed=0, report=PrintedRecord("LSTM", checkpoint))
    seconds = ", ".join(f"{phase} {spent:.0f} s" for phase, spent in outcome.seconds.items())
    print(f"{compute.precision}, {arguments.threads} threads: {seconds}")
    tested = task.test(task.model(LSTM(), dict(outcome.weights or {})), LSTM())
    print(f"validation={outcome.metrics['val_perplexity']:.2f} test={tested['test_perplexity']:.2f}")


if __name__ == "__main__":
    main()
