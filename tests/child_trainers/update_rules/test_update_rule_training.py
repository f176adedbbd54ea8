"""How update rules are judged: the screen, the sweep, and what each ending is worth."""

import functools

import numpy as np
import pytest

from automl.child_trainers.outcome import Goal, Outcome
from automl.child_trainers.recipes import RuleRecipe, RuleTextRecipe
from automl.child_trainers.task import Assignment
from automl.child_trainers.update_rules.screening import CENTRE, Screen, functions
from automl.child_trainers.update_rules.task import ImageRules, TextRules, pruned_accuracy
from automl.search_spaces.update_rule.named import RULES
from automl.search_spaces.update_rule.program import encode
from automl.search_spaces.update_rule.spec import UpdateRule

RATES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
QUICK = {"num_train": 320, "batch_size": 32, "epochs": 2, "rates": (0.01, 0.1)}


class Report:
    checkpoint = None

    def __init__(self, fails_at=0):
        self.epochs = []
        self._fails_at = fails_at

    def __call__(self, epoch, **metrics):
        self.epochs.append(epoch)
        if epoch == self._fails_at:
            raise RuntimeError("enough")

    def follow(self, steps_done):
        self.steps_done = steps_done


@functools.cache
def task(**changes):
    return ImageRules("digits", RuleRecipe(**(QUICK | changes)))


def judge(texts, seed=3, **changes):
    reports = [Report() for _ in texts]
    children = [Assignment(UpdateRule.parse(text), seed, report) for text, report in zip(texts, reports, strict=True)]
    ended = dict(task(**changes).evaluate_together(children))
    return [ended[index] for index in range(len(texts))], reports


@pytest.mark.parametrize("name", RULES)
def test_published_rules_pass_the_screen(name):
    assert screen().passes([encode(RULES[name])], [5]) == [True]


@pytest.mark.parametrize("text", ["clip(g, 1e-5)", "clip(adam, 1e-5)", "clip(g, 1e-4)", "clip(sign(m), 1e-3)"])
def test_rules_of_small_steps_pass_the_screen(text):
    assert screen().passes([encode(UpdateRule.parse(text))], [5]) == [True]


@pytest.mark.parametrize("text", ["1", "0.1w", "-g", "-adam", "noise", "exp(g)", "sign(2)", "clip(g, 1e-5) * 0.001w"])
def test_what_descends_nothing_does_not(text):
    # Going a fixed way, shrinking the weights, climbing, and noise.
    assert not any(screen().passes([encode(UpdateRule.parse(text))] * 5, range(5)))


def test_noise_passes_the_screen_by_chance_alone():
    noise = encode(UpdateRule.parse("noise"))
    assert sum(screen().passes([noise] * 60, range(60))) <= 15


@functools.cache
def screen():
    return Screen(RATES)


def test_the_screen_s_functions_by_hand():
    weights = np.zeros((4, 1, 4), np.float32)
    weights[2] = CENTRE + [0.0, 0.0, 0.0, 2.0]
    weights[3] = CENTRE + [1.0, 1.0, 2.0, 3.0]
    values, slopes = (np.asarray(part) for part in functions(weights))
    # Half of 1, 1, 10, 10 times 9; of 10 times 4; (1 - 1)^2 + 100 * 0 + (1 - 2)^2 + 100 (3 - 4)^2.
    np.testing.assert_allclose(values, [[99.0], [99.0], [20.0], [101.0]])
    np.testing.assert_allclose(slopes[0, 0], [-3.0, 3.0, -30.0, 30.0])
    # -2 (1 - x) - 400 x (y - x^2) = 2 + 800, 200 (y - x^2) = -200.
    np.testing.assert_allclose(slopes[3, 0], [0.0, 0.0, 802.0, -200.0])


def test_a_sweep_and_then_the_best_of_its_rates():
    (outcome,), (report,) = judge(["g"])
    assert report.epochs == [1, 2, 3]  # the sweep, and two epochs
    sweep = outcome.metrics["sweep"]
    assert outcome.metrics["learning_rate"] == (0.01, 0.1)[int(np.argmax(sweep))]
    assert outcome.reward == outcome.metrics["val_accuracy"] > max(sweep) and outcome.ending is None
    assert outcome.weights["conv0/kernel"].shape == (3, 3, 1, 32)
    assert set(outcome.seconds) == {"screen", "trace", "train", "validate"} and report.steps_done() > 0


