"""NAS-Bench-Macro as a user's own space and task: 3^8 networks with published CIFAR-10 accuracies.

Use it with `--space benchmarks/nasbench_macro.py:space --task benchmarks/nasbench_macro.py:evaluate`. The table (Su et
al. 2021, arXiv:2103.11922) is in `nasbench/macro` of the folder AUTOML_DATA.
"""

import functools
import json
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

from automl import Choice

LAYERS = 8
BLOCKS = ("identity", "kernel 3, expansion 3", "kernel 5, expansion 6")


def space() -> Generator[Choice, Any, dict[str, list[int]]]:
    """One of three blocks for each of eight layers."""
    blocks = []
    for index in range(LAYERS):
        block = yield Choice(f"layer{index}", BLOCKS, kind=f"block{index}")
        blocks.append(BLOCKS.index(block))
    return {"blocks": blocks}


def evaluate(spec: dict[str, list[int]]) -> float:
    """Mean test accuracy of three runs, in percent."""
    return table()["".join(map(str, spec["blocks"]))]


@functools.cache
def table() -> dict[str, float]:
    """Mean accuracy by the digits of the blocks."""
    path = Path(os.environ["AUTOML_DATA"]) / "nasbench" / "macro" / "nas-bench-macro_cifar10.json"
    return {key: entry["mean_acc"] for key, entry in json.loads(path.read_text()).items()}
