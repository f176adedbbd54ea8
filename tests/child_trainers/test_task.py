import math
import os
import random
import sys

import numpy as np
import pytest

from automl.child_trainers.function_task import FunctionTask
from automl.child_trainers.outcome import (
    DivergedError,
    Goal,
    InvalidResultError,
    Outcome,
    fault_of,
    read_outcome,
    reported,
)
from automl.child_trainers.task import fresh_start
from automl.db.records import Fault

MINIMIZE = Goal("loss", minimize=True)
MAXIMIZE = Goal("accuracy", minimize=False)


def no_report(epoch, **metrics):
    raise AssertionError("not called")


@pytest.mark.parametrize(
    "returned", [0.5, np.float32(0.5), np.float64(0.5), {"reward": 0.5}, {"reward": np.float16(0.5)}]
)
def test_one_number_is_the_reward(returned):
    outcome = read_outcome(returned)
    assert outcome == Outcome(0.5)
    assert type(outcome.reward) is float


class TorchScalar:
    """Behaves as a PyTorch scalar that requires a gradient, which `numpy` refuses and `item` does not."""

    shape = ()

    def item(self):
        return 0.5

    def numpy(self):
        raise RuntimeError("Can't call numpy() on Tensor that requires grad.")


@pytest.mark.parametrize("returned", [np.array(0.5), np.array(0.5, np.float16), TorchScalar()])
def test_a_zero_dimensional_array_is_one_number(returned):
    for outcome in (read_outcome(returned), read_outcome({"reward": returned}), read_outcome(Outcome(returned))):
        assert outcome == Outcome(0.5) and type(outcome.reward) is float
    assert read_outcome({"loss": returned}, MINIMIZE) == Outcome(-0.5, {"loss": 0.5})
    assert read_outcome({"reward": 1, "curve": [returned, 2]}).metrics == {"curve": [0.5, 2]}
    assert reported(1, {"loss": returned}) == {"loss": 0.5}


def test_scalars_of_tensorflow_and_keras_are_numbers():
    import keras
    import tensorflow as tf

    for returned in (tf.constant(0.5), tf.Variable(0.5), tf.constant(0.5, tf.bfloat16), keras.Variable(0.5)):
        assert read_outcome(returned) == Outcome(0.5)
        assert read_outcome({"reward": 1, "loss": returned}).metrics == {"loss": 0.5}
    assert read_outcome({"reward": 1, "steps": tf.constant(3), "early": tf.constant(True)}).metrics == {
        "steps": 3,
        "early": True,
    }
    with pytest.raises(InvalidResultError, match="where one number"):
        read_outcome(tf.constant([0.5]))


@pytest.mark.parametrize("value", [np.array(True), np.array("0.5"), np.array(1j), np.array(None), np.array([0.5])])
def test_an_array_that_is_no_number_is_invalid(value):
    with pytest.raises(InvalidResultError) as caught:
        read_outcome(value)
    assert str(caught.value) == f"The task returned {value!r} (ndarray) where one number (reward) was expected."


@pytest.mark.parametrize("value", [np.array(np.nan), np.array(-np.inf), np.ma.masked, 10**400])
def test_a_scalar_that_is_not_finite_is_divergence(value):
    with pytest.raises(DivergedError):
        read_outcome(value)
    if not isinstance(value, int):  # a metric of any size is kept
        with pytest.raises(DivergedError, match=r"^loss of epoch 2 is "):
            reported(2, {"loss": value})


def test_what_is_reported_is_plain():
    metrics = {"loss": np.float32(0.5), "note": "x", "early": np.array(True), "table": {1: np.array(2)}}
    assert reported(1, metrics) == {"loss": 0.5, "note": "x", "early": True, "table": {"1": 2}}
    with pytest.raises(InvalidResultError) as caught:
        reported(1, {"loss": np.zeros(1)})
    assert str(caught.value) == (
        "The task reported array([0.]) (ndarray) as the metric 'loss of epoch 1'; metrics are plain numbers."
    )


@pytest.mark.parametrize("returned", [3, np.int64(3), {"reward": 3}])
def test_whole_numbers_become_floats(returned):
    assert type(read_outcome(returned).reward) is float and read_outcome(returned).reward == 3.0


def test_the_rest_of_a_dict_are_metrics_as_plain_json():
    returned = {"reward": 1, "loss": np.float32(0.25), "steps": np.int32(7), "curve": (1, np.float64(2.5)), 3: "x"}
    outcome = read_outcome(returned | {"early": True, "note": None})
    assert outcome.metrics == {"loss": 0.25, "steps": 7, "curve": [1, 2.5], "3": "x", "early": True, "note": None}
    assert [type(outcome.metrics[name]) for name in ("loss", "steps", "early")] == [float, int, bool]


