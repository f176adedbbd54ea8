"""The recurrent controller, trained by proximal policy optimization."""

from __future__ import annotations

import dataclasses
import functools

from automl.controllers.reinforce.controller import Reinforce
from automl.controllers.reinforce.losses import clipped_loss
from automl.controllers.reinforce.presets import Settings
from automl.controllers.reinforce.update import Learned, Surrogate, Updater


@dataclasses.dataclass(frozen=True)
class PpoSettings(Settings):
    """What the user can set, beside the settings of REINFORCE.

    Attributes:
        clip: how far the ratio of a decision's probabilities, now and when it was drawn, may go.
        passes: steps of Adam over each batch.
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
    """The policy of `Reinforce`, which takes several clipped steps over each batch.

    Source: Schulman et al. 2017 (arXiv:1707.06347), section 3; used for update rules by Bello et al. 2017.
    """

    settings: PpoSettings
    settings_kind = PpoSettings

    def _updater_of(self, learned: Learned, *, compiled: bool) -> Updater:
        return Updater(
            learned, self.settings, _surrogate(self.settings.clip), passes=self.settings.passes, compiled=compiled
        )


@functools.cache  # controllers with one and the same loss share their graphs
def _surrogate(clip: float) -> Surrogate:
    return functools.partial(clipped_loss, clip=clip)
