"""The reward model: distances, the Gaussian process, its hyperparameters, and the choice among candidates."""

import math

import numpy as np
import pytest
import threadpoolctl

from automl.controllers.base import Draw, PendingChild, Result, ResultState
from automl.controllers.keyed import stream
from automl.controllers.reward_model.candidates import mutation
from automl.controllers.reward_model.features import CENTRES, SMOOTHNESS, Features, Matrix
from automl.controllers.reward_model.fitting import fit, loss
from automl.controllers.reward_model.gaussian_process import (
    COUNTS,
    JITTER,
    JOINT,
    MAIN,
    NOISE,
    PAIRS,
    GaussianProcess,
    Hyperparameters,
    Layout,
    kernel,
    terms,
)
from automl.controllers.reward_model.model import MAX_KNOWN, normal_scores
from automl.controllers.reward_model.pool import OUTCOMES, Outcomes
from automl.controllers.reward_model.screen import Screen, ScreenSettings
from automl.controllers.surrogate import Surrogate
from automl.controllers.variation import uniform_walk
from automl.search_spaces.decisions import Choice, Links
from automl.search_spaces.narrowing import Narrowing, parse_rule
from automl.search_spaces.numeric import Integer, Real
from automl.search_spaces.space import Space

SEED = 3


def mixed():
    """Conditional decisions, links and numbers."""
    if (yield Choice("family", ("net", "tree"))) == "net":
        layers = []
        for index in range(3):
            layers.append(((yield Choice(f"op{index}", ("p", "q", "r"))), (yield Links(f"in{index}", index))))
        return layers
    return (yield Integer("leaves", 1, 9)), (yield Real("rate", 1e-4, 1e-1, 4, log=True))


def flat():
    digits = []
    for index in range(4):
        digits.append((yield Choice(f"digit{index}", (0, 1, 2))))
    return digits


def walks_of(space, count, first=0):
    return [uniform_walk(space, 0, stream(SEED, first + index, 0)) for index in range(count)]


def features_of(walks):
    features = Features()
    for walk in walks:
        features.add(walk)
    return features, features.matrix([features.row(walk) for walk in walks])


def joint_only(num_decisions):
    """Hyperparameters under which the kernel is exp(-distance), each decision counting 1."""
    amplitudes = np.full(7, -np.inf)
    amplitudes[JOINT], amplitudes[NOISE] = 0.0, math.log(0.1)
    return Hyperparameters(np.full(num_decisions, -np.inf), np.zeros(num_decisions), amplitudes)


def distance(space, one, other):
    """The sum of all decisions' distances."""
    features, matrix = features_of([space.decode(one), space.decode(other)])
    layout = Layout.of(features, matrix)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = terms(layout, joint_only(layout.num_decisions), matrix, matrix)
    return -math.log(found.joint[0, 1])


def of_units(difference):
    """The distance of two numbers of an ordered decision."""
    return 1 - math.exp(-(difference**2) / (2 * SMOOTHNESS**2))


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ((0, 1, 1, 0, 2, 0, 1), (0, 1, 1, 0, 2, 0, 1), 0),
        ((0, 1, 1, 0, 2, 0, 1), (0, 2, 1, 0, 2, 0, 1), 1),  # another operation
        ((0, 1, 1, 0, 2, 0, 1), (0, 1, 1, 1, 2, 1, 1), 2),  # two links
        ((1, 0, 0), (1, 1, 0), of_units(1 / 8)),  # 1 and 2 of 1 to 9
        ((1, 3, 0), (1, 5, 0), of_units(1 / 4)),
        ((1, 0, 0), (1, 0, 1), of_units(1 / 3)),  # 1e-4 and 1e-3 of 1e-4 to 1e-1, on a log scale
        ((1, 0, 0), (1, 0, 2), of_units(2 / 3)),
        ((1, 0, 0), (1, 8, 3), 2 * of_units(1)),
    ],
)
def test_the_distance_of_two_children(one, other, expected):
    assert distance(Space(mixed), one, other) == pytest.approx(expected, abs=0.004)


