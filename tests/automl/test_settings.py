"""The user's options, from flags, a TOML file and Python: every bad value gets one sentence."""

from __future__ import annotations

import json
import os

import pytest

from automl.child_trainers.devices import default_precision
from automl.child_trainers.gpus import forget_gpus
from automl.paths import check_name
from automl.settings.parsing import count_text, parse_count, parse_seconds, seconds_text, task_options
from automl.settings.schema import SearchConfig
from automl.settings.stored import changeable_options, completed, stored_settings, with_data_dir


def refusal(function, *arguments, **options):
    with pytest.raises(ValueError) as caught:
        function(*arguments, **options)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("45s", 45), ("10m", 600), ("1.5h", 5400), ("2d", 172800), (" 2 H ", 7200), ("0.25s", 0.25)],
)
def test_seconds(text, seconds):
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-5", "1h30m", "5 min", "nan", "inf", "1e3", "½h"])
def test_invalid_seconds(text):
    assert refusal(parse_seconds, text) == f"{text!r} is not a time; write for example 45s, 10m or 1.5h."


@pytest.mark.parametrize(
    ("text", "count"), [("300000", 300_000), ("300k", 300_000), ("1.5M", 1_500_000), ("2G", 2 * 10**9), ("0.3k", 300)]
)
def test_counts(text, count):
    assert parse_count(text) == count
    assert type(parse_count(text)) is int


@pytest.mark.parametrize("text", ["", "few", "-1", "1,000", "1 million", "0x10", "k"])
def test_invalid_counts(text):
    assert refusal(parse_count, text) == f"{text!r} is not a number; write for example 300000, 300k or 1.5M."


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(1800.0, "30m"), (90, "90s"), (0.5, "0.5s"), (7200, "2h"), (36500 * 86400, "36500d")],
)
def test_texts_of_seconds(seconds, text):
    assert seconds_text(seconds) == text and parse_seconds(text) == seconds


@pytest.mark.parametrize(
    ("count", "text"), [(2 * 10**9, "2G"), (300_000, "300k"), (1234, "1234"), (5_000_000, "5M"), (1_234_567, "1234567")]
)
def test_texts_of_counts(count, text):
    assert count_text(count) == text and parse_count(text) == count


def test_names():
    for name in ("a", "first", "Run-2.1_b", "0", "x" * 100):
        assert check_name(name) == name
    for name in ("", ".", "..", "-x", "_x", "a/b", "a\\b", "a b", "a\nb", "a\n", "a\0", "\x1b[31m", "x" * 101, "ä"):
        assert refusal(check_name, name) == (
            f"{name!r} cannot name a search; use up to 100 letters, digits, '.', '_' and '-', beginning with a letter "
            "or digit."
        )


# Options


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("task.x=3", 3),
        ("task.x=0.5", 0.5),
        ("task.x=true", True),
        ("task.x=null", None),
        ("task.x=[3, 4]", [3, 4]),
        ("task.x=cosine", "cosine"),
        ('task.x="3"', "3"),
        ("task.x=a=b", "a=b"),
        ("task.x=", ""),
        (" task.x = 3 ", 3),
        ("task.x=True", "True"),
    ],
)
def test_values_of_options(text, value):
    options = stored_settings(SearchConfig(set=(text,)))["task"]["options"]
    assert options == {"x": value} and type(options["x"]) is type(value)


def test_options_by_group_where_the_last_of_a_name_wins():
    settings = stored_settings(SearchConfig(set=("space.a=1", "task.b=2", "controller.c=3", "task.b=4")))
    assert [settings[group]["options"] for group in ("space", "task", "controller")] == [{"a": 1}, {"b": 4}, {"c": 3}]


def test_options_of_an_unknown_form_or_group():
    for text in ("strides", "strides=true", "space.=1", ".a=1", "space.a"):
        sentence = f"--set {text!r} is not of the form GROUP.NAME=VALUE, for example space.strides=true."
        if text == ".a=1":
            sentence = "There is no group of options called ''; there is space, task, controller."
        assert refusal(stored_settings, SearchConfig(set=(text,))) == sentence
    assert refusal(stored_settings, SearchConfig(set=("taks.a=1",))).startswith(
        "There is no group of options called 'taks'; there is task, "
    )


# Bad values


