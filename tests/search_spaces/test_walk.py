import dataclasses
import json
import math

import pytest

from automl.search_spaces.decisions import Choice, Links
from automl.search_spaces.spec import canonical_hash, canonical_json, spec_to_json
from automl.search_spaces.walk import Walk, possible_answers, replay


def tiny():
    """Two or three layers, each with a width and inputs."""
    depth = yield Choice("depth", (2, 3))
    layers = []
    for index in range(depth):
        width = yield Choice(f"layer{index}/width", (10, 20, 30), kind="width")
        inputs = yield Links(f"layer{index}/inputs", count=index, kind="inputs")
        layers.append({"width": width, "inputs": list(inputs)})
    return layers


def test_a_walk_step_by_step():
    walk = Walk(tiny())
    assert walk.decision == Choice("depth", (2, 3))
    walk.answer((0,))
    assert walk.decision == Choice("layer0/width", (10, 20, 30), kind="width")
    walk.answer((2,))
    walk.answer(())
    walk.answer((0,))
    assert walk.decision == Links("layer1/inputs", count=1, kind="inputs")
    assert walk.spec is None
    walk.answer((1,))
    assert walk.decision is None
    assert walk.spec == [{"width": 30, "inputs": []}, {"width": 10, "inputs": [0]}]
    assert walk.tokens == (0, 2, 0, 1)
    assert walk.forced == (None, None, None, None)
    assert list(walk.answers) == ["depth", "layer0/width", "layer0/inputs", "layer1/width", "layer1/inputs"]
    assert [decision.name for decision in walk.decisions] == list(walk.answers)


def test_replay_takes_a_list_from_json():
    walk = replay(Walk(tiny()), json.loads("[0, 2, 0, 1]"))
    assert walk.tokens == (0, 2, 0, 1)
    assert walk.spec[1] == {"width": 10, "inputs": [0]}


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([0, 2, 0], r"The tokens end before 'layer1/inputs': the space asks for more than the 3 given\. Was this"),
        ([], r"The tokens end before 'depth'"),
        ([0, 2, 0, 1, 1, 1], r"2 of 6 tokens are left over after the last decision\. Was this child"),
        ([0, 3, 0, 1], r"Token 3 is out of range for 'layer0/width'"),
        ([0, 2, 0, 2], r"Token 2 is out of range for 'layer1/inputs'"),
    ],
)
def test_tokens_of_another_space_are_refused(tokens, message):
    with pytest.raises(ValueError, match=message):
        replay(Walk(tiny()), tokens)


def test_an_answer_of_the_wrong_length_or_too_late_is_refused():
    walk = Walk(tiny())
    with pytest.raises(ValueError, match="'depth' takes 1 tokens, got 2"):
        walk.answer((0, 1))
    replay(walk, [0, 0, 0, 0])
    with pytest.raises(ValueError, match="no decision left to answer with"):
        walk.answer((0,))


def yielding(*decisions):
    """A space that ignores the answers. (`yield from` needs a generator here: a tuple takes no answers.)"""
    for decision in decisions:  # noqa: UP028
        yield decision


@pytest.mark.parametrize(
    ("decisions", "message"),
    [
        (
            [Choice("a", (1, 2)), Choice("a", (1, 2))],
            "The space yielded the name 'a' twice; names are unique within a child.",
        ),
        (
            [Choice("a", (1, 2), kind="k"), Choice("b", (1, 2, 3), kind="k")],
            "Choice 'b' has 3 options, but an earlier one of its kind 'k' has 2; "
            "choices of one kind have the same number of options.",
        ),
        (
            [Links("a", 0, kind="k"), Links("b", 0, kind="k")],
            "Links 'b' has count 0, but 1 Links of kind 'k' came before it; the count must equal their number.",
        ),
        (
            [("a", (1, 2))],
            "The space yielded ('a', (1, 2)); it may yield only Choice, Integer, Real, Ordinal and Links.",
        ),
    ],
)
def test_a_space_that_breaks_the_rules_is_refused(decisions, message):
    with pytest.raises(ValueError) as error:
        walk = Walk(yielding(*decisions))
        while walk.decision is not None:
            walk.answer((0,) * walk.decision.num_tokens)
    assert str(error.value) == message


def test_links_of_two_kinds_are_counted_apart():
    walk = Walk(yielding(Links("a0", 0), Links("b0", 0), Links("a1", 1)))
    replay(walk, [1])
    assert walk.tokens == (1,)


def test_a_narrower_is_shown_every_decision_and_its_answer_is_the_decision():
    def first_only(decision):
        if isinstance(decision, Choice):
            return dataclasses.replace(decision, allowed=(True,) + (False,) * (len(decision.options) - 1))
        return dataclasses.replace(decision, forced_bits=(1,) * decision.count)

    walk = Walk(tiny(), first_only)
    while walk.decision is not None:
        walk.answer(tuple(token for token in walk.decision.forced if token is not None))
    assert walk.tokens == walk.forced == (0, 0, 0, 1)


def test_possible_answers_respect_a_narrowing():
    assert list(possible_answers(Choice("a", (1, 2, 3)))) == [(0,), (1,), (2,)]
    assert list(possible_answers(Choice("a", (1, 2, 3), allowed=(True, False, True)))) == [(0,), (2,)]
    assert list(possible_answers(Links("a", 0))) == [()]
    assert list(possible_answers(Links("a", 2))) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert list(possible_answers(Links("a", 2, forced_bits=(1, None)))) == [(1, 0), (1, 1)]


def test_canonical_json_is_one_text():
    assert (
        canonical_json({"b": (1, 2), "a": None}) == canonical_json({"a": None, "b": [1, 2]}) == '{"a":null,"b":[1,2]}'
    )
    with pytest.raises(ValueError):
        canonical_json([math.nan])


def test_the_hash_is_of_the_canonical_form_where_there_is_one():
    class Mirror:
        def canonical(self):
            return {"same": True}

    assert canonical_hash(Mirror(), (1, 2)) == canonical_hash(Mirror(), (2, 1))
    assert canonical_hash([1], (1, 2)) != canonical_hash([1], (2, 1))
    # printf '[1,2]' | sha256sum: hashes are stored, so they may not change between versions.
    assert canonical_hash(None, (1, 2)) == "49a64717d5d4cb19952e6eac2946415cf6879adacf9908e7d872332d32c6e684"


def test_a_spec_is_a_dataclass_or_a_json_value():
    @dataclasses.dataclass(frozen=True)
    class Spec:
        sizes: tuple[int, ...]

    assert spec_to_json(Spec((1, 2))) == {"sizes": [1, 2]}
    assert spec_to_json({"sizes": (1, 2)}) == {"sizes": [1, 2]}
    with pytest.raises(
        ValueError, match="returned a set that is neither a frozen dataclass of plain values nor a JSON"
    ):
        spec_to_json({1, 2})
    with pytest.raises(ValueError, match="returned a Spec"):
        spec_to_json(Spec((math.inf,)))
