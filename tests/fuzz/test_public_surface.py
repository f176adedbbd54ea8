"""Any input of a user or a file is accepted, or refused with a sentence of ours: never a traceback.

A refusal is a `ValueError` or a `StoreError` (what the command line prints as one sentence), raised by a line of our
own, and not one that Python or NumPy raised on the way. More examples, and longer: --hypothesis-profile thorough
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import string
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import automl
from automl.child_trainers.data.npz import load_npz
from automl.child_trainers.data.text import load_text
from automl.child_trainers.experiment import make_experiment
from automl.child_trainers.function_task import FunctionTask
from automl.child_trainers.outcome import DivergedError, InvalidResultError
from automl.child_trainers.task import Record
from automl.cli import app
from automl.db.records import StoreError
from automl.paths import check_name
from automl.search_spaces.decisions import Choice, Links
from automl.search_spaces.narrowing import parse_rule
from automl.search_spaces.space import Space
from automl.search_spaces.update_rule.spec import UpdateRule
from automl.search_spaces.views import spec_drawing, spec_line
from automl.settings.parsing import parse_count, parse_seconds, task_options
from automl.settings.schema import SearchConfig
from automl.settings.stored import stored_settings
from automl.settings.toml_file import SettingsFile

ROOT = Path(__file__).parents[2]
PACKAGES = tuple(
    str(ROOT / name) + os.sep for name in ("automl", "child_trainers", "controllers", "db", "search_spaces")
)


def fuzzed(share: float = 1.0) -> Callable[[Any], Any]:
    """A share of the profile's examples, without a deadline, since a machine may be slow."""
    examples = max(1, round(share * settings().max_examples))
    checks = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large]
    return settings(max_examples=examples, deadline=None, suppress_health_check=checks)


