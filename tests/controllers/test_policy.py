"""The recurrent policy: its parts against hand-computed numbers, drawing against learning, and that it learns."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from automl.controllers.base import Draw, Result, ResultState
from automl.controllers.ppo import Ppo
from automl.controllers.reinforce.controller import Reinforce
from automl.controllers.reinforce.encoding import collate, encode
from automl.controllers.reinforce.heads import Heads, NewKindError
from automl.controllers.reinforce.policy import (
    ANCHORS,
    EMBEDDING,
    START,
    Weights,
    attention_logits,
    embed,
    initial_arrays,
    lstm_cell,
    next_input,
)
from automl.controllers.reinforce.presets import PRESETS, Settings
from automl.controllers.reinforce.sampling import Sampler
from automl.controllers.reinforce.update import children_log_probs
from automl.search_spaces.decisions import Choice, Links
from automl.search_spaces.narrowing import Narrowing, parse_rule
from automl.search_spaces.space import Space
from automl.search_spaces.walk import replay

UNITS = 5


def layers():
    """One to three layers, each with an operation and inputs."""
    depth = yield Choice("depth", (1, 2, 3))
    found = []
    for index in range(depth):
        found.append(((yield Choice(f"layer{index}/op", ("a", "b", "c"))), (yield Links(f"layer{index}/in", index))))
    return found


def two_links():
    return (yield Links("layer0", 0)), (yield Links("layer1", 1))


def choice_and_link():
    return (yield Choice("op", ("a", "b", "c", "d"))), (yield Links("in0", 0)), (yield Links("in1", 1))


def tables(space, *, scale=0.7):
    """Tables that fit the space, and a policy that is far from uniform."""
    heads = Heads.of(space.survey())
    return heads, variables_of(initial_arrays(3, UNITS, scale, heads.widths))


def variables_of(arrays):
    return Weights(**{name: tf.Variable(array) for name, array in arrays.items()})


def drawn(space, heads, variables, numbers=range(8)):
    weights = Weights(*(variable.numpy() for variable in variables))
    found = Sampler(space, 0, weights, heads).propose([Draw(number) for number in numbers])
    return [proposal for proposal, _ in found], [walk for _, walk in found]


def encoded(walks, heads):
    return collate([encode(walk, heads) for walk in walks], heads)


# --- Parts


def test_lstm_cell_is_that_of_keras():
    generator = np.random.default_rng(0)
    weights = generator.normal(size=(2 * UNITS + 1, 4 * UNITS)).astype(np.float32)
    inputs, hidden, cell = generator.normal(size=(3, 2, UNITS)).astype(np.float32)
    theirs = keras.layers.LSTMCell(UNITS)
    theirs.build((2, UNITS))
    theirs.set_weights([weights[:UNITS], weights[UNITS:-1], weights[-1]])  # gates in the same order
    _, (their_hidden, their_cell) = theirs(inputs, [hidden, cell])
    ours = lstm_cell(weights, inputs, hidden, cell)
    np.testing.assert_allclose(ours[0], their_hidden, atol=1e-6)
    np.testing.assert_allclose(ours[1], their_cell, atol=1e-6)


def test_attention_logits_hand_computed():
    logits = attention_logits(
        tf.constant([[[1.0], [0.0]]]),
        tf.constant([[[2.0]]]),
        tf.constant([[0.5]]),
        tf.constant([[0.25]]),
        tf.constant([3.0]),
    )
    np.testing.assert_allclose(logits, [[[3 * math.tanh(1.0), 3 * math.tanh(0.5)]]], rtol=1e-6)


def test_the_next_input_hand_computed():
    variables = Weights(*[tf.zeros(())] * len(Weights._fields))._replace(
        start=tf.constant([7.0, 7.0]),
        nothing=tf.constant([-1.0, -2.0]),
        embeddings=tf.reshape(tf.range(12.0), (2, 3, 2)),  # kinds, options, units
    )
    anchors = tf.constant([[[1.0, 0.0], [3.0, 4.0], [100.0, 100.0]]] * 5)
    mode = tf.constant([START, EMBEDDING, ANCHORS, ANCHORS, ANCHORS])
    embedded = embed(variables, tf.constant([0, 1, 0, 0, 0]), tf.constant([0, 2, 0, 0, 0]))
    chosen = tf.constant([[0.0] * 3, [0.0] * 3, [1.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0] * 3])
    expected = [[7, 7], [10, 11], [2, 2], [3, 4], [-1, -2]]  # start, an option, mean of two, one, none
    np.testing.assert_array_equal(next_input(variables, anchors, mode, embedded, chosen), expected)


def test_a_head_starts_the_same_whatever_other_heads_there_are():
    alone = initial_arrays(0, UNITS, 0.08, {"op": 3})
    beside = initial_arrays(0, UNITS, 0.08, {"other": 5, "op": 3})
    for name in Weights._fields:
        if name in ("embeddings", "kernels", "biases"):
            np.testing.assert_array_equal(beside[name][1, :3], alone[name][0])
            assert not beside[name][1, 3:].any()
        else:
            np.testing.assert_array_equal(beside[name], alone[name])
        assert np.abs(beside[name]).max() <= 0.08


def test_a_kind_has_one_number_of_options_across_children():
    heads = Heads.of([])
    heads.add([Choice("a", (0, 1), kind="k")])
    sentence = (
        "Choice 'b' has 3 options, but in another child its kind 'k' has 2; choices of one kind have the same number."
    )
    with pytest.raises(ValueError) as raised:
        heads.add([Choice("b", (0, 1, 2), kind="k")])
    assert str(raised.value) == sentence


def test_a_child_that_does_not_fit_the_tables_is_not_encoded():
    space = Space(layers)
    heads, _ = tables(space)
    for small in (Heads(heads.rows, heads.widths, slots=2), Heads({}, {}, slots=3)):
        with pytest.raises(NewKindError):
            encode(space.decode((2, 0, 1, 0, 2, 0, 1)), small)


# --- Whole children


def test_drawing_and_learning_agree_on_log_probabilities():
    rules = (
        parse_rule("layer0/op=b", fix=True),
        parse_rule("layer*/op=a,b", fix=False),
        parse_rule("layer2/in=0", fix=True),
    )
    space = Space(layers, Narrowing(rules))
    heads, variables = tables(space)
    proposals, walks = drawn(space, heads, variables)
    assert {len(walk.decisions) for walk in walks} == {3, 5, 7}  # padded to 7
    found = children_log_probs(variables, encoded(walks, heads)).log_probs.numpy()
    for row, proposal, walk in zip(found, proposals, walks, strict=True):
        rest = list(proposal.log_probs)
        for step, decision in enumerate(walk.decisions):
            tokens = [rest.pop(0) or 0.0 for _ in range(decision.num_tokens)]
            assert row[step] == pytest.approx(sum(tokens), abs=1e-5)
        assert not row[len(walk.decisions) :].any()


def test_padding_of_tables_does_not_change_log_probabilities():
    space = Space(layers)
    heads, variables = tables(space)
    _, walks = drawn(space, heads, variables)
    large = Heads(dict(heads.rows), dict(heads.widths), heads.slots, heads.longest)
    large.add([Choice("wide", tuple(range(19))), *(Links(f"x{index}", index) for index in range(9))])
    wide = variables_of(initial_arrays(3, UNITS, 0.7, large.widths))
    small, padded = (
        children_log_probs(*pair).log_probs
        for pair in ((variables, encoded(walks, heads)), (wide, encoded(walks, large)))
    )
    # Not bit for bit: the number of options decides how their sum is split into lanes.
    np.testing.assert_allclose(padded, small, atol=1e-6)


def test_gradients_flow_into_anchors():
    space = Space(two_links)
    heads, variables = tables(space)
    # Without W_curr a bit's log-odds are v^T tanh(W_prev h_0): the first input acts only through the anchor.
    variables.current_anchor.assign(tf.zeros_like(variables.current_anchor))
    sequences = encoded([space.decode((1,))], heads)

    def gradient():
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(children_log_probs(variables, sequences).log_probs)
        return tape.gradient(total, variables.start)

    assert np.abs(gradient()).min() > 1e-6
    variables.previous_anchor.assign(tf.zeros_like(variables.previous_anchor))
    np.testing.assert_array_equal(gradient(), np.zeros(UNITS))


def test_forced_tokens_have_no_gradient():
    rules = (parse_rule("layer*/op=b", fix=True), parse_rule("layer*/in=all", fix=True))
    space = Space(layers, Narrowing(rules))
    heads, variables = tables(space)
    _, walks = drawn(space, heads, variables)
    with tf.GradientTape() as tape:
        found = children_log_probs(variables, encoded(walks, heads))
        total = tf.reduce_sum(found.log_probs)
    kernels, attention, start = (
        tf.convert_to_tensor(gradient).numpy()
        for gradient in tape.gradient(total, (variables.kernels, variables.attention, variables.start))
    )
    by_name = {
        decision.name: heads.rows[decision.kind] for decision in walks[0].decisions if isinstance(decision, Choice)
    }
    assert not kernels[by_name["layer0/op"]].any()
    assert not attention.any()
    assert kernels[by_name["depth"]].any() and start.any()  # depth is free


def test_entropy_and_probabilities_of_a_uniform_policy():
    space = Space(choice_and_link)
    heads, variables = tables(space, scale=0.0)
    found = children_log_probs(variables, encoded([space.decode((2, 1)), space.decode((0, 0))], heads))
    np.testing.assert_allclose(found.log_probs, [[-math.log(4), 0, -math.log(2)]] * 2, rtol=1e-6)
    assert float(found.entropy) == pytest.approx((math.log(4) + math.log(2)) / 2)  # nats per free token
    np.testing.assert_allclose(found.probabilities, [[0.25] * 4])


def test_frequencies_are_the_policy_s_own_probabilities():
    num = 2000
    controller = Reinforce(Space(choice_and_link), seed=0, initial_range=1.0)
    proposals = controller.ask([Draw(number) for number in range(num)])
    options = controller.ask([Draw(0, given={"op": (token,)}) for token in range(4)])
    chances = [math.exp(proposal.log_probs[0]) for proposal in options]
    assert max(chances) > 2 * min(chances)  # otherwise the test would prove little
    # A binomial count is within 5 standard deviations of its mean, except in one case in a million.
    for token, chance in enumerate(chances):
        count = sum(proposal.tokens[0] == token for proposal in proposals)
        assert abs(count - num * chance) < 5 * math.sqrt(num * chance * (1 - chance))
    # The bit's chance differs with the option before it: a sum of Bernoulli variables, with variance sum p (1 - p).
    ones = np.array([p if bit else 1 - p for (_, bit), p in ((q.tokens, math.exp(q.log_probs[1])) for q in proposals)])
    count = sum(proposal.tokens[1] for proposal in proposals)
    assert abs(count - ones.sum()) < 5 * math.sqrt((ones * (1 - ones)).sum())


def test_entropy_is_only_that_of_the_drawn_children():
    space = Space(layers)
    heads, variables = tables(space)
    _, walks = drawn(space, heads, variables)
    alone = children_log_probs(variables, encoded(walks[:3], heads))
    beside_others = children_log_probs(variables, encoded(walks, heads), 3)
    assert len(walks) > 3
    assert float(beside_others.entropy) == pytest.approx(float(alone.entropy), rel=1e-5)
    assert float(children_log_probs(variables, encoded(walks, heads)).entropy) != pytest.approx(
        float(alone.entropy), rel=1e-3
    )


# --- Learning


@pytest.mark.parametrize("preset", PRESETS)
def test_a_rewarded_choice_becomes_more_probable(preset):
    controller = Reinforce(Space(choice_and_link), seed=0, **PRESETS[preset])

    def chances():
        good, bad = controller.ask([Draw(0, given={"op": (1,), "in1": (1,)}), Draw(0, given={"op": (2,), "in1": (0,)})])
        return np.array(good.log_probs), np.array(bad.log_probs)

    good, bad = chances()
    for _ in range(controller.settings.accumulate):
        stats = controller.tell([Result(0, (1, 1), (), 1.0), Result(1, (2, 0), (), 0.0)])
    assert (stats["baseline"], stats["mean_reward"]) == (0.5, 0.5)
    new_good, new_bad = chances()
    assert (new_good > good).all()
    assert (new_bad < bad).all()


def either():
    return (yield Choice("op", ("works", "fails")))


@pytest.mark.parametrize("kind", [Reinforce, Ppo])
@pytest.mark.parametrize("floor", [0.0, -5.0])
def test_an_option_that_fails_does_not_become_more_probable(kind, floor):
    """Seven of eight children fail. Imitating them would raise the probability of the option that made them fail."""
    controller = kind(Space(either), seed=0)

    def chance():
        return math.exp(controller.ask([Draw(0, given={"op": (1,)})])[0].log_probs[0])

    before = chance()
    for batch in range(3):
        numbers = range(8 * batch, 8 * batch + 8)
        states = [ResultState.TRAINED if n % 8 == 3 else ResultState.FAILED for n in numbers]
        rewards = [float(n % 8 == 3) or floor for n in numbers]
        told = zip(numbers, rewards, states, strict=True)
        controller.tell([Result(n, (int(n % 8 != 3),), (), reward, state) for n, reward, state in told])
        assert chance() < before
    assert [best["tokens"] for best in controller.state().values["best"]] == [(0,)] * 3


def test_failed_children_are_learned_from_where_no_child_is_imitated():
    controller = Reinforce(Space(either), seed=0)
    stats = controller.tell([Result(number, (1,), (), 0.0, ResultState.FAILED) for number in (0, 1)])
    assert (stats["mean_reward"], stats["loss"]) == (0.0, 0.0)
    assert controller.state().values["best"] == []
    assert all(np.isfinite(array).all() for array in controller.state().arrays.values())


def test_failed_children_of_an_older_state_are_forgotten():
    told = [Result(number, (number % 2,), (), float(number)) for number in range(4)]
    controller = Reinforce(Space(either), seed=0)
    controller.tell(told)  # as 0.1.0 did: as if all were trained
    again = Reinforce(Space(either), seed=0)
    again.restore(controller.state())
    again.forget({3, 1, 77})
    assert [best["number"] for best in again.state().values["best"]] == [2, 0]
    again.tell([Result(4, (0,), (), 0.5)])


def test_learning_does_not_change_an_option_that_narrowing_masks():
    space = Space(choice_and_link, Narrowing((parse_rule("op=a,b", fix=False),)))
    heads, variables = tables(space)
    found = children_log_probs(variables, encoded([replay(space.walk(0), (3, 1))], heads)).log_probs.numpy()
    assert found[0, 0] == 0
    assert found[0, 2] < 0


def test_an_option_that_narrowing_leaves_is_drawn_however_improbable_it_is():
    space = Space(choice_and_link, Narrowing((parse_rule("op=a,b", fix=False),)))
    heads, variables = tables(space, scale=0.0)
    variables.biases.assign([[math.log(3.0), 0.0, 2000.0, 3000.0]])  # in float64 even exp(-3000) is 0
    proposals, _ = drawn(space, heads, variables, range(64))
    by_token = {proposal.tokens[0]: proposal.log_probs[0] for proposal in proposals}
    assert by_token == pytest.approx({0: math.log(3 / 4), 1: math.log(1 / 4)}, abs=1e-3)  # 3000 is a float32 here


def bits():
    found = []
    for index in range(6):
        found.append((yield Choice(f"bit{index}", (0, 1), kind=f"bit{index}")))
    return found


def test_the_default_learns_a_small_task_within_fifteen_batches():
    controller = Reinforce(Space(bits), seed=1)
    target = (1, 0, 0, 1, 1, 0)
    means = []
    for batch in range(15):
        draws = [Draw(8 * batch + row) for row in range(8)]
        batch_results = [
            Result(draw.number, proposal.tokens, proposal.log_probs, float(np.mean(np.equal(proposal.tokens, target))))
            for draw, proposal in zip(draws, controller.ask(draws), strict=True)
        ]
        means.append(controller.tell(batch_results)["mean_reward"])
    # Random children have 1/2 with standard deviation 0.2, so the mean of 24 has 0.04.
    assert np.mean(means[-3:]) > 0.9


# --- Settings


def test_the_paper_s_constants():
    paper = Settings(**PRESETS["paper"])
    assert (paper.hidden_units, paper.initial_range, paper.learning_rate) == (35, 0.08, 0.0006)
    assert (paper.advantage, paper.entropy, paper.imitate, paper.imitation) == ("reward", 0, 0, 0)
    names = [name for name in Weights._fields if name.startswith("lstm")]
    assert len(names) == 2
    assert initial_arrays(0, 35, 0.08, {})["lstm_1"].shape == (71, 140)  # input, recurrent and bias rows; 4 gates


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"advantage": "best"}, "controller.advantage is 'best'; it is 'reward' or 'rank'."),
        ({"baseline_decay": 1.0}, "controller.baseline_decay is 1.0; it must be in [0, 1)."),
        ({"baseline_decay": math.nan}, "controller.baseline_decay is nan; it must be in [0, 1)."),
        ({"hidden_units": 0}, "controller.hidden_units is 0; it must be above 0 and finite."),
        ({"initial_range": -0.1}, "controller.initial_range is -0.1; it must be above 0 and finite."),
        ({"learning_rate": math.nan}, "controller.learning_rate is nan; it must be above 0 and finite."),
        ({"hidden_units": 1.5}, "controller.hidden_units is 1.5; it must be a whole number."),
        ({"imitate": True}, "controller.imitate is True; it must be a whole number."),
        ({"entropy": "much"}, "controller.entropy is 'much'; it must be a number."),
        ({"advantage": 3}, "controller.advantage is 3; it must be a text."),
        ({"rank_window": 0}, "controller.rank_window is 0; it must be above 0 and finite."),
        ({"entropy": -1.0}, "controller.entropy is -1.0; it must be 0 or more and finite."),
        ({"imitate": -1}, "controller.imitate is -1; it must be 0 or more and finite."),
        ({"imitation": math.inf}, "controller.imitation is inf; it must be 0 or more and finite."),
    ],
)
def test_a_wrong_setting_is_refused_with_one_sentence(settings, sentence):
    with pytest.raises(ValueError) as raised:
        Reinforce(Space(bits), seed=0, **settings)
    assert str(raised.value) == sentence
