"""Data sets, checked when they are read. Open `dataset.py` first for images (`ImageData`), `text.py` for texts."""
