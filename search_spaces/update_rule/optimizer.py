"""An update rule as a Keras optimizer."""

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

VERSION = 2  # of `get_config` and of what the words of a rule compute
SHARED_MASKS = 1  # the version in which all drops of a rule share one mask


@keras.saving.register_keras_serializable("automl")
class RuleOptimizer(keras.optimizers.Optimizer):
    """The step `w' = w - learning_rate * U`, where an update rule gives U; see `language` for its words.

    The words `adam` and `rmsprop` are the directions of Keras's optimizers of these names. Keras's
    `SGD(learning_rate, momentum=beta)` is the word `momentum` with the learning rate learning_rate / (1 - beta).

    Args:
        rule: a text such as `exp(sign(g) * sign(m)) * g`.
        beta_1: decay of the running average of g.
        beta_2: decay of the running averages of g^2 and g^3.
        decay_steps: number of steps of the whole training; rules with a decay need it.
        seed: seed of `noise` and `drop`, whose values depend only on the seed, the step and their position.
        version: version of what the words compute; in version 1 all drops of a rule share one mask.

    Raises:
        RuleError: the rule cannot be parsed.
        ValueError: the rule reads a decay, and `decay_steps` is not given.

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
            raise ValueError(
                f"The rule {rule!r} reads {min(decays)}, so it needs the number of steps; give decay_steps."
            )
        self._averages: dict[str, list[keras.Variable]] = {}

    def build(self, variables: Sequence[keras.Variable]) -> None:
        if self.built:
            return
        super().build(variables)
        for average, readers in AVERAGES.items():
            if self._words.intersection(readers):
                self._averages[average] = self.add_optimizer_variables(variables, average)

    def update_step(self, gradient: Any, variable: keras.Variable, learning_rate: Any) -> None:
        # Adding zeros makes the sparse gradient of an embedding dense, and sums repeated rows.
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
        """The optimizer from its saved configuration; a rule that an earlier version saved still computes the same.

        Raises:
            ValueError: a newer version saved it.
        """
        version = config.get("version", VERSION)
        if not (type(version) is int and 1 <= version <= VERSION):
            raise ValueError(
                f"This optimizer was saved in version {version!r} of its format, and this program reads up to "
                f"{VERSION}; install a newer automl."
            )
        optimizer: RuleOptimizer = super().from_config(config, custom_objects)
        return optimizer

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "version": self.version,
            "rule": self.rule,
            "beta_1": self.beta_1,
            "beta_2": self.beta_2,
            "decay_steps": self.decay_steps,
            "seed": self.seed,
        }
