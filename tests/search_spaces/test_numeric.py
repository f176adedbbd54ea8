"""`Integer` and `Real`: numbers in a range as ordered options."""

import dataclasses
import json
import math

import numpy as np
import pytest

from automl import Choice, Integer, Links, Ordinal, Real
from automl.search_spaces.narrowing import Narrowing, parse_rule
from automl.search_spaces.ordering import ChangedError, Ordering, ordered
from automl.search_spaces.recorded import (
    ChildMismatchError,
    check_options,
    decision_to_json,
    decode_recorded,
)
from automl.search_spaces.space import Space
from automl.search_spaces.spec import spec_to_json

LR = Real("lr", 1e-4, 1e-1, 4, log=True)


@pytest.mark.parametrize(
    ("decision", "options"),
    [
        (LR, (0.0001, 0.001, 0.01, 0.1)),
        (Real("dropout", 0, 0.5, 6), (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)),
        (Real("shift", -0.3, 0.6, 4), (-0.3, 0.0, 0.3, 0.6)),
        (Real("two", 1, 3, 2), (1.0, 3.0)),
        (Integer("layers", 2, 5), (2, 3, 4, 5)),
        (Integer("size", 1, 9, step=4), (1, 5, 9)),
        (Integer("size", 1, 9, 4), (1, 5, 9)),
        (Integer("units", 16, 256, step=2, log=True), (16, 32, 64, 128, 256)),
        (Integer("width", 1, 4, log=True), (1, 2, 3, 4)),
        (Integer("shift", np.int64(-1), np.int32(1)), (-1, 0, 1)),
        (Real("lr", np.float32(0.5), np.float64(1.5), np.int64(3)), (0.5, 1.0, 1.5)),
    ],
)
def test_a_range_is_a_few_numbers_in_ascending_order(decision, options):
    assert decision.options == options
    assert [type(option) for option in decision.options] == [type(option) for option in options]
    assert decision.ordered and isinstance(decision, Choice)
    assert [decision.value((token,)) for token in range(len(options))] == list(options)
    assert [decision.token_of(option) for option in options] == list(range(len(options)))


def test_only_numbers_in_a_range_are_ordered():
    assert not Choice("units", (16, 32)).ordered
    assert not Links("inputs", 0).ordered


def test_unit_values_go_from_zero_to_one():
    assert [LR.unit_value(token) for token in range(4)] == pytest.approx([0, 1 / 3, 2 / 3, 1], abs=1e-12)
    assert [Integer("n", 2, 6, step=2).unit_value(token) for token in range(3)] == [0, 0.5, 1]
    # log 2 / log 4
    assert Integer("n", 1, 4, log=True).unit_value(1) == 0.5
    assert Integer("n", 1, 4).unit_value(1) == 1 / 3


def test_a_step_on_a_log_scale_is_a_factor_and_values_lie_at_equal_distances():
    units = Integer("units", 3, 48, step=4, log=True)
    assert units.options == (3, 12, 48)
    assert [units.unit_value(token) for token in range(3)] == pytest.approx([0, 0.5, 1], abs=1e-15)


def test_ranges_of_the_same_numbers_are_of_one_kind():
    assert Integer("layer0/units", 1, 8).kind == Integer("layer11/units", 1, 8).kind == "layer/units[1..8]"
    others = [
        Integer("layer0/units", 1, 9),
        Integer("layer0/units", 1, 9, step=2),
        Integer("layer0/units", 1, 8, log=True),
        Real("layer0/units", 1, 8, 8),
        Real("layer0/units", 1, 8, 9),
        Choice("layer0/units", tuple(range(1, 9))),
    ]
    assert len({decision.kind for decision in others} | {"layer/units[1..8]"}) == 7
    assert Real("lr", 1, 2, 3, kind="rate").kind == "rate"