def test_a_decision_that_one_child_lacks_is_a_distance():
    net, tree = (0, 0, 0, 0, 0, 0, 0), (1, 0, 0)
    assert distance(Space(mixed), net, tree) == pytest.approx(6)  # the family, three operations and two numbers


def test_an_ordered_decision_of_many_options_has_few_columns():
    def wide():
        return (yield Integer("units", 1, 900))

    walks = [Space(wide).decode((token,)) for token in (0, 450, 899)]
    features, matrix = features_of(walks)
    assert matrix.columns.shape == (3, len(CENTRES) + 1)
    layout = Layout.of(features, matrix)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = -np.log(terms(layout, joint_only(1), matrix, matrix).joint)
    assert found[0] == pytest.approx([0, of_units(0.5), 1], abs=0.004)


def test_options_are_counted_whatever_decisions_are_called():
    def named():
        for index in range(3):
            yield Choice(f"op{index}", ("p", "q"), kind=f"kind{index}")

    features, matrix = features_of([Space(named).decode((0, 1, 1)), Space(named).decode((0, 0, 0))])
    assert matrix.counts.tolist() == [[1, 2], [3, 0]]
    assert features.size == (9, 2)


def test_a_row_has_no_columns_of_decisions_that_are_unknown():
    space = Space(mixed)
    features, _ = features_of([space.decode((1, 0, 0))])
    assert len(features.row(space.decode((0, 0, 0, 0, 0, 0, 0))).columns) == 2  # the family alone


# The Gaussian process


def problem(space=None, count=12, seed=0):
    walks = walks_of(space or Space(mixed), count)
    features, matrix = features_of(walks)
    return features, matrix, np.random.default_rng(seed).normal(size=count)


def empty(features):
    return features.matrix([])


def test_a_prediction_by_hand():
    """Two children at distance 1 with scores 1 and -1: K = [[1.1, 1/e], [1/e, 1.1]]."""
    space = Space(flat)
    features, matrix = features_of([space.decode((0, 0, 0, 0)), space.decode((1, 0, 0, 0))])
    layout = Layout.of(features, matrix)
    with np.errstate(divide="ignore", invalid="ignore"):
        hyperparameters = joint_only(layout.num_decisions)
        process = GaussianProcess(layout, hyperparameters, matrix, np.array([1.0, -1.0]))
        prediction = process.predict(matrix)
    k, noisy = math.exp(-1), 1.1 + JITTER
    # K^-1 (1, -1) = (1, -1) / (noisy - k)
    assert prediction.mean == pytest.approx([(1 - k) / (noisy - k), -(1 - k) / (noisy - k)])
    expected = 1 - (noisy - 2 * k * k + noisy * k * k) / (noisy**2 - k**2)
    assert prediction.variance == pytest.approx([expected, expected])


def test_the_covariance_of_two_predictions_says_what_one_more_score_would_change():
    """Once a child has a score y, the mean of x rises by cov(x, child) (y - m(child)) / (var(child) + noise)."""
    features, matrix, scores = problem()
    layout = Layout.of(features, matrix)
    hyperparameters = fit(layout, matrix, scores)
    process = GaussianProcess(layout, hyperparameters, matrix, scores)
    others = features.matrix([features.row(walk) for walk in walks_of(Space(mixed), 20, first=100)])
    candidates = process.predict(others)
    (child,) = walks_of(Space(mixed), 1, first=200)
    row = features.matrix([features.row(child)])
    before = process.predict(row)
    more = Matrix(*(np.vstack(parts) for parts in zip(matrix, row, strict=True)))
    after = GaussianProcess(layout, hyperparameters, more, np.append(scores, 3.0))
    shared = candidates.covariance(before)[:, 0]
    surprise = (3.0 - before.mean[0]) / (before.variance[0] + process.noise)
    found = after.predict(others)
    np.testing.assert_allclose(found.mean, candidates.mean + shared * surprise, atol=1e-9)
    np.testing.assert_allclose(np.diag(candidates.covariance(candidates)), candidates.variance, atol=1e-9)


