"""Writes NAS-Bench-Macro as a CSV file whose score `shuffled` is the mean accuracy of another network.

    python benchmarks/shuffled_table.py DATA/nasbench/macro/nas-bench-macro_cifar10.json > shuffled.csv

A search of this table is a donor that says nothing (docs/results.md, "Learning from earlier searches").
"""

import argparse
import json
import random
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path, help="the JSON file of the networks")
    networks = json.loads(parser.parse_args().table.read_text())
    scores = [network["mean_acc"] for network in networks.values()]
    random.Random(0).shuffle(scores)
    print(",".join(f"layer{index}" for index in range(8)) + ",shuffled")
    for key, score in zip(networks, scores, strict=True):
        print(",".join(key) + f",{score}")


if __name__ == "__main__":
    main()
