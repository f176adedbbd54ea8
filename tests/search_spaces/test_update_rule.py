"""Update rules: what they compute, how they are written and read, and which are equal."""

import functools
import json
import math
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from automl.search_spaces.space import Space
from automl.search_spaces.spec import spec_to_json
from automl.search_spaces.update_rule.expression import RuleError, canonical, drops_of, parse, text_of, with_places
from automl.search_spaces.update_rule.language import DECAYS, OPERANDS, UNARY
from automl.search_spaces.update_rule.named import RULES
from automl.search_spaces.update_rule.optimizer import RuleOptimizer
from automl.search_spaces.update_rule.program import encode, update_of
from automl.search_spaces.update_rule.semantics import BINARY as BINARY_MEANING
from automl.search_spaces.update_rule.semantics import UNARY as UNARY_MEANING
from automl.search_spaces.update_rule.semantics import StepContext, decay_at, evaluate, normal, uniform
from automl.search_spaces.update_rule.space import PRESETS, update_rule
from automl.search_spaces.update_rule.spec import Group, SharedMaskRule, UpdateRule
from automl.testing.spaces import sample

# Keras 3 saves variables through np.array of an object whose __array__ takes no `copy`; nothing of ours can change it.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

EVERYTHING = functools.partial(update_rule, groups=(1, 2, 3, 4), decays=True)


def drawn(seed):
    return sample(Space(EVERYTHING), seed).spec


def trajectory(optimizer, steps=100):
    """A weight's path in a noisy quadratic bowl. The gradients depend on the weight, so every step matters."""
    generator = np.random.default_rng(0)
    weight = keras.Variable(np.array([1.0, -2.0, 0.5], np.float32))
    curvature = np.array([1.0, 0.3, 3.0], np.float32)
    places = []
    for _ in range(steps):
        gradient = curvature * weight.numpy() + generator.normal(0, 0.1, 3).astype(np.float32)
        optimizer.apply([keras.ops.convert_to_tensor(gradient)], [weight])
        places.append(weight.numpy())
    return np.array(places)


@pytest.mark.parametrize(
    ("rule", "rate", "theirs"),
    [
        ("g", 0.05, keras.optimizers.SGD(0.05)),
        ("adam", 0.05, keras.optimizers.Adam(0.05)),
        ("rmsprop", 0.05, keras.optimizers.RMSprop(0.05)),
        # Keras's momentum adds up gradients without a factor 1 - beta: v' = beta v + g, w' = w - rate v'.
        ("momentum", 0.05 / (1 - 0.9), keras.optimizers.SGD(0.05, momentum=0.9)),
    ],
    ids=["sgd", "adam", "rmsprop", "momentum"],
)
def test_a_hundred_steps_are_those_of_keras(rule, rate, theirs):
    np.testing.assert_allclose(trajectory(RuleOptimizer(rule, rate)), trajectory(theirs), rtol=1e-5, atol=1e-5)


def one_step(rule, gradients, weight=1.0, **options):
    """The changes of a weight by these gradients at rate 1."""
    variable = keras.Variable(np.array([weight], np.float32))
    optimizer = RuleOptimizer(rule, 1.0, **options)
    changes = []
    for gradient in gradients:
        before = variable.numpy()[0]
        optimizer.apply([keras.ops.convert_to_tensor(np.array([gradient], np.float32))], [variable])
        changes.append(before - variable.numpy()[0])
    return changes


def test_powersign_by_hand():
    # m = 0.1 * 0.5 > 0: e * 0.5; then g = -0.2, m = 0.9 * 0.05 - 0.02 = 0.025 > 0: signs differ, -0.2 / e.
    assert one_step(str(RULES["powersign"]), [0.5, -0.2]) == pytest.approx([math.e * 0.5, -0.2 / math.e], rel=1e-5)


