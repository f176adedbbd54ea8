"""Writes an update rule as a readable Keras optimizer that needs only Keras."""

from __future__ import annotations

from automl.search_spaces.script import QUIET_START
from automl.search_spaces.update_rule.expression import (
    ATOM,
    LEVEL,
    PREFIX,
    PRODUCT,
    SUM,
    SYMBOLS,
    Drop,
    Expression,
    drops_of,
    text_of,
    with_places,
    within,
)
from automl.search_spaces.update_rule.language import DECAYS
from automl.search_spaces.update_rule.semantics import (
    AVERAGES,
    BETA_1,
    BETA_2,
    DELTA,
    EPSILON,
    PLACES_APART,
    RHO,
    STREAMS,
    words_of,
)

FILE = '''\
"""An update rule as a Keras optimizer.

    w' = w - learning_rate * ({rule})

{meanings}

Try several learning rates: rules differ in the size of their steps.
"""

{start}
{imports}


{definition}

def build():
    return FoundRule({chosen}){note}


if __name__ == "__main__":
    print(__doc__)
    print(build().get_config())
'''

DEFINITION = '''\
{helpers}@keras.saving.register_keras_serializable("found")
class FoundRule(keras.optimizers.Optimizer):
    """The rule that was found, for `model.compile(FoundRule(learning_rate))`.{arguments}"""

    def __init__(self, learning_rate={rate}{parameters}, name="found_rule", **options):
        super().__init__(learning_rate=learning_rate, name=name, **options){attributes}
{build}
    def update_step(self, gradient, variable, learning_rate):
        # Adding zeros makes the sparse gradient of an embedding dense, and sums repeated rows.
        g = ops.add(ops.cast(gradient, variable.dtype), ops.zeros_like(variable))
{statements}
        self.assign_sub(variable, ops.cast(learning_rate, variable.dtype) * update)
{config}'''

BUILD = """
    def build(self, variables):
        if self.built:
            return
        super().build(variables)
{slots}
"""

CONFIG = """
    def get_config(self):
        return super().get_config() | {{{named}}}
"""

RANDOM = '''\
def uniform(shape, seed, step, stream{place}):
    """Uniform numbers in [0, 1) that depend only on the arguments."""

    def word(number):
        return ops.cast(ops.convert_to_tensor(number % 2**32, "int64"), "uint32")

    def mix(x):
        for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
            x = ops.bitwise_xor(x, ops.right_shift(x, word(shift))) * word(factor)
        return ops.bitwise_xor(x, ops.right_shift(x, word(16)))

    x = ops.cast(ops.arange(math.prod(shape)), "uint32") + word(stream * 0x85EBCA6B)
    x = mix(x + word(seed) * word(0x9E3779B9))
    x = mix(x + {step} * word(0xC2B2AE35))
    return ops.reshape(ops.cast(ops.right_shift(x, word(8)), "float32") * 2.0**-24, shape)


'''

RANDOM_OF_STEP = RANDOM.format(place="", step='ops.cast(step, "uint32")')
RANDOM_OF_PLACES = RANDOM.format(
    place=", place=0", step=f'(ops.cast(step, "uint32") + word(place * 0x{PLACES_APART:X}))'
)

