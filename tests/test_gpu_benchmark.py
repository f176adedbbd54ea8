"""The benchmark of GPUs runs on a processor, too, in small sizes: so it works when there is a GPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from automl.child_trainers.peak import published_peak

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "gpu.py"


@pytest.mark.parametrize("part", ["smoke", "rules", "children", "first", "words", "peak"])
def test_every_part_measures(tmp_path, part):
    command = [sys.executable, str(BENCHMARK), "--part", part, "--to", "gpu.json"]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "-1", "HOME": str(tmp_path)}
    ran = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.startswith("no GPU; small sizes, which say nothing about a GPU\n")
    found = json.loads((tmp_path / "gpu.json").read_text())
    (row,) = found["rows"]
    assert found["card"] == "no GPU" and row["ours"] > 0 and row["measured"] is None
    if row["baseline"] is not None:
        assert row["ratio"] == pytest.approx(row["ours"] / row["baseline"])


@pytest.mark.parametrize(
    ("card", "tflops"),
    [
        ("NVIDIA H200", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA A100-SXM4-40GB", 312),
        ("NVIDIA A10G", None),
        ("Tesla T4", 65),
        ("NVIDIA L40S", 362),
        ("NVIDIA L4", 121),
        ("NVIDIA GeForce RTX 4090", 165.2),
        ("Quadro K620", None),
    ],
)
def test_the_peak_of_a_card(card, tflops):
    assert published_peak(card) == (None if tflops is None else tflops * 1e12)
