"""Options in a TOML file: every bad key and value gets one sentence that names its line."""

from __future__ import annotations

import dataclasses
import tomllib

import pytest

from automl.settings.key_lines import key_lines
from automl.settings.schema import SearchConfig
from automl.settings.stored import stored_settings
from automl.settings.toml_file import SettingsFile


def refusal(function, *arguments, **options):
    with pytest.raises(ValueError) as caught:
        function(*arguments, **options)
    return str(caught.value)


def write(folder, text):
    path = folder / "search.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_every_setting_can_stand_in_a_file(folder):
    text = """
space = "convnet"
preset = "paper"
task = "cifar10"
recipe = "quick"
controller = "random"
controller-preset = "default"
warm-start = ["first@old.db"]
fix = ["depth=6"]
only = ["layer*/filter_height=3,5"]
schedule = "depth"
max-params = "300k"
max_flops = 5000000
minimize = "loss"
seed = 3
replicas = 1
batch-size = 4
threads = 2
children = 200
time = "1.5h"
workers = 2
keep = 3
stall = "10m"
child-timeout = 90
keep-going = true
data-dir = "data"
policy-device = "gpu"
precision = "float16"
xla = true
early-stop = "hyperband"
worker-memory = "4G"
recycle-after = 50
recycle-growth = "500M"
gpus-per-child = 1
workers-per-gpu = 2
workdir = "work"

[set.task]
epochs = 8
schedule = "cosine"

[set.space]
depths = [6, 8]
"""
    (folder / "work").mkdir()
    values = SettingsFile.read(write(folder, text)).values
    assert {*values, "maximize"} == {field.name for field in dataclasses.fields(SearchConfig)}
    assert (values["max_params"], values["max_flops"]) == (300_000, 5_000_000)
    assert (values["time"], values["stall"], values["child_timeout"]) == (5400.0, 600.0, 90.0)
    asked = SearchConfig(**values)
    options = stored_settings(asked)
    assert options["task"]["options"] == {"epochs": 8, "schedule": "cosine"}
    assert options["space"]["options"] == {"depths": [6, 8]}
    assert options["compute"] == {"precision": "float16", "xla": True, "devices": 1}
    assert (options["early_stop"], options["workers_per_gpu"]) == ("hyperband", 2)
    assert (options["worker_memory"], options["recycling"]) == (4 * 10**9, {"after": 50, "growth": 500 * 10**6})


def test_a_word_in_place_of_a_number(folder):
    values = SettingsFile.read(write(folder, 'workers-per-gpu = "auto"')).values
    assert values == {"workers_per_gpu": "auto"} and SearchConfig(**values) == SearchConfig()


@pytest.mark.parametrize(
    ("text", "line", "sentence"),
    [
        ('workers-per-gpu = "few"', 1, "--workers-per-gpu is 'few'; it must be a whole number or auto."),
        ("childern = 3", 1, "There is no setting called 'childern'; there is children, "),
        ("Children = 3", 1, "There is no setting called 'Children'; there is children, "),
        ("seed = 1\nbatchSize = 3", 2, "There is no setting called 'batchSize'; there is batch-size, "),
        ("\n\n'max-prams' = 3", 3, "There is no setting called 'max-prams'; there is max-params, "),
        ("[task]\nepochs = 3", 1, "'task' is a table, where one value is expected; options of the task belong in "),
        ("task.epochs = 3", 1, "'task' is a table, where one value is expected; options of the task belong in "),
        ("children = {a = 1}", 1, "'children' is a table, where one value is expected."),
        ("children = nan", 1, "--children is nan; it must be a whole number."),
        ("seed = 1e3", 1, "--seed is 1000.0; it must be a whole number."),
        ("stall = inf", 1, "--stall is inf; it must be at most 3153600000."),
        ("[set.task]\nepochs = nan", 2, "An option cannot be NaN: "),
        ('# "\ntime = "soon"', 2, "'soon' is not a time; write for example 45s, 10m or 1.5h."),
        ("max-params = true", 1, "--max-params is True; it must be a whole number."),
        ("max-params = 0.5", 1, "--max-params is 0.5; it must be a whole number."),
        ('max-params = "few"', 1, "'few' is not a number; write for example 300000, 300k or 1.5M."),
        ('children = "20"', 1, "--children is '20'; it must be a whole number."),
        ('precision = "bf16"', 1, "There is no precision called 'bf16'; there is "),
        ("precision = 16", 1, "--precision is 16; it must be a text."),
        ("xla = 1", 1, "--xla is 1; it must be true or false."),
        ('fix = "depth=3"', 1, "--fix is 'depth=3'; it must be a list of texts."),
        ("only = [\n]\nfix = [\n  3\n]", 3, "--fix is (3,); it must be a list of texts."),
        ("set = 3", 1, "'set' holds tables by group; write for example [set.task] and below it epochs = 8."),
        ("[set]\ntask = 3", 2, "'set' holds tables by group; write for example [set.task] and below it "),
        ("[set.taks]\nepochs = 3", 1, "There is no group of options called 'taks'; there is task, "),
        ("seed = 3\n[set]\ntaks.epochs = 3", 3, "There is no group of options called 'taks'; there is task, "),
        ("seed = 3\nset = { task = {}, taks = {} }", 2, "There is no group of options called 'taks'; there is task, "),
        ("batch-size = 3\nbatch_size = 4", 2, "--batch-size is set twice, as 'batch-size' and 'batch_size'; drop one."),
    ],
)
def test_messages_about_bad_files_name_the_line(folder, text, line, sentence):
    path = write(folder, text)
    assert refusal(SettingsFile.read, path).startswith(f"{path}, line {line}: {sentence}")