def test_goals_choose_the_metric_and_its_sign():
    assert read_outcome({"loss": 2.5, "accuracy": 0.5}, MINIMIZE) == Outcome(-2.5, {"loss": 2.5, "accuracy": 0.5})
    assert read_outcome({"loss": 2.5, "accuracy": 0.5}, MAXIMIZE) == Outcome(0.5, {"loss": 2.5, "accuracy": 0.5})


def test_a_goal_overrides_an_outcome_s_reward_and_keeps_its_weights():
    weights = {"w": np.ones(2)}
    outcome = read_outcome(Outcome(0.9, {"loss": np.float32(1.5)}, weights, epoch=3), MINIMIZE)
    assert (outcome.reward, outcome.metrics, outcome.epoch) == (-1.5, {"loss": 1.5}, 3)
    assert outcome.weights is weights


@pytest.mark.parametrize(
    ("returned", "goal", "message"),
    [
        (None, None, "The task returned None (NoneType) where one number (reward) was expected."),
        (True, None, "The task returned True (bool) where one number (reward) was expected."),
        ("0.5", None, "The task returned '0.5' (str) where one number (reward) was expected."),
        ([0.5], None, "The task returned [0.5] (list) where one number (reward) was expected."),
        (np.zeros(2), None, "The task returned array([0., 0.]) (ndarray) where one number (reward) was expected."),
        (1j, None, "The task returned 1j (complex) where one number (reward) was expected."),
        ("x" * 99, None, f"The task returned '{'x' * 56}... (str) where one number (reward) was expected."),
        (
            {"loss": 1, "accuracy": 2},
            None,
            "The task returned a dict with accuracy, loss, and no 'reward'; add it, or name the metric with "
            "--minimize or --maximize.",
        ),
        (
            {},
            None,
            "The task returned a dict with nothing, and no 'reward'; add it, or name the metric with "
            "--minimize or --maximize.",
        ),
        ({"reward": "high"}, None, "The task returned 'high' (str) where one number (reward) was expected."),
        (Outcome("high"), None, "The task returned 'high' (str) where one number (reward) was expected."),  # type: ignore
        (
            {"reward": 1, "model": object},
            None,
            "The task returned <class 'object'> (type) as the metric 'model'; metrics are plain numbers.",
        ),
        (0.5, MINIMIZE, "The task returned 0.5 (float); with --minimize loss it must return a dict with 'loss'."),
        ({"a": 1, "b": 2}, MAXIMIZE, "The task returned a, b; --maximize accuracy needs 'accuracy' among them."),
        ({}, MAXIMIZE, "The task returned no metrics; --maximize accuracy needs 'accuracy' among them."),
        ({"loss": None}, MINIMIZE, "The task returned None (NoneType) where one number (loss) was expected."),
    ],
)
def test_everything_else_is_invalid_and_says_what_came_back(returned, goal, message):
    with pytest.raises(InvalidResultError) as caught:
        read_outcome(returned, goal)
    assert str(caught.value) == message
    assert fault_of(caught.value) is Fault.INVALID


@pytest.mark.parametrize(
    ("returned", "goal", "message"),
    [
        (math.nan, None, "reward is nan."),
        (np.float32("inf"), None, "reward is inf."),
        ({"reward": -math.inf}, None, "reward is -inf."),
        ({"reward": 1.0, "loss": math.nan}, None, "loss is nan."),
        ({"reward": 1.0, "losses": [1.0, math.inf]}, None, "losses is inf."),
        ({"loss": math.inf}, MINIMIZE, "loss is inf."),
        (Outcome(math.nan), None, "reward is nan."),
    ],
)
def test_numbers_that_are_not_finite_are_divergence(returned, goal, message):
    with pytest.raises(DivergedError) as caught:
        read_outcome(returned, goal)
    assert str(caught.value) == message
    assert fault_of(caught.value) is Fault.DIVERGED


def called_with(function, **settings):
    """What a task passes to a function."""
    return FunctionTask(function, **settings).evaluate("spec", seed=7, report=no_report).metrics