def test_addsign_by_hand():
    # Signs agree: (1 + 1) * 0.5. Signs differ: (1 - 1) * g, so there is no step.
    assert one_step(str(RULES["addsign"]), [0.5, -0.2]) == pytest.approx([1.0, 0.0], abs=1e-6)


def test_the_decays_by_hand():
    steps = np.array([0.0, 5.0, 10.0, 15.0], np.float32)
    linear, cosine, restart = (np.asarray(decay_at(word, steps, 10)) for word in DECAYS)
    np.testing.assert_allclose(linear, [1, 0.5, 0, 0], atol=1e-6)
    np.testing.assert_allclose(cosine, [1, 0.5, 0, 0.5], atol=1e-6)
    np.testing.assert_allclose(restart, [1, 0.5, 1, 0.5], atol=1e-6)
    # f = 1 at the first step, then 1 / 2: e^(1/2) * 0.5.
    found = one_step(str(RULES["powersign-ld"]), [0.5, 0.5], decay_steps=2)
    assert found == pytest.approx([math.e * 0.5, math.sqrt(math.e) * 0.5], rel=1e-5)


@pytest.mark.parametrize(
    ("rule", "gradient", "weight", "expected"),
    [
        ("g^2", -0.5, 1.0, 0.25),
        ("g^3", -0.5, 1.0, -0.125),
        ("m", -0.5, 1.0, -0.5),  # corrected: the first average is the gradient itself
        ("v", -0.5, 1.0, 0.25),
        ("y", -0.5, 1.0, -0.125),
        ("momentum", -0.5, 1.0, -0.05),
        ("adam", -0.5, 1.0, -1.0),
        ("rmsprop", -0.5, 1.0, -0.5 / math.sqrt(0.1 * 0.25)),
        ("sign(g)", -0.5, 1.0, -1.0),
        ("1", -0.5, 1.0, 1.0),
        ("2", -0.5, 1.0, 2.0),
        ("0.1w", 0.0, 3.0, 0.3),
        ("0.001w", 0.0, 3.0, 0.003),
        ("-g", 0.5, 1.0, -0.5),
        ("exp(g)", 0.5, 1.0, math.exp(0.5)),
        ("log(abs(g))", -0.5, 1.0, math.log(0.5)),
        ("sqrt(abs(g))", -0.25, 1.0, 0.5),
        ("clip(g, 1e-3)", -0.5, 1.0, -1e-3),
        ("clip(g, 1e-5)", 0.5, 1.0, 1e-5),
        ("g + 2", 0.5, 1.0, 2.5),
        ("g - 2", 0.5, 1.0, -1.5),
        ("g * 2", 0.5, 1.0, 1.0),
        ("2 / g", 0.5, 1.0, 4.0),
        ("pow(2, g)", 3.0, 1.0, 8.0),
    ],
)
def test_every_word_by_hand(rule, gradient, weight, expected):
    # The weight is near 1 and float32, so a small change is known to about 1e-7.
    assert one_step(rule, [gradient], weight) == [pytest.approx(expected, rel=1e-4, abs=3e-7)]


def test_every_word_has_a_meaning():
    assert {"x", *UNARY_MEANING} == set(UNARY)
    assert len(BINARY_MEANING) == 5
    for word in (*OPERANDS, *DECAYS):
        assert np.isfinite(one_step(word, [0.5], decay_steps=10)).all()


def test_drop_leaves_out_that_share_and_noise_is_small():
    variable = keras.Variable(np.zeros(20_000, np.float32))
    RuleOptimizer("drop(1, 0.3)", 1.0, seed=4).apply([keras.ops.ones(20_000)], [variable])
    dropped = variable.numpy() == 0
    assert abs(dropped.mean() - 0.3) < 0.02 and set(np.unique(variable.numpy())) == {0.0, -1.0}
    noisy = keras.Variable(np.zeros(20_000, np.float32))
    RuleOptimizer("noise", 1.0).apply([keras.ops.ones(20_000)], [noisy])
    assert abs(noisy.numpy().mean()) < 3e-4 and abs(noisy.numpy().std() - 0.01) < 3e-4


