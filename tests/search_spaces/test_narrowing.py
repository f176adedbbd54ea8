import pytest

from automl.search_spaces.decisions import Choice, Links
from automl.search_spaces.narrowing import Narrowing, parse_rule

DEPTH = Choice("depth", (2, 3))
KNOWN = [DEPTH]
for _index in range(3):
    KNOWN += [Choice(f"layer{_index}/width", (10, 20, 30), kind="width"), Links(f"layer{_index}/inputs", _index)]
WIDTH1, INPUTS2 = KNOWN[3], KNOWN[6]


def narrowing(*rules):
    return Narrowing(tuple(parse_rule(text, fix=flag == "fix") for flag, text in rules))


def test_a_rule_reads_and_prints_as_it_was_typed():
    rule = parse_rule("layer*/width=10, 20", fix=False)
    assert (rule.pattern, rule.values, rule.fix) == ("layer*/width", ("10", "20"), False)
    assert str(rule) == "--only layer*/width=10,20"
    assert str(parse_rule("depth = 3", fix=True)) == "--fix depth=3"


@pytest.mark.parametrize("text", ["depth", "depth=", "=3", ""])
def test_a_text_that_is_no_rule_is_refused(text):
    with pytest.raises(ValueError) as error:
        parse_rule(text, fix=True)
    assert str(error.value) == (f"--fix {text!r} is not of the form NAME=VALUE, for example layer*/filter_height=3.")


def test_only_masks_options_and_renumbers_nothing():
    narrowed = narrowing(("only", "layer*/width=30,10"))(WIDTH1)
    assert narrowed.options == WIDTH1.options
    assert narrowed.kind == WIDTH1.kind
    assert narrowed.allowed == (True, False, True)
    assert narrowed.forced == (None,)


def test_fix_forces_the_one_option():
    assert narrowing(("fix", "depth=3"))(DEPTH).forced == (1,)


def test_rules_apply_in_order_and_only_where_they_match():
    rules = narrowing(("only", "layer*/width=10,20"), ("fix", "layer1/width=20"))
    assert rules(WIDTH1).forced == (1,)
    assert rules(KNOWN[1]).allowed == (True, True, False)
    assert rules(DEPTH) == DEPTH


@pytest.mark.parametrize(
    ("flag", "values", "bits"),
    [
        ("fix", "none", (0, 0)),
        ("fix", "all", (1, 1)),
        ("fix", "0", (1, 0)),
        ("fix", "0,1", (1, 1)),
        ("only", "none", (0, 0)),
        ("only", "all", (None, None)),
        ("only", "1", (0, None)),
    ],
)
def test_links_are_narrowed_bit_by_bit(flag, values, bits):
    assert narrowing((flag, f"layer2/inputs={values}"))(INPUTS2).forced == bits


def test_a_pattern_skips_the_layers_that_have_no_such_layer_before_them():
    rules = narrowing(("fix", "layer*/inputs=1"))
    rules.check(KNOWN)
    assert rules(KNOWN[2]).forced == ()
    assert rules(KNOWN[4]).forced == (0,)
    assert rules(INPUTS2).forced == (0, 1)


def test_links_narrowed_twice_keep_both_restrictions():
    rules = narrowing(("only", "layer*/inputs=1"), ("fix", "layer2/inputs=1"))
    assert rules(INPUTS2).forced == (0, 1)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (
            [("fix", "layer*/inputs=none"), ("fix", "layer2/inputs=0")],
            "--fix layer2/inputs=0 contradicts an earlier rule, by which layer 0 is not linked to 'layer2/inputs'.",
        ),
        (
            [("fix", "layer2/inputs=0"), ("only", "layer2/inputs=1")],
            "--only layer2/inputs=1 contradicts an earlier rule, by which layer 0 is linked to 'layer2/inputs'.",
        ),
        (
            [("only", "layer*/width=10"), ("fix", "layer1/width=20")],
            "--fix layer1/width=20 leaves no option of 'layer1/width'; before it there were 10.",
        ),
        (
            [("fix", "dept=3")],
            "--fix dept=3: no decision of this space is called 'dept'; it has depth, layer0/inputs, layer1/inputs, "
            "layer2/inputs, layer0/width, layer1/width, layer2/width.",
        ),
        ([("fix", "depth=4")], "--fix depth=4: '4' is not an option; there are 2, 3."),
        ([("fix", "depth=2,3")], "--fix depth=2,3: --fix takes one value; use --only to leave several."),
        ([("only", "depth=3,")], "--only depth=3,: '' is not an option; there are 2, 3."),
        (
            [("fix", "layer2/inputs=2")],
            "--fix layer2/inputs=2: 'layer2/inputs' has no earlier layer 2; it has 2 (from 0).",
        ),
        (
            [("fix", "layer*/inputs=-1")],
            "--fix layer*/inputs=-1: none of these has an earlier layer -1; the last has 2 (from 0).",
        ),
        (
            [("fix", "layer*/inputs=first")],
            "--fix layer*/inputs=first: the layers of 'layer0/inputs' are numbers, 'none' or 'all'.",
        ),
    ],
)
def test_a_rule_that_does_not_fit_is_refused(rules, message):
    with pytest.raises(ValueError) as error:
        narrowing(*rules).check(KNOWN)
    assert str(error.value) == message
