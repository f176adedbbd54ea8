"""Checks of the files that a command writes at its end, before it begins."""

from __future__ import annotations

import importlib.util
from pathlib import Path


def check_plot(path: Path) -> None:
    """Raises ValueError if no plot can be written to this path."""
    if importlib.util.find_spec("matplotlib") is None:
        raise ValueError("A plot needs one more package: pip install 'automl-reinforce[plot]'")
    from matplotlib.backend_bases import FigureCanvasBase

    known_types = FigureCanvasBase.get_supported_filetypes()
    if path.suffix.removeprefix(".").lower() not in known_types:
        raise ValueError(
            f"--plot {path} is not an image file; use a name that ends in one of {', '.join(known_types)}."
        )
    check_folder(path)


def check_folder(path: Path) -> None:
    """Raises ValueError if the folder of a file does not exist."""
    if not path.absolute().parent.is_dir():
        raise ValueError(f"The folder {path.parent} for {path.name} does not exist; create it first.")
