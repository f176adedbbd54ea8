"""A spec that is nothing more than the values of its decisions."""

from __future__ import annotations

import dataclasses
from typing import Any

from automl.search_spaces.spec import Json, canonical_json, printable


@dataclasses.dataclass(frozen=True)
class Values:
    """A child that is fully described by the values of its decisions.

    Attributes:
        values: JSON values by the name of the decision, in the order of the decisions; of `Links` the layers' indices.
    """

    values: dict[str, Json]

    def canonical(self) -> Json:
        return self.to_json()

    def to_json(self) -> Json:
        return dataclasses.asdict(self)

    def line(self) -> str:
        return printable(" ".join(f"{name}={_written(value)}" for name, value in self.values.items()))

    def drawing(self) -> str:
        return ""

    @staticmethod
    def decisions(spec: dict[str, Any]) -> dict[str, Any]:
        """The values of the space's decisions by name; see `spec.Encodable`."""
        values = spec.get("values")
        return dict(values) if isinstance(values, dict) else {}


def values_of(stored: Json) -> dict[str, Json]:
    """The values in the JSON of such a spec. Raises ValueError if there are none."""
    if not isinstance(stored, dict) or not isinstance(stored.get("values"), dict):
        raise ValueError("The stored child has no values of decisions.")
    return dict(stored["values"])


def _written(value: Json) -> str:
    return value if isinstance(value, str) else canonical_json(value)
