"""How children are trained: named sets of constants, all of which the user can change (`--set task.NAME=VALUE`)."""

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
LEVELS = ("word", "character")  # what a token of text is
RATES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)  # that a sweep of learning rates tries
# Of a recipe; not used where children bring an update rule.
OF_UPDATES = ("learning_rate", "momentum", "schedule", "decay", "steady_epochs")
PRUNERS = ("none", "median", "hyperband", "asha")  # of children that look worse than others


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Constants of a training run.

    Attributes:
        epochs: passes over the training images.
        batch_size: images a step; what is left over at the end of an epoch is dropped.
        learning_rate: at the first step.
        momentum: of Nesterov's method.
        weight_decay: L2, added to the gradient of every weight that is no bias and no normalization parameter.
        schedule: `steps` divides the rate by 10 at half and at three quarters of the steps; `cosine` lowers it to 0.
        augment: pad by 4 pixels, crop at random, flip left-right at random.
        num_train: images to train on, None for all.
        num_validation: images that the reward is read from, None for all.
        last_epochs: the reward is the cube of the best validation accuracy among so many last epochs.
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
        """The constants that have no effect beside the others, and why; see `Task.unused_options`."""
        return {}


@dataclasses.dataclass(frozen=True)
class LanguageRecipe:
    """Constants of the training of a language model.

    Attributes:
        epochs: passes over the training text.
        batch_size: streams of text that are read side by side.
        unroll: tokens of each stream that one step reads, and through which gradients go back.
        layers: recurrent layers, one above the other.
        parameters: the units are as many as this budget allows.
        units: of every layer and of the embedding; in place of `parameters`.
        shared_embeddings: the output's matrix is that of the embedding (Press & Wolf 2017; Inan et al. 2017).
        learning_rate: of plain SGD, on the loss summed over a step's tokens and averaged over its streams.
        decay: what the rate is multiplied by at every epoch after the steady ones.
        steady_epochs: epochs at the first rate.
        clip_norm: the norm of that loss's gradient is at most this.
        init_scale: weights start uniform in plus or minus this.
        embedding_dropout: types that are left out of a step wholly, a share.
        dropout: of the inputs of each layer and of the output, the same for all tokens of a step, a share.
        recurrent_dropout: of the state that a layer reads, likewise.
        state_reset: the share of streams whose state is zero again at a step (Melis et al. 2018, arXiv:1707.05589).
            Validation begins with such a state, which training else meets only at the beginning of an epoch.
        sampled_types: so many types stand for all that are wrong in a step's softmax; None weighs every type.
            Validation always does.
        level: `word` or `character`: what a token is.
        vocabulary_size: types that are known, None for all.
        num_train: tokens to train on, None for all.
        num_validation: tokens that the reward is read from, None for all.

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
            raise ValueError("task.parameters and task.units are both null; one of them must say how large a model is.")
        if self.vocabulary_size is not None and self.vocabulary_size < 2:
            raise ValueError(f"task.vocabulary_size is {self.vocabulary_size}; a text has at least 2 types.")

    def unused_options(self) -> dict[str, str]:
        """The constants that have no effect beside the others, and why."""
        if self.units is None or self.parameters is None:
            return {}
        return {"parameters": f"where task.units is {self.units}; drop it, or add --set task.units=null"}


@dataclasses.dataclass(frozen=True)
class Sweep:
    """How update rules are judged, whatever is trained with them.

    Attributes:
        epochs: of the long training, at the best rate of the sweep.
        sweep_epochs: of each rate of the sweep.
        rates: learning rates that are tried.
        screened: whether rules that descend none of a few small functions are spared any training.
        screen_sample: the share of these that is trained all the same, to see what the screen costs.
        population: rules that are trained together.
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
        many = isinstance(self.rates, list | tuple) and self.rates
        if not (many and all(is_number(rate) and rate > 0 for rate in self.rates)):
            raise ValueError(f"task.rates is {self.rates!r}; it must be a list of numbers above 0.")
        object.__setattr__(self, "rates", tuple(float(rate) for rate in self.rates))

    def unused_options(self) -> dict[str, str]:
        """The constants that have no effect beside the others, and why."""
        return {} if self.screened else {"screen_sample": "where task.screened is false; drop it"}