# Groups that are read twice, so that each `drop` occurs as often as its group is read.
EVERYWHERE = UpdateRule(
    (
        Group("g", "m", "drop 0.1", "drop 0.3", "x + y"),
        Group("r0", "r0", "drop 0.5", "drop 0.1", "x - y"),
        Group("r1", "r1", "drop 0.3", "drop 0.5", "x + y"),
        Group("r2", "r2", "x", "drop 0.1", "x - y"),
    )
)
BESIDE = UpdateRule(  # with groups without a drop that are read again later, and one that is never read
    (
        Group("g", "adam", "x", "exp(x)", "x * y"),
        Group("r0", "v", "x", "drop 0.5", "x + y"),
        Group("r1", "r0", "-x", "sign(x)", "keep x"),
        Group("r2", "r1", "drop 0.3", "x", "x - y"),
    )
)
TWICE = [UpdateRule.parse("drop(g, 0.5) - drop(g, 0.5)"), UpdateRule.parse("drop(drop(g, 0.3), 0.5) + 0.1w"), BESIDE]


def of_ones(rule, **options):
    """A rule's update of many weights whose gradients are 1, by the optimizer and by the file that is exported."""
    found = {}
    exec(compile(rule.source(), "found.py", "exec"), found)
    updates = []
    for optimizer in (rule.optimizer(learning_rate=1.0, seed=4), found["FoundRule"](1.0, seed=4)):
        variable = keras.Variable(np.zeros(20_000, np.float32))
        optimizer.apply([keras.ops.ones(20_000)], [variable])
        updates.append(-variable.numpy())
    np.testing.assert_array_equal(*updates)
    return updates[0]


def test_every_drop_has_a_mask_of_its_own():
    difference = of_ones(UpdateRule.parse("drop(1, 0.5) - drop(1, 0.5)"))
    shares = {value: (difference == value).mean() for value in (-1.0, 0.0, 1.0)}
    assert shares == pytest.approx({-1.0: 0.25, 0.0: 0.5, 1.0: 0.25}, abs=0.02)
    nested = of_ones(UpdateRule.parse("drop(drop(1, 0.3), 0.5)"))
    assert (nested != 0).mean() == pytest.approx(0.35, abs=0.02)
    read_twice = of_ones(UpdateRule((Group("g", "1", "drop 0.5", "x", "keep x"), Group("r0", "r0", "x", "x", "x - y"))))
    assert (read_twice != 0).mean() == pytest.approx(0.5, abs=0.02)


def test_a_rule_of_the_first_version_has_one_mask():
    for text, share in (("drop(1, 0.5) - drop(1, 0.5)", 0.0), ("drop(drop(1, 0.3), 0.5)", 0.5)):
        kept = UpdateRule.parse(text).with_behaviour({"drop_masks": 1})
        assert isinstance(kept, SharedMaskRule)
        assert spec_to_json(kept) == spec_to_json(UpdateRule.parse(text))
        assert (of_ones(kept) != 0).mean() == pytest.approx(share, abs=0.02)
    rule = UpdateRule.parse("g")
    assert rule.with_behaviour({"drop_masks": 2}) is rule


def test_a_single_drop_keeps_its_mask_of_earlier_versions():
    for text in ("drop(1, 0.3)", "drop(exp(g), 0.5) * sign(m)"):
        rule = UpdateRule.parse(text)
        np.testing.assert_array_equal(of_ones(rule), of_ones(SharedMaskRule(rule.groups)))
        assert rule.source() == SharedMaskRule(rule.groups).source()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("drop(g, 0.5) + drop(m, 0.3)", "drop(m, 0.3) + drop(g, 0.5)"),
        ("drop(1, 0.5) * (2 - drop(g, 0.5))", "(2 - drop(g, 0.5)) * drop(1, 0.5)"),
        ("-drop(g, 0.5) - drop(g, 0.5)", "-(drop(g, 0.5) + drop(g, 0.5))"),
        ("-drop(g, 0.5) + drop(2, 0.5)", "drop(2, 0.5) - drop(g, 0.5)"),
    ],
)
def test_rules_of_one_canonical_form_draw_the_same(one, other):
    one, other = UpdateRule.parse(one), UpdateRule.parse(other)
    assert one.canonical() == other.canonical()
    np.testing.assert_array_equal(of_ones(one), of_ones(other))


