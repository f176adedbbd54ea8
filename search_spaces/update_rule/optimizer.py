"""An update rule as an ordinary Keras optimizer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from search_spaces.update_rule.expression import parse
from search_spaces.update_rule.language import DECAYS, OPERANDS
from search_spaces.update_rule.meaning import evaluate, normal, uniform, words_of

# What each running average adds up, and the words that read it.
AVERAGES = {
    "first": ("m", "momentum", "adam"),
    "second": ("v", "adam"),
    "third": ("y",),
    "mean_square": ("rmsprop",),
}
EPSILON = 1e-7  # that of Keras's Adam and RMSprop
RHO = 0.9  # the decay of Keras's RMSprop


@keras.saving.register_keras_serializable("automl")
class RuleOptimizer(keras.optimizers.Optimizer):
    """`w' = w - learning_rate * U`, with U by an update rule; see `language` for its words.

    Running averages decay by `beta_1` (of g) and `beta_2` (of g^2 and g^3). `adam` and `rmsprop` are the directions of
    Keras's optimizers of these names; `SGD(momentum=beta)` is the word `momentum` at learning_rate / (1 - beta).

    Args:
        rule: a text such as `exp(sign(g) * sign(m)) * g`.
        decay_steps: the steps of the whole training, for rules with a decay.
        seed: of `noise` and `drop`, which depend on it and on the step alone.

    Raises:
        RuleError: the rule does not parse.
        ValueError: it reads a decay, and `decay_steps` is not given.

    Source: Bello et al. 2017 (arXiv:1709.07417), section 3.1.
    """

    def __init__(
        self,
        rule: str = "g",
        learning_rate: Any = 0.01,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        decay_steps: int | None = None,
        seed: int = 0,
        name: str = "rule_optimizer",
        **options: Any,
    ) -> None:
        super().__init__(learning_rate=learning_rate, name=name, **options)
        self.rule = rule
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.decay_steps = decay_steps
        self.seed = seed
        self._expression = parse(rule)
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
        gradient = ops.cast(gradient, variable.dtype)
        index = self._get_variable_index(variable)
        values = {}
        powers = {
            "first": (self.beta_1, 1),
            "second": (self.beta_2, 2),
            "third": (self.beta_2, 3),
            "mean_square": (RHO, 2),
        }
        for average, slots in self._averages.items():
            decay, power = powers[average]
            slot = slots[index]
            self.assign(slot, decay * slot + (1.0 - decay) * gradient**power)
            values[average] = slot
        operands = {word: self._operand(word, gradient, variable, values, index) for word in self._operand_words()}
        drawn = None
        if any(word.startswith("drop") for word in self._words):
            drawn = uniform(tuple(variable.shape), self.seed, self.iterations, 3 * index)
        update = evaluate(self._expression, operands, drawn)
        self.assign_sub(variable, ops.cast(learning_rate, variable.dtype) * update)

    def _operand_words(self) -> set[str]:
        return self._words.intersection((*OPERANDS, *DECAYS))

    def _operand(self, word: str, g: Any, variable: keras.Variable, averages: dict[str, Any], index: int) -> Any:
        step = ops.cast(self.iterations + 1, variable.dtype)
        first, second = 1.0 - self.beta_1**step, 1.0 - self.beta_2**step
        match word:
            case "g":
                return g
            case "g^2" | "g^3":
                return g ** int(word[-1])
            case "1" | "2":
                return ops.full_like(g, float(word))
            case "m":
                return averages["first"] / first
            case "v":
                return averages["second"] / second
            case "y":
                return averages["third"] / second
            case "momentum":
                return averages["first"]
            case "adam":  # as Keras has it, epsilon outside the correction
                return averages["first"] / first * ops.sqrt(second) / (ops.sqrt(averages["second"]) + EPSILON)
            case "rmsprop":
                return g / ops.sqrt(averages["mean_square"] + EPSILON)
            case "noise":
                return 0.01 * normal(tuple(variable.shape), self.seed, self.iterations, 3 * index + 1)
            case "linear_decay" | "cosine_decay" | "restart_decay":
                step = ops.cast(self.iterations, variable.dtype)
                return ops.full_like(g, 1.0) * decay_at(word, step, self.decay_steps or 1)
        return float(word.removesuffix("w")) * variable

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "rule": self.rule,
            "beta_1": self.beta_1,
            "beta_2": self.beta_2,
            "decay_steps": self.decay_steps,
            "seed": self.seed,
        }


def decay_at(word: str, step: Any, decay_steps: int) -> Any:
    """A factor in [0, 1] at a step from 0, with T = decay_steps (Bello et al. 2017, section 4.4):

    linear_decay    (T - t) / T, at least 0
    cosine_decay    (1 + cos(2 pi n t / T)) / 2 with n = 1/2 periods
    restart_decay   (1 + cos(pi ((n t) mod T) / T)) / 2 with n = 1
    """
    done = step / decay_steps
    if word == "linear_decay":
        return ops.maximum(1.0 - done, 0.0)
    if word == "cosine_decay":
        return 0.5 * (1.0 + ops.cos(math.pi * done))
    return 0.5 * (1.0 + ops.cos(math.pi * ops.mod(done, 1.0)))