MEANINGS = {
    "g": "g is the gradient",
    "m": "m is the running average of g, corrected for its start at 0",
    "v": "v is the running average of g^2, corrected for its start at 0",
    "y": "y is the running average of g^3, corrected for its start at 0",
    "momentum": "momentum is the running average of g, not corrected",
    "adam": "adam is the direction of Adam",
    "rmsprop": "rmsprop is the direction of RMSProp",
    "noise": "noise is drawn from a normal distribution of standard deviation 0.01",
    "linear_decay": "linear_decay falls from 1 to 0 in a line, over decay_steps steps",
    "cosine_decay": "cosine_decay falls from 1 to 0 in half a cosine, over decay_steps steps",
    "restart_decay": "restart_decay falls from 1 to 0 in half a cosine, again in every decay_steps steps",
}
ARGUMENTS = {
    "beta_1": (BETA_1, "the decay of the running average of g."),
    "beta_2": (BETA_2, "the decay of the running averages of its powers."),
    "seed": (0, "the seed of the random numbers, which depend only on it and on the step."),
    "decay_steps": (None, "the number of steps of the whole training."),
}
SLOTS = {
    "first": "beta_1 * first + (1 - beta_1) * g",
    "second": "beta_2 * second + (1 - beta_2) * g**2",
    "third": "beta_2 * third + (1 - beta_2) * g**3",
    "mean_square": f"{RHO} * mean_square + {1 - RHO:.1f} * g**2",
}
WORDS = {
    "m": "first / (1 - beta_1**steps)",
    "v": "second / (1 - beta_2**steps)",
    "y": "third / (1 - beta_2**steps)",
    "momentum": "first",
    "adam": f"first / (1 - beta_1**steps) * ops.sqrt(1 - beta_2**steps) / (ops.sqrt(second) + {EPSILON})",
    "rmsprop": f"g / ops.sqrt(mean_square + {EPSILON})",
    "linear_decay": "ops.maximum(1 - done, 0)",
    "cosine_decay": "0.5 * (1 + ops.cos(math.pi * done))",
    "restart_decay": "0.5 * (1 + ops.cos(math.pi * ops.mod(done, 1)))",
    "noise": "0.01 * radius * ops.cos(2 * math.pi * turn)",
}


def source(expression: Expression, *, learning_rate: float = 0.01, own_masks: bool = True) -> str:
    """The text of a Python file with the rule as a class `FoundRule` that takes the steps of `optimizer.RuleOptimizer`,
    and a function `build()` that makes one.

    Args:
        learning_rate: the default learning rate of the class.
        own_masks: whether each `drop` draws its own mask.
    """
    words = words_of(expression)
    meanings = [meaning for word, meaning in MEANINGS.items() if word in words]
    meanings += ["w is the weight"] if any(word.endswith("w") for word in words) else []
    decays = words.intersection(DECAYS)
    imports, definition = definitions(expression, learning_rate=learning_rate, own_masks=own_masks)
    return FILE.format(
        start=QUIET_START,
        rule=text_of(expression),
        meanings="\n".join(f"    {meaning}" for meaning in meanings),
        imports=imports,
        definition=definition,
        chosen="decay_steps=10_000" if decays else "",
        note="  # the steps of your training" if decays else "",
    )


def definitions(expression: Expression, *, learning_rate: float, own_masks: bool = True) -> tuple[str, str]:
    """The imports that the class `FoundRule` needs, and its text with the functions that it uses; see `source`."""
    words = words_of(expression)
    if own_masks:
        expression = with_places(expression)
    places = len(list(drops_of(expression)))
    slots = [slot for slot, readers in AVERAGES.items() if words.intersection(readers)]
    decays = words.intersection(DECAYS)
    drops = any(word.startswith("drop") for word in words)
    used = {
        "beta_1": "first" in slots,
        "beta_2": "second" in slots or "third" in slots,
        "seed": drops or "noise" in words,
        "decay_steps": bool(decays),
    }
    arguments = [name for name, is_used in used.items() if is_used]
    described = "".join(f"\n        {name}: {ARGUMENTS[name][1]}" for name in arguments)
    given = [f", {name}={ARGUMENTS[name][0]}" for name in arguments if name != "decay_steps"]
    definition = DEFINITION.format(
        helpers=(RANDOM_OF_PLACES if places > 1 else RANDOM_OF_STEP) if used["seed"] else "",
        arguments=f"\n\n    Args:{described}\n    " if arguments else "",
        rate=learning_rate,
        parameters="".join([*given, ", *, decay_steps" if decays else ""]),
        attributes="".join(f"\n        self.{name} = {name}" for name in arguments),
        build=BUILD.format(slots="\n".join(map(_slot, slots))) if slots else "",
        statements="\n".join(f"        {statement}" for statement in _statements(expression, slots, used)),
        config=CONFIG.format(named=", ".join(f'"{name}": self.{name}' for name in arguments)) if arguments else "",
    )
    imports = ("import math\n\n" if used["seed"] or decays else "") + "import keras\nfrom keras import ops"
    return imports, definition


