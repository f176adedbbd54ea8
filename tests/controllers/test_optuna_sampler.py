"""Optuna's samplers as a controller: decisions as parameters, children as trials, samplers that cannot do a space."""

import logging
import subprocess
import sys
import time
import types
import warnings

import optuna
import pytest

from automl.controllers.base import Draw, PendingChild, Result, ResultState
from automl.controllers.optuna_sampler import samplers
from automl.controllers.optuna_sampler.controller import PRESETS, OptunaSampler
from automl.controllers.optuna_sampler.parameters import parameters_of
from automl.controllers.optuna_sampler.storage import STUDY, TrialList
from automl.search_spaces.decisions import Choice, Links
from automl.search_spaces.narrowing import Narrowing, parse_rule
from automl.search_spaces.numeric import Integer, Ordinal, Real
from automl.search_spaces.space import Space
from automl.testing.controllers import SPACES, ControllerContract, conditional, flat

EVERYWHERE = ("random", "bruteforce")  # beside TPE, which tests/controllers/test_contract.py has


class TestBruteForce(ControllerContract):
    def make(self, space, *, seed):
        return OptunaSampler(space, seed=seed, sampler="bruteforce")


def mixed():
    """A conditional space with decisions of every sort."""
    kind = yield Choice("kind", ("deep", "wide"))
    rate = yield Real("rate", 1e-3, 1.0, 4, log=True)
    layers = []
    for index in range(3 if kind == "deep" else 1):
        units = yield Integer(f"layer{index}/units", 4, 32, 4)
        layers.append((units, (yield Links(f"layer{index}/inputs", index, kind="inputs"))))
    return kind, rate, layers


def digits():
    found = []
    for index in range(6):
        found.append((yield Choice(f"digit{index}", tuple(range(5)))))
    return found


def reward_of(space, tokens):
    kind, rate, layers = space.decode(tokens).spec
    return -abs(rate - 0.01) - sum(abs(units - 24) / 28 for units, _ in layers) - (kind != "deep")


def run(controller, children, batch=4, reward=None):
    """A search without repeats in batches, as the loop makes one; returns what was told."""
    told, seen = [], set()
    for first in range(0, children, batch):
        pending, results = [], []
        for number in range(first, first + batch):
            for attempt in range(20):
                (proposal,) = controller.ask([Draw(number, attempt)], pending)
                if proposal.tokens not in seen:
                    break
            seen.add(proposal.tokens)
            pending.append(PendingChild(number, proposal.tokens))
            value = reward(proposal.tokens) if reward else reward_of(controller.space, proposal.tokens)
            results.append(Result(number, proposal.tokens, (), value))
        controller.tell(results)
        told.append(results)
    return told


def trials_of(controller):
    return controller._storage.get_all_trials(STUDY)


# Decisions as parameters


@pytest.mark.parametrize(
    ("decision", "expected"),
    [
        (Choice("a", ("x", "y", "z")), "CategoricalDistribution(choices=(0, 1, 2))"),
        (Integer("a", 4, 16, 4), "IntDistribution(high=16, log=False, low=4, step=4)"),
        (Integer("a", 1, 9, log=True), "IntDistribution(high=9, log=True, low=1, step=1)"),
        (Integer("a", 1, 27, 3, log=True), "IntDistribution(high=3, log=False, low=0, step=1)"),
        (Real("a", 0, 1, 5), "FloatDistribution(high=1.0, log=False, low=0.0, step=0.25)"),
        (Real("a", 0, 1, 4), "IntDistribution(high=3, log=False, low=0, step=1)"),  # 0.333333333333 is no exact third
        (Real("a", 1e-4, 1e-1, 4, log=True), "IntDistribution(high=3, log=False, low=0, step=1)"),
        (Integer("a", 0, 9, allowed=(True, False) * 5), "IntDistribution(high=8, log=False, low=0, step=2)"),
        (
            Integer("a", 0, 9, allowed=(True, True) + (False,) * 7 + (True,)),
            "IntDistribution(high=2, log=False, low=0, step=1)",
        ),
        (Choice("a", (1, 2, 3), allowed=(True, False, True)), "CategoricalDistribution(choices=(0, 1))"),
        (Real("a", -0.3, 0.3, 7), "FloatDistribution(high=0.3, log=False, low=-0.3, step=0.1)"),
        (Ordinal("a", (8, 16, 64)), "IntDistribution(high=2, log=False, low=0, step=1)"),
        (Integer("a", 1, 4, options=(3, 1, 4, 2)), "IntDistribution(high=4, log=False, low=1, step=1)"),
    ],
)
def test_every_token_has_a_value_of_the_distribution(decision, expected):
    (parameter,) = parameters_of(decision)
    assert str(parameter.distribution) == expected
    tokens = [token for token in range(len(decision.options)) if decision.allows(token)]
    assert sorted(parameter.tokens) == tokens
    for token in tokens:
        value = parameter.value(token)
        assert parameter.token(value) == token
        assert parameter.distribution._contains(parameter.distribution.to_internal_repr(value))
    if "Float" in expected or ("Int" in expected and "low=0, step=1" not in expected):
        assert [parameter.value(token) for token in tokens] == pytest.approx(
            [decision.options[token] for token in tokens]
        )


