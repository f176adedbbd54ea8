"""The description of the data at the start of a search, and results that are scalars of a library."""

from __future__ import annotations

import logging

import numpy as np

import automl as api

FEW = ("--children", "1", "--workers", "0", "--controller", "random", "--set", "task.epochs=1", "--fix", "depth=3")


def channels_first():
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (40, 3, 16, 16)).astype(np.uint8), np.arange(40) % 2


def test_a_search_says_how_it_read_the_data_and_doubts_once(automl, folder):
    x, y = channels_first()
    np.savez("data.npz", x_train=x, y_train=y)
    ran = automl("search", "s", "--task", "npz:data.npz", *FEW, "--fix", "layer*/num_filters=8")
    assert ran.code == 0, ran.err
    data = (
        "Data: 36 training and 4 validation images of 3 x 16 x 16 (height x width x channels), uint8 from 0 to 255; "
        "2 classes, the largest "
    )
    warning = "Warning: Images of shape (3, 16, 16) are read as 3 high, 16 wide, with 16 channels."
    lines = ran.out.splitlines()
    place = next(place for place, line in enumerate(lines) if line.startswith(data))
    assert lines[place + 1].startswith(warning)
    assert ran.out.count("Warning: ") == 1 and place < lines.index("Done: 1 child trained.")
    resumed = automl("resume", "s", "--children", "2")
    assert resumed.code == 0 and data in resumed.out and "Warning" not in resumed.out


def test_a_search_from_python_logs_it(folder, caplog):
    x, y = channels_first()
    asked = {"workers": 0, "controller": "random", "set": ["task.epochs=1"], "fix": ["depth=3"]}
    with caplog.at_level(logging.INFO, "automl"):
        api.search("s", x=x, y=y + 1, children=1, **asked)
    told = [(record.levelname, record.getMessage()) for record in caplog.records if record.name == "automl.results"]
    assert [level for level, _ in told] == ["INFO", "WARNING", "WARNING"]
    assert told[0][1].startswith("Data: 36 training and 4 validation images of 3 x 16 x 16")
    assert told[2][1].startswith("Labels run from 1 to 2, so class 0 has no images")


def test_a_zero_dimensional_array_is_a_result(automl, folder):
    (folder / "mine.py").write_text(
        "import numpy as np\n"
        "from automl import Choice\n"
        "def space():\n"
        "    return (yield Choice('a', tuple(range(50))))\n"
        "def evaluate(spec, report):\n"
        "    report(np.array(1), loss=np.array(0.25))\n"
        "    return np.array(spec / 50)\n"
    )
    flags = ("--space", "mine.py:space", "--task", "mine.py:evaluate", "--controller", "random")
    ran = automl("search", "s", *flags, "--workers", "0", "--children", "2")
    assert ran.code == 0 and "Done: 2 children trained." in ran.out
    assert "Data: " not in ran.out  # a user's function reads its own data
    for child in automl("top", "s", "--json").json:
        assert child["reward"] == child["spec"] / 50
