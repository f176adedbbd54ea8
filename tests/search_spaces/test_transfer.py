"""The child of one space that answers its decisions as a recorded child of another did."""

import functools
import json

import pytest

from automl.search_spaces.convnet.space import convnet
from automl.search_spaces.decisions import Choice, Links
from automl.search_spaces.joint.space import joint
from automl.search_spaces.narrowing import Narrowing, parse_rule
from automl.search_spaces.numeric import Integer, Real
from automl.search_spaces.recorded import decision_to_json
from automl.search_spaces.space import Space
from automl.search_spaces.transfer import RecordedError, UnfitError, recorded_answers, transferred
from automl.testing.spaces import sample


def layers(options, extra=()):
    """Conditional depth, links between layers, and further decisions."""

    def space():
        depth = yield Choice("depth", (1, 2, 3))
        for index in range(depth):
            yield Choice(f"op{index}", options)
            yield Links(f"in{index}", index, kind="in")
        for decision in extra:
            _ = yield decision

    return Space(space)


def answers_of(space, tokens):
    walk = space.decode(tokens)
    return recorded_answers([json.loads(json.dumps(decision_to_json(one))) for one in walk.decisions], list(tokens))


CHILD = (2, 0, 1, 1, 0, 0, 1)  # three layers p, q, p; the second links to the first, the third to the second


def test_answers_are_found_by_name_and_value_whatever_their_tokens():
    answers = answers_of(layers(("p", "q")), CHILD)
    assert transferred(layers(("r", "q", "p")), answers).tokens == (2, 2, 1, 1, 2, 0, 1)


def test_values_are_compared_as_they_are_stored():
    def space(options):
        def one():
            return (yield Choice("x", options))

        return Space(one)

    answers = answers_of(space(((1, 2), True, None)), (0,))
    assert transferred(space((None, (1, 2))), answers).tokens == (1,)
    with pytest.raises(UnfitError):
        transferred(space((1, "True")), answers_of(space((True, 2)), (0,)))


def test_numbers_are_compared_as_numbers():
    def space(decision):
        def one():
            return (yield decision)

        return Space(one)

    answers = answers_of(space(Choice("rate", (0.1, 1, 10.0))), (1,))
    assert transferred(space(Real("rate", 0.01, 100, 5, log=True)), answers).tokens == (2,)
    assert transferred(space(Integer("rate", 0, 5)), answers).tokens == (1,)
    with pytest.raises(UnfitError, match="the decision 'rate' cannot be 1 here"):
        transferred(space(Real("rate", 0, 10, 3)), answers)
    with pytest.raises(UnfitError, match="the decision 'rate' cannot be True here"):
        transferred(space(Integer("rate", 0, 5)), answers_of(space(Choice("rate", (True, 2))), (0,)))


def test_decisions_that_only_the_other_space_has_are_ignored():
    answers = answers_of(layers(("p", "q"), [Choice("rate", (1, 2))]), (*CHILD, 1))
    assert transferred(layers(("p", "q")), answers).tokens == CHILD


def test_a_network_with_its_own_update_rule_is_one_without():
    whole, part = (Space(functools.partial(function, depths=(2, 3))) for function in (joint, convnet))
    for seed in range(5):
        child = sample(whole, seed)
        assert transferred(part, answers_of(whole, child.tokens)).spec == child.spec.net


def test_a_decision_that_only_this_space_has_must_have_one_possible_answer():
    answers = answers_of(layers(("p", "q")), CHILD)
    with pytest.raises(UnfitError, match="the decision 'rate' has no answer there"):
        transferred(layers(("p", "q"), [Choice("rate", (1, 2))]), answers)
    narrowed = layers(("p", "q"), [Choice("rate", (1, 2)), Choice("only", ("x",))])
    narrowed = Space(narrowed.function, Narrowing((parse_rule("rate=2", fix=True),)))
    assert transferred(narrowed, answers).tokens == (*CHILD, 1, 0)


def test_children_outside_the_narrowing_are_found():
    narrowed = Space(layers(("p", "q")).function, Narrowing((parse_rule("depth=1", fix=True),)))
    assert transferred(narrowed, answers_of(layers(("p", "q")), CHILD)).tokens == CHILD


@pytest.mark.parametrize(
    ("space", "reason"),
    [
        (layers(("q", "r")), "the decision 'op0' cannot be 'p' here"),
        (Space(lambda: iter_of(Choice("in0", (1, 2)))), "the decision 'in0' is a set of links there"),
        (Space(lambda: iter_of(Links("op0", 0))), "the decision 'op0' is no set of links there"),
        (
            Space(lambda: iter_of(Links("in0", 0, "in"), Links("in2", 1, "in"))),
            "the links 'in2' have other layers before them there",
        ),
    ],
)
def test_a_child_that_does_not_fit(space, reason):
    with pytest.raises(UnfitError, match=reason):
        transferred(space, answers_of(layers(("p", "q")), CHILD))


def iter_of(*decisions):
    for decision in decisions:
        _ = yield decision


DEPTH = {"name": "depth", "kind": "depth", "options": [1, 2]}


@pytest.mark.parametrize(
    ("decisions", "tokens", "reason"),
    [
        ([DEPTH], [], "the decision 'depth' has no answer among the tokens"),
        ([DEPTH], [2], "the decision 'depth' has no answer among the tokens"),
        ([DEPTH], [-1], "the decision 'depth' has no answer among the tokens"),
        ([DEPTH], [0, 1], "1 tokens are left over after the last decision"),
        ([DEPTH, DEPTH], [0, 1], "a recorded decision has no name of its own, or no kind"),
        ([{"options": [1]}], [0], "a recorded decision has no name of its own, or no kind"),
        ([{"name": "in", "kind": "in", "count": 1}], [1], "the links 'in' have no answer among the tokens"),
        ([{"name": "in", "kind": "in", "count": "0"}], [], "the links 'in' have no answer among the tokens"),
        ([{"name": "x", "kind": "x"}], [0], "the links 'x' have no answer among the tokens"),
    ],
)
def test_damaged_records_are_refused(decisions, tokens, reason):
    with pytest.raises(RecordedError) as caught:
        recorded_answers(decisions, tokens)
    assert str(caught.value) == reason
