"""Every test of `automl/` works in its own folder, with an empty home folder, like a new user."""

from __future__ import annotations

import gc
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command_line import MINE, Ran, clean_environment, run_automl

from automl.cli.app import main

# Quick children on real digits.
QUICK = ("--set", "task.epochs=1", "--set", "task.num_train=320", "--fix", "depth=3", "--fix", "layer*/num_filters=8")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with an empty home beside it. The fixture undoes a command's changes to this process."""
    data = os.environ.get("AUTOML_DATA")
    before, modules = dict(os.environ), set(sys.modules)
    environment = clean_environment()
    os.environ.clear()
    os.environ.update(environment)
    home = tmp_path / "home"
    os.environ.update(HOME=str(home), XDG_CONFIG_HOME=str(home / "config"), XDG_CACHE_HOME=str(home / "cache"))
    if data is not None:
        os.environ["TESTS_DATA"] = data
    work = tmp_path / "work"
    home.mkdir()
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield work
    gc.unfreeze()  # a command that trains in its own process freezes the existing objects
    for name in set(sys.modules) - modules:
        file = getattr(sys.modules[name], "__file__", None) or ""
        if name.startswith("automl_user_") or file.startswith(str(tmp_path)):
            del sys.modules[name]
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def automl(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ran]:
    """Runs the command line in this process."""

    def run(*arguments: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["automl", *map(str, arguments)])
        capsys.readouterr()
        try:
            with warnings.catch_warnings():
                # Commands have a process each where a person runs them; here they share the first one's threads.
                warnings.filterwarnings("ignore", "TensorFlow already computes", RuntimeWarning)
                main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return run


@pytest.fixture
def mine(folder: Path) -> Path:
    """A user's file with a space and a task."""
    path = folder / "mine.py"
    path.write_text(MINE)
    return path


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ran]:
    """The store of a small real search `digits`, and its command's output. Tests copy the store."""
    folder = tmp_path_factory.mktemp("digits")
    environment = clean_environment() | {"HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    arguments = ("search", "digits", *QUICK, "--children", "3", "--batch-size", "2", "--workers", "1")
    ran = run_automl(*arguments, folder=folder, env=environment)
    assert ran.code == 0, ran.err
    return folder / "automl.db", ran
