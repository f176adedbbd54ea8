"""Which rows of the policy's tables belong to which kind of decision, and how large the tables are."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence

from automl.search_spaces.decisions import Choice, Decision, Links
from automl.search_spaces.walk import Walk

COMPILED_LENGTH = 48  # decisions from which on XLA pays within a hundred updates


@dataclasses.dataclass
class Heads:
    """Grows as new kinds turn up, and never shrinks.

    Attributes:
        rows: the row of each kind of `Choice`, in the order they turned up.
        widths: the number of options of each kind.
        slots: anchors that one child can have at the most.
        longest: the most decisions among the walks that the heads were made of.
    """

    rows: dict[str, int] = dataclasses.field(default_factory=dict)
    widths: dict[str, int] = dataclasses.field(default_factory=dict)
    slots: int = 0
    longest: int = 1

    @property
    def compiled(self) -> bool:
        """Whether XLA pays: it makes the update of 120 decisions three times as fast, and takes seconds to compile."""
        return self.longest >= COMPILED_LENGTH

    @property
    def width(self) -> int:
        """The widest decision."""
        return max(self.widths.values(), default=1)

    def padded_length(self, steps: int) -> int:
        """The next of a third, two thirds and all of the longest child: a compiled graph is made for each length."""
        third = math.ceil(self.longest / 3)
        return max(1, math.ceil(steps / third)) * third

    def meet(self, decisions: Iterable[Decision]) -> bool:
        """Makes room for the decisions of one child; True where that took more room.

        Raises:
            ValueError: a kind has another number of options than in an earlier child.
        """
        grown = False
        links = 0
        for decision in decisions:
            if isinstance(decision, Links):
                links += 1
            elif decision.kind not in self.rows:
                self.rows[decision.kind] = len(self.rows)
                self.widths[decision.kind] = len(decision.options)
                grown = True
            elif self.widths[decision.kind] != len(decision.options):
                raise ValueError(
                    f"Choice {decision.name!r} has {len(decision.options)} options, but in another child its kind "
                    f"{decision.kind!r} has {self.widths[decision.kind]}; choices of one kind have the same number."
                )
        if links > self.slots:
            self.slots, grown = links, True
        return grown

    @classmethod
    def of(cls, walks: Iterable[Walk]) -> Heads:
        heads = cls()
        for walk in walks:
            heads.meet(walk.decisions)
            heads.longest = max(heads.longest, len(walk.decisions))
        return heads


class NewKindError(Exception):
    """A decision turned up for which the tables have no room yet; `decisions` are the child's so far, with that one."""

    def __init__(self, decisions: Sequence[Decision]) -> None:
        super().__init__(f"The tables have no room for {decisions[-1].name!r}.")
        self.decisions = list(decisions)


class Places:
    """Where the decisions of one child stand, met in their order: the row of a `Choice`, the anchor's slot of a
    `Links`. Both raise NewKindError where the tables have no room."""

    def __init__(self, heads: Heads) -> None:
        self._heads = heads
        self._met: list[Decision] = []
        self._num_slots = 0
        self._of_kind: dict[str, list[int]] = {}

    def row(self, choice: Choice) -> int:
        self._met.append(choice)
        if self._heads.widths.get(choice.kind) != len(choice.options):
            raise NewKindError(self._met)
        return self._heads.rows[choice.kind]

    def slot(self, links: Links) -> tuple[int, list[int]]:
        """The next slot, which this `Links` fills, and those of its kind before it, oldest first."""
        self._met.append(links)
        slot = self._num_slots
        if slot >= self._heads.slots:
            raise NewKindError(self._met)
        self._num_slots += 1
        of_kind = self._of_kind.setdefault(links.kind, [])
        earlier = list(of_kind)
        of_kind.append(slot)
        return slot, earlier
