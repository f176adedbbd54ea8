"""Recipes: named sets of training constants. The user can change each constant with `--set task.NAME=VALUE`."""

from __future__ import annotations

import dataclasses
from typing import Any

from automl.child_trainers.recipe_checks import (
    check_counts,
    check_fractions,
    check_name,
    check_positive,
    check_switches,
    is_number,
)

SCHEDULES = ("steps", "cosine")
LEVELS = ("word", "character")  # the unit of a token
RATES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)  # the learning rates of a sweep
# Constants of a recipe that are not used if a child has its own update rule.
OPTIMIZER_OPTIONS = ("learning_rate", "momentum", "schedule", "decay", "steady_epochs")
PRUNERS = ("none", "median", "hyperband", "asha")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Constants of a training run.

    Attributes:
        epochs: passes over the training images.
        batch_size: images per step; an incomplete last batch of an epoch is dropped.
        learning_rate: at the first step.
        momentum: of Nesterov's method.
        weight_decay: L2 coefficient, for every weight except biases and normalization parameters.
        schedule: `steps` divides the rate by 10 after half and after three quarters of the steps; `cosine` lowers it to
            0.
        augment: whether to pad by 4 pixels, crop at random and flip left-right at random.
        num_train: training images, None for all.
        num_validation: validation images, from which the reward is computed; None for all.
        last_epochs: the reward is the cube of the best validation accuracy among this many last epochs.
    """

    epochs: int = 50
    batch_size: int = 64
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4
    schedule: str = "steps"
    augment: bool = True
    num_train: int | None = None
    num_validation: int | None = None
    last_epochs: int = 5

    def __post_init__(self) -> None:
        check_counts(self, ("epochs", "batch_size", "last_epochs"))
        check_counts(self, ("num_train", "num_validation"), null="all")
        check_positive(self, ("learning_rate",))
        check_fractions(self, ("momentum",))
        if not (is_number(self.weight_decay) and self.weight_decay >= 0):
            raise ValueError(f"task.weight_decay is {self.weight_decay!r}; it must be a number, 0 or more.")
        check_switches(self, ("augment",))
        check_name(self, "schedule", SCHEDULES)

    def unused_options(self) -> dict[str, str]:
        """The constants that have no effect because of other constants, with the reason; see `Task.unused_options`."""
        return {}


@dataclasses.dataclass(frozen=True)
class LanguageRecipe:
    """Constants of the training of a language model.

    Attributes:
        epochs: passes over the training text.
        batch_size: parallel streams of text.
        unroll: tokens of each stream per step; gradients go back through these tokens.
        layers: stacked recurrent layers.
        parameters: a budget; the number of units is the largest that it allows.
        units: units of every layer and of the embedding; replaces `parameters`.
        shared_embeddings: whether the output layer uses the matrix of the embedding (Press & Wolf 2017; Inan et al.
            2017).
        learning_rate: of plain SGD, on the loss summed over a step's tokens and averaged over its streams.
        decay: factor of the learning rate at every epoch after `steady_epochs`.
        steady_epochs: epochs at the first learning rate.
        clip_norm: maximum norm of the gradient of that loss.
        init_scale: initial weights are uniform in [-init_scale, init_scale].
        embedding_dropout: the fraction of types whose embedding is dropped in a step.
        dropout: dropout rate of the inputs of each layer and of the output; a step has one mask for all tokens.
        recurrent_dropout: the same for the state that a layer reads.
        state_reset: the fraction of streams whose state is reset to zero at a step (Melis et al. 2018,
            arXiv:1707.05589). Validation starts from the zero state; without resets, training has it only at the start
            of an epoch.
        sampled_types: the number of types that a step's sampled softmax uses in place of all wrong types; None is the
            full softmax. Validation always uses the full softmax.
        level: `word` or `character`, the unit of a token.
        vocabulary_size: types in the vocabulary, None for all.
        num_train: training tokens, None for all.
        num_validation: validation tokens, from which the reward is computed; None for all.

    Source: Zaremba et al. 2014 (arXiv:1409.2329), section 4.1; dropout as in Gal & Ghahramani 2016 (arXiv:1512.05287).
    """

    epochs: int = 35
    batch_size: int = 20
    unroll: int = 35
    layers: int = 2
    parameters: int | None = 20_000_000
    units: int | None = None
    shared_embeddings: bool = False
    learning_rate: float = 1.0
    decay: float = 1 / 1.2
    steady_epochs: int = 6
    clip_norm: float = 5.0
    init_scale: float = 0.05
    embedding_dropout: float = 0.0
    dropout: float = 0.0
    recurrent_dropout: float = 0.0
    state_reset: float = 0.0
    sampled_types: int | None = None
    level: str = "word"
    vocabulary_size: int | None = None
    num_train: int | None = None
    num_validation: int | None = None

    def __post_init__(self) -> None:
        check_counts(self, ("epochs", "batch_size", "unroll", "layers"))
        check_counts(self, ("sampled_types", "vocabulary_size", "num_train", "num_validation"), null="all")
        check_counts(self, ("parameters", "units"), null="the other")
        check_positive(self, ("learning_rate", "decay", "clip_norm", "init_scale"))
        check_fractions(self, ("embedding_dropout", "dropout", "recurrent_dropout", "state_reset"))
        check_switches(self, ("shared_embeddings",))
        check_name(self, "level", LEVELS)
        if type(self.steady_epochs) is not int or self.steady_epochs < 0:
            raise ValueError(f"task.steady_epochs is {self.steady_epochs!r}; it must be a whole number, 0 or more.")
        if self.parameters is None and self.units is None:
            raise ValueError("task.parameters and task.units are both null; one of them must set the size of a model.")
        if self.vocabulary_size is not None and self.vocabulary_size < 2:
            raise ValueError(f"task.vocabulary_size is {self.vocabulary_size}; a text has at least 2 types.")

    def unused_options(self) -> dict[str, str]:
        """The constants that have no effect because of other constants, with the reason."""
        if self.units is None or self.parameters is None:
            return {}
        return {"parameters": f"where task.units is {self.units}; drop it, or add --set task.units=null"}


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Constants of the evaluation of update rules: a sweep of learning rates, then a longer training.

    Attributes:
        epochs: epochs of the longer training, at the best learning rate of the sweep.
        sweep_epochs: epochs at each learning rate of the sweep.
        rates: the learning rates of the sweep.
        screened: whether a screening test rejects rules that reduce none of a few small functions.
        screen_sample: the fraction of rejected rules that is trained anyway, to measure what screening costs.
        population: the number of rules that are trained together.
    """

    epochs: int = 5
    sweep_epochs: int = 1
    rates: tuple[float, ...] = RATES
    screened: bool = True
    screen_sample: float = 0.05
    population: int = 4

    def __post_init__(self) -> None:
        check_counts(self, ("epochs", "sweep_epochs", "population"))
        check_switches(self, ("screened",))
        if not (is_number(self.screen_sample) and 0 <= self.screen_sample <= 1):
            raise ValueError(f"task.screen_sample is {self.screen_sample!r}; it must be a number in [0, 1].")
        is_list = isinstance(self.rates, list | tuple) and self.rates
        if not (is_list and all(is_number(rate) and rate > 0 for rate in self.rates)):
            raise ValueError(f"task.rates is {self.rates!r}; it must be a list of numbers above 0.")
        object.__setattr__(self, "rates", tuple(float(rate) for rate in self.rates))

    def unused_options(self) -> dict[str, str]:
        """The constants that have no effect because of other constants, with the reason."""
        return {} if self.screened else {"screen_sample": "where task.screened is false; drop it"}