@contextlib.contextmanager
def explained(*others: type[Exception]) -> Iterator[None]:
    """Ignores a refusal of ours; any other exception fails the test."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            yield
    except (ValueError, StoreError, *others) as error:
        raised_in = traceback.extract_tb(error.__traceback__)[-1].filename
        assert raised_in.startswith(PACKAGES), f"{type(error).__name__} of {raised_in}: {error}"
        assert str(error).strip(), type(error)


def json_values(*more: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    for strategy in more:
        leaves |= strategy
    return st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3), max_leaves=6
    )


words = st.text(string.ascii_letters + string.digits + "._-/*=,: \n\t\x1b\x00é漢", max_size=12)
arrays = st.builds(
    lambda dtype, shape: np.ones(shape, dtype),
    st.sampled_from(["u1", "i8", "f2", "f4", "f8", "c8", "bool", "U3", "S2", "M8[s]"]),
    st.lists(st.integers(0, 4), max_size=5).map(tuple),
)
odd_objects = st.one_of(
    arrays,
    arrays.filter(lambda array: array.size).map(lambda array: array.reshape(-1)[0]),
    st.just(object()),
    st.just(float),
    st.sampled_from([10**400, -(10**30), 2**63, 1e308, float("nan"), float("inf"), -0.0, 1j, b"bytes", {1}, range(3)]),
)


@given(st.text() | words)
@fuzzed()
def test_names(name: str) -> None:
    with explained():
        assert check_name(name) == name


@given(st.text() | words | st.floats().map(str) | st.integers().map(str))
@fuzzed()
def test_times_and_counts(text: str) -> None:
    with explained():
        assert parse_seconds(text) >= 0
    with explained():
        assert parse_count(text) >= 0


FIELDS = [option.key for option in SearchConfig.options().values()]


def toml_of(table: dict[str, Any]) -> str:
    lines = [f"{json.dumps(key)} = {json.dumps(value)}" for key, value in table.items() if value is not None]
    return "\n".join(lines)


TOML = st.one_of(
    st.binary(max_size=60),
    st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.dictionaries(st.sampled_from(FIELDS) | words, json_values(), max_size=4).map(toml_of).map(str.encode),
    st.dictionaries(st.sampled_from(["task", "space", "controller"]) | words, json_values(), max_size=3).map(
        lambda table: f"[set]\n{toml_of(table)}".encode()
    ),
)


@given(TOML)
@fuzzed()
def test_toml_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "search.toml"
    path.write_bytes(content)
    with explained():
        stored_settings(SearchConfig(**SettingsFile.read(path).values))


SPACES = ("convnet", "recurrent-cell", "update-rule", "joint", "table-row", "landscape")
OPTION_NAMES = (
    "epochs",
    "batch_size",
    "num_train",
    "level",
    "depths",
    "strides",
    "base",
    "groups",
    "units",
    "rates",
    "columns",
)


@given(
    st.sampled_from(SPACES),
    st.sampled_from([None, "digits", "cifar10", "ptb", "pydoc"]),
    st.lists(st.tuples(st.sampled_from(["task", "space"]), st.sampled_from(OPTION_NAMES), json_values()), max_size=2),
    st.lists(st.tuples(st.sampled_from(["depth", "layer*/inputs", "*"]) | words, words), max_size=1),
)
@fuzzed(0.3)
def test_options_of_spaces_and_tasks(
    space: str, task: str | None, options: list[tuple[str, str, Any]], rules: list[tuple[str, str]]
) -> None:
    texts = tuple(f"{group}.{name}={json.dumps(value)}" for group, name, value in options)
    with explained():
        config = SearchConfig(space=space, task=task, set=texts, only=tuple(f"{name}={value}" for name, value in rules))
        make_experiment(stored_settings(config))


@given(st.sampled_from([*SPACES, "mine.py:space", "nonsense"]), json_values())
@fuzzed()
def test_views_of_stored_specs(space: str, spec: Any) -> None:
    assert isinstance(spec_line(spec, space), str)
    assert isinstance(spec_drawing(spec, space), list)


@given(words, st.booleans())
@fuzzed()
def test_single_options_and_rules(text: str, fix: bool) -> None:
    with explained():
        task_options([text])
    with explained():
        parse_rule(text, fix=fix)


@given(json_values(odd_objects))
@fuzzed()
def test_results_and_reports_of_tasks(value: Any) -> None:
    def reports(spec: Any, report: Any) -> Any:
        report(1, loss=value)
        return value

    for function in (reports, lambda spec: value, lambda spec: {"loss": value, "reward": 1.0}):
        with explained(InvalidResultError, DivergedError):
            outcome = FunctionTask(function, uses=()).evaluate(None, seed=0, report=Record())
            json.dumps([outcome.reward, dict(outcome.metrics)], allow_nan=False)


options = st.lists(json_values(odd_objects), max_size=3).map(tuple) | json_values(odd_objects)


@given(
    st.lists(st.tuples(words | odd_objects, options), min_size=1, max_size=2),
    st.integers(-1, 2) | odd_objects,
    json_values(odd_objects),
)
@fuzzed()
def test_spaces_of_users(decisions: list[tuple[Any, Any]], count: Any, spec: Any) -> None:
    def space() -> Any:
        answers = []
        for name, choices in decisions:
            answers.append((yield Choice(name, choices)))
        answers.append((yield Links("links", count=count)))
        return {"answers": answers, "spec": spec}

    with explained():
        Space(space).check()


@given(st.lists(st.tuples(words, options), min_size=1, max_size=2), json_values(odd_objects), json_values(odd_objects))
@fuzzed(0.1)
def test_searches_over_functions(tmp_path: Path, decisions: list[tuple[Any, Any]], spec: Any, result: Any) -> None:
    def space() -> Any:
        answers = []
        for name, choices in decisions:
            answers.append((yield Choice(name, choices)))
        return {"answers": answers, "spec": spec}

    store = tmp_path / f"{len(list(tmp_path.iterdir()))}.db"
    with explained():
        found = automl.search(
            *("fuzzed",), space=space, task=lambda spec: result, store=str(store), workers=0, controller="random",
            children=2, batch_size=2,
        )  # fmt: skip
        for child in found.children:
            assert spec_line(child.spec, "session:space")
            assert child.state != "failed" or child.message


@given(st.binary(max_size=200))
@fuzzed()
def test_files_that_are_not_arrays(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "data.npz"
    path.write_bytes(content)
    with explained():
        load_npz(path)


KEYS = ("x_train", "y_train", "x_validation", "y_validation", "x_test", "y_test")


def npy(header: bytes, content: bytes) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + content


HEADERS = st.builds(
    lambda descr, order, shape, tail: f"{{'descr': {descr!r}, 'fortran_order': {order}, 'shape': {shape!r}}}{tail}\n",
    st.sampled_from(["|u1", "<i8", "<f4", ">f8", "|O", "<c16", "<U2", "|V4", "nonsense", [("a", "<i4")], 3]),
    st.sampled_from(["False", "True", "None"]),
    st.lists(st.integers(-1, 3) | st.sampled_from([2**31, 2**62]), max_size=5).map(tuple),
    words,
).map(lambda text: text.encode("latin-1", "replace"))


@given(
    st.dictionaries(
        st.sampled_from(KEYS) | st.just("other"), st.tuples(HEADERS | st.binary(max_size=30), st.binary()), max_size=4
    )
)
@fuzzed()
def test_headers_of_arrays(tmp_path: Path, members: dict[str, tuple[bytes, bytes]]) -> None:
    import zipfile

    path = tmp_path / "data.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for name, (header, content) in members.items():
            archive.writestr(f"{name}.npy", npy(header, content))
    with explained():
        load_npz(path)


@given(st.dictionaries(st.sampled_from(KEYS), arrays, max_size=4), st.integers(1, 3))
@fuzzed()
def test_arrays_of_any_kind(tmp_path: Path, given_arrays: dict[str, np.ndarray], count: int) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, allow_pickle=False, **given_arrays)
    with explained():
        load_npz(path).limit(count, 1)


@given(
    st.binary(max_size=200)
    | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass"))
    | st.text("ab \n\r\t\ufeff\x00é", max_size=400).map(str.encode),
    st.sampled_from(["word", "character"]),
    st.none() | st.integers(2, 5),
)
@fuzzed()
def test_texts(tmp_path: Path, content: bytes, level: str, vocabulary_size: int | None) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(content)
    with explained():
        load_text(path, level=level, vocabulary_size=vocabulary_size)


RULE_WORDS = ["g", "m", "g^2", "adam", "drop(", "sign(", "exp(", "linear_decay", "0.5", "1e-3", ",", ")", *"+*-/^"]


@given(st.lists(st.sampled_from(RULE_WORDS), max_size=10).map(" ".join) | words)
@fuzzed()
def test_texts_of_update_rules(text: str) -> None:
    with explained():
        rule = UpdateRule.parse(text)
        assert str(UpdateRule.parse(str(rule))) == str(rule)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a store with one search."""
    folder = tmp_path_factory.mktemp("store")

    def space() -> Any:
        first = yield Choice("first", (1, 2, 3, 4))
        return {"layers": first}

    address = str(folder / "automl.db")
    automl.search(
        "fuzzed", space=space, task=lambda spec: spec["layers"], store=address, workers=0, controller="random",
        children=2, batch_size=2,
    )  # fmt: skip
    return address


