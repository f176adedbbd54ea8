import dataclasses

import numpy as np
import pytest

from automl.search_spaces.decisions import Choice, Links


def test_a_choice_is_one_token_that_stands_for_an_option():
    choice = Choice("layer3/filter_height", (1, 3, 5))
    assert choice.num_tokens == 1
    assert choice.value((2,)) == 5
    assert choice.forced == (None,)


def test_links_are_one_bit_per_layer_oldest_first():
    links = Links("layer4/inputs", count=4)
    assert links.num_tokens == 4
    assert links.value((1, 0, 0, 1)) == (0, 3)
    assert links.forced == (None, None, None, None)
    assert Links("layer0/inputs", count=0).value(()) == ()


def test_the_default_kind_is_shared_by_layers_but_not_by_other_options():
    assert Choice("layer3/height", (1, 3)).kind == Choice("layer12/height", [1, 3]).kind
    assert Choice("layer3/height", (1, 3)).kind != Choice("layer3/height", (1, 5)).kind
    assert Links("layer3/inputs", 3).kind == Links("layer12/inputs", 12).kind
    assert Choice("layer3/height", (1, 3), kind="height").kind == "height"


def test_options_may_come_as_a_list():
    assert Choice("depth", [6, 8]).options == (6, 8)


@pytest.mark.parametrize(
    ("allowed", "forced"),
    [
        ((True, True, True), None),
        ((True, False, True), None),
        ((False, False, True), 2),
    ],
)
def test_a_choice_is_forced_where_one_option_is_left(allowed, forced):
    assert Choice("depth", (6, 8, 10), allowed=allowed).forced == (forced,)


def test_a_choice_of_one_option_is_forced():
    assert Choice("depth", (6,)).forced == (0,)


def test_replace_keeps_the_kind():
    narrowed = dataclasses.replace(Choice("depth", (6, 8)), allowed=(True, False))
    assert narrowed.kind == Choice("depth", (6, 8)).kind
    assert narrowed.allows(0) and not narrowed.allows(1)


@pytest.mark.parametrize("token", [-1, 3])
def test_a_token_out_of_range_says_so(token):
    with pytest.raises(ValueError) as error:
        Choice("depth", (6, 8, 10)).check((token,))
    assert str(error.value) == (
        f"Token {token} is out of range for 'depth': it has 3 options (0 to 2). "
        "Was this child sampled from another search space?"
    )


def test_a_bit_that_is_none_says_so():
    with pytest.raises(ValueError, match=r"Token 2 is out of range for 'layer2/inputs': each of its 2 bits is 0 or 1"):
        Links("layer2/inputs", 2).check((0, 2))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Choice("depth", ()), "Choice 'depth' has no options; give it at least one."),
        (
            lambda: Choice("depth", (6, 8), allowed=(False, False)),
            "Choice 'depth': the mask (False, False) must allow at least one of (6, 8).",
        ),
        (
            lambda: Choice("depth", (6, 8), allowed=(True,)),
            "Choice 'depth': the mask (True,) must allow at least one of (6, 8).",
        ),
        (
            lambda: Links("layer0/inputs", -1),
            "Links 'layer0/inputs': count is -1; it must be a whole number, 0 or more.",
        ),
        (
            lambda: Links("layer1/inputs", 1.5),
            "Links 'layer1/inputs': count is 1.5; it must be a whole number, 0 or more.",
        ),
        (lambda: Choice(3, (6, 8)), "A Choice has the name 3; a decision's name is a text."),
        (lambda: Choice("depth", None), "The options of 'depth' are None; give them as a tuple."),
        (lambda: Choice("depth", np.array(6)), "The options of 'depth' are array(6); give them as a tuple."),
        (lambda: Choice("depth", (6, 8), kind=3), "Choice 'depth' has the kind 3; a decision's kind is a text."),
        (
            lambda: Links("layer2/inputs", 2, forced_bits=(0,)),
            "Links 'layer2/inputs': 1 forced bits for 2 layers.",
        ),
    ],
)
def test_a_wrong_decision_is_refused_when_it_is_made(make, message):
    with pytest.raises(ValueError) as error:
        make()
    assert str(error.value) == message
