"""A search for update rules on a user's task."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import Watcher, children_of, run_automl, running, wait_until

from automl.db.records import Fault, State
from automl.search_spaces.update_rule.spec import UpdateRule

# Keras 3 saves variables through np.array of an object whose __array__ takes no `copy`; nothing of ours can change it.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

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


def test_rules_are_searched_with_a_users_task(automl, folder):
    (folder / "bowl.py").write_text(BOWL)
    flags = ("--space", "update-rule", "--task", "bowl.py:evaluate", "--minimize", "loss", "--keep-going")
    ran = automl("search", "rules", *flags, "--children", "6", "--workers", "0")
    assert ran.code == 0, ran.err
    top = json.loads(automl("top", "rules", "--json").out)
    assert len(top) == 6 and top[0]["reward"] >= top[-1]["reward"]
    assert set(top[0]["spec"]["groups"][0]) == {"operand1", "operand2", "unary1", "unary2", "binary"}
    shown = automl("top", "rules", "-n", "1").out.splitlines()[1]
    assert "operand1" not in shown


def test_a_users_rule_by_its_decisions(automl, folder):
    (folder / "bowl.py").write_text(BOWL)
    fixed = ("groups=1", "group0/operand1=g", "group0/unary1=x", "group0/binary=keep x")
    flags = ("--space", "update-rule", "--task", "bowl.py:evaluate", "--minimize", "loss")
    rules = [part for rule in fixed for part in ("--fix", rule)]
    ran = automl("search", "sgd", *flags, *rules, "--children", "1", "--workers", "0")
    assert ran.code == 0, ran.err
    (child,) = json.loads(automl("top", "sgd", "--json").out)
    assert abs(child["metrics"]["loss"] - 5.0 * 0.8**10) < 1e-5  # w' = w - 0.1 * 2 w, five times


QUICK = ("--set", "task.num_train=320", "--set", "task.epochs=2", "--set", "task.rates=[0.01, 0.1]")
KNOWN_GOOD = (
    *("--fix", "groups=1", "--fix", "group0/binary=x + y", "--fix", "group0/unary*=x"),
    *("--only", "group0/operand*=g,m,adam,rmsprop,momentum,sign(g)"),
)


def test_rules_from_search_to_export(automl, folder):
    ran = automl("search", "rules", "--space", "update-rule", *QUICK, *KNOWN_GOOD, "--children", "8", "--workers", "2")
    assert ran.code == 0, ran.err
    top = json.loads(automl("top", "rules", "--json").out)
    assert len(top) == 8
    best = top[0]["metrics"]
    assert best["learning_rate"] in (0.01, 0.1) and len(best["sweep"]) == 2 and top[0]["reward"] == best["val_accuracy"]
    exported = automl("export", "rules", "--format", "python", "--to", "rule.py")
    assert exported.code == 0 and f"its learning rate here was {best['learning_rate']:g}" in exported.out
    script = "import rule; optimizer = rule.build(); print(float(optimizer.learning_rate.numpy()))"
    run = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, '.'); {script}"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    assert float(run.stdout) == pytest.approx(best["learning_rate"])
    network = automl("export", "rules", "--format", "keras", "--to", "network.keras")
    assert network.code == 0, network.err
    assert f"validation accuracy {best['val_accuracy']:.4f}, as in the search" in network.out


def test_rules_are_one_search_however_many_workers_train_them(automl, folder):
    for name, workers in (("one", "0"), ("two", "2")):
        flags = ("--space", "update-rule", *QUICK, "--children", "8", "--replicas", "2", "--threads", "1")
        # A process of its own: TensorFlow cannot change its number of threads once an earlier test has used it.
        ran = run_automl("search", name, *flags, "--workers", workers, folder=folder)
        assert ran.code == 0, ran.err
    digests = [json.loads(automl("show", name, "--json").out)["digest"] for name in ("one", "two")]
    assert digests[0] == digests[1]


def test_a_task_of_rules_has_no_options_of_networks(automl):
    error = automl("search", "rules", "--space", "update-rule", "--task", "cifar10", "--set", "task.momentum=0.5").error
    assert error.startswith("There is no task option called 'momentum'; there is ")


def test_a_network_and_its_rule_are_searched_together(automl):
    flags = (
        "--space",
        "joint",
        "--set",
        "task.num_train=160",
        "--set",
        "space.depths=[2]",
        "--set",
        "space.groups=[1]",
    )
    ran = automl("search", "both", *flags, "--children", "6", "--workers", "0", "--controller", "ppo")
    assert ran.code == 0, ran.err
    assert "weight_decay 0.0001" in ran.out and "momentum 0.9" not in ran.out  # the rule decides the momentum
    children = json.loads(automl("top", "both", "--json").out)
    assert {frozenset(child["spec"]) for child in children} == {frozenset({"net", "rule", "learning_rate"})}
    assert " at 0." in automl("top", "both", "-n", "1").out or " at 1" in automl("top", "both", "-n", "1").out
    exported = automl("export", "both", "--format", "keras", "--to", "both.keras")
    assert exported.code == 0 and "as in the search" in exported.out


def test_a_cell_and_its_rule_are_searched_together(automl):
    options = ("num_train=1000", "num_validation=100", "vocabulary_size=50", "epochs=1", "parameters=null", "units=4")
    small = [part for option in options for part in ("--set", f"task.{option}")]
    flags = ("--space", "joint", "--task", "pydoc", *small, "--set", "space.base=2", "--fix", "learning_rate=1.0")
    ran = automl("search", "both", *flags, "--children", "2", "--workers", "0")
    assert ran.code == 0, ran.err
    assert "decay" not in ran.out and "units 4" in ran.out  # options that the rule decides are not shown
    best, *_ = json.loads(automl("top", "both", "--json").out)
    assert best["spec"].keys() == {"tree", "rule", "learning_rate"}
    assert " by " in automl("top", "both", "-n", "1").out and "next h" in automl("show", "both").out
    exported = automl("export", "both", "--format", "keras", "--to", "both.keras")
    assert exported.code == 0 and "as in the search" in exported.out


def test_a_network_whose_rule_diverges_is_a_result(automl):
    fixed = ("--fix", "learning_rate=1.0", "--fix", "group0/operand1=2", "--fix", "group0/binary=keep x")
    flags = ("--space", "joint", "--set", "space.depths=[1]", "--set", "space.groups=[1]", *fixed)
    ran = automl(
        "search",
        "off",
        *flags,
        "--fix",
        "group0/unary1=exp(x)",
        "--set",
        "task.num_train=640",
        "--set",
        "space.rates=[1.0]",
        "--children",
        "2",
        "--workers",
        "0",
    )
    assert ran.code == 0, ran.err
    assert all(child["state"] == "trained" for child in json.loads(automl("top", "off", "--json").out))


def test_a_user_proposes_a_rule_by_its_text(automl, folder):
    (folder / "bowl.py").write_text(BOWL)
    flags = ("--space", "update-rule", "--preset", "paper", "--task", "bowl.py:evaluate", "--minimize", "loss")
    assert automl("search", "rules", *flags, "--keep-going", "--children", "2", "--workers", "0").code == 0
    (folder / "rule.txt").write_text("exp(sign(g) * sign(m)) * g\n")
    assert automl("propose", "rules", "--spec", "rule.txt").code == 0
    for text, error in (
        ("exp(g", "'exp(g' is not an update rule: at position 6 expected"),
        ("linear_decay * g", "'group0/operand1' cannot be 'linear_decay'; it is one of g, g^2"),
        ('"exp(sign(g) * sign(m)) * g"', "This child is already waiting for the next batch of 'rules'."),  # as JSON
    ):
        (folder / "rule.txt").write_text(text)
        assert automl("propose", "rules", "--spec", "rule.txt").error.startswith(error)
    assert automl("resume", "rules", "--children", "24").code == 0
    children = json.loads(automl("top", "rules", "-n", "30", "--json").out)
    (mine,) = [child for child in children if child["origin"] == "person"]
    assert str(UpdateRule(**mine["spec"])) == "exp(sign(g) * sign(m)) * g"


def test_a_worker_killed_in_a_population_is_charged_to_nobody_and_the_search_stays_the_same(automl, folder):
    flags = ("--space", "update-rule", *QUICK, *KNOWN_GOOD, "--children", "8", "--threads", "1", "--replicas", "2")
    assert automl("search", "calm", *flags, "--workers", "1").code == 0
    watcher = Watcher(folder / "automl.db", "killed")
    with running("search", "killed", *flags, "--workers", "1", folder=folder) as command:
        wait_until(lambda: watcher.num(State.RUNNING) == 4, "a population in training", command)
        os.kill(largest_child(command.process.pid), signal.SIGKILL)
        assert command.end().code == 0
    first = watcher.children()[:4]
    assert [(child.isolated, child.attempts) for child in first] == [(True, 1)] * 4  # the one that delivered it
    attempts = watcher.ask(lambda store, search: [store.attempts(child.id) for child in first])
    assert [(one[0].fault, one[0].charged, one[-1].fault) for one in attempts] == [(Fault.CRASHED, False, None)] * 4
    assert watcher.digest() == Watcher(folder / "automl.db", "calm").digest()


def largest_child(pid):
    """The process of a command with the most memory: its worker, not that worker's guard."""
    return max(children_of(pid), key=lambda child: int(Path(f"/proc/{child}/statm").read_text().split()[1]))


def test_rules_end_early_by_themselves(automl):
    assert automl("search", "rules", "--space", "update-rule", "--early-stop", "median").error == (
        "Children of the task digits report no metrics per epoch, which --early-stop median needs; drop it, or for "
        "your own function set the number of epochs with --set task.epochs=N."
    )