COMMANDS = st.one_of(
    st.tuples(st.sampled_from(["show", "top", "logs", "train", "stop", "retry"]), words).map(list),
    st.tuples(st.just("top"), st.just("fuzzed"), st.just("-n"), words).map(list),
    st.tuples(st.just("logs"), st.just("fuzzed"), words).map(list),
    st.tuples(st.just("propose"), st.just("fuzzed"), st.just("--tokens"), words).map(list),
    st.tuples(st.just("resume"), st.just("fuzzed"), st.just("--set"), words).map(list),
    st.tuples(st.just("resume"), st.just("fuzzed"), st.sampled_from(["--children", "--time", "--task"]), words).map(
        list
    ),
    st.tuples(st.just("export"), st.just("fuzzed"), st.just("--format"), words, st.just("--to"), st.just("/")).map(
        list
    ),
    st.tuples(st.just("search"), words, st.sampled_from(["--space", "--task", "--preset", "--max-params"]), words).map(
        list
    ),
    st.lists(words, max_size=3),
)


@given(COMMANDS)
@fuzzed(0.3)
def test_command_lines(stored: str, tmp_path: Path, arguments: list[str]) -> None:
    out, err = io.StringIO(), io.StringIO()
    # `search` never starts a search: these names do not exist.
    given_arguments = [argument.replace("\0", "") for argument in arguments]
    before = sys.argv, os.getcwd(), dict(os.environ)
    sys.argv = ["automl", *given_arguments]
    os.chdir(tmp_path)
    os.environ["AUTOML_STORE"] = stored
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as ended:
            app.main()
            raise SystemExit(0)
    finally:
        sys.argv, folder, environment = before
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
    assert "Traceback" not in err.getvalue() and "--debug shows the traceback" not in err.getvalue(), (
        arguments,
        err.getvalue(),
    )
    assert ended.value.code in (None, 0, 1, 2, 3, 4), arguments
    assert ended.value.code != 1 or err.getvalue().startswith("Error: "), arguments
