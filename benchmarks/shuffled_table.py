"""Writes NAS-Bench-Macro as a CSV file whose score `shuffled` is the mean accuracy of another network.

    python benchmarks/shuffled_table.py DATA/nasbench/macro/nas-bench-macro_cifar10.json > shuffled.csv

A search of this table is a donor that says nothing (docs/results.md, "Learning from earlier searches").
"""

import json
import random
import sys
from pathlib import Path

networks = json.loads(Path(sys.argv[1]).read_text())
scores = [network["mean_acc"] for network in networks.values()]
random.Random(0).shuffle(scores)
print(",".join(f"layer{index}" for index in range(8)) + ",shuffled")
for key, score in zip(networks, scores, strict=True):
    print(",".join(key) + f",{score}")