@dataclasses.dataclass(frozen=True)
class RuleRecipe(Sweep):
    """Constants of the evaluation of update rules on images.

    Attributes:
        batch_size: images per step; an incomplete last batch of an epoch is dropped.
        num_train: training images, None for all.
        num_validation: validation images, from which the reward is computed; None for all.
    """

    batch_size: int = 100
    num_train: int | None = None
    num_validation: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(self, ("batch_size",))
        check_counts(self, ("num_train", "num_validation"), null="all")


@dataclasses.dataclass(frozen=True)
class RuleTextRecipe(Sweep):
    """Constants of the evaluation of update rules on text, with an LSTM of one layer.

    Attributes:
        batch_size, unroll, units, clip_norm, state_reset, level, vocabulary_size, num_train, num_validation: see
            `LanguageRecipe`.
    """

    epochs: int = 3
    batch_size: int = 20
    unroll: int = 20
    units: int = 64
    clip_norm: float = 5.0
    state_reset: float = 0.0
    level: str = "word"
    vocabulary_size: int | None = None
    num_train: int | None = None
    num_validation: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(self, ("units",))
        self.of_language()

    def of_language(self) -> LanguageRecipe:
        """The recipe of the language model. Its learning rate is not used; the sweep has its own."""
        names = ("epochs", "batch_size", "unroll", "units", "clip_norm", "state_reset", "level", "vocabulary_size")
        chosen = {name: getattr(self, name) for name in (*names, "num_train", "num_validation")}
        return LanguageRecipe(**chosen, layers=1, parameters=None, shared_embeddings=True, init_scale=0.1)


# Zoph & Le 2017, section 4.1. Batch size and learning-rate steps are those of DenseNet (Huang et al. 2017), to which
# that section refers.
PAPER: dict[str, Any] = {}