def test_forced_tokens_and_links():
    assert parameters_of(Choice("a", ("only",))) == [None]
    assert parameters_of(Choice("a", (1, 2), allowed=(False, True))) == [None]
    found = parameters_of(Links("a", 3, forced_bits=(None, 1, None)))
    assert [one and one.name for one in found] == ["a/link 0", None, "a/link 2"]
    assert parameters_of(Links("a", 0)) == []


def test_one_name_with_other_options_is_another_parameter():
    names = [
        parameters_of(one)[0].name
        for one in (Choice("a", (1, 2)), Choice("a", (1, 2, 3)), Integer("a", 1, 2), Integer("a", 1, 3))
    ]
    assert len(set(names)) == 4


def reused():
    """A name has other options in the other branch, which Optuna refuses for one parameter."""
    if (yield Choice("family", (0, 1))):
        return (yield Choice("part", ("a", "b")))
    return (yield Choice("part", tuple(range(7))))


@pytest.mark.parametrize("sampler", ["tpe", *EVERYWHERE])
def test_a_name_may_have_other_options_in_another_branch(sampler):
    options = {"n_startup_trials": 4} if sampler == "tpe" else {}
    controller = OptunaSampler(Space(reused), seed=0, sampler=sampler, **options)
    told = run(controller, 32, reward=lambda tokens: float(tokens[1]))
    assert {result.tokens for batch in told for result in batch} >= {(1, 0), (1, 1)}


# Children as trials


def test_told_children_are_finished_trials_and_draws_leave_none_behind():
    controller = OptunaSampler(Space(mixed), seed=0)
    deep, wide = (0, 2, 5, 7, 1, 3, 0, 1), (1, 3, 6)
    controller.tell(
        [
            Result(0, deep, (), 0.75),
            Result(1, wide, (), -1.0, ResultState.FAILED, fault="diverged"),
            Result(2, wide, (), None, ResultState.LOST),
        ]
    )
    first, second = trials_of(controller)
    assert (first.value, second.value) == (0.75, -1.0)
    assert {trial.state for trial in (first, second)} == {optuna.trial.TrialState.COMPLETE}
    units = "units/IntDistribution(high=32, log=False, low=4, step=4)"
    assert first.params == {
        "kind/2": 0,
        "rate/IntDistribution(high=3, log=False, low=0, step=1)": 2,
        f"layer0/{units}": 24,
        f"layer1/{units}": 32,
        "layer1/inputs/link 0": 1,
        f"layer2/{units}": 16,
        "layer2/inputs/link 0": 0,
        "layer2/inputs/link 1": 1,
    }
    assert len(second.params) == 3
    controller.ask([Draw(3), Draw(4)], [PendingChild(2, wide)])
    assert trials_of(controller) == [first, second]


def test_a_conditional_space_is_searched():
    def mean_of_last(sampler):
        rewards = []
        for seed in range(3):
            controller = OptunaSampler(Space(mixed), seed=seed, sampler=sampler)
            rewards += [result.reward for batch in run(controller, 100)[-10:] for result in batch]
        return sum(rewards) / len(rewards)

    assert mean_of_last("tpe") > mean_of_last("random") + 0.4


