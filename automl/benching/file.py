"""The file of a bench: the results of all its searches, and the settings that they share."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from automl.benching.code import code_identity
from automl.benching.plan import Checked, Plan
from automl.benching.searches import History

FORMAT = 1
Searches = dict[str, dict[int, History]]  # by label and seed


class BenchFile:
    """The JSON file of a bench. Its searches are in a store beside it.

    Args:
        path: where the file is; None keeps no results.

    Attributes:
        searches: the results of this call and of earlier ones.

    Raises:
        ValueError: the file is damaged, or is of a bench with other settings.
    """

    def __init__(self, path: Path | None, plan: Plan, checked: Checked) -> None:
        self._path = path
        self._settings = plan.identity(checked.subject)
        self._code: Mapping[str, str] = code_identity()
        self._competitors = {one.label: plan.identity_of(one, checked.donors[one.label]) for one in plan.competitors}
        self.searches: Searches = {}
        if path is not None and path.exists():
            self._read(path)
        elif path is not None and (store := _store_path(path)).exists():
            raise ValueError(
                f"{store} has the searches of a bench whose file {path} is gone; delete it, or name another file with "
                "--to."
            )
        for one in plan.competitors:
            self.searches.setdefault(one.label, {})

    def check_code(self) -> None:
        """Raises ValueError if another version of automl, or other code of a development version, made the searches.

        The file of an early development version does not name its code, which is then not compared.
        """
        now = code_identity()
        if any(now.get(name) != value for name, value in self._code.items()):
            raise ValueError(
                f"The searches of {self._path} were run by {_automl(self._code)}, and this is {_automl(now)}; their "
                "results would not compare, so name another file with --to, or ask only for the searches that it has."
            )

    def save(self, results: Mapping[str, Any] | None = None) -> None:
        """Writes the file.

        Args:
            results: the report on all searches, once they are complete.
        """
        if self._path is None:
            return
        written = {
            "format": FORMAT,
            "settings": {**self._settings, **self._code},
            "controllers": self._competitors,
            "searches": {
                label: {str(seed): history.to_json() for seed, history in sorted(of_label.items())}
                for label, of_label in self.searches.items()
                if of_label
            },
            **(results or {}),
        }
        partial = self._path.with_name(f".{self._path.name}.partial")
        partial.write_text(json.dumps(written) + "\n", encoding="utf-8")
        partial.replace(self._path)

    def drop_if_unused(self) -> None:
        """Deletes the file if no search has begun, so that the next bench may have other settings."""
        if self._path is not None and not _store_path(self._path).exists():
            self._path.unlink()

    @contextlib.contextmanager
    def store(self) -> Iterator[str]:
        """The address of the store of the searches: beside the file, or a temporary one without a file."""
        if self._path is not None:
            yield str(_store_path(self._path))
            return
        with tempfile.TemporaryDirectory() as folder:
            yield str(Path(folder) / "bench.db")

    def _read(self, path: Path) -> None:
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            if stored["format"] != FORMAT:
                raise ValueError
            settings, competitors = dict(stored["settings"]), dict(stored["controllers"])
            self._code = {name: settings.pop(name) for name in ("version", "code") if name in settings}
            self.searches = {
                label: {int(seed): History(**history) for seed, history in of_label.items()}
                for label, of_label in stored["searches"].items()
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise ValueError(
                f"{path} is not the file of a bench of this version of automl; name another file with --to."
            ) from None
        _check_same(path, "the searches", settings, self._settings)
        for label, competitor in self._competitors.items():
            if label in competitors:
                _check_same(path, label, competitors[label], competitor)
        self._competitors = competitors | self._competitors


def _store_path(path: Path) -> Path:
    return path.absolute().with_name(f"{path.name}.db")


def _automl(code: Mapping[str, str]) -> str:
    """The version of automl, and the code of a development version, in words."""
    return f"automl {code.get('version')}" + (f" (code {code['code']})" if "code" in code else "")


def _check_same(path: Path, what: str, was: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    changed = next((name for name in [*was, *now] if was.get(name) != now.get(name)), None)
    if changed is not None:
        raise ValueError(
            f"{path} is a bench with other settings of {what}: {changed} was {was.get(changed)!r} and is "
            f"{now.get(changed)!r}; put it back, or name another file with --to."
        )
