"""Rules by name: common optimizers, and the rules of Bello et al. 2017 (arXiv:1709.07417)."""

from automl.search_spaces.update_rule.spec import UpdateRule

_POWER, _ADD = "exp({f}sign(g) * sign(m)) * g", "(1 + {f}sign(g) * sign(m)) * g"

RULES = {
    name: UpdateRule.parse(text)
    for name, text in {
        "sgd": "g",
        "momentum": "momentum",
        "adam": "adam",
        "rmsprop": "rmsprop",
        "powersign": _POWER.format(f=""),
        "powersign-ld": _POWER.format(f="linear_decay * "),
        "powersign-cd": _POWER.format(f="cosine_decay * "),
        "powersign-rd": _POWER.format(f="restart_decay * "),
        "addsign": _ADD.format(f=""),
        "addsign-ld": _ADD.format(f="linear_decay * "),
        "addsign-cd": _ADD.format(f="cosine_decay * "),
        "addsign-rd": _ADD.format(f="restart_decay * "),
    }.items()
}