def test_a_file_as_windows_writes_it(folder):
    path = folder / "search.toml"
    path.write_bytes(b'\xef\xbb\xbfspace = "convnet"\r\nmax-params = 1_000\r\n[set.task]\r\nepochs = 8\r\n')
    assert SettingsFile.read(path).values == {"space": "convnet", "max_params": 1000, "set": ("task.epochs=8",)}
    path.write_text("children = " + "[" * 5000)
    assert refusal(SettingsFile.read, path).startswith(f"{path} is not TOML: ")


def test_a_file_that_is_no_text(folder):
    path = folder / "search.toml"
    path.write_bytes(b'space = "\xe9"')
    assert refusal(SettingsFile.read, path).startswith(f"{path} is not TOML: ")
    assert (
        refusal(SettingsFile.read, folder / "none.toml")
        == f"{folder / 'none.toml'} cannot be read: No such file or directory; name another file with --config."
    )
    assert refusal(SettingsFile.read, folder).startswith(f"{folder} cannot be read: Is a directory; name another file")


def test_flags_win_and_single_options_add_up(automl, mine, folder):
    mine.write_text(mine.read_text().replace("(spec, report)", "(spec, report, epochs)"))
    write(
        folder,
        'task = "mine.py:evaluate"\nspace = "mine.py:space"\ncontroller = "random"\nseed = 3\nchildren = 9\n'
        'fix = ["digit0=1"]\n[set.task]\nepochs = 8\n',
    )
    flags = ("--config", "search.toml", "--children", "1", "--workers", "0", "--set", "task.epochs=2")
    assert automl("search", "mine", *flags).code == 0
    settings = automl("show", "mine", "--json").json["settings"]
    assert settings["run"]["children"] == 1
    assert settings["task"]["options"] == {"epochs": 2}
    assert settings["narrowing"]["fix"] == ["digit0=1"]
    flags = ("--config", "search.toml", "--children", "1", "--workers", "0", "--fix", "digit1=2", "--seed", "4")
    assert automl("search", "other", *flags).code == 0
    shown = automl("show", "other", "--json").json
    assert shown["settings"]["task"]["options"] == {"epochs": 8}
    assert (shown["settings"]["narrowing"]["fix"], shown["seed"]) == (["digit1=2"], 4)


def test_the_message_about_invalid_toml_names_the_place(folder):
    path = write(folder, 'seed = 3\nspace = "convnet')
    assert refusal(SettingsFile.read, path).startswith(f"{path} is not TOML: ")


# Lines