@pytest.mark.parametrize("sampler", ["tpe", "nsgaii"])
def test_it_is_better_than_random_sampling(sampler):
    def mean(name, **options):
        best = []
        for seed in range(3):
            controller = OptunaSampler(Space(digits), seed=seed, sampler=name, **options)
            told = run(controller, 120, reward=lambda tokens: float(tokens.count(3)))
            best += [result.reward for batch in told[-10:] for result in batch]
        return sum(best) / len(best)

    options = {"population_size": 20} if sampler == "nsgaii" else {}
    assert mean(sampler, **options) > mean("random") + 0.8  # random children have 1.2 on average, variance 0.96


def test_children_in_flight_are_avoided():
    def space():
        return (yield Choice("a", tuple(range(12)))), (yield Choice("b", tuple(range(12))))

    controller = OptunaSampler(Space(space), seed=0, n_startup_trials=10)
    controller.tell([Result(n, (n % 12, 5 * n % 12), (), float(n % 12 == 7)) for n in range(24)])
    first = [one.tokens for one in controller.ask([Draw(24 + n) for n in range(20)])]
    most = max(set(first), key=first.count)
    pending = [PendingChild(50 + n, most) for n in range(8)]
    then = [one.tokens for one in controller.ask([Draw(24 + n) for n in range(20)], pending)]
    assert then.count(most) < first.count(most)
    assert controller.sequential


def test_a_failed_child_counts_with_the_floor():
    """A sampler that did not see failures would go on proposing the option that always fails."""
    controller = OptunaSampler(Space(lambda: (yield Choice("a", tuple(range(4))))), seed=0, n_startup_trials=8)
    controller.tell(
        [Result(n, (n % 4,), (), *((0.0, ResultState.FAILED) if n % 4 == 2 else (0.5 + n / 100,))) for n in range(16)]
    )
    assert [one.tokens for one in controller.ask([Draw(16 + n) for n in range(30)])].count((2,)) < 4


# Narrowing and the schedule


def scheduled(number):
    return {"kind": "deep", "layer0/units": 8} if number % 3 == 0 else {"layer0/units": 16} if number % 3 == 1 else {}


@pytest.mark.parametrize("sampler", ["tpe", *EVERYWHERE])
@pytest.mark.parametrize("preset", PRESETS)
def test_a_schedule_that_changes_by_child_number_keeps_the_parameters(sampler, preset):
    if sampler != "tpe" and preset == "paper":
        return
    options = {"n_startup_trials": 6} if sampler == "tpe" else {}
    rules = (parse_rule("layer*/units=8..16,24", fix=False), parse_rule("layer1/inputs=all", fix=True))
    space = Space(mixed, Narrowing(rules), schedule=scheduled)
    controller = OptunaSampler(space, seed=1, **(PRESETS[preset] | {"sampler": sampler} | options))
    told = run(controller, 36)
    for result in [result for batch in told for result in batch]:
        values = space.decode(result.tokens)
        kind, _, layers = values.spec
        assert all(units in (8, 12, 16, 24) for units, _ in layers)
        if result.number % 3 == 0:
            assert kind == "deep" and layers[0][0] == 8
        if result.number % 3 == 1:
            assert layers[0][0] == 16
    deep = [trial.params for trial in trials_of(controller) if trial.params["kind/2"] == 0]
    assert len({tuple(params) for params in deep}) == 1  # forced by the schedule or not: the same parameters
    assert not any("layer1/inputs" in name for name in deep[0])


def test_a_suggestion_that_the_schedule_does_not_allow_is_replaced():
    def narrowed(number):
        return {"a": "same", "n": 4} if number >= 20 else {}

    def space():
        # Two options are called the same, so the schedule leaves both.
        return (yield Choice("a", ("other", "same", "last", "same", "more"))), (yield Integer("n", 0, 9))

    controller = OptunaSampler(Space(space, schedule=narrowed), seed=0, n_startup_trials=5)
    controller.tell([Result(n, (n % 5, n % 10), (), float(n % 5 == 4)) for n in range(20)])
    drawn = [one.tokens for one in controller.ask([Draw(20 + n) for n in range(30)])]
    assert {a for a, _ in drawn} == {1, 3} and {n for _, n in drawn} == {4}


