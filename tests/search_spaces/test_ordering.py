"""A changed space keeps the token numbers of its options."""

import json

import pytest

from automl.search_spaces.decisions import Choice, Links
from automl.search_spaces.ordering import ChangedError, Ordering, ordered
from automl.search_spaces.recorded import decision_to_json
from automl.search_spaces.space import Space


def met(*pairs):
    ordering = Ordering()
    for was, now in pairs:
        ordering.match(decision_to_json(was), now)
    return Ordering.from_json(json.loads(json.dumps(ordering.to_json())))  # as it is stored


def test_added_options_follow_the_old_ones():
    was, now = Choice("rate", (0.1, 0.01)), Choice("rate", (1.0, 0.01, 0.5, 0.1))
    asked = met((was, now)).apply(now)
    assert asked.options == (0.1, 0.01, 1.0, 0.5)
    assert asked.kind == was.kind  # what the policy has learned stays
    assert met((was, now)).apply(Links("links", 0)) == Links("links", 0)


def test_options_keep_the_values_that_the_space_yields():
    class Size(str):
        pass

    options = (Size("a"), (1, 2), Size("b"))
    now = Choice("size", options)
    asked = met((Choice("size", ("b", [1, 2])), now)).apply(now)
    assert asked.options == ("b", (1, 2), "a") and type(asked.options[1]) is tuple and type(asked.options[0]) is Size


def test_a_decision_that_no_child_met_follows_those_of_its_kind():
    was, now = Choice("layer0/units", (16, 32)), Choice("layer0/units", (8, 16, 32))
    asked = met((was, now)).apply(Choice("layer7/units", (8, 16, 32)))
    assert (asked.options, asked.kind) == ((16, 32, 8), was.kind)
    other = Choice("depth", (8, 16, 32))
    assert met((was, now)).apply(other) is other


def test_a_kind_that_was_numbered_in_two_ways_orders_no_new_decision():
    now = (1, 2, 3)
    ordering = met(
        (Choice("a", (1, 2), kind="k"), Choice("a", now, kind="k")),
        (Choice("b", (2, 1), kind="k"), Choice("b", now, kind="k")),
    )
    assert ordering.apply(Choice("a", now, kind="k")).options == (1, 2, 3)
    assert ordering.apply(Choice("b", now, kind="k")).options == (2, 1, 3)
    assert ordering.apply(Choice("c", now, kind="k")).options == (1, 2, 3)


def test_options_that_depend_on_earlier_answers():
    small, large = Choice("n", (1, 2), kind="n"), Choice("n", (10, 20), kind="n")
    now = [Choice("n", (0, *choice.options), kind="n") for choice in (small, large)]
    ordering = met((small, now[0]), (large, now[1]))
    assert [ordering.apply(choice).options for choice in now] == [(1, 2, 0), (10, 20, 0)]


@pytest.mark.parametrize(
    "was, now, sentence",
    [
        (Choice("a", (1, 2)), None, "the decision 'a' is no longer there"),
        (Choice("a", (1, 2)), Choice("b", (1, 2)), "there is the decision 'b' where 'a' was"),
        (Choice("a", (1, 2)), Links("a", 0), "the decision 'a' is a set of links where it was a choice"),
        (Links("a", 1), Links("a", 2), "the decision 'a' has 2 layers before it where it had 1"),
        (Links("a", 1), Links("a", 1, kind="k"), "the decision 'a' is of the kind 'k' where it was of 'a'"),
        (Choice("a", (1, 2)), Choice("a", (1, 3)), "the decision 'a' no longer has the option 2"),
        (Choice("a", (1, 2)), Choice("a", (1.0, 2)), "the decision 'a' no longer has the option 1"),
        (Choice("a", (1, 2)), Choice("a", (1, True, 2)), None),
        (Choice("a", (1, 1)), Choice("a", (1, 1)), None),
        (Choice("a", (1, 1)), Choice("a", (1, 1, 2)), "the decision 'a' has an option twice"),
        (Choice("a", (1, 2)), Choice("a", (1, 2), kind="k"), "the decision 'a' is of the kind 'k' where it was of"),
        (Choice("a", (1, 2), kind="k"), Choice("a", (1, 2)), "the decision 'a' is of the kind 'a[1, 2]' where it was"),
    ],
)
def test_which_decisions_can_replace_the_recorded_ones(was, now, sentence):
    if sentence is None:
        assert met((was, now)).apply(now).options[:2] == was.options
        return
    with pytest.raises(ChangedError, match=sentence.replace("[", r"\[")):
        Ordering().match(decision_to_json(was), now)


def test_one_decision_that_had_two_sets_of_options():
    now = Choice("a", (1, 2, 3))
    with pytest.raises(ChangedError, match="'a' had two different forms, and now has only one"):
        met((Choice("a", (1, 2)), now), (Choice("a", (2, 3)), now))


def test_an_ordered_space_keeps_its_token_numbers():
    def before():
        return (yield Choice("a", (1, 2)))

    def after():
        value = yield Choice("a", (3, 2, 1))
        return value

    ordering = met((Choice("a", (1, 2)), Choice("a", (3, 2, 1))))
    space = Space(ordered(after, ordering))
    for token in (0, 1):
        assert space.decode((token,)).spec == Space(before).decode((token,)).spec
    assert space.decode((2,)).spec == 3
    with pytest.raises(ValueError, match="A space must be a generator function"):
        Space(ordered(lambda: 7, ordering)).begin()