# For processors: enough to rank small networks, not to train them to convergence.
QUICK: dict[str, Any] = {
    "epochs": 5,
    "batch_size": 64,
    "learning_rate": 0.1,
    "schedule": "cosine",
    "num_train": 4096,
    "num_validation": 2048,
}

# A part of the 1,297 training images, so that a child takes about a second. No augmentation: flips change digits.
DIGITS: dict[str, Any] = {
    "num_train": 300,
    "epochs": 2,
    "batch_size": 12,
    "learning_rate": 0.1,
    "schedule": "cosine",
    "augment": False,
}

# The user's own images: no augmentation, since it is not known whether a flip keeps their class.
USER_IMAGES: dict[str, Any] = {
    "epochs": 10,
    "batch_size": 64,
    "learning_rate": 0.05,
    "schedule": "cosine",
    "augment": False,
}

# To train one network as well as possible.
FULL: dict[str, Any] = {"epochs": 30}

# Zaremba et al. 2014, section 4.1, the model without dropout: 2 layers of 200 units.
SMALL_LSTM: dict[str, Any] = {
    "epochs": 13,
    "unroll": 20,
    "parameters": None,
    "units": 200,
    "decay": 0.5,
    "steady_epochs": 4,
    "init_scale": 0.1,
}

# Zoph & Le 2017, section 4.2: the size of Zaremba's medium model, for 35 epochs. The paper does not state its dropout
# rates, which differ between cells; these rates are our choice.
PAPER_TEXT: dict[str, Any] = {"embedding_dropout": 0.2, "dropout": 0.5, "recurrent_dropout": 0.3}

# For processors: enough to rank cells by how fast they learn.
QUICK_TEXT: dict[str, Any] = {
    "epochs": 3,
    "unroll": 20,
    "parameters": 500_000,
    "shared_embeddings": True,
    "decay": 0.5,
    "steady_epochs": 1,
    "init_scale": 0.1,
    "vocabulary_size": 2_000,
    "num_train": 50_000,
    "num_validation": 5_000,
}

# The whole vocabulary of 10,000 types with a sampled softmax over 500: a third of the time, nearly the same perplexity.
QUICK_PTB: dict[str, Any] = {"parameters": 1_500_000, "vocabulary_size": None, "sampled_types": 500}

# For optimizers on text. The full softmax makes gradients exact. Without resets, a network that was trained at a high
# learning rate can fail from the zero state, with which validation starts.
COMPARED_TEXT: dict[str, Any] = QUICK_TEXT | {"state_reset": 0.02}

RECIPES: dict[str, dict[str, dict[str, Any]]] = {  # by task; the first recipe is the default, the last trains longest
    "digits": {"default": DIGITS, "full": DIGITS | FULL | {"num_train": None, "batch_size": 32}},
    "cifar10": {"quick": QUICK, "paper": PAPER},
    "npz": {"default": USER_IMAGES, "full": USER_IMAGES | FULL},
    "ptb": {"quick": QUICK_TEXT | QUICK_PTB, "small": SMALL_LSTM, "paper": PAPER_TEXT},
    "pydoc": {"quick": QUICK_TEXT, "small": SMALL_LSTM},
    "text": {"quick": QUICK_TEXT, "small": SMALL_LSTM},
    "table": {"default": {}},
    "synthetic": {"default": {}},
}

# For update rules. Bello et al. 2017, section 4.1; it does not state the number of training images, so all are used.
PAPER_RULES: dict[str, Any] = {}
QUICK_RULES: dict[str, Any] = {"num_train": 5_000, "num_validation": 1_000}
DIGITS_RULES: dict[str, Any] = {"num_train": 1_024, "batch_size": 32}
USER_IMAGE_RULES: dict[str, Any] = {"batch_size": 50}
QUICK_RULES_TEXT: dict[str, Any] = {"vocabulary_size": 2_000, "num_train": 50_000, "num_validation": 5_000}

RULE_RECIPES: dict[str, dict[str, dict[str, Any]]] = {
    "digits": {"default": DIGITS_RULES, "full": DIGITS_RULES | {"num_train": None, "epochs": 20}},
    "cifar10": {"quick": QUICK_RULES, "paper": PAPER_RULES},
    "npz": {"default": USER_IMAGE_RULES, "full": USER_IMAGE_RULES | {"epochs": 20}},
    "ptb": {"quick": QUICK_RULES_TEXT, "full": {"units": 200}},
    "pydoc": {"quick": QUICK_RULES_TEXT, "full": {"units": 200}},
    "text": {"quick": QUICK_RULES_TEXT, "full": {"units": 200}},
}

EARLY_STOP: dict[str, str] = {"quick": "median"}  # by recipe: the pruner; other recipes have none
