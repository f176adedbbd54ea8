"""A machine with GPUs, by a `nvidia-smi` of shell commands."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from automl.child_trainers.gpus import forget_gpus

H200 = "0, GPU-11aa22bb-0000, NVIDIA H200, 143771, 570.124.06, 9.0"
T4 = "1, GPU-33cc44dd-1111, Tesla T4, 15360, 570.124.06, 7.5"

GpuMaker = Callable[..., None]


def faked_gpus(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GpuMaker]:
    """Yields a function that installs a `nvidia-smi` in `folder`.

    Its arguments are the rows of `--query-gpu`, the lines of `-L`, the MB that processes hold on each GPU, or shell
    commands in place of these; and the value of CUDA_VISIBLE_DEVICES, which a search of this process has changed.
    """
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    folder.mkdir(exist_ok=True)

    def choose(chosen: str | None) -> None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if chosen is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
        forget_gpus()

    def make(
        rows: Sequence[str] = (),
        listing: str = "",
        used: int = 0,
        script: str | None = None,
        chosen: str | None = None,
    ) -> None:
        if script is None:
            (folder / "rows").write_text("".join(f"{row}\n" for row in rows))
            (folder / "used").write_text("".join(f"{row.split(', ')[1]}, {used}\n" for row in rows))
            (folder / "listing").write_text(listing)
            files = {"-L": "listing", "*memory.used*": "used", "*": "rows"}
            script = f'case "$1" in {" ".join(f"{case}) cat {folder}/{file};;" for case, file in files.items())} esac'
        tool = folder / "nvidia-smi"
        tool.write_text(f"#!/bin/sh\n{script}\n")
        tool.chmod(0o755)
        choose(chosen)

    choose(None)
    yield make
    forget_gpus()