def test_the_nearest_allowed_number_takes_the_place_of_another():
    (parameter,) = parameters_of(Integer("n", 0, 9, options=(9, 8, 7, 6, 5, 4, 3, 2, 1, 0)))
    assert parameter.nearest(parameter.token(5), [parameter.token(0), parameter.token(9)]) == parameter.token(9)
    assert parameter.nearest(parameter.token(5), [parameter.token(3), parameter.token(7)]) == parameter.token(3)


@pytest.mark.parametrize("sampler", ["tpe", *EVERYWHERE, "nsgaii", "qmc"])
def test_children_against_the_narrowing_do_no_harm(sampler):
    controller = OptunaSampler(SPACES["narrowed"], seed=0, sampler=sampler)
    controller.tell([Result(n, (0, 0, n % 2, 1, 0, 1), (), 0.5) for n in range(30)])
    trials = trials_of(controller)
    assert len(trials) == (30 if sampler == "tpe" else 0)
    assert all("op0/2" in trial.params and "inputs2/link 1" not in trial.params for trial in trials)
    run(controller, 8, reward=lambda tokens: 0.0)


def test_a_value_outside_the_narrowing_has_no_parameter():
    space = Space(mixed, Narrowing((parse_rule("layer*/units=8..16", fix=False),)))
    controller = OptunaSampler(space, seed=0)
    controller.tell([Result(0, (1, 0, 7), (), 0.5), Result(1, (1, 0, 2), (), 0.5)])
    outside, within = trials_of(controller)
    assert within.params.keys() - outside.params.keys() == {
        "layer0/units/IntDistribution(high=16, log=False, low=8, step=4)"
    }


def test_what_is_given_is_the_value_of_its_parameter():
    controller = OptunaSampler(Space(mixed), seed=0, n_startup_trials=0)
    shown = []
    suggested = optuna.samplers.TPESampler.sample_independent

    def sample_independent(self, study, trial, name, distribution):
        shown.append(dict(trial.params))
        return suggested(self, study, trial, name, distribution)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(optuna.samplers.TPESampler, "sample_independent", sample_independent)
        (proposal,) = controller.ask([Draw(0, given={"kind": (1,), "layer0/units": (2,)})])
        assert [*shown[0].items()] == [("kind/2", 1)] and len(shown) == 1  # only the rate is sampled
        everything = controller.space.decode(proposal.tokens).answers
        assert controller.ask([Draw(1, given=everything)]) == [proposal] and len(shown) == 1


# What Optuna's samplers need


@pytest.mark.parametrize(
    ("name", "class_name"),
    [
        ("TPESampler", "TPESampler"),
        ("nsga-ii", "NSGAIISampler"),
        ("NSGAIIISampler", "NSGAIIISampler"),
        ("Brute_Force", "BruteForceSampler"),
        ("RANDOM", "RandomSampler"),
    ],
)
def test_names_of_samplers(name, class_name):
    assert samplers.kind_of(name, Space(flat)).class_name == class_name


def test_every_sampler_of_optuna_has_a_name_or_a_reason():
    known = {kind.class_name for kind in samplers.KINDS.values()}
    classes = {name for name in optuna.samplers.__all__ if name.endswith("Sampler") and not name.startswith("Base")}
    short = {name.removesuffix("Sampler").casefold() for name in classes - known}
    assert known <= classes and short == samplers.REFUSED.keys()


