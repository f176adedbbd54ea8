"""Maps each kind of decision to its row in the policy's tables, and determines the size of the tables."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from automl.search_spaces.decisions import Choice, Decision, Links
from automl.search_spaces.walk import Walk

SEPARATOR = "\t"  # between a kind and a name
MIN_COMPILED_LENGTH = 48  # decisions; for longer children XLA regains its compile time within a hundred updates


@dataclasses.dataclass
class Heads:
    """Rows and sizes of the policy's tables. They grow with new kinds and never shrink.

    Attributes:
        rows: the row of each head, in order of first appearance.
        widths: the number of options of each head.
        slots: the largest number of anchors (`Links`) of one child.
        longest: the largest number of decisions of one of the walks given to `of`.
        by_name: whether each `Choice` has a head of its own, by kind and name; otherwise those of one kind share one.
    """

    rows: dict[str, int] = dataclasses.field(default_factory=dict)
    widths: dict[str, int] = dataclasses.field(default_factory=dict)
    slots: int = 0
    longest: int = 1
    by_name: bool = False

    def key(self, choice: Choice) -> str:
        """The name of the head that a decision uses."""
        return f"{choice.kind}{SEPARATOR}{choice.name}" if self.by_name else choice.kind

    def by_kind(self, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Means of arrays over the heads of each kind.

        Args:
            values: arrays by head; those of one kind have one shape.
        """
        of_kinds: dict[str, list[np.ndarray]] = {}
        for head, value in values.items():
            of_kinds.setdefault(head.partition(SEPARATOR)[0] if self.by_name else head, []).append(value)
        return {kind: np.mean(of_kind, axis=0) for kind, of_kind in of_kinds.items()}

    @property
    def compiled(self) -> bool:
        """Whether XLA compiles the update. It makes an update of 120 decisions three times as fast, but takes seconds
        to compile."""
        return self.longest >= MIN_COMPILED_LENGTH

    @property
    def width(self) -> int:
        """The largest number of options of any kind; 1 if there are no kinds."""
        return max(self.widths.values(), default=1)

    def padded_length(self, steps: int) -> int:
        """Rounds up to a multiple of a third of the longest child, because XLA compiles a graph for each length."""
        third = math.ceil(self.longest / 3)
        return max(1, math.ceil(steps / third)) * third

    def add(self, decisions: Iterable[Decision]) -> bool:
        """Grows to fit the decisions of one child. Returns whether anything grew.

        Raises:
            ValueError: a kind has another number of options than in an earlier child.
        """
        grown = False
        links = 0
        for decision in decisions:
            if isinstance(decision, Links):
                links += 1
                continue
            head = self.key(decision)
            if head not in self.rows:
                self.rows[head] = len(self.rows)
                self.widths[head] = len(decision.options)
                grown = True
            elif self.widths[head] != len(decision.options):
                raise ValueError(
                    f"Choice {decision.name!r} has {len(decision.options)} options, but in another child its kind "
                    f"{decision.kind!r} has {self.widths[head]}; choices of one kind have the same number."
                )
        if links > self.slots:
            self.slots, grown = links, True
        return grown

    @classmethod
    def of(cls, walks: Iterable[Walk], *, by_name: bool = False) -> Heads:
        """Heads that fit these walks."""
        heads = cls(by_name=by_name)
        for walk in walks:
            heads.add(walk.decisions)
            heads.longest = max(heads.longest, len(walk.decisions))
        return heads


class NewKindError(Exception):
    """The tables have no room for a decision.

    Attributes:
        decisions: the child's decisions up to and including this one.
    """

    def __init__(self, decisions: Sequence[Decision]) -> None:
        super().__init__(f"The tables have no room for {decisions[-1].name!r}.")
        self.decisions = list(decisions)


class Places:
    """The table positions of one child's decisions: the row of a `Choice`, the anchor slot of a `Links`.

    Call `row` or `slot` once for each decision, in order. Both raise NewKindError if the tables have no room.
    """

    def __init__(self, heads: Heads) -> None:
        self._heads = heads
        self._decisions: list[Decision] = []
        self._num_slots = 0
        self._slots_of_kind: dict[str, list[int]] = {}

    def row(self, choice: Choice) -> int:
        self._decisions.append(choice)
        head = self._heads.key(choice)
        if self._heads.widths.get(head) != len(choice.options):
            raise NewKindError(self._decisions)
        return self._heads.rows[head]

    def slot(self, links: Links) -> tuple[int, list[int]]:
        """The slot that this `Links` fills, and the slots of earlier `Links` of its kind, oldest first."""
        self._decisions.append(links)
        slot = self._num_slots
        if slot >= self._heads.slots:
            raise NewKindError(self._decisions)
        self._num_slots += 1
        slots_of_kind = self._slots_of_kind.setdefault(links.kind, [])
        earlier = list(slots_of_kind)
        slots_of_kind.append(slot)
        return slot, earlier
