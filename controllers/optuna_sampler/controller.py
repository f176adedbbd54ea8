"""A controller that uses a sampler of Optuna: each decision of a walk becomes parameters of a trial (define-by-run)."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.trial import Trial, TrialState

from automl.controllers.base import Controller, Draw, PendingChild, Proposal, Result
from automl.controllers.keyed import stream
from automl.controllers.optuna_sampler.parameters import Parameter, parameters_of
from automl.controllers.optuna_sampler.samplers import checked_settings, kind_of, make_sampler, quiet
from automl.controllers.optuna_sampler.storage import NAME, STUDY, TrialList
from automl.search_spaces.decisions import Choice, Decision
from automl.search_spaces.space import Space
from automl.search_spaces.walk import Walk, replay

PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    # Bergstra et al. 2011: each parameter has separate densities, and children in flight are ignored. The paper's 24
    # candidates are also Optuna's default. The rest of the estimator is Optuna's.
    "paper": {"sampler": "tpe", "multivariate": False, "group": False, "constant_liar": False, "n_ei_candidates": 24},
}

MOST_SEED = 2**31
OF_SEQUENCE = -1  # in place of a child number, for the seed that all draws of one sequence share
KEPT = 4_096  # children whose parameters are cached


class OptunaSampler(Controller):
    """Optuna's samplers over our decisions.

    Every free token of a child is a parameter of one of Optuna's trials; see `parameters.parameters_of`. Tokens that
    narrowing forces are no parameters. A decision that the schedule forces, or that is given, is a parameter with a
    fixed value, so that a sampler sees the same parameters at every child number.

    Children with results are finished trials with their rewards; the reward of a failed child is the task's floor.
    Children in flight are running trials. Each draw makes a sampler with a seed of (seed, number, attempt), so the same
    draw gives the same tokens. The controller keeps no state: a resume replays the results.

    Args:
        sampler: a name in `samplers.KINDS`, or the name of Optuna's class.
        n_startup_trials, n_ei_candidates, multivariate, group, constant_liar, population_size: options of that sampler;
            None leaves Optuna's default. `group` of TPE is on by default with `multivariate`: without it, TPE would
            sample decisions that only some children have independently.

    Raises:
        ValueError: the sampler or an option is unknown or wrong, a package is missing, or the sampler cannot sample
            the space.

    Source: Bergstra et al. 2011, Algorithms for Hyper-Parameter Optimization; Akiba et al. 2019 (arXiv:1907.10902).
    """

    sequential = True

    def __init__(
        self,
        space: Space,
        *,
        seed: int,
        sampler: str = "tpe",
        n_startup_trials: int | None = None,
        n_ei_candidates: int | None = None,
        multivariate: bool | None = None,
        group: bool | None = None,
        constant_liar: bool | None = None,
        population_size: int | None = None,
    ) -> None:
        super().__init__(space, seed=seed)
        if not isinstance(sampler, str):
            raise ValueError(f"controller.sampler is {sampler!r}; it must be a name, for example tpe.")
        options = {
            "n_startup_trials": n_startup_trials,
            "n_ei_candidates": n_ei_candidates,
            "multivariate": multivariate,
            "group": group,
            "constant_liar": constant_liar,
            "population_size": population_size,
        }
        self._kind = kind_of(sampler, space)
        self._settings = checked_settings(sampler, self._kind, options)
        self._sequence_seed = _seed(stream(seed, OF_SEQUENCE, 0))
        self._storage = TrialList()
        with quiet():
            self._notes = self._sampler(stream(seed, OF_SEQUENCE, 1), 0)  # the sampler of `_noted`
            self._study = optuna.load_study(study_name=NAME, storage=self._storage, sampler=self._notes)
        self._parameters = functools.lru_cache(KEPT)(self._read)  # of children in flight, at every draw

    def propose(self, draws: Sequence[Draw], pending: Sequence[PendingChild]) -> list[Proposal]:
        with quiet():
            return [Proposal(self._draw(draw, pending).tokens) for draw in draws]

    def learn(self, results: Sequence[Result]) -> dict[str, Any]:
        with quiet():
            for result in results:
                self._add(tuple(result.tokens), result.reward)
        return {"trials": self._storage.num_trials}

    def _draw(self, draw: Draw, pending: Sequence[PendingChild]) -> Walk:
        """The finished walk of one child. The trial begins at the first decision with a free token."""
        uniforms = stream(self.seed, draw.number, draw.attempt)
        trial: Trial | None = None
        walk, wide = self.space.walk(draw.number), self._narrowed()
        with self._storage.scratch():
            while (decision := walk.decision) is not None:
                assert wide.decision is not None
                answer = draw.answer(decision) or decision.forced
                if trial is None and None in answer:
                    trial = self._begin(pending, wide, self._sampler(uniforms, draw.attempt))
                tokens = []
                for place, parameter in enumerate(parameters_of(wide.decision)):
                    token = answer[place]
                    if trial is not None and parameter is not None:
                        token = _suggested(trial, parameter, decision, uniforms) if token is None else token
                        self._set(trial.number, parameter, token)
                    assert token is not None
                    tokens.append(token)
                walk.answer(tuple(tokens))
                wide.answer(tuple(tokens))
        return walk

    def _begin(self, pending: Sequence[PendingChild], wide: Walk, sampler: Any) -> Trial:
        """Adds the trials of the children in flight, and then that of the draw, which it returns."""
        for child in pending:
            self._add(tuple(child.tokens), None)
        self._study.sampler = sampler
        trial = self._study.ask()
        for parameter, token in _answered(wide)[0]:
            self._set(trial.number, parameter, token)
        return trial

    def _add(self, tokens: tuple[int, ...], reward: float | None) -> None:
        """Adds the trial of a child with a result, or of a child in flight, whose reward is None."""
        parameters, whole = self._parameters(tokens)
        if not whole and not self._kind.does_parts:
            return
        if self._kind.takes_notes == "all" or (self._kind.takes_notes == "finished" and reward is not None):
            trial_id = self._noted()
        else:
            trial_id = self._storage.create_new_trial(STUDY)
        for parameter, token in parameters:
            self._set(trial_id, parameter, token)
        if reward is not None:
            self._storage.set_trial_state_values(trial_id, TrialState.COMPLETE, [reward])

    def _noted(self) -> int:
        """A new trial with the notes that the sampler takes when it samples. The sample itself is not used."""
        self._study.sampler = self._notes
        trial = self._storage.get_trial(self._study.ask().number)
        sampled = self._notes.infer_relative_search_space(self._study, trial)
        self._notes.sample_relative(self._study, trial, sampled)
        return trial.number

    def _set(self, trial_id: int, parameter: Parameter, token: int) -> None:
        value = parameter.distribution.to_internal_repr(parameter.value(token))
        self._storage.set_trial_param(trial_id, parameter.name, value, parameter.distribution)

    def _read(self, tokens: tuple[int, ...]) -> tuple[list[tuple[Parameter, int]], bool]:
        return _answered(replay(self._narrowed(), tokens))

    def _narrowed(self) -> Walk:
        """A walk with the narrowing and without the schedule, which differs from child to child."""
        return Walk(self.space.function(), self.space.narrowing)

    def _sampler(self, uniforms: np.random.Generator, attempt: int) -> Any:
        seed = _seed(uniforms)
        # The next point of the sequence was refused; that of another sequence is drawn at random.
        sequence_seed = self._sequence_seed if attempt == 0 else seed
        return make_sampler(self._kind, seed, sequence_seed, self._settings)


def _seed(uniforms: np.random.Generator) -> int:
    return int(uniforms.integers(MOST_SEED))


def _answered(walk: Walk) -> tuple[list[tuple[Parameter, int]], bool]:
    """The parameters of all answers, each with its token; and whether the narrowing admits all answers.

    An answer that it does not admit has no parameter.
    """
    parameters = []
    whole = True
    for decision in walk.decisions:
        tokens = walk.answers[decision.name]
        whole = whole and decision.admits(tokens)
        for parameter, token in zip(parameters_of(decision), tokens, strict=True):
            if parameter is not None and token in parameter.tokens:
                parameters.append((parameter, token))
    return parameters, whole


def _suggested(trial: Trial, parameter: Parameter, decision: Decision, uniforms: np.random.Generator) -> int:
    """The token that the sampler suggests. If the schedule does not allow it: the nearest allowed token of an ordered
    choice, else a random allowed one."""
    token = parameter.token(_value(trial, parameter.name, parameter.distribution))
    if not isinstance(decision, Choice) or decision.allows(token):
        return token
    allowed = [other for other in parameter.tokens if decision.allows(other)]
    return parameter.nearest(token, allowed) if parameter.ordered else allowed[int(uniforms.integers(len(allowed)))]


def _value(trial: Trial, name: str, distribution: BaseDistribution) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(name, distribution.choices)
    low, high, step = distribution.low, distribution.high, distribution.step
    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(name, low, high, step=step, log=distribution.log)
    return trial.suggest_float(name, low, high, step=step)
