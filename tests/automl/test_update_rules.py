"""A search for update rules on a task of a person's own."""

from __future__ import annotations

import json

BOWL = """
import keras
import numpy as np


def evaluate(spec):
    weight = keras.Variable(np.array([1.0, -2.0], np.float32))
    optimizer = spec.optimizer(learning_rate=0.1)
    for _ in range(5):
        optimizer.apply([2.0 * weight], [weight])
    loss = float(np.square(weight.numpy()).sum())
    return {"loss": loss}
"""


def test_rules_are_searched_with_a_task_of_ones_own(automl, folder):
    (folder / "bowl.py").write_text(BOWL)
    flags = ("--space", "update-rule", "--task", "bowl.py:evaluate", "--minimize", "loss", "--keep-going")
    ran = automl("search", "rules", *flags, "--children", "6", "--workers", "0")
    assert ran.code == 0, ran.err
    top = json.loads(automl("top", "rules", "--json").out)
    assert len(top) == 6 and top[0]["reward"] >= top[-1]["reward"]
    assert set(top[0]["spec"]["groups"][0]) == {"operand1", "operand2", "unary1", "unary2", "binary"}
    shown = automl("top", "rules", "-n", "1").out.splitlines()[1]
    assert "operand1" not in shown


def test_a_rule_of_ones_own_by_its_decisions(automl, folder):
    (folder / "bowl.py").write_text(BOWL)
    fixed = ("groups=1", "group0/operand1=g", "group0/unary1=x", "group0/binary=keep x")
    flags = ("--space", "update-rule", "--task", "bowl.py:evaluate", "--minimize", "loss")
    rules = [part for rule in fixed for part in ("--fix", rule)]
    ran = automl("search", "sgd", *flags, *rules, "--children", "1", "--workers", "0")
    assert ran.code == 0, ran.err
    (child,) = json.loads(automl("top", "sgd", "--json").out)
    assert abs(child["metrics"]["loss"] - 5.0 * 0.8**10) < 1e-5  # w' = w - 0.1 * 2 w, five times


def test_the_built_in_tasks_do_not_train_rules_yet(automl):
    assert automl("search", "rules", "--space", "update-rule").error == (
        "The task digits trains image classifiers, and this space makes UpdateRule, which has no method "
        "build(input_shape, num_classes); choose another task or space."
    )
