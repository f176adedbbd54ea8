"""The recurrent controller, trained by proximal policy optimization."""

from __future__ import annotations

import dataclasses
import functools

from automl.controllers.reinforce.controller import Reinforce
from automl.controllers.reinforce.losses import clipped_loss
from automl.controllers.reinforce.presets import Settings
from automl.controllers.reinforce.update import Surrogate, TrainState, Updater


@dataclasses.dataclass(frozen=True)
class PpoSettings(Settings):
    """The settings of PPO (`--set controller.NAME=VALUE`), which include those of REINFORCE.

    Attributes:
        clip: how far the probability ratio of a decision (current policy to sampling policy) may be from 1.
        passes: Adam steps on each batch.
    """

    clip: float = 0.2
    passes: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.clip < 1:
            raise ValueError(f"controller.clip is {self.clip}; it must be in (0, 1).")
        if self.passes < 1:
            raise ValueError(f"controller.passes is {self.passes}; it must be 1 or more.")


class Ppo(Reinforce):
    """The policy of `Reinforce`, trained by several steps of the clipped surrogate loss on each batch.

    Source: Schulman et al. 2017 (arXiv:1707.06347), section 3; Bello et al. 2017 (arXiv:1709.07417) use it to search
    for update rules.
    """

    settings: PpoSettings
    settings_kind = PpoSettings

    def _make_updater(self, state: TrainState, *, compiled: bool) -> Updater:
        return Updater(
            state, self.settings, _surrogate(self.settings.clip), passes=self.settings.passes, compiled=compiled
        )


@functools.cache  # controllers share a compiled graph only if their loss is the same object
def _surrogate(clip: float) -> Surrogate:
    return functools.partial(clipped_loss, clip=clip)