def test_different_drops_are_not_simplified_away():
    forms = [UpdateRule.parse(text).canonical() for text in ("drop(g, 0.5) - drop(g, 0.5)", "g - g", "drop(g, 0.5)")]
    assert forms == ["drop(g, 0.5) - drop(g, 0.5)", "g - g", "drop(g, 0.5)"]


def test_every_occurrence_of_a_drop_has_a_position():
    places = [word.place for word in drops_of(with_places(EVERYWHERE.expression()))]
    assert sorted(places) == list(range(29))  # 2 * 8 + 2 * 4 + 2 * 2 + 1


def test_an_optimizer_that_an_earlier_version_saved_shares_its_mask(tmp_path):
    text = "drop(g, 0.5) - drop(g, 0.5)"
    config = RuleOptimizer(text).get_config() | {"version": 1}
    model = keras.Sequential([keras.Input((100,)), keras.layers.Dense(1)])
    for version, optimizer in ((1, RuleOptimizer.from_config(config)), (2, RuleOptimizer(text))):
        model.compile(optimizer, "mse")
        model.save(tmp_path / "model.keras")
        again = keras.models.load_model(tmp_path / "model.keras")
        assert again.optimizer.get_config()["version"] == version
        before = again.layers[0].kernel.numpy()
        again.optimizer.apply([keras.ops.ones((100, 1)), keras.ops.ones(1)], again.trainable_variables)
        assert (again.layers[0].kernel.numpy() != before).any() == (version == 2)


def test_draws_depend_only_on_seed_step_and_stream():
    one = np.asarray(uniform((50, 40), 3, 7, 1))
    np.testing.assert_array_equal(one, uniform((50, 40), 3, 7, 1))
    for other in (uniform((50, 40), 4, 7, 1), uniform((50, 40), 3, 8, 1), uniform((50, 40), 3, 7, 2)):
        assert abs(np.corrcoef(one.ravel(), np.asarray(other).ravel())[0, 1]) < 0.1
    assert one.min() >= 0 and one.max() < 1 and abs(one.mean() - 0.5) < 0.02
    counts, _ = np.histogram(np.asarray(uniform((100_000,), 0, 0, 0)), bins=10)
    assert (abs(counts - 10_000) < 500).all()
    assert np.isfinite(np.asarray(normal((100_000,), 0, 0, 0))).all()


@pytest.mark.parametrize(("groups", "places"), [(1, ["last"]), (3, ["earlier", "earlier", "last"])])
def test_functions_of_the_last_group_are_of_kinds_of_their_own(groups, places):
    walk = sample(Space(functools.partial(update_rule, groups=[groups])), 0)
    kinds = [decision.kind for decision in walk.decisions if not decision.kind.startswith("operand")]
    expected = [[f"{place}_unary", f"{place}_unary", f"{place}_binary"] for place in places]
    assert kinds == ["groups", *(kind for of_group in expected for kind in of_group)]


def test_a_rule_reads_back_as_it_is_printed():
    for seed in range(300):
        rule = drawn(seed)
        again = UpdateRule.parse(str(rule))
        assert again.expression() == rule.expression() and str(again) == str(rule)
        assert again.canonical() == rule.canonical() == UpdateRule.parse(rule.canonical()).canonical()