def test_a_narrowed_range_keeps_its_tokens():
    narrowed = dataclasses.replace(LR, allowed=(False, True, False, False))
    assert narrowed.forced == (1,) and narrowed.options == LR.options and narrowed.kind == LR.kind


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Integer("n", 3, 3), "Integer 'n': low is 3 and high is 3; low must be below high."),
        (lambda: Real("lr", 2, 1, 3), "Real 'lr': low is 2.0 and high is 1.0; low must be below high."),
        (lambda: Integer("n", 0, 8, log=True), "Integer 'n': low is 0; on a log scale it must be above 0."),
        (lambda: Real("lr", -1, 1, 3, log=True), "Real 'lr': low is -1.0; on a log scale it must be above 0."),
        (lambda: Real("lr", 1, 2, 1), "Real 'lr': num_bins is 1; it must be a whole number from 2 to 1000."),
        (lambda: Real("lr", 1, 2, 2.5), "Real 'lr': num_bins is 2.5; it must be a whole number from 2 to 1000."),
        (lambda: Real("lr", 1, 2, True), "Real 'lr': num_bins is True; it must be a whole number from 2 to 1000."),
        (lambda: Real("lr", 1, 2, 1001), "Real 'lr': num_bins is 1001; it must be a whole number from 2 to 1000."),
        (lambda: Integer("n", 1, 6, step=3), "Integer 'n': steps of 3 from 1 do not reach 6; make high 4 or 7."),
        (lambda: Integer("n", 1, 3, step=9), "Integer 'n': steps of 9 from 1 do not reach 3; make high 10."),
        (
            lambda: Integer("n", 1, 100, step=2, log=True),
            "Integer 'n': factors of 2 from 1 do not reach 100; make high 64 or 128.",
        ),
        (lambda: Integer("n", 1, 6, step=0), "Integer 'n': step is 0; it must be 1 or more."),
        (lambda: Integer("n", 1, 6, step=1.5), "Integer 'n': step is 1.5; it must be a whole number."),
        (lambda: Integer("n", 1.5, 6), "Integer 'n': low is 1.5; it must be a whole number."),
        (lambda: Integer("n", True, 6), "Integer 'n': low is True; it must be a whole number."),
        (lambda: Integer("n", 1, None), "Integer 'n': high is None; it must be a whole number."),
        (lambda: Real("lr", "0.1", 1, 3), "Real 'lr': low is '0.1'; it must be a finite number."),
        (lambda: Real("lr", 0, math.inf, 3), "Real 'lr': high is inf; it must be a finite number."),
        (lambda: Real("lr", math.nan, 1, 3), "Real 'lr': low is nan; it must be a finite number."),
        (lambda: Real("lr", 0, 1, 3, log="yes"), "Real 'lr': log is 'yes'; it must be True or False."),
        (
            lambda: Integer("n", 0, 10**12),
            "Integer 'n' has more than 1000 values from 0 to 1000000000000; give it a larger step.",
        ),
        (
            lambda: Real("lr", 1, 1 + 1e-15, 3),
            "Real 'lr': 1.0 and 1.000000000000001 are too close or too far apart for 3 different numbers.",
        ),
        (lambda: Real(7, 0, 1, 3), "A Real has the name 7; a decision's name is a text."),
        (
            lambda: Integer("n", 1, 2, options=(1, 3)),
            "Integer 'n': the options (1, 3) are not the numbers in its range.",
        ),
        (
            lambda: Integer("n", 1, 2, allowed=(False, False)),
            "Integer 'n': the mask (False, False) must allow at least one of (1, 2).",
        ),
    ],
)
def test_an_invalid_range_is_refused_with_one_sentence(make, message):
    with pytest.raises(ValueError) as error:
        make()
    assert str(error.value) == message


def net():
    lr = yield LR
    layers = []
    for index in range((yield Integer("depth", 1, 2))):
        layers.append((yield Integer(f"layer{index}/units", 8, 32, step=2, log=True)))
    return {"lr": lr, "layers": layers, "loss": (yield Choice("loss", ("mse", "mae")))}


def narrowed(*only, fix=()):
    rules = [*(parse_rule(text, fix=False) for text in only), *(parse_rule(text, fix=True) for text in fix)]
    space = Space(net, Narrowing(tuple(rules)))
    space.check()
    return space


def values(space, name):
    found = {walk.spec["lr"] if name == "lr" else tuple(walk.spec["layers"]) for walk in space.enumerate(0)}
    return sorted(found)


