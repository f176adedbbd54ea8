"""Every benchmark can be imported, and every program among them describes itself."""

from __future__ import annotations

import contextlib
import os
import runpy
import sys
from pathlib import Path
from unittest import mock

import pytest

from automl.db.store import Store
from automl.search_spaces.views import spec_line

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_a_benchmark_describes_itself(path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "path", [str(FOLDER), *sys.path])  # as Python does for a program
    monkeypatch.setattr(sys, "argv", [str(path), "--help"])
    with mock.patch.dict(os.environ):  # some set the threads of TensorFlow
        if "def main" not in path.read_text(encoding="utf-8"):  # the others import it
            runpy.run_path(str(path))
            return
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(path), run_name="__main__")
    assert ended.value.code == 0 and "usage: " in capsys.readouterr().out


def test_the_children_of_the_startup_benchmark_can_be_read(tmp_path):
    startup = runpy.run_path(str(FOLDER / "startup.py"))
    startup["fill"](tmp_path / "large.db", startup["BATCH"])
    with contextlib.closing(Store(str(tmp_path / "large.db"), readonly=True)) as store:
        search = store.search("large")
        (best,) = store.top(search.id, 1)
    assert spec_line(best.spec, search.space).startswith("3x3x24(image) 3x3x24(0) 3x3x24(0,1) 3x3x24(1,2)")