@pytest.mark.parametrize(
    "text",
    [
        "exp(sign(g) * sign(m)) * g",
        "g - (m - v)",
        "g - m - v",
        "g / (m * v)",
        "-(g + m)",
        "--g",
        "pow(g + 1, -m)",
        "clip(drop(g, 0.3), 1e-4) + 0.01w",
        "log(abs(g * 2)) * (1 + momentum)",
    ],
)
def test_readable_algebra(text):
    assert text_of(parse(text)) == text


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("g + m", "m + g"),
        ("g * (m + v)", "(v + m) * g"),
        ("--g", "g"),
        ("exp(--g)", "exp(g)"),
        ("sign(sign(g))", "sign(g)"),
        ("sign(-(-m))", "sign(m)"),
        ("sign(momentum)", "sign(m)"),
        ("sign(clip(sign(g) * m, 1e-4))", "sign(m * sign(g))"),
        ("sqrt(abs(-g))", "sqrt(abs(g))"),
        ("g + -m", "g - m"),
        ("-m + g", "g - m"),
        ("-m - g", "-g + -m"),
        ("g - -m", "m + g"),
    ],
)
def test_equal_rules_are_one_child(one, other):
    assert canonical(parse(one)) == canonical(parse(other))


@pytest.mark.parametrize(("one", "other"), [("g - m", "m - g"), ("g / m", "m / g"), ("pow(g, m)", "pow(m, g)")])
def test_rules_that_do_not_commute_are_two(one, other):
    assert canonical(parse(one)) != canonical(parse(other))


def test_keep_x_is_its_left_operand():
    groups = [Group("g", right, "exp(x)", unary, "keep x") for right, unary in (("m", "x"), ("1", "-x"))]
    assert {UpdateRule((group,)).canonical() for group in groups} == {"exp(g)"}


def test_a_group_reads_the_result_of_an_earlier_group():
    first, second = Group("g", "m", "sign(x)", "sign(x)", "x * y"), Group("r0", "g", "exp(x)", "x", "x * y")
    rule = UpdateRule((first, second))
    assert str(rule) == "exp(sign(g) * sign(m)) * g"
    assert rule.canonical() == RULES["powersign"].canonical()
    assert UpdateRule(**json.loads(json.dumps(spec_to_json(rule)))) == rule


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("g +", "at position 4 expected an operand (g, "),
        ("exp(sign(g) * ) * g", "at position 15 expected an operand (g, "),
        ("foo", "at position 1 expected an operand (g, "),
        ("g m", "at position 3 expected an operator (+, -, *, /) or the end, found 'm'."),
        ("clip(g, 1e-2)", "at position 9 expected '1e-5' or '1e-4' or '1e-3', found '1e-2'."),
        ("drop(g)", "at position 7 expected ',', found ')'."),
        ("log(g)", "at position 5 expected 'abs', found 'g'."),
        ("(g", "at position 3 expected ')', found the end."),
        ("3 * g", "at position 1 expected an operand (g, "),
        ("g ? m", "at position 3 expected an operator (+, -, *, /) or the end, found '?'."),
        ("drop(g, 0.25)", "at position 9 expected '0.1' or '0.3' or '0.5', found '0.25'."),
        ("", "at position 1 expected an operand (g, "),
    ],
)
def test_a_text_that_does_not_parse_says_where(text, message):
    with pytest.raises(RuleError) as caught:
        UpdateRule.parse(text)
    assert str(caught.value).startswith(f"{text!r} is not an update rule: {message}")


def test_a_rule_that_needs_too_many_groups():
    with pytest.raises(RuleError) as caught:
        UpdateRule.parse("g + m + v + y + 1 + 2")
    assert str(caught.value) == ("'g + m + v + y + 1 + 2' takes 5 groups of five words; a rule has at most 4.")


def test_words_that_do_not_exist():
    with pytest.raises(RuleError, match=r"^Group 0 of an update rule has no 'r0'; there is g, "):
        UpdateRule((Group("r0", "g", "x", "x", "x + y"),))
    with pytest.raises(RuleError, match=r"^An update rule has 1 to 4 groups, not 0\.$"):
        UpdateRule(())


