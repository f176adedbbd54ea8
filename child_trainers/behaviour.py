"""Which version of what training and spaces compute a search keeps."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

FIRST_VERSION = "0.1.0"  # of automl: its searches have no `settings["behaviour"]`


@dataclasses.dataclass(frozen=True)
class Behaviour:
    """What a search computes where this has changed between versions, each as a version from 1.

    The defaults are those of a new search; a search keeps those that it began with, so that it goes on as the same
    search under a later automl.

    Attributes:
        cell_identity: which recurrent cells count as equal.
        data_split: how training and validation images are taken from a file of arrays.
        drop_masks: which weights the `drop`s of an update rule leave out.
        standardization: how images are brought to one scale.
    """

    cell_identity: int = 2
    data_split: int = 2
    drop_masks: int = 2
    standardization: int = 2

    @classmethod
    def of_settings(cls, settings: Mapping[str, Any]) -> Behaviour:
        """That of a search, by its stored settings; what they do not name has version 1.

        Raises:
            ValueError: a later automl wrote something that this one does not know.
        """
        stored = settings.get("behaviour", {})
        newest = dataclasses.asdict(cls())
        if not isinstance(stored, Mapping):
            raise ValueError(f"The stored behaviour of this search is {stored!r}; it must be a table of versions.")
        for name, version in stored.items():
            if type(version) is not int or version < 1:
                raise ValueError(f"The stored behaviour {name!r} of this search is {version!r}; it must be a version.")
            if version > newest.get(name, 0):
                raise ValueError(
                    f"This search has version {version} of the behaviour {name!r}, which this automl does not know; "
                    "it needs a newer automl."
                )
        return cls(**{**dict.fromkeys(newest, 1), **stored})


class Earlier(NamedTuple):
    """An earlier version of a behaviour, for people.

    Attributes:
        text: what it does.
        spaces, tasks: those that it makes a difference to; None for any. A space or task of the user's own is `own`.
    """

    text: str
    spaces: frozenset[str] | None = None
    tasks: frozenset[str] | None = None


EARLIER: dict[str, tuple[Earlier, ...]] = {  # by behaviour, its versions from 1 to the last but one
    "cell_identity": (
        Earlier(
            "cells that differ in a relu without effect count as two", spaces=frozenset(("recurrent-cell", "joint"))
        ),
    ),
    "data_split": (Earlier("images of a file taken without regard to classes", tasks=frozenset(("npz",))),),
    "drop_masks": (Earlier("one mask for all drops of a rule", spaces=frozenset(("update-rule", "joint"))),),
    "standardization": (Earlier("images of a file standardized as if from 0 to 255", tasks=frozenset(("npz",))),),
}


def earlier_behaviours(settings: Mapping[str, Any]) -> list[str]:
    """What a search does otherwise than a new one would, a phrase each; none for a new one.

    Raises:
        ValueError: as `Behaviour.of_settings`.
    """
    versions = dataclasses.asdict(Behaviour.of_settings(settings))
    space, task = _kind(settings["space"]), _kind(settings["task"])
    found = [EARLIER[name][version - 1] for name, version in versions.items() if version <= len(EARLIER[name])]
    return [
        earlier.text
        for earlier in found
        if (earlier.spaces is None or space in earlier.spaces) and (earlier.tasks is None or task in earlier.tasks)
    ]


def _kind(chosen: Mapping[str, Any]) -> str:
    name = str(chosen["name"]).partition(":")[0]  # of `npz:PATH`
    return "own" if chosen["file"] or name == "session" else name
