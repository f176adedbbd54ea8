"""The contract suite over all controllers of the program, and tests of their additional guarantees."""

import json
import pathlib
import pkgutil
import subprocess
import sys

import pytest

from automl import controllers
from automl.controllers.base import Draw
from automl.controllers.reinforce import sampling
from automl.search_spaces.space import Space
from automl.testing.controllers import (
    DRAWS,
    RARE_DRAW,
    SEED,
    SPACES,
    ControllerContract,
    check_rewards,
    conditional,
    learn,
)


def make(name, space, **arguments):
    return pkgutil.resolve_name(controllers.CONTROLLERS[name])(space, **{"seed": SEED, **arguments})


# A small reward model, used from the second batch on
SCREENED = {
    "heads": "decision",
    "candidates": 16,
    "uniform": 8,
    "mutations": 8,
    "rounds": 1,
    "initial": 4,
    "model_updates": 1,
    "model_samples": 8,
    "model_elite": 3,
}


class TestReinforce(ControllerContract):
    def make(self, space, *, seed):
        return make("reinforce", space, seed=seed)


class TestScreenedReinforce(ControllerContract):
    def make(self, space, *, seed):
        return make("reinforce", space, seed=seed, **SCREENED)


class TestScreenedPpo(ControllerContract):
    def make(self, space, *, seed):
        return make("ppo", space, seed=seed, **SCREENED)


class TestSurrogate(ControllerContract):
    def make(self, space, *, seed):
        return make("surrogate", space, seed=seed, uniform=20, mutations=20)


class TestPpo(ControllerContract):
    def make(self, space, *, seed):
        return make("ppo", space, seed=seed)


class TestEvolution(ControllerContract):
    def make(self, space, *, seed):
        return make("evolution", space, seed=seed, population=6, sample=3)  # full after the second step


class TestOptunaSampler(ControllerContract):
    def make(self, space, *, seed):
        return make("optuna", space, seed=seed, n_startup_trials=6)  # the estimator is used after the second step


class TestRandomSearch(ControllerContract):
    def make(self, space, *, seed):
        return make("random", space, seed=seed)


def test_every_controller_is_tested():
    contracts = (TestReinforce, TestPpo, TestRandomSearch, TestSurrogate, TestEvolution, TestOptunaSampler)
    made = {type(contract().make(Space(conditional), seed=0)) for contract in contracts}
    assert made == {pkgutil.resolve_name(path) for path in controllers.CONTROLLERS.values()}


def test_every_controller_has_presets():
    assert controllers.PRESETS.keys() == controllers.CONTROLLERS.keys()
    for presets in controllers.PRESETS.values():
        assert next(iter(pkgutil.resolve_name(presets))) == "default"


def test_the_survey_misses_the_rare_kind():
    assert not any("wide" in walk.answers for walk in SPACES["rare"].survey())


@pytest.mark.parametrize("most", [0, 5])
def test_a_draw_does_not_depend_on_the_size_of_the_prefix_cache(monkeypatch, most):
    learned = make("reinforce", SPACES["conditional"])
    learn(learned, (0, 1))
    draws = [*DRAWS, *(Draw(number, attempt=1) for number in range(9))]
    expected = learned.ask(draws)
    monkeypatch.setattr(sampling, "MAX_CACHED_STEPS", most)
    again = make("reinforce", SPACES["conditional"])
    again.restore(learned.state())
    assert again.ask(draws) == expected == again.ask(draws)


PRESETS = [(name, preset) for name, presets in controllers.PRESETS.items() for preset in pkgutil.resolve_name(presets)]


@pytest.mark.parametrize(("name", "preset"), [pair for pair in PRESETS if pair[1] != "default"])
def test_every_preset_stays_finite_for_any_reward(name, preset):
    settings = pkgutil.resolve_name(controllers.PRESETS[name])[preset]
    check_rewards(make(name, SPACES["conditional"], **settings))


def drawn_everywhere():
    """Proposals of every controller on every space, as JSON."""
    return json.dumps(
        {
            f"{name} {space}": [
                [proposal.tokens, proposal.log_probs] for proposal in make(name, SPACES[space]).ask([*DRAWS, RARE_DRAW])
            ]
            for name in controllers.CONTROLLERS
            for space in SPACES
        }
    )


def test_another_process_draws_the_same():
    here = pathlib.Path(__file__)
    program = f"import {here.stem}; print({here.stem}.drawn_everywhere())"
    # The path of this process, so that it imports the same modules.
    paths = f"import sys; sys.path[:] = {[str(here.parent), *sys.path]!r}; "
    done = subprocess.run([sys.executable, "-c", paths + program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == drawn_everywhere()
