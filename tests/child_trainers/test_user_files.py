import importlib
import inspect
import os
import pickle
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from waiting import SECONDS

from automl.child_trainers import user_modules
from automl.child_trainers.user_files import UserFile, UserFileError


@pytest.fixture(autouse=True)
def clean_imports(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(user_modules, "_added", set())
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.fixture
def write(tmp_path):
    def write(text, name="mine.py"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def refusal(reference):
    with pytest.raises(UserFileError) as caught:
        UserFile.read(str(reference)).load()
    return str(caught.value)


def test_references():
    for reference in ("a.py:f", "folder/a.py:f", "a.py"):
        assert UserFile.is_reference(reference)
    for reference in ("convnet", "npz:data.py", "a.pyc:f", "digits:a.py"):
        assert not UserFile.is_reference(reference)


def test_it_runs_the_file_and_returns_the_function(write, monkeypatch):
    path = write("def f(): return 42\n")
    monkeypatch.chdir(path.parent)
    file = UserFile.read("mine.py:f")
    assert file.load()() == 42
    assert (file.path, file.attribute, file.text) == (str(path), "f", "def f(): return 42\n")
    assert UserFile.from_json(file.to_json()) == file
    assert UserFile.from_json(None) is None


def test_missing(tmp_path):
    assert refusal(tmp_path / "mine.py:f") == f"{tmp_path}/mine.py cannot be read: No such file or directory."


def test_no_attribute_named(write):
    path = write("")
    assert refusal(path) == f"{path} names no function; write {path}:NAME, with the function's name."


def test_no_such_attribute(write):
    path = write("def g(): pass\ndef h(): pass\ndef _hidden(): pass\nnumber = 3\n")
    assert refusal(f"{path}:f") == f"{path} has no function 'f'; it has g, h."
    assert refusal(f"{path}:number") == f"{path} has no function 'number'; it has g, h."
    assert refusal(f"{write('x = 1', 'other.py')}:f").endswith("has no function 'f'; it has no function.")


def test_not_utf8(tmp_path):
    path = tmp_path / "mine.py"
    path.write_bytes(b"name = '\xe9'\n")
    assert refusal(f"{path}:f") == f"{path} is not a Python file: it is not UTF-8 text."


def test_changed(write):
    path = write("def f(): return 1\n")
    file = UserFile.read(f"{path}:f")
    write("def f(): return 2\n")
    with pytest.raises(UserFileError) as caught:
        file.load()
    now = UserFile.read(f"{path}:f").sha256
    assert str(caught.value) == (
        f"{path} has changed since the search began (sha256 {file.sha256[:12]}, now {now[:12]}); "
        "put the old text back, or accept the new one with --accept-change."
    )
    path.unlink()
    with pytest.raises(UserFileError, match="cannot be read"):
        file.check_unchanged()


def test_what_is_hashed_is_what_runs(write):
    """Python's own cache of compiled files knows a file by size and second; ours must not run a stale one."""
    path = write("def f(): return 1\n")
    stamp = os.stat(path)
    assert UserFile.read(f"{path}:f").load()() == 1
    write("def f(): return 2\n")
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert UserFile.read(f"{path}:f").load()() == 2
    assert [entry.name for entry in path.parent.iterdir()] == ["mine.py"]


def test_the_stored_text_is_never_run(write):
    path = write("def f(): return 1\n")
    stored = UserFile.read(f"{path}:f").to_json() | {"text": "raise SystemExit"}
    assert UserFile(**stored).load()() == 1


def test_a_syntax_error_is_told_with_its_place_and_leaves_no_module(write):
    path = write("x = 1\ndef f(:\n")
    before = set(sys.modules)
    with pytest.raises(UserFileError) as caught:
        UserFile.read(f"{path}:f").load()
    assert str(caught.value).startswith(f"{path} does not run: SyntaxError in line 2: invalid syntax")
    assert isinstance(caught.value.__cause__, SyntaxError)
    assert not {name for name in set(sys.modules) - before if name.startswith("automl_user")}


def test_what_the_file_raises_is_told_with_its_line_and_told_again_the_next_time(write):
    path = write("import math\n\nmath.sqrt(-1)\n")
    file = UserFile.read(f"{path}:f")
    for _ in range(2):
        with pytest.raises(UserFileError) as caught:
            file.load()
        assert str(caught.value) == f"{path} does not run: ValueError in line 3: math domain error"


def test_leaving_the_program_is_no_fault_of_the_file(write):
    with pytest.raises(SystemExit):
        UserFile.read(f"{write('raise SystemExit(3)')}:f").load()


def test_its_folder_comes_last_on_the_path_and_once(write):
    before = [*sys.path]
    path = write("def f(): pass\ndef g(): pass\n")
    UserFile.read(f"{path}:f").load()
    UserFile.read(f"{path}:g").load()
    assert sys.path == [*before, str(path.parent)]


def test_a_helper_beside_it_can_be_imported(write):
    write("answer = 42\n", "helper_beside_mine.py")
    assert (
        UserFile.read(f"{write('import helper_beside_mine as h' + chr(10) + 'def f(): return h.answer')}:f").load()()
        == 42
    )


@pytest.mark.parametrize("name", ["automl", "queue", "numpy"])
@pytest.mark.parametrize("statement", ["import {}", "def f():\n    from {} import x", "__import__('{}')"])
def test_a_file_beside_it_with_the_name_of_another_module_is_refused(write, name, statement):
    beside = write("x = 1", f"{name}.py")
    path = write(statement.format(name) + "\ndef f(): pass\n")
    told = refusal(f"{path}:f")
    assert told.startswith(f"{path} imports {name!r}, the name of {beside} beside it and of ")
    assert told.endswith(f", which Python finds first; rename {beside}.")
    path.write_text("def f(): return 1\n")  # what nobody imports harms nobody
    assert UserFile.read(f"{path}:f").load()() == 1


def test_a_clash_in_what_lies_beside_it_is_refused_too(write, tmp_path):
    (tmp_path / "optuna").mkdir()
    (tmp_path / "optuna" / "__init__.py").write_text("raise RuntimeError('a stranger')")
    helper = write("import importlib\ndef g(): return importlib.import_module('optuna')\n", "helper_of_mine.py")
    (tmp_path / "__init__.py").write_text("")
    for statement in ("import helper_of_mine", "from . import helper_of_mine", "from .helper_of_mine import g"):
        assert refusal(f"{write('def f():' + chr(10) + '    ' + statement)}:f") == (
            f"{helper} imports 'optuna', the name of {tmp_path / 'optuna'} beside it and of {optuna.__file__}, which "
            f"Python finds first; rename {tmp_path / 'optuna'}."
        )


@pytest.mark.parametrize("name", ["db", "controllers", "search_spaces", "child_trainers"])
def test_the_names_of_our_inner_packages_are_the_user_s(write, name):
    write("n = 7\n", f"{name}.py")
    path = write(f"import {name}\ndef f(): return {name}.n\n")
    file = UserFile.read(f"{path}:f")
    file.check_name()
    assert file.load()() == 7
    del sys.modules[name]


def test_a_file_of_ours_is_no_clash():
    ours = Path(user_modules.__file__).parent.parent / "db" / "owner.py"
    assert UserFile.read(f"{ours}:Owner").load().__name__ == "Owner"


def test_space_and_task_of_one_file_share_a_module(write):
    path = write("seen = []\ndef f(): return seen\ndef g(): return seen\n")
    assert UserFile.read(f"{path}:f").load()() is UserFile.read(f"{path}:g").load()()


def test_dataclasses_and_tracebacks_work_as_in_any_module(write):
    path = write(
        "from __future__ import annotations\nimport dataclasses\n"
        "@dataclasses.dataclass\nclass Spec:\n    n: int\n"
        "def f(): return Spec(2), __file__\n"
        "def g(): raise KeyError\n"
    )
    spec, file = UserFile.read(f"{path}:f").load()()
    assert (spec.n, file) == (2, str(path))
    with pytest.raises(KeyError) as caught:
        UserFile.read(f"{path}:g").load()()
    assert (str(caught.traceback[-1].path), caught.traceback[-1].lineno) == (str(path), 6)


def elsewhere(data):
    """What another process makes of a pickle, where only the path of this one is known."""
    code = "import pickle, sys; sys.path = eval(sys.argv[1]); print(pickle.loads(bytes.fromhex(sys.argv[2])))"
    arguments = [sys.executable, "-c", code, repr(sys.path), data.hex()]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=SECONDS, cwd="/")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_it_is_a_module_of_its_own_name(write):
    path = write(
        "import dataclasses\n@dataclasses.dataclass(frozen=True)\nclass Spec:\n    n: int\n"
        "def f(): return __name__, Spec(3)\n"
    )
    f = UserFile.read(f"{path}:f").load()
    name, spec = f()
    assert name == "mine" == f.__module__ and sys.modules["mine"].f is f
    assert pickle.loads(pickle.dumps(spec)) == spec  # noqa: S301
    assert elsewhere(pickle.dumps(spec)) == "Spec(n=3)"
    assert inspect.getsource(f) == "def f(): return __name__, Spec(3)\n"


def test_relative_imports_of_its_package(write, tmp_path):
    package = tmp_path / "outer_of_mine" / "inner"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").write_text("")
    (package / "__init__.py").write_text("from .space import f\n")
    (package / "parts.py").write_text("from ..more import half\nclass Spec:\n    n = half(4)\n")
    (package.parent / "more.py").write_text("def half(n): return n // 2\n")
    path = package / "space.py"
    path.write_text("from . import parts\ndef f(): return parts.Spec\n")
    f = UserFile.read(f"{path}:f").load()
    assert (f().n, f.__module__) == (2, "outer_of_mine.inner.space")
    assert sys.modules["outer_of_mine.inner"].f is f  # the package's own import had the text that was hashed
    assert elsewhere(pickle.dumps(f())) == "<class 'outer_of_mine.inner.parts.Spec'>"


def test_a_package_that_it_does_not_import_is_not_run(tmp_path):
    (tmp_path / "__init__.py").write_text("raise RuntimeError")
    (tmp_path / "beside_it.py").write_text("n = 5")
    (tmp_path / "space.py").write_text("import beside_it\ndef f(): return beside_it.n\n")
    assert UserFile.read(f"{tmp_path / 'space.py'}:f").load()() == 5


@pytest.mark.parametrize("name", ["automl", "random", "numpy", "pytest"])
def test_a_name_that_means_something_else(write, name):
    path = write("def f(): return __name__\n", f"{name}.py")
    file = UserFile.read(f"{path}:f")
    with pytest.raises(UserFileError) as caught:
        file.check_name()  # of a new search
    assert str(caught.value).startswith(f"{path} is the module {name!r}, and ")
    assert str(caught.value).endswith("so that another process would import it instead; rename the file.")
    before = sys.modules.get(name)
    assert file.load()().startswith("automl_user_")  # a search of an earlier version goes on
    assert sys.modules.get(name) is before


def test_names_that_python_cannot_import_and_others_that_it_can(write):
    for name in ("my.space.py", "__main__.py", "my-space.py", "space.py"):
        file = UserFile.read(f"{write('def f(): return __name__', name)}:f")
        file.check_name()
        assert file.load()().startswith("automl_user_") == (name in ("my.space.py", "__main__.py"))


def test_two_files_of_one_name_each_with_its_own_helper(tmp_path):
    files = []
    for folder in ("one", "other"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "space.py").write_text(
            "def name():\n    import helper_of_two\n    return helper_of_two.name\n"
            "def g():\n    import importlib\n    return name(), importlib.import_module('space').name is name\n"
        )
        (tmp_path / folder / "helper_of_two.py").write_text(f"name = {folder!r}\n")
        files.append(UserFile.read(f"{tmp_path / folder / 'space.py'}:g"))
    functions = [file.load() for file in files]
    for _ in range(2):
        for file, g, folder in zip(files, functions, ("one", "other"), strict=True):
            with file.importing():
                assert g() == (folder, True)
                assert elsewhere(pickle.dumps(g)).startswith("<function g at ")
                assert sys.path.index(str(tmp_path / folder)) < len(sys.path) - 1


def test_a_file_that_is_edited_while_its_search_runs_is_used_as_it_was_loaded(write):
    path = write("def f(): return 1\n", "edited_meanwhile.py")
    file = UserFile.read(f"{path}:f")
    f = file.load()
    path.write_text("def f(): return 2\n")
    with file.importing():
        assert f() == 1
    assert file.uses == set()
    with pytest.raises(UserFileError, match="has changed"):
        file.load()


def test_a_module_that_a_session_has_imported_stays_the_session_s(write, tmp_path, monkeypatch):
    path = write("import sys\nseen = []\ndef f(): return sys.modules[__name__].f\n", "mine_session_callable.py")
    monkeypatch.syspath_prepend(str(tmp_path))
    session = importlib.import_module("mine_session_callable")
    file = UserFile.read(f"{path}:f")
    f = file.load()
    assert sys.modules["mine_session_callable"] is session and f is not session.f
    with file.importing():
        assert f() is f
    assert sys.modules["mine_session_callable"] is session


def test_what_it_draws_when_it_is_run_is_the_same_in_every_process(write):
    import random

    path = write("import random\nn = random.random()\ndef f(): return n\n")
    random.seed(1)
    expected = random.Random(1).random()
    assert UserFile.read(f"{path}:f").load()() == random.Random(0).random()
    assert random.random() == expected