def _statements(expression: Expression, slots: list[str], used: dict[str, bool]) -> list[str]:
    """The statements of `update_step` that compute `update` from the gradient `g`."""
    words = words_of(expression)
    drawn = "uniform(shape, self.seed, self.iterations, {} * index + {})"
    statements = []
    if slots or used["seed"]:
        statements.append("index = self._get_variable_index(variable)")
    if used["seed"]:
        statements.append("shape = tuple(variable.shape)")
    statements += [f"{name} = self.{name}" for name in ("beta_1", "beta_2") if used[name]]
    if words.intersection(("m", "v", "y", "adam")):
        statements.append("steps = ops.cast(self.iterations + 1, variable.dtype)")
    for slot in slots:
        statements += [f"{slot} = self.{slot}[index]", f"self.assign({slot}, {SLOTS[slot]})"]
    if used["decay_steps"]:
        statements.append("done = ops.cast(self.iterations, variable.dtype) / self.decay_steps")
    if "noise" in words:
        statements.append(f"radius = ops.sqrt(-2 * ops.log(1 - {drawn.format(STREAMS, 1)}))")
        statements.append(f"turn = {drawn.format(STREAMS, 2)}")
    statements += [f"{word} = {text}" for word, text in WORDS.items() if word in words]
    places = len(list(drops_of(expression)))
    if places > 1:
        statements += [
            f"drawn_{place} = uniform(shape, self.seed, self.iterations, {STREAMS} * index, {place})"
            for place in range(places)
        ]
    elif any(word.startswith("drop") for word in words):
        statements.append(f"drawn = uniform(shape, self.seed, self.iterations, {STREAMS} * index)")
    return [*statements, f"update = {_code(expression, several=places > 1)[0]}"]


def _slot(slot: str) -> str:
    return f'        self.{slot} = self.add_optimizer_variables(variables, "{slot}")'


def _code(expression: Expression, *, several: bool) -> tuple[str, int]:
    """The expression in Python, and its precedence; see `expression.LEVEL`.

    Args:
        several: whether there are several masks, each with the place of its drop in its name.
    """
    word, *parts = expression
    inside = [_code(part, several=several) for part in parts]
    if word in SYMBOLS:
        level = LEVEL[word]
        right = (f"{within(inside[1], SUM)} + {DELTA}", SUM) if word == "x / y" else inside[1]
        return f"{within(inside[0], level)} {SYMBOLS[word]} {within(right, level + 1)}", level
    if word == "-x":
        return f"-{within(inside[0], PREFIX)}", PREFIX
    if word in ("g^2", "g^3"):
        return word.replace("^", "**"), ATOM
    if word in DECAYS:
        return f"{word} * ops.ones_like(g)", PRODUCT
    if word.endswith("w"):
        return f"{word[:-1]} * variable", PRODUCT
    name, _, value = word.partition(" ")
    drawn = f"drawn_{word.place}" if several and isinstance(word, Drop) else "drawn"
    forms = {
        "1": "ops.full_like(g, 1)",
        "2": "ops.full_like(g, 2)",
        "x ^ y": "ops.power({})",
        "log(abs(x))": "ops.log(ops.abs({}))",
        "sqrt(abs(x))": "ops.sqrt(ops.abs({}))",
        "clip": f"ops.clip({{}}, -{value}, {value})",
        "drop": f"ops.where({drawn} < {value}, 0.0, {{}})",
    }
    form = forms.get(word) or forms.get(name) or (f"ops.{word[:-3]}({{}})" if parts else word)
    return form.format(", ".join(text for text, _ in inside)), ATOM