@dataclasses.dataclass(frozen=True)
class RuleRecipe(Sweep):
    """Constants of the judging of update rules on images.

    Attributes:
        batch_size: images a step; what is left over at the end of an epoch is dropped.
        num_train: images to train on, None for all.
        num_validation: images that the reward is read from, None for all.
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
    """Constants of the judging of update rules on text, with an LSTM of one layer; the rest as `LanguageRecipe` has it.

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
        """The recipe of the language model. Its learning rate is not used: the sweep has those."""
        names = ("epochs", "batch_size", "unroll", "units", "clip_norm", "state_reset", "level", "vocabulary_size")
        chosen = {name: getattr(self, name) for name in (*names, "num_train", "num_validation")}
        return LanguageRecipe(**chosen, layers=1, parameters=None, shared_embeddings=True, init_scale=0.1)


# Zoph & Le 2017, section 4.1, with the batch and the learning-rate steps of DenseNet (Huang et al. 2017), whose recipe
# that section names.
PAPER: dict[str, Any] = {}

# For processors: enough to rank small networks, not to train them out.
QUICK: dict[str, Any] = {
    "epochs": 5,
    "batch_size": 64,
    "learning_rate": 0.1,
    "schedule": "cosine",
    "num_train": 4096,
    "num_validation": 2048,
}

# Some of the digits' 1,297 training images, for a child of a second; not turned or shifted, since a 6 is no 9.
DIGITS: dict[str, Any] = {
    "num_train": 300,
    "epochs": 2,
    "batch_size": 12,
    "learning_rate": 0.1,
    "schedule": "cosine",
    "augment": False,
}

# The user's own images: no flips, since we cannot know whether they may be flipped.
OWN: dict[str, Any] = {"epochs": 10, "batch_size": 64, "learning_rate": 0.05, "schedule": "cosine", "augment": False}

# For one network that is to be as good as it can be.
FULL: dict[str, Any] = {"epochs": 30}

# Zaremba et al. 2014, section 4.1, their model without dropout: 2 layers of 200 units.
SMALL_LSTM: dict[str, Any] = {
    "epochs": 13,
    "unroll": 20,
    "parameters": None,
    "units": 200,
    "decay": 0.5,
    "steady_epochs": 4,
    "init_scale": 0.1,
}

# Zoph & Le 2017, section 4.2: the size of Zaremba's medium model, for 35 epochs. The shares of dropout are not stated
# there, nor used alike for all cells; these are ours.
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

# With its 10,000 types, of which 500 are weighed in a step: a third of the time, at nearly the same perplexity.
QUICK_PTB: dict[str, Any] = {"parameters": 1_500_000, "vocabulary_size": None, "sampled_types": 500}

# For optimizers on text. Every type is weighed, so that gradients are exact; and without resets, a network that was
# trained at a high rate can be lost from the state of zeros that validation begins with.
COMPARED_TEXT: dict[str, Any] = QUICK_TEXT | {"state_reset": 0.02}

RECIPES: dict[str, dict[str, dict[str, Any]]] = {  # of each task: the first is the default, the last the fullest
    "digits": {"default": DIGITS, "full": DIGITS | FULL | {"num_train": None, "batch_size": 32}},
    "cifar10": {"quick": QUICK, "paper": PAPER},
    "npz": {"default": OWN, "full": OWN | FULL},
    "ptb": {"quick": QUICK_TEXT | QUICK_PTB, "small": SMALL_LSTM, "paper": PAPER_TEXT},
    "pydoc": {"quick": QUICK_TEXT, "small": SMALL_LSTM},
    "text": {"quick": QUICK_TEXT, "small": SMALL_LSTM},
}

# Of update rules. Bello et al. 2017, section 4.1; how many images it trained on is not stated, so all are taken.
PAPER_RULES: dict[str, Any] = {}
QUICK_RULES: dict[str, Any] = {"num_train": 5_000, "num_validation": 1_000}
DIGITS_RULES: dict[str, Any] = {"num_train": 1_024, "batch_size": 32}
OWN_RULES: dict[str, Any] = {"batch_size": 50}
QUICK_RULES_TEXT: dict[str, Any] = {"vocabulary_size": 2_000, "num_train": 50_000, "num_validation": 5_000}

RULE_RECIPES: dict[str, dict[str, dict[str, Any]]] = {
    "digits": {"default": DIGITS_RULES, "full": DIGITS_RULES | {"num_train": None, "epochs": 20}},
    "cifar10": {"quick": QUICK_RULES, "paper": PAPER_RULES},
    "npz": {"default": OWN_RULES, "full": OWN_RULES | {"epochs": 20}},
    "ptb": {"quick": QUICK_RULES_TEXT, "full": {"units": 200}},
    "pydoc": {"quick": QUICK_RULES_TEXT, "full": {"units": 200}},
    "text": {"quick": QUICK_RULES_TEXT, "full": {"units": 200}},
}

EARLY_STOP: dict[str, str] = {"quick": "median"}  # the pruner of each recipe that has one