def test_every_ending():
    texts = ["1", "exp(exp(2)) * g / 0.0001w", "0.1w"]
    (screened, diverged, pruned), reports = judge(texts, screen_sample=0.0, rates=(10.0, 1e4))
    assert (screened.metrics, screened.reward) == ({"val_accuracy": 0.0}, 0.0)
    assert (screened.ending, screened.screened) == ("screened", True)
    assert reports[0].epochs == []
    (diverged, pruned), reports = judge(texts[1:], screened=False, rates=(1e4, 1e5))
    assert (diverged.ending, diverged.screened) == ("diverged", False) and diverged.metrics["sweep"] == [None, None]
    assert (diverged.reward, diverged.metrics["val_accuracy"], reports[0].epochs) == (0.0, 0.0, [])
    (pruned,), (report,) = judge(["0.1w"], screened=False)
    assert pruned.ending == "hopeless" and pruned.reward == max(pruned.metrics["sweep"]) < 0.15
    assert report.epochs == [1] and pruned.weights is None


def test_weights_that_the_last_step_of_an_epoch_has_ruined_are_divergence():
    (outcome,), (report,) = judge(["exp(exp(2)) * g"], screened=False, batch_size=320, rates=(1e38,))  # one step
    assert (outcome.metrics, outcome.ending) == ({"sweep": [None], "val_accuracy": 0.0}, "diverged")
    assert (outcome.weights, report.epochs) == (None, [])


@pytest.mark.parametrize(("labels", "accuracy"), [(range(10), 0.145), ((0, 1), 0.525), ((0, 0, 0, 1), 0.7625)])
def test_what_is_pruned_is_little_more_than_naming_the_commonest_class(labels, accuracy):
    assert pruned_accuracy(np.array(labels)) == pytest.approx(accuracy)


def test_a_share_of_the_screened_is_trained_anyway():
    (outcome,), _ = judge(["1"], screen_sample=1.0)
    assert outcome.screened and outcome.ending != "screened" and len(outcome.metrics["sweep"]) == 2


def test_rules_together_are_as_rules_alone_and_one_that_must_end_takes_none_along():
    texts = ["g", "adam", "g + drop(m, 0.3)"]
    together, _ = judge(texts, seed=7)
    for text, outcome in zip(texts, together, strict=True):
        ((alone,), _) = judge([text], seed=7)
        assert alone.reward == outcome.reward and alone.metrics == outcome.metrics
    reports = [Report(), Report(fails_at=2), Report()]
    children = [Assignment(UpdateRule.parse(text), 7, report) for text, report in zip(texts, reports, strict=True)]
    ended = dict(task().evaluate_together(children))
    assert isinstance(ended[1], RuntimeError) and reports[1].epochs == [1, 2]
    assert [ended[0].metrics, ended[2].metrics] == [together[0].metrics, together[2].metrics]


def test_rules_on_text():
    recipe = RuleTextRecipe(
        units=16, vocabulary_size=100, num_train=4000, num_validation=400, epochs=1, rates=(0.1, 1.0), screen_sample=0.0
    )
    judged = TextRules("pydoc", recipe, goal=Goal("val_perplexity", minimize=True))
    good, bad = Assignment(RULES["sgd"], 3, Report()), Assignment(UpdateRule.parse("1"), 3, Report())
    ended = dict(judged.evaluate_together([good, bad]))
    assert isinstance(ended[0], Outcome) and 1 < ended[0].metrics["val_perplexity"] < 101
    assert ended[0].reward == -ended[0].metrics["val_perplexity"] and ended[1].reward == -100.0 < ended[0].reward
    found = judged.validate(judged.model(RULES["sgd"], ended[0].weights), RULES["sgd"])
    assert judged.same(found["val_perplexity"], ended[0].metrics["val_perplexity"])


def test_another_goal_is_refused():
    with pytest.raises(ValueError, match="Update rules are judged by val_accuracy here; drop --minimize loss"):
        ImageRules("digits", RuleRecipe(), goal=Goal("loss", minimize=True))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rates": ()}, "task.rates is \\(\\); it must be a list of numbers above 0."),
        ({"rates": [0.1, -1]}, "task.rates is \\[0.1, -1\\]"),
        ({"screen_sample": 2}, "task.screen_sample is 2; it must be a number in \\[0, 1\\]."),
        ({"population": 0}, "task.population is 0; it must be a whole number above 0."),
    ],
)
def test_wrong_constants(changes, message):
    with pytest.raises(ValueError, match=message):
        RuleRecipe(**changes)
