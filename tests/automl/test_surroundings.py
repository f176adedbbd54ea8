"""What surrounds a task of the user's own: its module, its folder, its options."""

from __future__ import annotations

import pytest

PARALLEL = """
import dataclasses, multiprocessing
from automl import Choice
from joblib import Parallel, delayed

@dataclasses.dataclass(frozen=True)
class Part:
    n: int

def space():
    n = yield Choice("n", (1, 2, 3, 4))
    return n

def double(part):
    assert __name__ == "parallel"
    return Part(2 * part.n)

def evaluate(spec):
    parts = Parallel(n_jobs=2)(delayed(double)(Part(n)) for n in range(spec))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        parts += pool.map(double, [Part(10)])
    return sum(part.n for part in parts)
"""


@pytest.mark.filterwarnings("ignore")  # of joblib's and multiprocessing's processes
@pytest.mark.parametrize("workers", ["0", "1"])
def test_what_a_file_defines_can_be_sent_to_other_processes(automl, folder, workers):
    (folder / "parallel.py").write_text(PARALLEL)
    files = ("--space", "parallel.py:space", "--task", "parallel.py:evaluate", "--controller", "random")
    assert automl("search", "s", *files, "--children", "2", "--workers", workers).code == 0
    for child in automl("top", "s", "--json").json:
        assert child["reward"] == 20 + sum(2 * n for n in range(child["spec"]))


@pytest.mark.parametrize("name", ["db.py", "random.py", "automl.py"])
def test_a_name_that_means_something_else_is_refused_before_anything_is_stored(automl, mine, folder, name):
    mine.rename(folder / name)
    files = ("--space", f"{name}:space", "--task", f"{name}:evaluate", "--controller", "random")
    assert automl("search", "s", *files, "--children", "1", "--workers", "0").error.endswith(
        "so that another process would import it instead; rename the file."
    )
    assert automl("list").out == "No searches yet. Start one with: automl search NAME\n"