def test_without_children_the_prediction_is_the_prior():
    features, matrix, _ = problem()
    none = empty(features)
    layout = Layout.of(features, none)
    prior = Hyperparameters.prior(layout.num_decisions)
    prediction = GaussianProcess(layout, prior, none, np.zeros(0)).predict(matrix)
    amplitudes = np.exp(prior.amplitudes)
    assert not prediction.mean.any()
    assert prediction.variance == pytest.approx(amplitudes[[MAIN, PAIRS, JOINT, COUNTS]].sum() + 0.1)


def test_the_gradient_of_the_loss_is_that_of_finite_differences():
    features, matrix, scores = problem()
    layout = Layout.of(features, matrix)
    vector = np.concatenate(Hyperparameters.prior(layout.num_decisions))
    vector += np.random.default_rng(1).normal(size=len(vector)) * 0.3
    _, gradient = loss(layout, matrix, scores, vector)
    step = 1e-5
    for index, of_index in enumerate(gradient):
        change = np.zeros_like(vector)
        change[index] = step
        numeric = (
            loss(layout, matrix, scores, vector + change)[0] - loss(layout, matrix, scores, vector - change)[0]
        ) / (2 * step)
        assert of_index == pytest.approx(numeric, abs=1e-6)


def test_fitting_finds_the_decision_that_matters():
    walks = walks_of(Space(flat), 60)
    features, matrix = features_of(walks)
    scores = normal_scores(np.array([float(walk.tokens[2] == 1) for walk in walks]))
    fitted = fit(Layout.of(features, matrix), matrix, scores)
    others = [0, 1, 3]
    assert fitted.main[2] > fitted.main[others].max() + 1
    assert fitted.amplitudes[NOISE] < math.log(0.02)


def test_the_kernel_is_positive_semidefinite():
    features, matrix, _ = problem(count=40)
    layout = Layout.of(features, matrix)
    hyperparameters = Hyperparameters.prior(layout.num_decisions)
    covariance = kernel(hyperparameters, terms(layout, hyperparameters, matrix, matrix))
    np.testing.assert_allclose(covariance, covariance.T)
    assert np.linalg.eigvalsh(covariance).min() > -1e-9


def test_normal_scores_depend_on_ranks_alone():
    scores = normal_scores(np.array([5.0, -1e30, 7.0, 5.0]))
    assert scores[0] == scores[3] and scores[1] == -scores[2]
    np.testing.assert_allclose(scores, normal_scores(np.array([0.5, 0.0, 1e300, 0.5])))
    assert scores[1] == pytest.approx(-1.1503, abs=1e-4)  # the 12.5 % quantile


# Candidates


def test_a_mutation_changes_as_many_tokens_as_asked():
    space = Space(flat)
    parent = space.decode((0, 1, 2, 0))
    for changes in (1, 2, 4):
        for index in range(20):
            child = mutation(space, 0, parent, changes, stream(SEED, index, changes))
            assert sum(a != b for a, b in zip(child.tokens, parent.tokens, strict=True)) == changes


def test_mutations_keep_the_narrowing_and_step_to_neighbours():
    def ranged():
        return (yield Integer("units", 1, 9)), (yield Choice("op", ("p", "q", "r")))

    space = Space(ranged, Narrowing((parse_rule("op=p,r", fix=False),)))
    parent = space.walk(0)
    parent.answer((4,))
    parent.answer((0,))
    children = [mutation(space, 0, parent, 1, stream(SEED, index, 0)).tokens for index in range(400)]
    assert {op for _, op in children} == {0, 2}
    moved = [units for units, _ in children if units != 4]
    assert 0.5 < sum(abs(units - 4) == 1 for units in moved) / len(moved) < 0.75  # a half, and two of eight of the rest