def test_a_function_gets_exactly_what_it_declares():
    assert called_with(lambda: {"reward": 0}) == {}
    assert called_with(lambda spec: {"reward": 0, "spec": spec}) == {"spec": "spec"}
    assert called_with(lambda seed, spec: {"reward": 0, "seed": seed, "spec": spec}) == {"seed": 7, "spec": "spec"}
    assert called_with(lambda *, report: {"reward": 0, "same": report is no_report}) == {"same": True}
    assert called_with(lambda epochs: {"reward": 0, "epochs": epochs}, epochs=3) == {"epochs": 3}
    assert called_with(lambda epochs: {"reward": 0, "epochs": epochs}) == {"epochs": None}


def test_a_function_with_any_keywords_gets_all():
    def names(**given):
        return {"reward": 0, "names": sorted(given)}

    assert called_with(names, epochs=2) == {"names": ["epochs", "report", "seed", "spec"]}
    assert called_with(names) == {"names": ["report", "seed", "spec"]}  # no epochs were asked for


def test_a_function_s_own_defaults_hold_where_nothing_is_asked_for():
    def task(spec, epochs=5, learning_rate=0.1):
        return {"reward": 0, "epochs": epochs, "learning_rate": learning_rate}

    assert called_with(task) == {"epochs": 5, "learning_rate": 0.1}
    assert called_with(task, epochs=2) == {"epochs": 2, "learning_rate": 0.1}


def test_an_unknown_parameter_is_refused_at_once():
    def train_it(spec, budget):
        return 0.0

    with pytest.raises(ValueError) as caught:
        FunctionTask(train_it)
    assert str(caught.value) == "train_it requires 'budget'; a task can have the parameters spec, seed, epochs, report."


def test_a_task_must_be_callable():
    with pytest.raises(ValueError, match=r"A task must be a function, got 3\."):
        FunctionTask(3)  # type: ignore[arg-type]


def test_a_goal_reaches_what_a_function_returns():
    task = FunctionTask(lambda: {"loss": 4}, goal=MINIMIZE)
    assert task.evaluate(None, seed=0, report=no_report).reward == -4.0
    assert (task.floor, task.count(None), task.describe()) == (None, None, {})


def test_a_function_starts_from_its_seed_whatever_ran_before():
    task = FunctionTask(lambda: {"reward": 0, "drawn": [random.random(), np.random.rand()]})
    first = task.evaluate(None, seed=5, report=no_report).metrics
    other = task.evaluate(None, seed=6, report=no_report).metrics
    assert first == task.evaluate(None, seed=5, report=no_report).metrics != other


def test_a_child_that_changes_the_folder_changes_it_for_itself(tmp_path, monkeypatch):
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path)

    def task(spec):
        before = os.getcwd()
        os.chdir("sub")
        return {"reward": 0, "before": before}

    made = FunctionTask(task)
    assert [made.evaluate(None, seed=seed, report=no_report).metrics for seed in (1, 2)] == 2 * [
        {"before": str(tmp_path)}
    ]
    assert os.getcwd() == str(tmp_path)


def test_fresh_start_takes_every_seed_of_a_child():
    for seed in (0, 2**31 - 1):
        fresh_start(seed)
        drawn = np.random.rand()
        fresh_start(seed)
        assert np.random.rand() == drawn


def test_fresh_start_seeds_keras_only_where_it_is_imported(monkeypatch):
    calls = []

    class FakeKeras:
        class backend:
            clear_session = staticmethod(lambda: calls.append("clear"))

        class utils:
            set_random_seed = staticmethod(calls.append)

    monkeypatch.delitem(sys.modules, "keras", raising=False)
    fresh_start(4)
    assert "keras" not in sys.modules
    monkeypatch.setitem(sys.modules, "keras", FakeKeras)
    fresh_start(4)
    assert calls == ["clear", 4]


class ResourceExhaustedError(Exception):
    """Called as TensorFlow's, which must not be imported to know it."""


class GpuIsFullError(ResourceExhaustedError):
    pass


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (DivergedError(), Fault.DIVERGED),
        (FloatingPointError(), Fault.DIVERGED),
        (InvalidResultError(), Fault.INVALID),
        (MemoryError(), Fault.OOM),
        (np._core._exceptions._ArrayMemoryError((1,), np.dtype(float)), Fault.OOM),
        (ResourceExhaustedError(), Fault.OOM),
        (GpuIsFullError(), Fault.OOM),
        (ZeroDivisionError(), Fault.RAISED),
        (ValueError(), Fault.RAISED),
        (SystemExit(1), Fault.RAISED),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else str(value),
)
def test_faults_of_exceptions(error, fault):
    assert fault_of(error) is fault
