"""Installed in every possible way, automl works from any folder. Every install hint names our own distribution."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path

import pytest
from command_line import MINE, OURS

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PACKAGES = ("automl", "child_trainers", "controllers", "db", "search_spaces")
FILES = ("pyproject.toml", "README.md", "LICENSE")
PIP = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
OFFLINE = ("--no-deps", "--no-build-isolation")  # the dependencies are installed already


def checkout(folder: Path) -> Path:
    """A copy of the source as in a fresh checkout; a build may write into it."""
    folder.mkdir()
    for name in PACKAGES:
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(ROOT / name, folder / name)
    return folder


def fresh_environment(folder: Path) -> Path:
    """A virtual environment with the dependencies of automl, without automl itself; returns its Python."""
    venv.create(folder, with_pip=False, symlinks=True)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    # Only the packages of this environment, by path: an editable automl in it is found by a `.pth` file, which Python
    # reads in folders of site-packages only.
    here = dict.fromkeys(entry for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages"))
    (packages / "dependencies.pth").write_text("".join(f"{entry}\n" for entry in here))
    return folder / "bin" / "python"


def wheel_of(source: Path, folder: Path) -> str:
    subprocess.run([*PIP, "wheel", *OFFLINE, "--wheel-dir", str(folder), str(source)], check=True)
    (wheel,) = folder.glob("*.whl")
    assert wheel.name.startswith(f"{PROJECT['name'].replace('-', '_')}-")
    return str(wheel)


@pytest.mark.parametrize("way", ["checkout", "wheel", "editable"])
def test_an_installed_automl_searches_inside_a_project_with_folders_of_our_names(way: str, tmp_path: Path) -> None:
    source = checkout(tmp_path / "source")
    what = {"checkout": [str(source)], "editable": ["--editable", str(source)]}.get(way) or [
        wheel_of(source, tmp_path / "wheels")
    ]
    python = fresh_environment(tmp_path / "environment")
    subprocess.run([*PIP, "--python", str(python), "install", *OFFLINE, *what], check=True)
    project = tmp_path / "project"
    for name in PACKAGES[1:]:  # a user's own folders, which must not replace ours
        (project / name).mkdir(parents=True)
        (project / name / "__init__.py").write_text("raise RuntimeError('the project\\'s own package was imported')\n")
    (project / "mine.py").write_text(MINE)

    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [str(python.with_name("automl")), "search", "s", *OURS, "--children", "2", "--workers", "1"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, env=environment)

    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "Done: 2 children trained." in done.stdout
    where = "import automl; print(automl.__file__)"
    found = subprocess.run(
        [python, "-c", where], cwd=tmp_path, capture_output=True, text=True, check=True, env=environment
    ).stdout
    expected = source if way == "editable" else tmp_path / "environment"
    assert Path(found.strip()).is_relative_to(expected)
    # No installation makes a package of ours importable by a bare name, so pip has none to overwrite.
    bare = "import importlib.util; print([n for n in ('db', 'controllers') if importlib.util.find_spec(n)])"
    assert (
        subprocess.run([python, "-c", bare], cwd=tmp_path, capture_output=True, text=True, env=environment).stdout
        == "[]\n"
    )


def test_every_advice_to_install_names_our_distribution_and_one_of_its_extras() -> None:
    texts = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    texts += [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    advised = {match for path in texts for match in re.findall(r"\b(automl[\w-]*)\[(\w+)\]", path.read_text())}
    assert {name for name, _ in advised} == {PROJECT["name"]}
    assert {extra for _, extra in advised} <= set(PROJECT["optional-dependencies"])