def test_the_kernel_of_pairs_learns_an_interaction_without_main_effects():
    """The reward is whether two digits are equal. Neither of them matters by itself."""
    space = Space(flat)
    walks = [space.decode(tuple(int(digit) for digit in np.base_repr(code, 3).zfill(4))) for code in range(0, 81, 2)]
    features, matrix = features_of(walks)
    layout = Layout.of(features, matrix)
    scores = normal_scores(np.array([float(walk.tokens[0] == walk.tokens[1]) for walk in walks]))
    rest = features.matrix([features.row(space.decode((a, b, 1, 1))) for a in range(3) for b in range(3)])
    without = Hyperparameters.prior(layout.num_decisions)
    without.amplitudes[[JOINT, COUNTS]] = -20.0
    mains = Hyperparameters(without.main, without.joint, without.amplitudes.copy())
    mains.amplitudes[PAIRS] = -20.0
    known = {}
    for name, hyperparameters in (("pairs", without), ("mains", mains)):
        process = GaussianProcess(layout, hyperparameters, matrix, scores)
        known[name] = process.predict(rest).mean.reshape(3, 3)
    equal = np.eye(3, dtype=bool)
    assert known["pairs"][equal].min() > known["pairs"][~equal].max() + 0.5
    assert known["mains"][equal].min() < known["mains"][~equal].max() + 0.1


# The screen


def rewarded(space, walks, reward=lambda walk: float(sum(walk.tokens)), first=0):
    return [Result(first + index, walk.tokens, (), reward(walk)) for index, walk in enumerate(walks)]


def test_the_choice_is_a_good_child_that_is_neither_trained_nor_in_flight():
    space = Space(flat)
    screen = Screen(space, SEED, ScreenSettings(uniform=100, mutations=100, exploration=0.0))
    screen.tell(rewarded(space, walks_of(space, 24)))
    chosen: list[tuple[int, ...]] = []
    for _ in range(4):
        pending = [PendingChild(24 + index, tokens) for index, tokens in enumerate(chosen)]
        chosen.append(screen.choose(Draw(99), pending).tokens)
    assert len(set(chosen)) == 4 and all(screen.model.is_new(tokens) for tokens in chosen)
    assert min(map(sum, chosen)) >= 6  # of 8 at the most, where the mean is 4
    second = screen.choose(Draw(99, attempt=1), [])
    assert second.tokens != chosen[0]


def test_the_local_search_goes_further_than_mutations_of_trained_children():
    """The reward is the sum of twelve digits from 0 to 2."""

    def long():
        for index in range(12):
            yield Choice(f"digit{index}", (0, 1, 2))

    space = Space(long)
    highest = []
    for rounds in (0, 4):
        screen = Screen(space, SEED, ScreenSettings(uniform=20, mutations=20, rounds=rounds, exploration=0.0))
        screen.tell(rewarded(space, walks_of(space, 60)))
        candidates = screen.candidates(60)
        assert len({walk.tokens for walk in candidates}) == len(candidates) <= 40 + 50 * rounds
        highest.append(max(sum(walk.tokens) for walk in candidates))
    assert highest[1] >= highest[0] + 2, highest


class Unordered:
    """Digits whose order makes no difference."""

    def __init__(self, digits):
        self.digits = digits

    def canonical(self):
        return sorted(self.digits)


def unordered():
    return Unordered((yield from flat()))


def test_children_equal_to_trained_ones_or_to_those_in_flight_are_not_chosen():
    space = Space(unordered)
    screen = Screen(space, SEED, ScreenSettings(uniform=200, mutations=100, exploration=0.0))
    trained = [space.decode(tokens) for tokens in ((2, 2, 2, 1), (0, 0, 0, 1), (0, 2, 1, 1), (0, 0, 0, 0))]
    screen.tell(rewarded(space, trained))
    assert screen.model.repeats(space.decode((1, 2, 2, 2))) and not screen.model.repeats(space.decode((2, 2, 2, 2)))
    known = [walk.spec.canonical() for walk in trained]
    pending = []
    for number in range(4, 12):
        chosen = screen.choose(Draw(99), pending)
        assert chosen.spec.canonical() not in known
        known.append(chosen.spec.canonical())
        pending.append(PendingChild(number, chosen.tokens))


