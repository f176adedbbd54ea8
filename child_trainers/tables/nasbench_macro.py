"""Reads NAS-Bench-Macro: 3^8 networks, all trained on CIFAR-10."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from automl.child_trainers.data.dataset import DataError
from automl.child_trainers.outcome import Goal
from automl.child_trainers.tables.table import Key, Table
from automl.search_spaces.names import validate_choice

FILE = Path("nasbench", "macro", "nas-bench-macro_cifar10.json")
SOURCE = "https://github.com/xiusu/NAS-Bench-Macro"
LAYERS = 8
BLOCKS = (0, 1, 2)  # identity; inverted residual with kernel 3 and expansion 3; with kernel 5 and expansion 6
GOAL = Goal("mean_acc", minimize=False)
RESULTS = ("mean_acc", "std", "params", "flops")


def load_nasbench_macro(data_dir: Path | None, goal: Goal) -> Table:
    """Reads the table, whose columns are `layer0` to `layer7` with blocks 0, 1 and 2.

    The results of a row are the mean test accuracy of three trainings in percent, its standard deviation, the number of
    parameters, and FLOPs.

    Args:
        data_dir: the folder with data sets; the table is its file `nasbench/macro/nas-bench-macro_cifar10.json`.

    Raises:
        DataError: there is no such file, or it is damaged.
        UnknownNameError: the goal names none of the results.

    Source: Su et al. 2021 (arXiv:2103.11922), section 3.
    """
    validate_choice("column of nas-bench-macro", goal.metric, RESULTS)
    if data_dir is None:
        raise DataError(f"NAS-Bench-Macro ({SOURCE}) is read from a folder; say which has {FILE} with --data-dir.")
    path = data_dir / FILE
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        rows: dict[Key, dict[str, float]] = {
            tuple(map(int, key)): {name: float(entry[name]) for name in RESULTS} for key, entry in found.items()
        }
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror}; download it from {SOURCE}, or name another folder with "
            "--data-dir."
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DataError(f"{path} is not the table of NAS-Bench-Macro; download it again from {SOURCE}.") from None
    if len(rows) != len(BLOCKS) ** LAYERS:
        raise DataError(f"{path} has {len(rows):,} networks of {len(BLOCKS) ** LAYERS:,}; download it again.")
    return Table("nas-bench-macro", {f"layer{index}": BLOCKS for index in range(LAYERS)}, rows)