@pytest.mark.parametrize(
    ("setting", "value", "sentence"),
    [
        ("children", 0, "--children is 0; it must be 1 or more."),
        ("children", -1, "--children is -1; it must be 1 or more."),
        ("children", 2.5, "--children is 2.5; it must be a whole number."),
        ("children", "20", "--children is '20'; it must be a whole number."),
        ("children", True, "--children is True; it must be a whole number."),
        ("workers", -1, "--workers is -1; it must be 0 or more."),
        ("keep", -1, "--keep is -1; it must be 0 or more."),
        ("seed", -1, "--seed is -1; it must be 0 or more."),
        ("seed", None, "--seed is None; it must be a whole number."),
        ("replicas", 0, "--replicas is 0; it must be above 0."),
        ("batch_size", 0, "--batch-size is 0; it must be above 0."),
        ("threads", 0, "--threads is 0; it must be above 0."),
        ("max_params", 0, "--max-params is 0; it must be above 0."),
        ("max_flops", 0, "--max-flops is 0; it must be above 0."),
        ("stall", 0.0, "--stall is 0.0; it must be above 0."),
        ("child_timeout", 0, "--child-timeout is 0; it must be above 0."),
        ("time", 0.0, "--time is 0.0; it must be above 0."),
        ("time", "10m", "--time is '10m'; it must be a number."),
        ("policy_device", "tpu", "--policy-device is 'tpu'; it must be cpu or gpu."),
        ("precision", "bfloat", "There is no precision called 'bfloat'; there is bfloat16, float32, float16."),
        ("precision", "float64", "There is no precision called 'float64'; there is float16, bfloat16, float32."),
        ("precision", "", "There is no precision called ''; there is float32, bfloat16, float16."),
        ("precision", 16, "--precision is 16; it must be a text."),
        ("xla", "yes", "--xla is 'yes'; it must be true or false."),
        ("worker_memory", 0, "--worker-memory is 0; it must be above 0."),
        ("worker_memory", 0.5, "--worker-memory is 0.5; it must be a whole number."),
        ("recycle_after", 0, "--recycle-after is 0; it must be above 0."),
        ("recycle_growth", -1, "--recycle-growth is -1; it must be above 0."),
        ("gpus_per_child", 0, "--gpus-per-child is 0; it must be above 0."),
        ("workers_per_gpu", 0, "--workers-per-gpu is 0; it must be above 0."),
        ("workers_per_gpu", 1025, "--workers-per-gpu is 1025; it must be at most 1024."),
        ("workers_per_gpu", "many", "--workers-per-gpu is 'many'; it must be a whole number or auto."),
        ("workers_per_gpu", None, "--workers-per-gpu is None; it must be a whole number or auto."),
        ("workers_per_gpu", 2.0, "--workers-per-gpu is 2.0; it must be a whole number or auto."),
        ("early_stop", "mean", "There is no pruner called 'mean'; there is median, "),
        ("early_stop", True, "--early-stop is True; it must be a text."),
        ("keep_going", "yes", "--keep-going is 'yes'; it must be true or false."),
        ("space", 3, "--space is 3; it must be a text."),
        ("fix", "depth=3", "--fix is 'depth=3'; it must be a list of texts."),
        ("only", (3,), "--only is (3,); it must be a list of texts."),
    ],
)
def test_bad_values(setting, value, sentence):
    found = refusal(SearchConfig, **{setting: value})
    assert found.startswith(sentence) if sentence.endswith(", ") else found == sentence


def test_both_goals():
    assert refusal(SearchConfig, minimize="a", maximize="b") == (
        "--minimize and --maximize exclude each other; name the one metric that is the reward."
    )


def test_a_child_has_gpus_or_shares_one():
    assert refusal(SearchConfig, gpus_per_child=2, workers_per_gpu=2) == (
        "--gpus-per-child and --workers-per-gpu exclude each other; a child has GPUs or shares one."
    )


def test_the_budget_is_a_hundred_children_where_nothing_else_ends_it():
    assert SearchConfig().budget == 100
    assert SearchConfig(children=7).budget == SearchConfig(children=7, time=60.0).budget == 7
    assert SearchConfig(time=60.0).budget is None


def test_settings_are_plain_json(folder):
    settings = stored_settings(SearchConfig(minimize="loss", fix=("depth=3",), max_params=9, schedule="depth"))
    assert json.loads(json.dumps(settings)) == settings
    assert settings["task"]["goal"] == {"metric": "loss", "minimize": True}
    assert settings["limits"] == {"params": 9, "flops": None}
    assert "run" not in settings  # it is an option of one start


def test_a_relative_path_is_stored_as_an_absolute_one(folder):
    settings = stored_settings(SearchConfig(task="npz:mine.npz", data_dir="data"))
    assert settings["task"]["name"] == f"npz:{folder / 'mine.npz'}"
    assert settings["task"]["data_dir"] == str(folder / "data")
    assert stored_settings(SearchConfig(task="npz:~/mine.npz"))["task"]["name"] == f"npz:{os.environ['HOME']}/mine.npz"