def test_children_in_flight_make_similar_ones_less_attractive():
    space = Space(flat)
    screen = Screen(space, SEED, ScreenSettings(uniform=100, mutations=0, exploration=3.0))
    screen.tell(rewarded(space, walks_of(space, 6), reward=lambda walk: 0.5))
    first = screen.choose(Draw(99), []).tokens
    second = screen.choose(Draw(99), [PendingChild(6, first)]).tokens
    assert sum(a != b for a, b in zip(first, second, strict=True)) >= 2


def outcomes_of(screen, walks):
    return Outcomes(screen.model, walks, lambda part: stream(SEED, len(part), 0))


def test_optimistic_scores_have_the_upper_confidence_bound_as_their_mean():
    space = Space(mixed)
    screen = Screen(space, SEED, ScreenSettings(exploration=1.5))
    screen.tell(rewarded(space, walks_of(space, 12)))
    candidates = walks_of(space, 30, first=100)
    bounds = screen.model.score(candidates)
    # U has a standard deviation of sqrt(pi / 2 - 1) w s; its mean over the outcomes is within four standard errors.
    deviations = (bounds - screen.model.process.predict(screen.model.matrix(candidates)).mean) * math.sqrt(
        math.pi / 2 - 1
    )
    found = outcomes_of(screen, candidates).drawn.mean(axis=1)
    assert (np.abs(found - bounds) < 4 * deviations / math.sqrt(OUTCOMES) + 0.01).all()


def test_a_candidate_adds_nothing_once_it_is_in_flight():
    space = Space(mixed)
    screen = Screen(space, SEED, ScreenSettings(exploration=2.0))
    screen.tell(rewarded(space, walks_of(space, 12)))
    candidates = [walk for walk in walks_of(space, 60, first=100) if screen.model.is_new(walk.tokens)]
    outcomes = outcomes_of(screen, candidates)
    before = outcomes.gains([], [])
    best = candidates[int(before.argmax())]
    after = outcomes.gains([best.tokens], [])
    assert after[before.argmax()] == 0.0 < before.max()
    assert (after <= before).all()


def test_a_child_in_flight_counts_alike_whether_it_is_a_candidate_or_not():
    """Of the draws of two children in flight, one comes with those of the candidates and one is made later."""
    space = Space(mixed)
    screen = Screen(space, SEED, ScreenSettings(exploration=2.0))
    screen.tell(rewarded(space, walks_of(space, 12)))
    candidates = list({walk.tokens: walk for walk in walks_of(space, 60, first=100)}.values())
    child = candidates[int(outcomes_of(screen, candidates).gains([], []).argmax())]
    inside = outcomes_of(screen, candidates).gains([child.tokens], [])
    rest = [walk for walk in candidates if walk is not child]
    outside = outcomes_of(screen, rest).gains([child.tokens], [child])
    kept = [index for index, walk in enumerate(candidates) if walk is not child]
    # Other random numbers: means over the outcomes of values that deviate by at most about 2 differ by 0.1.
    np.testing.assert_allclose(outside, inside[kept], atol=0.4)
    assert np.corrcoef(outside, inside[kept])[0, 1] > 0.95


def test_a_choice_is_the_same_for_a_new_screen_that_sees_all_children_in_flight_at_once():
    space = Space(mixed)
    results = rewarded(space, walks_of(space, 12))
    stepwise = Screen(space, SEED, ScreenSettings(uniform=30, mutations=30))
    stepwise.tell(results)
    foreign = [walk for walk in walks_of(space, 40, first=100) if stepwise.model.is_new(walk.tokens)][:3]
    pending = [PendingChild(12 + index, walk.tokens) for index, walk in enumerate(foreign)]
    for number in range(15, 20):
        pending.append(PendingChild(number, stepwise.choose(Draw(number), pending).tokens))
        fresh = Screen(space, SEED, ScreenSettings(uniform=30, mutations=30))
        fresh.tell(results)
        assert fresh.choose(Draw(number), pending[:-1]).tokens == pending[-1].tokens