def test_a_walk_sends_the_space_its_numbers():
    space = Space(net)
    space.check()
    walk = space.decode((1, 1, 0, 2, 0))
    assert walk.spec == {"lr": 0.001, "layers": [8, 32], "loss": "mse"}
    # 4 rates, 2 losses, 3 or 9 pairs of units
    assert len(list(space.enumerate(0))) == 4 * 2 * (3 + 9)
    given = {"lr": 0.001, "depth": 2, "layer0/units": 8, "layer1/units": 32.0, "loss": "mse"}
    assert space.encode(given) == walk.tokens
    with pytest.raises(ValueError, match=r"^'lr' cannot be 0\.002; the nearest are 0\.001 and 0\.01\.$"):
        space.encode(given | {"lr": 0.002})
    with pytest.raises(ValueError, match=r"^'lr' cannot be True; it is a number\.$"):
        space.encode(given | {"lr": True})


@pytest.mark.parametrize(
    ("rule", "left"),
    [
        ("lr=1e-4..1e-2", [0.0001, 0.001, 0.01]),
        ("lr=0.0005..1", [0.001, 0.01, 0.1]),
        ("lr=0.001", [0.001]),
        ("lr=1e-3", [0.001]),
        ("lr=0.0010000000001", [0.001]),
        ("lr=1e-4,0.05..0.5", [0.0001, 0.1]),
        ("lr=.001...01", [0.001, 0.01]),  # from .001 to .01
    ],
)
def test_a_range_narrows_to_the_numbers_within_it(rule, left):
    assert values(narrowed(rule), "lr") == left


def test_a_pattern_narrows_the_ranges_of_all_layers():
    space = narrowed("layer*/units=8..16", fix=["depth=2", "lr=0.1"])
    assert values(space, "layers") == [(8, 8), (8, 16), (16, 8), (16, 16)]
    assert values(space, "lr") == [0.1]


@pytest.mark.parametrize(
    ("fix", "rule", "message"),
    [
        (False, "lr=0.005", "--only lr=0.005: 'lr' cannot be 0.005; the nearest are 0.001 and 0.01."),
        (False, "lr=1", "--only lr=1: 'lr' cannot be 1.0; the nearest is 0.1."),
        (
            False,
            "lr=0.2..0.3",
            "--only lr=0.2..0.3: no value of 'lr' lies in the range 0.2..0.3; they go from 0.0001 to 0.1.",
        ),
        (
            False,
            "lr=0.1..0.01",
            "--only lr=0.1..0.01: no value of 'lr' lies in the range 0.1..0.01; they go from 0.0001 to 0.1.",
        ),
        (
            False,
            "lr=low",
            "--only lr=low: 'low' is neither a number nor a range; write for example 0.1 or 0.0001..0.1.",
        ),
        (
            False,
            "lr=..0.1",
            "--only lr=..0.1: '..0.1' is neither a number nor a range; write for example 0.1 or 0.0001..0.1.",
        ),
        (
            True,
            "lr=0.001..0.1",
            "--fix lr=0.001..0.1: --fix takes one value and no range; use --only to leave several.",
        ),
        (True, "lr=0.001,0.1", "--fix lr=0.001,0.1: --fix takes one value; use --only to leave several."),
        (False, "loss=mse..mae", "--only loss=mse..mae: 'mse..mae' is not an option; there are mae, mse."),
        (
            False,
            "lr=nan",
            "--only lr=nan: 'nan' is neither a number nor a range; write for example 0.1 or 0.0001..0.1.",
        ),
    ],
)
def test_a_rule_that_names_no_number_is_refused_with_one_sentence(fix, rule, message):
    with pytest.raises(ValueError) as error:
        narrowed(*([] if fix else [rule]), fix=[rule] if fix else [])
    assert str(error.value) == message


def test_a_schedule_may_force_a_number():
    space = Space(net, schedule=lambda number: {"lr": 0.01, "depth": 1 + number % 2})
    space.check()
    assert {(walk.spec["lr"], len(walk.spec["layers"])) for walk in space.enumerate(1)} == {(0.01, 2)}


def test_a_record_says_the_type_and_the_bounds():
    assert decision_to_json(LR) == {
        "name": "lr",
        "kind": "lr[0.0001..0.1, 4 bins, log]",
        "options": [0.0001, 0.001, 0.01, 0.1],
        "type": "real",
        "low": 0.0001,
        "high": 0.1,
        "num_bins": 4,
        "log": True,
    }
    record = decision_to_json(Integer("units", 8, 32, step=2, log=True, kind="width"))
    assert record | {"options": []} == {
        "name": "units",
        "kind": "width",
        "options": [],
        "type": "integer",
        "low": 8,
        "high": 32,
        "step": 2,
        "log": True,
    }
    check_options([LR])


