"""The spec of the space of update rules: groups of five words as plain data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

from automl.search_spaces.update_rule.expression import Expression, RuleError, canonical, parse, text_of
from automl.search_spaces.update_rule.language import BINARY, DECAYS, OPERANDS, UNARY

if TYPE_CHECKING:
    import keras

MAX_GROUPS = 4


@dataclasses.dataclass(frozen=True)
class Group:
    """One line of a rule: `binary(unary1(operand1), unary2(operand2))`.

    An operand is a word of the language, or `r0`, `r1`, … for the result of an earlier group.
    """

    operand1: str
    operand2: str
    unary1: str
    unary2: str
    binary: str


@dataclasses.dataclass(frozen=True)
class UpdateRule:
    """An update rule: the result of the last group is the update U, and w' = w - rate * U.

    Attributes:
        has_own_masks: whether each `drop` draws its own mask, or all drops share one mask.

    Source: Bello et al. 2017 (arXiv:1709.07417), section 3.1.
    """

    groups: tuple[Group, ...]
    has_own_masks: ClassVar[bool] = True

    def __post_init__(self) -> None:
        groups = tuple(Group(**group) if isinstance(group, dict) else group for group in self.groups)
        object.__setattr__(self, "groups", groups)
        if not 1 <= len(groups) <= MAX_GROUPS:
            raise RuleError(f"An update rule has 1 to {MAX_GROUPS} groups, not {len(groups)}.")
        for index, group in enumerate(groups):
            earlier = tuple(f"r{number}" for number in range(index))
            for word, known in (
                (group.operand1, (*OPERANDS, *DECAYS, *earlier)),
                (group.operand2, (*OPERANDS, *DECAYS, *earlier)),
                (group.unary1, UNARY),
                (group.unary2, UNARY),
                (group.binary, BINARY),
            ):
                if word not in known:
                    raise RuleError(f"Group {index} of an update rule has no {word!r}; there is {', '.join(known)}.")

    @classmethod
    def parse(cls, text: str) -> Self:
        """The rule of a text such as `exp(sign(g) * sign(m)) * g`.

        Raises:
            RuleError: the text cannot be parsed (the message says where), or the rule needs too many groups.
        """
        groups: list[Group] = []
        results: dict[Expression, str] = {}  # the operand for an expression that a group computes

        def applied(expression: Expression) -> tuple[str, str]:
            """Splits an expression into an operand and a unary function of it."""
            if expression[0] in UNARY:
                return operand(expression[1]), expression[0]
            return operand(expression), "x"

        def operand(expression: Expression) -> str:
            if len(expression) == 1:
                return str(expression[0])
            if expression == ("sign(x)", ("g",)) or expression == ("sign(x)", ("m",)):
                return f"sign({expression[1][0]})"
            if expression not in results:
                if expression[0] in BINARY:
                    (operand1, unary1), (operand2, unary2) = applied(expression[1]), applied(expression[2])
                    groups.append(Group(operand1, operand2, unary1, unary2, expression[0]))
                else:
                    operand1, unary1 = applied(expression)
                    groups.append(Group(operand1, "1", unary1, "x", "keep x"))
                results[expression] = f"r{len(groups) - 1}"
            return results[expression]

        root = parse(text)
        if operand(root) != f"r{len(groups) - 1}":
            groups.append(Group(operand(root), "1", "x", "x", "keep x"))
        if len(groups) > MAX_GROUPS:
            raise RuleError(f"{text!r} takes {len(groups)} groups of five words; a rule has at most {MAX_GROUPS}.")
        return cls(tuple(groups))

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Self:
        """The rule from its JSON value."""
        return cls(**stored)

    def to_json(self) -> dict[str, Any]:
        """The rule as a JSON value."""
        return dataclasses.asdict(self)

    def line(self) -> str:
        """The update as one expression."""
        return str(self)

    def drawing(self) -> str:
        """Empty, because there is no drawing as text; see `dot`."""
        return ""

    def longer(self) -> list[Self]:
        """This rule, and equal rules with more groups, up to MAX_GROUPS; each added group passes the result on."""
        rules = [self]
        while (count := len(rules[-1].groups)) < MAX_GROUPS:
            rules.append(type(self)((*rules[-1].groups, Group(f"r{count - 1}", "1", "x", "x", "keep x"))))
        return rules

    def expression(self) -> Expression:
        """The update as one expression, into which the results of earlier groups are substituted."""
        results: list[Expression] = []

        def applied(operand: str, unary: str) -> Expression:
            if operand.startswith("sign("):
                inside: Expression = ("sign(x)", (operand[5],))  # of sign(g) or sign(m)
            else:
                earlier = operand[0] == "r" and operand[1:].isdecimal()
                inside = results[int(operand[1:])] if earlier else (operand,)
            return inside if unary == "x" else (unary, inside)

        for group in self.groups:
            left = applied(group.operand1, group.unary1)
            if group.binary == "keep x":
                results.append(left)
            else:
                results.append((group.binary, left, applied(group.operand2, group.unary2)))
        return results[-1]

    def __str__(self) -> str:
        return text_of(self.expression())

    def canonical(self) -> str:
        """A text that is the same for all equal rules; see `expression.canonical`."""
        return text_of(canonical(self.expression()))

    @staticmethod
    def decisions(spec: dict[str, Any]) -> dict[str, Any]:
        """The values of the space's decisions for the rule of this JSON value, which is not validated."""
        groups = spec["groups"]
        values: dict[str, Any] = {"groups": len(groups)}
        return values | {f"group{i}/{name}": word for i, group in enumerate(groups) for name, word in group.items()}

    def with_behaviour(self, versions: Mapping[str, int]) -> UpdateRule:
        """The same rule with these versions of behaviours (`child_trainers.behaviour`)."""
        return SharedMaskRule(self.groups) if versions["drop_masks"] == 1 else self

    def optimizer(self, **options: Any) -> keras.optimizers.Optimizer:
        """A Keras optimizer; see `optimizer.RuleOptimizer`."""
        from automl.search_spaces.update_rule.optimizer import SHARED_MASKS, VERSION, RuleOptimizer

        return RuleOptimizer(str(self), version=VERSION if self.has_own_masks else SHARED_MASKS, **options)

    def dot(self) -> str:
        """The rule as a graph for Graphviz, operands at the bottom."""
        from automl.search_spaces.drawing import graph
        from automl.search_spaces.update_rule.drawing import statements

        return graph(statements(self.expression()), upwards=True)

    def source(self, *, learning_rate: float = 0.01) -> str:
        """A Python file with the rule as a Keras optimizer; see `source.source`."""
        from automl.search_spaces.update_rule.source import source

        return source(self.expression(), learning_rate=learning_rate, own_masks=self.has_own_masks)

    def optimizer_source(self, learning_rate: float | None) -> str:
        """As `source`, with its default learning rate if `learning_rate` is None."""
        return self.source() if learning_rate is None else self.source(learning_rate=learning_rate)


@dataclasses.dataclass(frozen=True)
class SharedMaskRule(UpdateRule):
    """An update rule that computes as in automl 0.1.0: all its drops share one mask."""

    has_own_masks: ClassVar[bool] = False