def test_a_decay_needs_to_know_the_steps():
    with pytest.raises(ValueError) as caught:
        RuleOptimizer(str(RULES["powersign-cd"]))
    assert str(caught.value) == (
        "The rule 'exp(cosine_decay * sign(g) * sign(m)) * g' reads cosine_decay, so it needs the number of "
        "steps; give decay_steps."
    )


def test_an_ordinary_optimizer(tmp_path):
    """In `compile`, with a schedule, weight decay and clipping; saved, loaded and continued without a difference."""
    x = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
    y = x @ np.array([[1.0], [-2.0], [0.5]], np.float32)

    def compiled():
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        schedule = keras.optimizers.schedules.CosineDecay(0.1, 100)
        options = {"weight_decay": 1e-4, "global_clipnorm": 1.0, "decay_steps": 100, "seed": 3}
        model.compile(RuleOptimizer("drop(m, 0.3) * linear_decay + 0.001w", schedule, **options), "mse")
        return model

    whole, halved = compiled(), compiled()
    losses = whole.fit(x, y, epochs=4, shuffle=False, verbose=0).history["loss"]
    halved.fit(x, y, epochs=2, shuffle=False, verbose=0)
    halved.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.optimizer.rule == "drop(m, 0.3) * linear_decay + 0.001w"
    again = loaded.fit(x, y, epochs=2, shuffle=False, verbose=0).history["loss"]
    np.testing.assert_allclose(again, losses[2:], rtol=1e-5)
    assert losses[-1] < losses[0]


def test_the_size_of_the_space():
    space = Space(functools.partial(update_rule, **PRESETS["paper"]))
    walk, sizes = space.walk(0), []
    while (decision := walk.decision) is not None:
        sizes.append(len(decision.options))
        walk.answer((0,))
    assert sizes == [1, 18, 18, 12, 12, 6, 19, 19, 12, 12, 6]
    assert math.prod(sizes) > 1e10  # as the paper's authors state


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"groups": (5,)}, "groups is (5,); it must be a list of whole numbers from 1 to 4."),
        ({"groups": []}, "groups is []; it must be a list of whole numbers from 1 to 4."),
        ({"groups": 2}, "groups is 2; it must be a list of whole numbers from 1 to 4."),
        ({"decays": "yes"}, "decays is 'yes'; it must be true or false."),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError) as caught:
        next(update_rule(**arguments))
    assert str(caught.value) == message


@pytest.fixture(scope="module")
def moment():
    generator = np.random.default_rng(1)
    gradient, weight, first, third, noise = (generator.normal(0, 0.5, 7).astype(np.float32) for _ in range(5))
    second, mean_square = (np.abs(generator.normal(0, 0.5, 7)).astype(np.float32) for _ in range(2))
    averages = {"first": first, "second": second, "third": third, "mean_square": mean_square}
    tensors = {name: keras.ops.convert_to_tensor(average) for name, average in averages.items()}
    return StepContext(
        keras.ops.convert_to_tensor(gradient),
        keras.ops.convert_to_tensor(weight),
        tensors,
        3,
        drawn=lambda place: uniform((7,), 5, 3, 0, place),
        noise=lambda: keras.ops.convert_to_tensor(noise),
        decay_steps=10,
    )


def test_the_canonical_form_computes_the_same(moment):
    shorter = 0
    for seed in range(400):
        expression = drawn(seed).expression()
        shorter += len(text_of(canonical(expression))) < len(text_of(expression))
        forms = with_places(expression), with_places(canonical(expression))
        expected, found = (np.asarray(evaluate(form, moment)) for form in forms)
        np.testing.assert_array_equal(found, expected, err_msg=text_of(expression))
        assert canonical(canonical(expression)) == canonical(expression)
    assert shorter > 10


