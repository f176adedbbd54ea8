"""What a controller learns from earlier searches."""

import math

import numpy as np
import pytest
from scipy.special import ndtri

from automl.controllers.base import Controller, Donor, DonorChild, Draw, PendingChild, Result
from automl.controllers.checked import CheckedController, ControllerError
from automl.controllers.keyed import stream
from automl.controllers.random_search import RandomSearch
from automl.controllers.reinforce.controller import Reinforce
from automl.controllers.reward_model.donors import DOUBT, OFFSET, TRUST, Donors
from automl.controllers.reward_model.fitting import loss
from automl.controllers.reward_model.gaussian_process import (
    Basis,
    GaussianProcess,
    Hyperparameters,
    Layout,
    kernel,
    terms,
)
from automl.controllers.reward_model.screen import DONOR_TURNS, Screen, ScreenSettings
from automl.controllers.surrogate import Surrogate
from automl.controllers.variation import uniform_walk
from automl.search_spaces.decisions import Choice
from automl.search_spaces.space import Space

SEED = 3
EFFECTS = np.random.default_rng(5).normal(size=(8, 4))


def eight():
    chosen = []
    for index in range(8):
        chosen.append((yield Choice(f"choice{index}", ("a", "b", "c", "d"))))
    return chosen


SPACE = Space(eight)


def value(tokens):
    return float(EFFECTS[np.arange(8), list(tokens)].sum())


BEST = float(EFFECTS.max(axis=1).sum())


def donor(reward=value, count=80, seed=11, name="earlier"):
    """Random children of an earlier search."""
    walks = [uniform_walk(SPACE, 0, stream(seed, index, 0)) for index in range(count)]
    rewards = np.array([reward(walk.tokens) for walk in walks])
    order = np.argsort(-rewards, kind="stable").tolist()
    ranks = [(count - place - 0.5) / count for place in range(count)]
    return Donor(
        name,
        tuple(
            DonorChild(walks[index].tokens, float(rewards[index]), rank)
            for index, rank in zip(order, ranks, strict=True)
        ),
    )


def random_rewards(seed):
    generator = np.random.default_rng(seed)
    return lambda tokens: float(generator.normal())


def searched(controller, children, reward=value, batch=4):
    """The best value after each child."""
    best, found = -math.inf, []
    for first in range(0, children, batch):
        proposals, pending = [], []
        for number in range(first, first + batch):
            (proposal,) = controller.ask([Draw(number)], pending)
            proposals.append(proposal)
            pending.append(PendingChild(number, proposal.tokens))
            best = max(best, value(proposal.tokens))
            found.append(best)
        controller.tell(
            [Result(first + i, one.tokens, one.log_probs, reward(one.tokens)) for i, one in enumerate(proposals)]
        )
    return found


def warm(donors, seed=SEED):
    controller = Surrogate(SPACE, seed=seed, uniform=60, mutations=60)
    controller.warm_start(donors)
    return controller


def screen(donors=(), **settings):
    made = ScreenSettings(uniform=30, mutations=30, **settings)
    return Screen(SPACE, SEED, made, Donors(SPACE, donors))


# What it is worth


def test_a_good_donor_saves_children_and_a_bad_one_costs_next_to_nothing():
    """The mean regret over seeds. The good donor has the same function, another scale and noise."""
    seeds, children = range(6), 24

    def regrets(donors_of):
        return BEST - np.mean([searched(donors_of(seed), children) for seed in seeds], axis=0)

    def noisy(seed):
        noise = random_rewards(100 + seed)
        return lambda tokens: math.exp(value(tokens) + 0.5 * noise(tokens))

    alone = regrets(lambda seed: Surrogate(SPACE, seed=seed, uniform=60, mutations=60))
    good = regrets(lambda seed: warm([donor(noisy(seed), seed=50 + seed)], seed))
    bad = regrets(lambda seed: warm([donor(random_rewards(200 + seed), seed=50 + seed)], seed))
    opposite = regrets(lambda seed: warm([donor(lambda tokens: -value(tokens), seed=50 + seed)], seed))
    assert good[11] < 0.5 * alone[11]
    assert good[7] < alone[15]  # half as many children
    for costly in (bad, opposite):
        assert costly[23] < alone[23] + 0.15 * alone[7]


