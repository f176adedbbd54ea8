"""Update rules as expressions, which are trees of words: printing, parsing, and the canonical form."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NoReturn

from automl.search_spaces.update_rule.language import COMMUTING, DECAYS, OPERANDS, UNARY

Expression = tuple[Any, ...]  # (operand,), (unary, expression) or (binary, expression, expression)

OPPOSITE = {"x + y": "x - y", "x - y": "x + y"}  # of a negated right operand
OF_ABSOLUTE = ("log(abs(x))", "sqrt(abs(x))")
SYMBOLS = {"x + y": "+", "x - y": "-", "x * y": "*", "x / y": "/"}
SUM, PRODUCT, PREFIX, ATOM = range(4)  # precedence, lowest first
LEVEL = {"x + y": SUM, "x - y": SUM, "x * y": PRODUCT, "x / y": PRODUCT}


class RuleError(ValueError):
    """A text is not an update rule; the message gives the position and what was expected there."""


def text_of(expression: Expression) -> str:
    """The expression as users write it; `parse` reads it back."""
    return _text(expression)[0]


def _text(expression: Expression) -> tuple[str, int]:
    word, *parts = expression
    if word in SYMBOLS:
        level = LEVEL[word]
        left, right = (_text(part) for part in parts)
        # The right operand of - and / needs a higher precedence: a - (b + c). For + and * this keeps the tree.
        return f"{within(left, level)} {SYMBOLS[word]} {within(right, level + 1)}", level
    if word == "x ^ y":
        return f"pow({text_of(parts[0])}, {text_of(parts[1])})", ATOM
    if word == "-x":
        return f"-{within(_text(parts[0]), PREFIX)}", PREFIX
    if word.startswith(("clip ", "drop ")):
        name, value = word.split()
        return f"{name}({text_of(parts[0])}, {value})", ATOM
    if parts:
        before, after = re.split(r"\bx\b", word)  # of `log(abs(x))`
        return f"{before}{text_of(parts[0])}{after}", ATOM
    return word, ATOM


def within(text: tuple[str, int], level: int) -> str:
    """A text with its precedence, in parentheses if the precedence is below `level`."""
    return text[0] if text[1] >= level else f"({text[0]})"


def parse(text: str) -> Expression:
    """The expression of a text.

    Raises:
        RuleError: the text is not an update rule; the message gives the position, from 1, and what was expected there.
    """
    parser = _Parser(text)
    expression = parser.sum()
    parser.expect_end()
    return expression


WORDS = r"0\.0001w|0\.001w|0\.01w|0\.1w|g\^2|g\^3|[A-Za-z_]+|1e-[345]|0\.[135]|[12](?![\d.e])|[-+*/(),]"
# It also matches what is not a word, so that the parser can say what it expected there.
TOKEN = re.compile(rf"\s*({WORDS}|[\d.]+(?:e-?\d+|w)?|\S)")
FUNCTIONS = ("exp", "log", "sqrt", "clip", "drop", "sign", "pow")


class _Parser:
    """Recursive descent: sums of products of signed atoms."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = [(match[1], match.start(1) + 1) for match in TOKEN.finditer(text)]
        self._index = 0

    @property
    def _next(self) -> str:
        return self._tokens[self._index][0] if self._index < len(self._tokens) else ""

    def _take(self, *expected: str) -> str:
        if self._next not in expected or not self._next:
            self._fail(" or ".join(map(repr, expected)))
        self._index += 1
        return self._tokens[self._index - 1][0]

    def _fail(self, expected: str) -> NoReturn:
        found = f"found {self._next!r}" if self._next else "found the end"
        position = self._tokens[self._index][1] if self._next else len(self._text) + 1
        raise RuleError(f"{self._text!r} is not an update rule: at position {position} expected {expected}, {found}.")

    def expect_end(self) -> None:
        if self._next:
            self._fail("an operator (+, -, *, /) or the end")

    def sum(self) -> Expression:
        expression = self._product()
        while self._next in ("+", "-"):
            sign = self._take("+", "-")
            expression = (f"x {sign} y", expression, self._product())
        return expression

    def _product(self) -> Expression:
        expression = self._signed()
        while self._next in ("*", "/"):
            sign = self._take("*", "/")
            expression = (f"x {sign} y", expression, self._signed())
        return expression

    def _signed(self) -> Expression:
        if self._next == "-":
            self._take("-")
            return ("-x", self._signed())
        return self._atom()

    def _atom(self) -> Expression:
        word = self._next
        if word == "(":
            self._take("(")
            expression = self.sum()
            self._take(")")
            return expression
        if word in FUNCTIONS:
            return self._function(self._take(word))
        if word in (*OPERANDS, *DECAYS):
            return (self._take(word),)
        plain = ", ".join(word for word in OPERANDS if "(" not in word)
        self._fail(f"an operand ({plain}), a function ({', '.join(FUNCTIONS)}), - or (")

    def _function(self, name: str) -> Expression:
        self._take("(")
        if name in ("log", "sqrt"):
            self._take("abs")
            self._take("(")
            inside = self.sum()
            self._take(")")
            self._take(")")
            return (f"{name}(abs(x))", inside)
        inside = self.sum()
        if name == "pow":
            self._take(",")
            expression: Expression = ("x ^ y", inside, self.sum())
        elif name in ("clip", "drop"):
            self._take(",")
            values = [word.removeprefix(f"{name} ") for word in UNARY if word.startswith(f"{name} ")]
            expression = (f"{name} {self._take(*values)}", inside)
        else:
            expression = (f"{name}(x)", inside)
        self._take(")")
        return expression


