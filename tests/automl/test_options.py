"""Each option of a search is declared once; flags, TOML keys, Python arguments and the reference page follow."""

from __future__ import annotations

import ast
import inspect
import json
import re
from pathlib import Path

import pytest
import typer
from command_line import OURS, python

import automl as package
from automl.child_trainers.registry import OF_SPACES, TASKS, early_stop_of
from automl.cli import app
from automl.controllers import CONTROLLERS
from automl.resuming import resumed
from automl.search_spaces import SPACES
from automl.settings.reference import reference_page
from automl.settings.schema import SearchConfig

ROOT = Path(__file__).parents[2]
OPTIONS = SearchConfig.options()
COMMANDS = typer.main.get_command(app.app).commands  # type: ignore[attr-defined]


# One declaration


@pytest.mark.parametrize(
    ("command", "options", "others"),
    [
        ("search", OPTIONS, {"name", "config", "store"}),
        ("resume", SearchConfig.resumable(), {"name", "accept_change", "data", "store"}),
    ],
)
def test_flags_are_those_that_are_declared(command, options, others):
    assert {param.name for param in COMMANDS[command].params} - {"help"} == {*options, *others}
    flags = {param.name: param.opts for param in COMMANDS[command].params}
    assert all(flags[name] == [option.flag] for name, option in options.items())


def test_the_commands_declare_no_option_of_a_search():
    tree = ast.parse((ROOT / "automl" / "cli" / "app.py").read_text())
    functions = {node.name: node.args for node in tree.body if isinstance(node, ast.FunctionDef)}
    for command in ("search", "resume"):
        arguments = functions[command]
        assert not {argument.arg for argument in (*arguments.args, *arguments.kwonlyargs)} & set(OPTIONS)


def test_a_resume_takes_what_is_declared_as_changeable():
    parameters = inspect.signature(resumed).parameters.values()
    names = {parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}
    assert names == {*SearchConfig.resumable(), "accept_change", "data"}


@pytest.mark.parametrize("option", OPTIONS.values(), ids=OPTIONS)
def test_every_option_has_one_sentence_a_group_and_a_default_of_its_type(option):
    assert re.fullmatch(r"[A-Z].*[^.]\.", option.help) and option.group
    option.check(option.default)
    for choice in option.known_choices() or ():
        assert choice in option.help


@pytest.mark.parametrize(
    ("option", "names"), [("space", SPACES), ("task", {*TASKS} - {"npz", "text", "table"}), ("controller", CONTROLLERS)]
)
def test_help_names_what_there_is(option, names):
    assert all(re.search(rf"\b{name}\b", OPTIONS[option].help) for name in names)


def test_the_default_pruner_is_named_with_its_exception():
    of_quick = {space: early_stop_of(space, "quick") for space in OF_SPACES}
    without = [space.replace("-", " ") for space, pruner in of_quick.items() if pruner == "none"]
    assert {*of_quick.values()} == {"median", "none"}
    assert OPTIONS["early_stop"].default_text == f"median for quick, except for {' and '.join(without)}s"


def test_the_reference_page_is_as_the_declarations_say():
    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert page == reference_page(), "run: python -m automl.settings.reference docs/settings.md"
    assert all(f"| `{option.key}` |" in page for option in OPTIONS.values())


def test_help_lists_the_flags_by_group(automl):
    text = automl("search", "--help").out
    headings = [line for line in text.splitlines() if re.fullmatch(r"\S.*:", line)]
    groups = list(dict.fromkeys(f"{option.group}:" for option in OPTIONS.values()))
    assert headings == ["Arguments:", *groups]
    for option in OPTIONS.values():
        following = text.partition(f"\n{option.group}:\n")[2].partition("\n\n")[0]
        assert re.search(rf"^  {option.flag}\b", following, re.MULTILINE)