def test_the_weight_of_a_donor_follows_its_worth():
    weights = {}
    for name, reward in {"good": value, "opposite": lambda tokens: -value(tokens)}.items():
        found = screen([donor(reward)])
        walks = [uniform_walk(SPACE, 0, stream(SEED, index, 1)) for index in range(40)]
        found.tell([Result(index, walk.tokens, (), value(walk.tokens)) for index, walk in enumerate(walks)])
        weights[name] = found.model.process.basis_weights[0]
    assert weights["good"] > 0.8 and weights["opposite"] < -0.5
    assert screen([donor()]).model.process.basis_weights.tolist() == [TRUST, 0.0]


@pytest.mark.parametrize("kind", [Surrogate, Reinforce])
def test_a_step_says_how_far_each_donor_is_trusted(kind):
    settings = {} if kind is Surrogate else {"candidates": 8, "uniform": 8, "mutations": 8, "model_samples": 4}
    results = [
        Result(index, walk.tokens, (-1.0,) * 8, value(walk.tokens))
        for index, walk in enumerate(uniform_walk(SPACE, 0, stream(SEED, number, 4)) for number in range(30))
    ]
    controller = kind(SPACE, seed=SEED, **settings)
    controller.warm_start([donor(), donor(lambda tokens: -value(tokens), seed=12)])
    good, opposite = controller.tell(results)["donor_weights"]
    assert good > opposite
    assert "donor_weights" not in kind(SPACE, seed=SEED, **settings).tell(results)


def test_two_donors_share_the_trust():
    means, deviations = Donors(SPACE, [donor(), donor(seed=12)]).basis
    assert means.tolist() == [TRUST / 2, TRUST / 2, 0.0] and deviations.tolist() == [DOUBT, DOUBT, OFFSET]


# The process


def problem(count=14, functions=2):
    found = screen().model
    walks = [uniform_walk(SPACE, 0, stream(SEED, index, 2)) for index in range(count)]
    generator = np.random.default_rng(0)
    matrix = found.matrix(walks)._replace(basis=generator.normal(size=(count, functions)))
    return found, matrix, generator.normal(size=count)


def test_without_weight_donors_change_nothing():
    found, matrix, scores = problem()
    plain = matrix._replace(basis=np.zeros((len(scores), 0)))
    vector = np.concatenate(Hyperparameters.prior(8))
    results = []
    for rows, basis in ((plain, Basis(np.zeros(0), np.zeros(0))), (matrix, Basis(np.zeros(2), np.zeros(2)))):
        layout = Layout.of(found._features, rows, basis)
        prior = Hyperparameters.prior(8)
        process = GaussianProcess(layout, prior, rows, scores)
        prediction = process.predict(rows)
        results.append((loss(layout, rows, scores, vector)[0], prediction.mean, prediction.variance))
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_weights_are_those_of_a_linear_regression():
    """With no function f but noise, R&W 2006, equation 2.8: (H^T H / s + B^-1)^-1 (H^T y / s + B^-1 b)."""
    found, matrix, scores = problem()
    means, deviations = np.array([0.7, 0.0]), np.array([0.5, 2.0])
    layout = Layout.of(found._features, matrix, Basis(means, deviations))
    hyperparameters = Hyperparameters(
        np.full(8, -50.0), np.zeros(8), np.array([-50.0] * 4 + [0.0, -50.0, math.log(0.1)])
    )
    process = GaussianProcess(layout, hyperparameters, matrix, scores)
    precision = np.diag(deviations**-2.0)
    posterior = np.linalg.inv(matrix.basis.T @ matrix.basis / process.noise + precision)
    expected = posterior @ (matrix.basis.T @ scores / process.noise + precision @ means)
    np.testing.assert_allclose(process.basis_weights, expected, rtol=1e-8)
    prediction = process.predict(matrix)
    np.testing.assert_allclose(prediction.mean, matrix.basis @ expected, rtol=1e-6)
    np.testing.assert_allclose(
        prediction.variance, np.einsum("ni,ij,nj->n", matrix.basis, posterior, matrix.basis), rtol=1e-4
    )


def test_the_gradient_with_donors_is_that_of_finite_differences():
    found, matrix, scores = problem()
    layout = Layout.of(found._features, matrix, Basis(np.array([0.7, 0.0]), np.array([1.0, 1.0])))
    vector = np.concatenate(Hyperparameters.prior(8)) + np.random.default_rng(1).normal(size=23) * 0.3
    _, gradient = loss(layout, matrix, scores, vector)
    step = 1e-5
    for index, of_index in enumerate(gradient):
        change = np.zeros_like(vector)
        change[index] = step
        above, below = (loss(layout, matrix, scores, vector + sign * change)[0] for sign in (1, -1))
        assert of_index == pytest.approx((above - below) / (2 * step), abs=1e-6)