EVERY_FORM = r'''# a = 1
"quoted key" = 3  # = [
space = "a # = [\""
'literal' = """
[set.task]
x = 3
"""
fix = [
  "depth=3", # ] =
  { a = 1, b = {"c.d" = [{e = 2}]} },
]
set.controller."entropy" = 0.1
a . "b\u0041" . c = 1

[ set . task ]  # [set.space]
epochs = 8
[[list]]
day = 1979-05-27T07:32:00Z
[[list]]
quotes = """a"""""
empty = { }
last = {x.y = [1, 2], z = ""}
'''


def test_lines_of_keys_in_every_form():
    assert {".".join(path): line for path, line in key_lines(EVERY_FORM).items()} == {
        "quoted key": 2,
        "space": 3,
        "literal": 4,
        "fix": 8,
        "fix.a": 10,
        "fix.b": 10,
        "fix.b.c.d": 10,
        "fix.b.c.d.e": 10,
        "set": 12,
        "set.controller": 12,
        "set.controller.entropy": 12,
        "a": 13,
        "a.bA": 13,
        "a.bA.c": 13,
        "set.task": 15,
        "set.task.epochs": 16,
        "list": 17,
        "list.day": 18,
        "list.quotes": 20,
        "list.empty": 21,
        "list.last": 22,
        "list.last.x": 22,
        "list.last.x.y": 22,
        "list.last.z": 22,
    }


def all_keys(value, path=()):
    """The paths of all keys that `tomllib` reads."""
    inner = [((*path, key), item) for key, item in value.items()] if isinstance(value, dict) else []
    inner += [(path, item) for item in value] if isinstance(value, list) else []
    return {path}.union(*(all_keys(item, place) for place, item in inner)) - {()}


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_every_key_that_is_read_has_a_line(ending):
    text = EVERY_FORM.replace("\n", ending)
    assert set(key_lines(text)) == all_keys(tomllib.loads(text))


# Errors that the space, the task or the controller finds


@pytest.mark.parametrize(
    ("text", "line", "sentence"),
    [
        ("[set.space]\nstride = true", 2, "There is no space option called 'stride'; there is strides, "),
        ("seed = 1\n[set.task]\nepoch = 3", 3, "There is no task option called 'epoch'; there is epochs, "),
        ("set.task.num-train = 3", 1, "There is no task option called 'num-train'; there is num_train, "),
        ("[set.task]\nepochs = 0", 2, "task.epochs is 0; it must be a whole number above 0."),
        ("[set.controller]\nrate = 1", 2, "There is no controller option called 'rate'; there is none."),
        ('seed = 1\nspace = "convnot"', 2, "There is no space called 'convnot'; there is convnet, "),
        ('preset = "papr"', 1, "There is no preset called 'papr'; there is paper, small."),
        ('controller-preset = "paper"', 1, "There is no controller preset called 'paper'; there is default."),
        ('fix = ["depth=7"]', 1, "--fix depth=7: '7' is not an option; there are 3, 4, 5, 6."),
        ('seed = 3\nminimize = "a"\nmaximize = "b"', 2, "--minimize and --maximize exclude each other; name the one "),
        ("xla = true\n\ngpus-per-child = 2", 3, "--gpus-per-child and --xla exclude each other; "),
    ],
)
def test_messages_about_options_that_a_part_refuses_name_the_line(automl, folder, text, line, sentence):
    write(folder, text)
    error = automl("search", "first", "--controller", "random", "--workers", "0", "--config", "search.toml").error
    assert error.startswith(f"search.toml, line {line}: {sentence}")
    assert not (folder / "automl.db").exists()


@pytest.mark.parametrize(
    ("text", "flags", "sentence"),
    [
        ("[set.task]\nepochs = 3", ("--set", "task.epochs=0"), "task.epochs is 0; it must be a whole number above 0."),
        ('space = "convnet"', ("--space", "convnot"), "There is no space called 'convnot'; there is convnet, "),
        ("xla = true", ("--children", "0"), "--children is 0; it must be 1 or more."),
        ("[set.task]\nepochs = 3", ("--time", "soon"), "'soon' is not a time; write for example 45s, 10m or 1.5h."),
    ],
)
def test_errors_of_flags_do_not_name_the_file(automl, folder, text, flags, sentence):
    write(folder, text)
    error = automl("search", "first", "--controller", "random", "--config", "search.toml", *flags).error
    assert error.startswith(sentence)
