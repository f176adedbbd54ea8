"""A storage of Optuna's trials in memory that can remove the newest trials."""

from __future__ import annotations

import contextlib
import copy
import datetime
from collections.abc import Container, Iterator, Sequence
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

STUDY = 0  # the id of the only study
NAME = "search"


class TrialList(BaseStorage):
    """One study that maximizes.

    Optuna's own storages never remove a trial. The trials that a draw needs for itself and for the children in flight
    must not stay, so it makes them within `scratch`. The id of a trial is its number.
    """

    def __init__(self) -> None:
        self._trials: list[FrozenTrial] = []
        self._user_attrs: dict[str, Any] = {}
        self._system_attrs: dict[str, Any] = {}

    @property
    def num_trials(self) -> int:
        return len(self._trials)

    @contextlib.contextmanager
    def scratch(self) -> Iterator[None]:
        """Removes, at its end, all trials and study attributes that were added within."""
        num_trials, attrs = len(self._trials), (dict(self._user_attrs), dict(self._system_attrs))
        try:
            yield
        finally:
            del self._trials[num_trials:]
            self._user_attrs, self._system_attrs = attrs

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        raise NotImplementedError("A TrialList has one study, which always exists.")

    def delete_study(self, study_id: int) -> None:
        raise NotImplementedError("The study of a TrialList cannot be deleted.")

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        self._user_attrs[key] = value

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        self._system_attrs[key] = value

    def get_study_id_from_name(self, study_name: str) -> int:
        return STUDY

    def get_study_name_from_id(self, study_id: int) -> str:
        return NAME

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return [StudyDirection.MAXIMIZE]

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return dict(self._user_attrs)

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return dict(self._system_attrs)

    def get_all_studies(self) -> list[Any]:
        raise NotImplementedError("A TrialList has one study and no list of studies.")

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        number = len(self._trials)
        if template_trial is None:
            trial = FrozenTrial(
                number=number,
                state=TrialState.RUNNING,
                value=None,
                datetime_start=datetime.datetime.now(),
                datetime_complete=None,
                params={},
                distributions={},
                user_attrs={},
                system_attrs={},
                intermediate_values={},
                trial_id=number,
            )
        else:
            trial = copy.deepcopy(template_trial)
            trial.number = trial._trial_id = number
        self._trials.append(trial)
        return number

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        trial = self._trials[trial_id]
        # In place, because the `Trial` that a sampler receives shares these dicts.
        trial.params[param_name] = distribution.to_external_repr(param_value_internal)
        trial.distributions[param_name] = distribution

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        trial = self._trials[trial_id]
        trial.state = state
        if values is not None:
            trial.values = list(values)
        if state.is_finished():
            trial.datetime_complete = datetime.datetime.now()
        return True

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        self._trials[trial_id].intermediate_values[step] = intermediate_value

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._trials[trial_id].user_attrs[key] = value

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._trials[trial_id].system_attrs[key] = value

    def get_trial(self, trial_id: int) -> FrozenTrial:
        return self._trials[trial_id]

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        trials = [trial for trial in self._trials if states is None or trial.state in states]
        return copy.deepcopy(trials) if deepcopy else trials
