"""The versions of computations that a search keeps, so that a later automl continues it in the same way."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

FIRST_VERSION = "0.1.0"  # of automl; its searches have no `settings["behaviour"]`


@dataclasses.dataclass(frozen=True)
class Behaviour:
    """Versions, from 1, of the computations that have changed between releases of automl.

    The defaults are those of a new search. A search keeps the versions with which it started.

    Attributes:
        cell_identity: which recurrent cells count as the same child.
        controller_default: whether the default preset of `reinforce` and `ppo` has a reward model.
        data_split: how a file of arrays is split into training and validation images.
        drop_masks: whether the `drop`s of an update rule share a mask.
        model_outputs: whether a model of the user's that ends in a softmax is trained, as if it gave logits.
        standardization: how images of a file are rescaled before they are standardized.
    """

    cell_identity: int = 2
    controller_default: int = 2
    data_split: int = 2
    drop_masks: int = 2
    model_outputs: int = 2
    standardization: int = 2

    @classmethod
    def of_settings(cls, settings: Mapping[str, Any]) -> Behaviour:
        """The behaviour of a search, from its stored settings. A behaviour that they do not name has version 1.

        Raises:
            ValueError: the stored behaviour is not a table of versions, or a later automl wrote a version that this one
                does not know.
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


class EarlierVersion(NamedTuple):
    """Describes an earlier version of a behaviour for the user.

    Attributes:
        text: what the earlier version does, a phrase.
        spaces, tasks, controllers: names of the spaces, tasks and controllers that it affects; None for all. The user's
            own have the name `own`.
    """

    text: str
    spaces: frozenset[str] | None = None
    tasks: frozenset[str] | None = None
    controllers: frozenset[str] | None = None


EARLIER_VERSIONS: dict[str, tuple[EarlierVersion, ...]] = {  # by behaviour: all versions except the newest
    "cell_identity": (
        EarlierVersion(
            "cells that differ in a relu without effect count as two", spaces=frozenset(("recurrent-cell", "joint"))
        ),
    ),
    "controller_default": (
        EarlierVersion("a policy without a reward model by default", controllers=frozenset(("reinforce", "ppo"))),
    ),
    "data_split": (EarlierVersion("images of a file taken without regard to classes", tasks=frozenset(("npz",))),),
    "drop_masks": (EarlierVersion("one mask for all drops of a rule", spaces=frozenset(("update-rule", "joint"))),),
    "model_outputs": (
        EarlierVersion("a model that ends in a softmax is trained as if it gave logits", spaces=frozenset(("own",))),
    ),
    "standardization": (
        EarlierVersion("images of a file standardized as if from 0 to 255", tasks=frozenset(("npz",))),
    ),
}


def earlier_behaviours(settings: Mapping[str, Any]) -> list[str]:
    """How a search differs from a new one, one phrase per behaviour; an empty list for a new one.

    Raises:
        ValueError: see `Behaviour.of_settings`.
    """
    versions = dataclasses.asdict(Behaviour.of_settings(settings))
    space, task, controller = (_kind(settings[part]) for part in ("space", "task", "controller"))
    kept = [
        EARLIER_VERSIONS[name][version - 1]
        for name, version in versions.items()
        if version <= len(EARLIER_VERSIONS[name])
    ]
    return [
        earlier.text
        for earlier in kept
        if (earlier.spaces is None or space in earlier.spaces)
        and (earlier.tasks is None or task in earlier.tasks)
        and (earlier.controllers is None or controller in earlier.controllers)
    ]


def _kind(chosen: Mapping[str, Any]) -> str:
    name = str(chosen["name"]).partition(":")[0]  # of `npz:PATH`
    return "own" if chosen.get("file") or name == "session" else name