def test_the_joint_distribution_with_donors_has_the_variances_of_the_prediction():
    found = screen([donor()])
    walks = [uniform_walk(SPACE, 0, stream(SEED, index, 3)) for index in range(14)]
    found.tell([Result(index, walk.tokens, (), value(walk.tokens)) for index, walk in enumerate(walks[:6])])
    prediction = found.model.process.predict(found.model.matrix(walks[9:]))
    np.testing.assert_allclose(np.diag(prediction.covariance(prediction)), prediction.variance, atol=1e-9)


def test_the_covariance_with_donors_is_positive_semidefinite():
    found, matrix, _ = problem(count=30)
    layout = Layout.of(found._features, matrix, Basis(np.array([0.7, 0.0]), np.array([1.0, 1.0])))
    prior = Hyperparameters.prior(8)
    assert np.linalg.eigvalsh(kernel(prior, terms(layout, prior, matrix, matrix))).min() > -1e-9


def test_a_donor_expects_high_scores_of_its_best_children():
    one = donor()
    donors = Donors(SPACE, [one])
    features = donors.new_features()
    walks = [SPACE.decode(child.tokens) for child in one.children]
    functions = donors.with_functions(features.matrix([features.row(walk) for walk in walks])).basis
    scores = ndtri([child.rank for child in one.children])
    assert np.corrcoef(functions[:, 0], scores)[0, 1] > 0.9
    assert (functions[:, 1] == 1).all()


# The contract


def test_the_first_child_is_already_a_good_one():
    (proposal,) = warm([donor()]).ask([Draw(0)])
    assert value(proposal.tokens) > 0.5 * BEST
    fresh, warmed = Surrogate(SPACE, seed=SEED), warm([donor()])
    same = [fresh.ask([Draw(number)]) == warmed.ask([Draw(number)]) for number in range(8)]
    assert same == [number % DONOR_TURNS > 0 for number in range(8)]


def test_the_best_children_of_donors_are_candidates_until_they_are_trained():
    one, other = donor(), donor(seed=12)
    found = screen([one, other], parents=4)
    tokens = [walk.tokens for walk in found.candidates(0)]
    for child in (*one.children[:2], *other.children[:2]):
        assert child.tokens in tokens
    assert one.children[3].tokens not in tokens


@pytest.mark.parametrize("kind", [Surrogate, Reinforce])
def test_a_restart_with_the_same_donors_goes_on_in_the_same_way(kind):
    settings = {} if kind is Surrogate else {"candidates": 16, "uniform": 16, "mutations": 16, "heads": "decision"}
    donors = [donor(count=20), donor(random_rewards(1), count=20, seed=12)]

    def make():
        controller = kind(SPACE, seed=SEED, **settings)
        controller.warm_start(donors)
        return controller

    controller, batches = make(), []
    for first in (0, 4, 8):
        proposals = controller.ask([Draw(number) for number in range(first, first + 4)])
        batches.append(
            [Result(first + i, one.tokens, one.log_probs, value(one.tokens)) for i, one in enumerate(proposals)]
        )
        controller.tell(batches[-1])
    again, state = make(), controller.state()
    if state is None:
        again.replay(batches)
    else:
        again.restore(state)
        again.remember(batches)
    draws = [Draw(number) for number in range(12, 16)]
    assert again.ask(draws) == controller.ask(draws)


def test_who_accepts_donors():
    assert Surrogate(SPACE, seed=0).accepts_donors
    assert Reinforce(SPACE, seed=0, candidates=8).accepts_donors
    assert not Reinforce(SPACE, seed=0).accepts_donors
    assert not RandomSearch(SPACE, seed=0).accepts_donors
    with pytest.raises(NotImplementedError, match="RandomSearch accepts donors but has no method warm_start"):
        RandomSearch(SPACE, seed=0).warm_start([donor()])


class Listening(RandomSearch):
    accepts_donors = True
    received = ()

    def warm_start(self, donors):
        self.received = donors
        if donors[0].name == "bad":
            raise KeyError("nothing")


def test_a_users_controller_receives_donors_too():
    made: list[Controller] = []

    def make():
        made.append(Listening(SPACE, seed=0))
        return made[-1]

    checked = CheckedController(make, SPACE, seed=0, name="Mine")
    assert checked.accepts_donors
    checked.warm_start([donor()])
    assert made[0].received == [donor()]
    with pytest.raises(ControllerError, match="Mine raised KeyError in warm_start: 'nothing'"):
        checked.warm_start([donor(name="bad")])
    assert not CheckedController(lambda: RandomSearch(SPACE, seed=0), SPACE, seed=0, name="Other").accepts_donors
