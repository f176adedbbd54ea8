"""An update rule as an ordinary Keras optimizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from automl.search_spaces.update_rule.expression import parse, with_places
from automl.search_spaces.update_rule.language import DECAYS
from automl.search_spaces.update_rule.semantics import (
    AVERAGES,
    BETA_1,
    BETA_2,
    STREAMS,
    StepContext,
    averaged,
    evaluate,
    normal,
    uniform,
    words_of,
)

VERSION = 2  # of `get_config` and of the meaning of a rule
SHARED_MASKS = 1  # the version in which all drops of a rule share one mask


@keras.saving.register_keras_serializable("automl")
class RuleOptimizer(keras.optimizers.Optimizer):
    """`w' = w - learning_rate * U`, with U by an update rule; see `language` for its words.

    Running averages decay by `beta_1` (of g) and `beta_2` (of g^2 and g^3). `adam` and `rmsprop` are the directions of
    Keras's optimizers of these names; `SGD(momentum=beta)` is the word `momentum` at learning_rate / (1 - beta).

    Args:
        rule: a text such as `exp(sign(g) * sign(m)) * g`.
        decay_steps: the steps of the whole training, for rules with a decay.
        seed: of `noise` and `drop`, which depend on it and on the step alone.
        version: of the meaning of a rule; in version 1 all its drops share one mask.

    Raises:
        RuleError: the rule does not parse.
        ValueError: it reads a decay, and `decay_steps` is not given.

    Source: Bello et al. 2017 (arXiv:1709.07417), section 3.1.
    """

    def __init__(
        self,
        rule: str = "g",
        learning_rate: Any = 0.01,
        beta_1: float = BETA_1,
        beta_2: float = BETA_2,
        decay_steps: int | None = None,
        seed: int = 0,
        name: str = "rule_optimizer",
        version: int = VERSION,
        **options: Any,
    ) -> None:
        super().__init__(learning_rate=learning_rate, name=name, **options)
        self.rule = rule
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.decay_steps = decay_steps
        self.seed = seed
        self.version = version
        self._expression = parse(rule) if version == SHARED_MASKS else with_places(parse(rule))
        self._words = words_of(self._expression)
        if decay_steps is None and (decays := self._words.intersection(DECAYS)):
            raise ValueError(f"The rule {rule!r} reads {min(decays)}, which nothing moves; give decay_steps.")
        self._averages: dict[str, list[keras.Variable]] = {}

    def build(self, variables: Sequence[keras.Variable]) -> None:
        if self.built:
            return
        super().build(variables)
        for average, readers in AVERAGES.items():
            if self._words.intersection(readers):
                self._averages[average] = self.add_optimizer_variables(variables, average)

    def update_step(self, gradient: Any, variable: keras.Variable, learning_rate: Any) -> None:
        # Adding makes the rows that were read of an embedding a whole gradient, in which repeated ones are summed.
        gradient = ops.add(ops.cast(gradient, variable.dtype), ops.zeros_like(variable))
        index, shape = self._get_variable_index(variable), tuple(variable.shape)
        for name, slots in self._averages.items():
            self.assign(slots[index], averaged(name, slots[index], gradient, self.beta_1, self.beta_2))
        context = StepContext(
            gradient,
            ops.convert_to_tensor(variable),
            {name: slots[index] for name, slots in self._averages.items()},
            self.iterations,
            drawn=lambda place: uniform(shape, self.seed, self.iterations, STREAMS * index, place),
            noise=lambda: normal(shape, self.seed, self.iterations, STREAMS * index + 1),
            decay_steps=self.decay_steps or 1,
            beta_1=self.beta_1,
            beta_2=self.beta_2,
        )
        update = evaluate(self._expression, context)
        self.assign_sub(variable, ops.cast(learning_rate, variable.dtype) * update)

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> RuleOptimizer:
        """Raises ValueError where it was saved by a newer version; what an earlier one saved keeps its meaning."""
        version = config.get("version", VERSION)
        if not (type(version) is int and 1 <= version <= VERSION):
            raise ValueError(
                f"This optimizer was saved in version {version!r} of its format, and this program reads up to "
                f"{VERSION}; install a newer automl."
            )
        made: RuleOptimizer = super().from_config(config, custom_objects)
        return made

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "version": self.version,
            "rule": self.rule,
            "beta_1": self.beta_1,
            "beta_2": self.beta_2,
            "decay_steps": self.decay_steps,
            "seed": self.seed,
        }