def test_a_rule_as_data_computes_what_its_expression_does(moment):
    apply = tf.function(lambda program: update_of(program, moment), autograph=False)
    rules = [drawn(seed) for seed in range(60)] + list(RULES.values()) + [EVERYWHERE, BESIDE]
    for rule in rules:
        expected = np.asarray(evaluate(with_places(rule.expression()), moment))
        np.testing.assert_allclose(apply(tf.constant(encode(rule))), expected, rtol=1e-4, atol=1e-6, err_msg=str(rule))
        shared = np.asarray(evaluate(rule.expression(), moment))
        program = encode(SharedMaskRule(rule.groups))
        np.testing.assert_allclose(apply(tf.constant(program)), shared, rtol=1e-4, atol=1e-6, err_msg=str(rule))
    assert len({len(rule.groups) for rule in rules}) == 4
    assert apply.experimental_get_tracing_count() == 1


def test_an_exported_rule_says_what_its_words_mean():
    for decay in DECAYS:
        text = UpdateRule.parse(f"{decay} * m").source()
        said = text.split('"""')[1]
        assert "m is the running average of g" in said and f"    {decay} falls from 1 to 0" in said
        assert "return FoundRule(decay_steps=10_000)  # the steps of your training" in text
    assert "decay" not in UpdateRule.parse("g").source()


def test_an_exported_rule_takes_the_steps_of_its_optimizer():
    rules = [drawn(seed) for seed in range(25)] + [
        *RULES.values(),
        UpdateRule.parse("g + drop(m, 0.3) + noise"),
        *TWICE,
    ]
    rules += [SharedMaskRule(rule.groups) for rule in TWICE]
    for rule in rules:
        found = {}
        exec(compile(rule.source(learning_rate=0.02), "found.py", "exec"), found)
        options = {"decay_steps": 50} if "decay" in str(rule) else {}
        theirs = trajectory(found["FoundRule"](**options), 8)
        ours = trajectory(rule.optimizer(learning_rate=0.02, **options), 8)
        np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=1e-6, err_msg=str(rule))


def test_an_exported_rule_is_saved_and_works_in_fit(tmp_path):
    found = {}
    exec(compile(RULES["powersign-cd"].source(), "found.py", "exec"), found)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(found["build"](), "mse")
    model.fit(np.ones((8, 3)), np.ones((8, 1)), verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.optimizer.iterations.numpy() == 1 and again.optimizer.decay_steps == 10_000


@pytest.mark.parametrize("text", ["sign(g)", "momentum", "g^2"])
def test_rows_that_an_embedding_reads_several_times_are_one_gradient(text):
    rule, found = UpdateRule.parse(text), {}
    exec(compile(rule.source(learning_rate=0.1), "found.py", "exec"), found)
    rows = tf.IndexedSlices(tf.constant([[0.25], [-0.5], [0.5]]), tf.constant([2, 0, 2]), tf.constant([3, 1]))
    for make in (functools.partial(rule.optimizer, learning_rate=0.1), found["FoundRule"]):
        weights = []
        for gradient in (rows, tf.constant([[-0.5], [0.0], [0.75]])):
            weight = keras.Variable(np.ones((3, 1), np.float32))
            make().apply([gradient], [weight])
            weights.append(weight.numpy())
        np.testing.assert_array_equal(*weights)
        assert weights[0][1] == 1.0 and weights[0][0] != 1.0


@pytest.mark.parametrize("version", [3, "1.5", 0])
def test_an_optimizer_of_a_newer_version_is_refused_in_one_sentence(version):
    config = RuleOptimizer("adam").get_config()
    assert RuleOptimizer.from_config(dict(config)).rule == "adam"
    expected = f"saved in version {version!r} of its format, and this program reads up to 2; install a newer automl."
    with pytest.raises(ValueError, match=re.escape(expected)):
        RuleOptimizer.from_config(config | {"version": version})


def test_a_rule_in_more_groups_is_the_same_rule():
    rule = UpdateRule.parse("g + m")
    assert [len(longer.groups) for longer in rule.longer()] == [1, 2, 3, 4]
    assert {longer.canonical() for longer in rule.longer()} == {rule.canonical()}