@pytest.mark.parametrize(
    ("options", "space", "message"),
    [
        (
            {"sampler": "tpee"},
            flat,
            "There is no Optuna sampler called 'tpee'; there is tpe, bruteforce, gp, cmaes, random, nsgaii, nsgaiii, "
            "qmc.",
        ),
        (
            {"sampler": "grid"},
            flat,
            "The Optuna sampler 'grid' needs a list of all combinations and cannot do conditional decisions; use tpe, "
            "random or bruteforce.",
        ),
        (
            {"sampler": "PartialFixedSampler"},
            flat,
            "The Optuna sampler 'PartialFixedSampler' wraps another sampler; name that one, and fix decisions with "
            "--fix.",
        ),
        (
            {"sampler": "qmc"},
            conditional,
            "The Optuna sampler 'qmc' cannot do conditional decisions, and only some children have 'input1'; use tpe, "
            "random or bruteforce.",
        ),
        (
            {"sampler": "nsgaii"},
            conditional,
            "The Optuna sampler 'nsgaii' samples only the decisions that every child has, at least 2, and draws the "
            "others at random; this space has 1 of them; use tpe, random or bruteforce.",
        ),
        (
            {"sampler": "random", "n_startup_trials": 3},
            flat,
            "There is no option of the Optuna sampler 'random' called 'n_startup_trials'; there is none.",
        ),
        (
            {"sampler": "nsgaii", "multivariate": True},
            flat,
            "There is no option of the Optuna sampler 'nsgaii' called 'multivariate'; there is population_size.",
        ),
        ({"sampler": 3}, flat, "controller.sampler is 3; it must be a name, for example tpe."),
        (
            {"n_startup_trials": -1},
            flat,
            "controller.n_startup_trials is -1; it must be a whole number, 0 or more.",
        ),
        ({"n_ei_candidates": 0}, flat, "controller.n_ei_candidates is 0; it must be a whole number, 1 or more."),
        ({"group": "yes"}, flat, "controller.group is 'yes'; it must be true or false."),
        (
            {"group": True, "multivariate": False},
            flat,
            "controller.group is true and controller.multivariate is false; a group is multivariate.",
        ),
        (
            {"sampler": "nsgaii", "population_size": 2},
            flat,
            "controller.population_size is 2; it must be a whole number, 3 or more.",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(options, space, message):
    with pytest.raises(ValueError) as error:
        OptunaSampler(Space(space), seed=0, **options)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("sampler", "missing", "message"),
    [
        ("gp", {"torch"}, "needs torch, which is not installed; run pip install torch, or use"),
        ("GPSampler", {"torch", "scipy"}, "needs torch and scipy, which are not installed; run pip install torch scip"),
        ("cmaes", {"cmaes"}, "needs cmaes, which is not installed; run pip install cmaes, or use tpe, random or brut"),
        ("qmc", {"scipy"}, "needs scipy, which is not installed; run pip install scipy, or use tpe, random or brutef"),
    ],
)
def test_a_sampler_without_its_package_is_refused(monkeypatch, sampler, missing, message):
    monkeypatch.setattr(samplers.importlib.util, "find_spec", lambda name: None if name in missing else object())
    with pytest.raises(ValueError, match=f"^The Optuna sampler '{sampler}' {message}"):
        OptunaSampler(SPACES["ranges"], seed=0, sampler=sampler)


def test_cma_es_needs_numbers(monkeypatch):
    monkeypatch.setattr(samplers.importlib.util, "find_spec", lambda name: types.SimpleNamespace())
    with pytest.raises(
        ValueError, match="samples only the Integer, Real and Ordinal decisions that every child has, at least"
    ):
        OptunaSampler(Space(flat), seed=0, sampler="cmaes")
    assert samplers.kind_of("cmaes", SPACES["ranges"]).class_name == "CmaEsSampler"
    assert samplers.kind_of("cmaes", Space(mixed)).class_name == "CmaEsSampler"


# Notes, quiet and time


def test_a_genetic_algorithm_reaches_later_generations():
    controller = OptunaSampler(Space(mixed), seed=0, sampler="nsgaii", population_size=4)
    run(controller, 24)
    generations = [value for trial in trials_of(controller) for value in trial.system_attrs.values()]
    assert generations == sorted(generations) and set(generations) == set(range(6))


def test_a_sequence_gives_every_child_another_point():
    def space():
        return (yield Choice("a", tuple(range(8)))), (yield Choice("b", tuple(range(8))))

    controller = OptunaSampler(Space(space), seed=0, sampler="qmc")
    told = run(controller, 64, batch=8, reward=lambda tokens: 0.0)
    drawn = [result.tokens for batch in told for result in batch]
    assert len(set(drawn)) == 64
    # Of a Sobol sequence, eight successive points from a multiple of eight on are in different eighths of each axis.
    # The first child is random. The point in its cell, and that in the cell of its substitute, are replaced.
    blocks = [drawn[first : first + 8] for first in range(1, 57, 8)]
    full = [len({a for a, _ in block}) == len({b for _, b in block}) == 8 for block in blocks]
    assert sum(full) >= 5


def test_optuna_logs_and_warns_of_nothing(caplog, capsys):
    logger = logging.getLogger("optuna")
    before, propagate = logger.level, logger.propagate
    logger.propagate = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for sampler in ("tpe", "bruteforce", "nsgaii"):
                run(OptunaSampler(Space(mixed), seed=0, sampler=sampler), 16)
        assert logger.level == before and not caplog.records
        assert capsys.readouterr() == ("", "")
    finally:
        logger.propagate = propagate


def test_a_search_is_rebuilt_by_replay_whatever_was_asked_between():
    for sampler, function in (("tpe", mixed), ("nsgaii", mixed), ("bruteforce", mixed), ("qmc", digits)):
        options = {"population_size": 4} if sampler == "nsgaii" else {}
        controller, again = (OptunaSampler(Space(function), seed=5, sampler=sampler, **options) for _ in range(2))
        told = run(controller, 20, reward=lambda tokens: float(sum(tokens)))
        assert controller.state() is None
        again.replay(told)
        pending = [PendingChild(result.number, result.tokens) for result in told[0][:2]]
        draws = [Draw(22, attempt) for attempt in range(4)]
        assert again.ask(draws, pending) == controller.ask(draws, pending)
        assert again.ask(draws[::-1], pending) == controller.ask(draws, pending)[::-1]
        assert again.ask(draws, pending) != again.ask([Draw(23, attempt) for attempt in range(4)])


def test_a_draw_stays_quick_after_500_children():
    def space():
        found = []
        for index in range(20):
            found.append((yield Choice(f"layer{index}/op", (0, 1, 2))))
        return found

    controller = OptunaSampler(Space(space), seed=0)
    seconds = time.process_time()
    controller.tell([Result(n, tuple((n * i + n // 7) % 3 for i in range(20)), (), n % 17 / 17) for n in range(500)])
    assert time.process_time() - seconds < 4  # 0.3 measured: a pass over 500 children for each would be many seconds
    seconds = time.process_time()
    controller.ask([Draw(500 + n) for n in range(10)])
    assert time.process_time() - seconds < 3  # 0.2 measured


def test_the_presets():
    assert next(iter(PRESETS)) == "default" and PRESETS["default"] == {}
    assert PRESETS["paper"].keys() <= {*OptunaSampler.options()}
    OptunaSampler(Space(flat), seed=0, **PRESETS["paper"])


# The trials


def test_a_trial_list_takes_back_what_is_made_in_scratch():
    trials = TrialList()
    kept = trials.create_new_trial(STUDY)
    trials.set_study_system_attr(STUDY, "note", 1)
    with trials.scratch():
        made = trials.create_new_trial(STUDY, optuna.trial.create_trial(value=0.5))
        trials.set_study_system_attr(STUDY, "note", 2)
        trials.set_study_user_attr(STUDY, "other", 3)
        assert [trial.number for trial in trials.get_all_trials(STUDY)] == [kept, made] == [0, 1]
        assert len(trials.get_all_trials(STUDY, states=(optuna.trial.TrialState.COMPLETE,))) == 1
    assert trials.num_trials == 1 and trials.get_study_system_attrs(STUDY) == {"note": 1}
    assert trials.get_study_user_attrs(STUDY) == {}
    trials.set_trial_user_attr(kept, "a", 1)
    trials.set_trial_intermediate_value(kept, 2, 0.5)
    trial = trials.get_trial(kept)
    assert (trial.user_attrs, trial.intermediate_values) == ({"a": 1}, {2: 0.5})


def test_importing_optuna_imports_no_tensorflow():
    program = (
        "import sys, automl.controllers.optuna_sampler.controller, automl.controllers.evolution; "
        "print('tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