WIDER = """
import dataclasses, sys
from automl.settings import schema
from automl.settings.option import OnResume, option

@dataclasses.dataclass(frozen=True)
class Wider(schema.SearchConfig):
    patience: "float | None" = option(
        None, "Time to wait.", group=schema.BUDGET, unit="seconds", above=0, on_resume=OnResume("Time to wait again.")
    )

schema.SearchConfig = Wider

def command(*arguments):
    from automl.cli.app import main
    sys.argv = ["automl", *arguments]
    try:
        main()
    except SystemExit:
        pass

"""
BELOW = "--patience is 0.0; it must be above 0."


def test_an_option_declared_in_one_place_is_a_flag_a_key_an_argument_and_a_line_of_the_page(folder):
    def said(code):
        ran = python(WIDER + code, folder=folder)
        return ran.out + ran.err

    (folder / "search.toml").write_text('seed = 1\npatience = "0s"\n')
    assert re.search(
        r"^Budget:\n(  .*\n)*  --patience <time> +Time to wait\.$", said('command("search", "--help")'), re.M
    )
    assert re.search(r"--patience <time> +Time to wait again\.$", said('command("resume", "--help")'), re.M)
    assert said('command("search", "first", "--patience", "0")') == f"Error: {BELOW}\n"
    assert said('command("search", "first", "--config", "search.toml")') == f"Error: search.toml, line 2: {BELOW}\n"
    assert said('import automl; automl.search("first", patience="0s")').endswith(f"ValueError: {BELOW}\n")
    page = said("from automl.settings.reference import reference_page; print(reference_page())")
    assert "| `patience` | time above 0 | none | Time to wait. | Time to wait again. |" in page


# The same sentence from a flag, a file and Python

BAD_VALUES = [
    ("children", 0, "--children is 0; it must be 1 or more."),
    ("children", "few", "--children is 'few'; it must be a whole number."),
    ("children", "", "--children is ''; it must be a whole number."),
    ("seed", 2**63, f"--seed is {2**63}; it must be at most {2**63 - 1}."),
    ("workers", -1, "--workers is -1; it must be 0 or more."),
    ("threads", 0, "--threads is 0; it must be above 0."),
    ("time", "soon", "'soon' is not a time; write for example 45s, 10m or 1.5h."),
    ("time", "0s", "--time is 0.0; it must be above 0."),
    ("stall", "9e9", "'9e9' is not a time; write for example 45s, 10m or 1.5h."),
    ("child_timeout", "40000d", "--child-timeout is 3456000000.0; it must be at most 3153600000."),
    ("max_params", "few", "'few' is not a number; write for example 300000, 300k or 1.5M."),
    ("max_flops", 0, "--max-flops is 0; it must be above 0."),
    ("worker_memory", "0G", "--worker-memory is 0; it must be above 0."),
    ("early_stop", "mean", "There is no pruner called 'mean'; there is median, hyperband, none, asha."),
    ("precision", "bf16", "There is no precision called 'bf16'; there is bfloat16, float16, float32."),
    ("policy_device", "tpu", "--policy-device is 'tpu'; it must be cpu or gpu."),
    (
        "space",
        "convnot",
        "There is no space called 'convnot'; there is convnet, joint, recurrent-cell, "
        "table-row, landscape, update-rule.",
    ),
    (
        "controller",
        "rando",
        "There is no controller called 'rando'; there is random, reinforce, surrogate, ppo, optuna, evolution.",
    ),
    ("fix", ["depth"], "--fix 'depth' is not of the form NAME=VALUE, for example layer*/filter_height=3."),
    ("set", ["space.stride=true"], "There is no space option called 'stride'; there is strides, "),
    ("set", ["taks.epochs=1"], "There is no group of options called 'taks'; there is task, space, controller."),
    ("set", ["task.epochs=0"], "task.epochs is 0; it must be a whole number above 0."),
]