def test_what_a_screen_says_does_not_depend_on_when_it_is_asked():
    """A replay asks for nothing between the batches, and fits hyperparameters once."""
    space = Space(mixed)
    results = [rewarded(space, walks_of(space, 5, first=10 * batch), first=5 * batch) for batch in range(6)]
    asked, replayed = (Screen(space, SEED, ScreenSettings(uniform=30, mutations=30)) for _ in range(2))
    for batch in results:
        asked.tell(batch)
        asked.model.score(asked.candidates(0))
        replayed.tell(batch)
    candidates = asked.candidates(30)
    assert [walk.tokens for walk in candidates] == [walk.tokens for walk in replayed.candidates(30)]
    np.testing.assert_array_equal(asked.model.score(candidates), replayed.model.score(candidates))


def test_the_model_computes_in_one_thread(monkeypatch):
    """The last bits of a matrix product depend on the number of threads, and so would the choice."""
    space = Space(flat)
    screen = Screen(space, SEED, ScreenSettings(uniform=20, mutations=20))
    screen.tell(rewarded(space, walks_of(space, 12)))
    threads = []
    predict = GaussianProcess.predict

    def noted(process, candidates):
        threads.extend(pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas")
        return predict(process, candidates)

    monkeypatch.setattr(GaussianProcess, "predict", noted)
    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        screen.model.score(screen.candidates(12))
        screen.choose(Draw(12), [])
    assert threads and set(threads) == {1}


def test_failed_children_count_as_bad_and_are_no_parents():
    space = Space(flat)
    walks = walks_of(space, 12)
    results = [
        Result(index, walk.tokens, (), 9.0, ResultState.FAILED) if index == 0 else Result(index, walk.tokens, (), 0.1)
        for index, walk in enumerate(walks)
    ]
    screen = Screen(space, SEED, ScreenSettings(uniform=0, mutations=50, parents=1))
    screen.tell([results[0]])
    assert screen.candidates(1) == []
    screen.tell([*results[1:], Result(90, (0, 0, 0, 0), (), None, ResultState.LOST)])
    assert screen.model.num_scored == 12


def test_the_model_uses_a_bounded_number_of_children():
    space = Space(flat)
    screen = Screen(space, SEED, ScreenSettings(uniform=10, mutations=10))
    walks = walks_of(space, MAX_KNOWN + 50)
    screen.tell(rewarded(space, walks))
    assert len(screen.model.process.known.columns) == MAX_KNOWN


def test_the_surrogate_finds_the_best_of_81_children_quickly():
    """The reward needs two decisions together, and the rest in a certain order."""
    space = Space(flat)

    def reward(tokens):
        return float(3 * (tokens[0] == tokens[1] == 2) + (tokens[2] == 0) + (tokens[3] == 1) - 0.1 * tokens[0])

    controller = Surrogate(space, seed=SEED, initial=4)
    best = -math.inf
    for batch in range(7):
        proposals, pending = [], []
        for number in range(4 * batch, 4 * batch + 4):
            (proposal,) = controller.ask([Draw(number)], pending)
            proposals.append(proposal)
            pending.append(PendingChild(number, proposal.tokens))
        controller.tell([Result(4 * batch + i, one.tokens, (), reward(one.tokens)) for i, one in enumerate(proposals)])
        best = max(best, *(reward(one.tokens) for one in proposals))
    assert best == pytest.approx(4.8)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("initial", 0, "controller.initial is 0; it must be a whole number, 1 or more."),
        ("uniform", 0, "controller.uniform is 0; it must be a whole number, 1 or more."),
        ("uniform", "abc", "controller.uniform is 'abc'; it must be a whole number, 0 or more."),
        ("mutations", -1, "controller.mutations is -1; it must be a whole number, 0 or more."),
        ("rounds", 1.5, "controller.rounds is 1.5; it must be a whole number, 0 or more."),
        ("parents", True, "controller.parents is True; it must be a whole number, 0 or more."),
        ("exploration", -0.5, "controller.exploration is -0.5; it must be a number, 0 or more."),
        ("exploration", math.inf, "controller.exploration is inf; it must be a number, 0 or more."),
    ],
)
def test_a_bad_setting_of_the_surrogate_gets_one_sentence(name, value, sentence):
    with pytest.raises(ValueError) as caught:
        Surrogate(Space(flat), seed=SEED, **{name: value})
    assert str(caught.value) == sentence
