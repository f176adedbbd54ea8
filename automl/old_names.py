"""Names the new modules when an import uses a name of automl 0.1.0. To be removed in 0.3.0."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

OLD_NAMES = ("child_trainers", "controllers", "db", "search_spaces")


class OldNames(MetaPathFinder, Loader):
    """Fails imports of the old names with a clear message.

    It is the last finder on `sys.meta_path`, so it is called only if the user has no package of such a name.
    """

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name in OLD_NAMES else None

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        raise ModuleNotFoundError(
            f"No module named {spec.name!r}; if automl's is meant, its name is automl.{spec.name} since version 0.2.0.",
            name=spec.name,
        )

    def exec_module(self, module: ModuleType) -> None:
        """Never called: `create_module` raises."""


def install_finder() -> None:
    """Appends the finder to `sys.meta_path`, once."""
    if not any(isinstance(finder, OldNames) for finder in sys.meta_path):
        sys.meta_path.append(OldNames())