def records(function):
    walk = Space(function).decode((0,))
    return [json.loads(json.dumps(decision_to_json(decision))) for decision in walk.decisions], walk


def one(decision):
    def space():
        return (yield decision)

    return space


@pytest.mark.parametrize(
    ("now", "message"),
    [
        (Choice("n", (1, 2, 3), kind="n"), "the decision 'n' is a choice where it was an integer"),
        (Real("n", 1, 3, 3, kind="n"), "the decision 'n' is a real number where it was an integer"),
        (Integer("n", 1, 3, log=True, kind="n"), "the decision 'n' is on a log scale"),
        (Integer("n", 1, 4, kind="n"), "the decision 'n' has the options [1, 2, 3, 4] where it had [1, 2, 3]"),
    ],
)
def test_another_range_is_another_space(now, message):
    stored, walk = records(one(Integer("n", 1, 3, kind="n")))
    assert decode_recorded(Space(one(Integer("n", 1, 3, kind="n"))), (0,), spec_to_json(walk.spec), stored).spec == 1
    with pytest.raises(ChildMismatchError) as error:
        decode_recorded(Space(one(now)), (0,), spec_to_json(walk.spec), stored)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("was", "now", "options"),
    [
        (Integer("n", 2, 4), Integer("n", 1, 5), (2, 3, 4, 1, 5)),
        (Real("n", 0.1, 0.3, 3), Real("n", 0, 0.4, 5), (0.1, 0.2, 0.3, 0.0, 0.4)),
        (Choice("n", (4, 1, 2)), Integer("n", 1, 4), (4, 1, 2, 3)),
        (Integer("n", 1, 4, step=2, log=True), Integer("n", 1, 4), (1, 2, 4, 3)),
    ],
)
def test_the_tokens_of_a_range_that_has_grown_are_unchanged(was, now, options):
    ordering = Ordering()
    ordering.match(decision_to_json(was), now)
    ordering = Ordering.from_json(json.loads(json.dumps(ordering.to_json())))
    applied = ordering.apply(now)
    assert (applied.options, applied.kind) == (options, was.kind)
    assert type(applied) is type(now)
    # Where an option lies between the bounds does not depend on its token.
    assert [applied.unit_value(token) for token in range(len(options))] == [
        now.unit_value(now.token_of(option)) for option in options
    ]
    space = Space(ordered(one(now), ordering), Narrowing((parse_rule("n=0..2", fix=False),)))
    space.check()
    assert {walk.spec for walk in space.enumerate(0)} == {option for option in options if option <= 2}


def test_a_range_that_lost_a_number_is_not_accepted():
    with pytest.raises(ChangedError, match=r"^the decision 'n' no longer has the option 4$"):
        Ordering().match(decision_to_json(Integer("n", 1, 4)), Integer("n", 1, 3))


def test_an_ordinal_knows_the_order_of_its_numbers_and_not_their_distances():
    widths = Ordinal("width1", (8, 64, 16))
    assert [widths.unit_value(token) for token in range(3)] == [0, 1, 0.5]
    assert (widths.ordered, widths.kind, widths.bounds) == (True, "width[8, 64, 16]", {"type": "ordinal"})
    assert widths.token_of(16.0) == 2 and widths.tokens_between(9, 64) == [1, 2]
    assert dataclasses.replace(widths, allowed=(True, False, True)).forced == (None,)
    close = Ordinal("x", (1.0, 1.0 + 1e-12))  # nearer to each other than numbers that are typed
    assert [close.token_of(option) for option in close.options] == [0, 1]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ((1, "2"), "Ordinal 'n': the option '2' is not a finite number"),
        ((1, True), "Ordinal 'n': the option True is not a finite number"),
        ((1, math.inf), "Ordinal 'n': the option inf is not a finite number"),
        ((1,), "Ordinal 'n' has 1 options, 1 of them different; give 2 to 1000 numbers"),
        ((1, 2, 1.0), "Ordinal 'n' has 3 options, 2 of them different"),
        (5, "The options of 'n' are 5; give them as a tuple"),
    ],
)
def test_an_ordinal_takes_different_numbers(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        Ordinal("n", options)