def test_where_data_lie(folder):
    assert stored_settings(SearchConfig())["task"]["data_dir"] is None
    os.environ["AUTOML_DATA"] = ""
    assert stored_settings(SearchConfig())["task"]["data_dir"] is None
    os.environ["AUTOML_DATA"] = "there"
    settings = stored_settings(SearchConfig())
    assert settings["task"]["data_dir"] == str(folder / "there")
    assert with_data_dir(settings, "here")["task"]["data_dir"] == str(folder / "here")
    del os.environ["AUTOML_DATA"]
    assert with_data_dir(settings, None) == settings


@pytest.fixture
def gpus(monkeypatch, tmp_path):
    """Sets the GPUs that children may use, on a machine with an old one and a new one."""
    tool = tmp_path / "nvidia-smi"
    rows = ("0, GPU-a, Tesla T4, 15360, 570.1, 7.5", "1, GPU-b, NVIDIA A10, 23028, 570.1, 8.6")
    lines = "".join(f"echo '{row}'\n" for row in rows)
    tool.write_text(f"#!/bin/sh\n[ $1 = -L ] && exit\n{lines}")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def choose(chosen):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
        forget_gpus()

    yield choose
    forget_gpus()


def test_the_way_of_training_is_decided_when_a_search_begins(gpus):
    """A search that is resumed on another machine continues as it began."""
    for chosen, fastest in (("GPU-b", "bfloat16"), ("GPU-a", "float32"), ("-1", default_precision([]))):
        gpus(chosen)
        assert stored_settings(SearchConfig())["compute"] == {"precision": fastest, "xla": None, "devices": 1}
        for precision in ("float32", "bfloat16", "float16"):
            asked = SearchConfig(precision=precision, xla=True)
            assert stored_settings(asked)["compute"] == {"precision": precision, "xla": True, "devices": 1}
    assert stored_settings(SearchConfig(gpus_per_child=2))["compute"]["devices"] == 2
    with pytest.raises(ValueError, match="--gpus-per-child and --xla exclude each other"):
        SearchConfig(gpus_per_child=2, xla=True)


def test_early_stopping_is_the_recipes_unless_it_is_asked_for():
    def pruner(**asked):
        return stored_settings(SearchConfig(**asked))["early_stop"]

    assert (pruner(), pruner(task="cifar10"), pruner(task="cifar10", recipe="paper")) == ("none", "median", "none")
    assert pruner(task="cifar10", early_stop="none") == "none"
    for name in ("median", "hyperband", "asha"):
        assert pruner(early_stop=name) == name


def test_settings_of_an_earlier_version_mean_what_they_meant_then():
    """Before there was a choice, children were trained to their end, in float32 and without XLA."""
    late = (
        "compute",
        "workers_per_gpu",
        "workers_per_gpu_reason",
        "early_stop",
        "worker_memory",
        "recycling",
        "behaviour",
        "workdir",
    )
    settings = stored_settings(SearchConfig(precision="bfloat16", xla=True, early_stop="median"))
    assert completed(settings) == settings
    old = {name: value for name, value in settings.items() if name not in late}
    assert completed(old) == old | {
        "compute": {"precision": "float32", "xla": False, "devices": 1},
        "workers_per_gpu": 1,
        "workers_per_gpu_reason": None,
        "early_stop": "none",
        "worker_memory": None,
        "recycling": {"after": 1000, "growth": 2 * 10**9},
        "workdir": None,
        "behaviour": {
            "cell_identity": 1,
            "controller_default": 1,
            "data_split": 1,
            "drop_masks": 1,
            "model_outputs": 1,
            "standardization": 1,
        },
    }


# What may change later


def test_options_that_a_resume_may_change():
    options = changeable_options(["controller.entropy=0.01", "task.epochs=8", "task.epochs=9"])
    assert options == {"controller": {"entropy": 0.01}, "task": {"epochs": 9}}
    assert changeable_options([]) == {}
    assert refusal(changeable_options, ["task.epochs=8", "space.strides=true"]) == (
        "space.strides cannot be changed after a search has begun; start another search with it."
    )
    assert "is not of the form GROUP.NAME=VALUE" in refusal(changeable_options, ["epochs=8"])


def test_constants_of_a_recipe_with_and_without_their_group():
    assert task_options(["epochs=30", "task.schedule=cosine"]) == {"epochs": 30, "schedule": "cosine"}
    assert task_options([]) == {}
    assert "is not of the form" in refusal(task_options, ["epochs"])