@pytest.mark.parametrize(("name", "value", "sentence"), BAD_VALUES, ids=lambda value: str(value)[:20])
def test_a_bad_value_gets_the_same_sentence_at_each_entrance(automl, folder, name, value, sentence):
    option = OPTIONS[name]
    search = ("search", "first", *(() if name == "controller" else ("--controller", "random")))
    texts = value if isinstance(value, list) else [value]
    by_flag = automl(*search, *(part for text in texts for part in (option.flag, text))).error
    key = option.key if name != "set" else "set." + value[0].partition("=")[0]
    text = value if name != "set" else json.loads(value[0].partition("=")[2])
    (folder / "search.toml").write_text(f"\n{key} = {json.dumps(text)}\n")
    by_file = automl(*search, "--config", "search.toml").error
    with pytest.raises(ValueError) as by_argument:
        package.search("first", **{"controller": "random", name: value})
    assert by_flag.startswith(sentence)
    assert by_file == f"search.toml, line 2: {by_flag}"
    assert str(by_argument.value) == by_flag


def test_messages_about_an_unknown_name_list_the_nearest_at_each_entrance(automl, folder):
    (folder / "search.toml").write_text("\nchilds = 3\n")
    by_flag = automl("search", "first", "--childs", "3")
    by_file = automl("search", "first", "--config", "search.toml").error
    with pytest.raises(ValueError) as by_argument:
        package.search("first", childs=3)
    assert by_flag.code == 2 and by_flag.err.splitlines()[-1].startswith(
        "Error: There is no option '--childs'; there is --children, "
    )
    assert by_file.startswith("search.toml, line 2: There is no setting called 'childs'; there is children, ")
    assert str(by_argument.value).startswith("There is no setting called 'childs'; there is children, ")


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("children", "few", "--children is 'few'; it must be a whole number."),
        ("time", "soon", "'soon' is not a time; write for example 45s, 10m or 1.5h."),
        ("workers", 1025, "--workers is 1025; it must be at most 1024."),
        ("set", ["space.a=1"], "space.a cannot be changed after a search has begun; start another search with it."),
        ("set", ["epochs=1"], "--set 'epochs=1' is not of the form GROUP.NAME=VALUE, for example space.strides=true."),
    ],
)
def test_a_resume_refuses_as_a_new_search_does(automl, mine, name, value, sentence):
    assert automl("search", "mine", *OURS, "--workers", "0", "--children", "2").code == 0
    texts = value if isinstance(value, list) else [value]
    assert automl("resume", "mine", *(part for text in texts for part in (OPTIONS[name].flag, text))).error == sentence
    with pytest.raises(ValueError) as caught:
        package.resume("mine", **{name: value})
    assert str(caught.value) == sentence


def test_types_that_only_python_and_files_have_are_refused_alike(automl, folder):
    for name, value, written in (("keep_going", "yes", '"yes"'), ("children", 2.5, "2.5"), ("fix", "a=1", '"a=1"')):
        (folder / "search.toml").write_text(f"{OPTIONS[name].key} = {written}\n")
        by_file = automl("search", "first", "--config", "search.toml").error
        with pytest.raises(ValueError) as by_argument:
            package.search("first", **{name: value})
        assert by_file == f"search.toml, line 1: {by_argument.value}"
    for name, value in (("keep_going", "yes"), ("children", 2.5)):
        with pytest.raises(ValueError, match=OPTIONS[name].flag):
            SearchConfig(**{name: value})


def test_units_are_read_at_each_entrance(folder):
    read = SearchConfig.read({"time": "1.5h", "stall": 60, "max_params": "300k", "max_flops": 1.5e6, "fix": ["a=1"]})
    assert read == {"time": 5400.0, "stall": 60, "max_params": 300_000, "max_flops": 1_500_000, "fix": ("a=1",)}
    assert SearchConfig.read({"workdir": folder}) == {"workdir": str(folder)}
    assert OPTIONS["children"].read_flag("1_000") == 1000
