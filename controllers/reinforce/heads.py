"""Which rows of the policy's tables belong to which kind of decision, and how large the tables are."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from search_spaces.decisions import Choice, Decision
from search_spaces.walk import Walk


@dataclasses.dataclass
class Heads:
    """Grows as new kinds turn up, and never shrinks.

    Attributes:
        rows: the row of each kind of `Choice`, in the order they turned up.
        widths: the number of options of each kind.
        slots: anchors that one child can have at the most.
    """

    rows: dict[str, int] = dataclasses.field(default_factory=dict)
    widths: dict[str, int] = dataclasses.field(default_factory=dict)
    slots: int = 0

    @property
    def width(self) -> int:
        """The widest decision."""
        return max(self.widths.values(), default=1)

    @property
    def kinds(self) -> list[tuple[str, int]]:
        return list(self.widths.items())

    def meet(self, decisions: Iterable[Decision]) -> bool:
        """Makes room for the decisions of one child; True where that took more room."""
        grown = False
        links = 0
        for decision in decisions:
            if not isinstance(decision, Choice):
                links += 1
            elif decision.kind not in self.rows:
                self.rows[decision.kind] = len(self.rows)
                self.widths[decision.kind] = len(decision.options)
                grown = True
        if links > self.slots:
            self.slots, grown = links, True
        return grown

    @classmethod
    def of(cls, walks: Iterable[Walk]) -> Heads:
        heads = cls()
        for walk in walks:
            heads.meet(walk.decisions)
        return heads


class AnchorSlots:
    """Hands out the anchors of one child: each `Links` fills the next slot, and links to those of its own kind."""

    def __init__(self) -> None:
        self._count = 0
        self._of_kind: dict[str, list[int]] = {}

    def earlier(self, kind: str) -> list[int]:
        """Slots of the earlier `Links` of this kind, oldest first."""
        return self._of_kind.get(kind, [])

    def fill(self, kind: str) -> int:
        slot = self._count
        self._count += 1
        self._of_kind.setdefault(kind, []).append(slot)
        return slot