def canonical(expression: Expression) -> Expression:
    """The canonical form, the same for all expressions that are equal by these laws:

    x + y = y + x, x * y = y * x, -(-x) = x, x + -y = x - y, x - -y = x + y, -x - y = -(x + y),
    sign(sign(x)) = sign(clip(x, c)) = sign(x), sign(momentum) = sign(m), abs(-x) = abs(x); and `keep x` is its left
    operand.
    """
    word, *parts = expression
    parts = [canonical(part) for part in parts]
    if word == "-x" and parts[0][0] == "-x":
        return parts[0][1]
    if word == "sign(x)":
        return _sign_of(parts[0])
    if word in OF_ABSOLUTE and parts[0][0] == "-x":
        return (word, parts[0][1])
    if word == "x + y" and parts[0][0] == "-x":
        parts.reverse()
    if word in OPPOSITE and parts[1][0] == "-x":
        word, parts[1] = OPPOSITE[word], parts[1][1]
    if word == "x - y" and parts[0][0] == "-x":
        return ("-x", canonical(("x + y", parts[0][1], parts[1])))
    if word in COMMUTING:
        parts.sort(key=repr)
    return (word, *parts)


class Drop(str):
    """The word of a `drop` in an expression; it equals the plain word.

    Attributes:
        place: its position among the drops of the expression's canonical form, from 0.
    """

    __slots__ = ("place",)
    place: int


def with_places(expression: Expression) -> Expression:
    """The same expression, with the position of each `drop`. With positions, each drop draws its own mask, and
    expressions with the same canonical form draw equal masks. Drops of a part that occurs twice count twice."""
    marked = _marked(expression)
    for place, word in enumerate(drops_of(canonical(marked))):
        word.place = place
    return marked


def drops_of(expression: Expression) -> Iterator[Drop]:
    """The drops of an expression with places, in preorder."""
    word, *parts = expression
    if isinstance(word, Drop):
        yield word
    for part in parts:
        yield from drops_of(part)


def _marked(expression: Expression) -> Expression:
    word, *parts = expression
    return (Drop(word) if word.startswith("drop ") else word, *(_marked(part) for part in parts))


def _sign_of(expression: Expression) -> Expression:
    word, *parts = expression
    if word == "sign(x)":
        return expression
    if word.startswith("clip "):
        return _sign_of(parts[0])
    return ("sign(x)", ("m",) if word == "momentum" else expression)
