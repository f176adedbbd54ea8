import os
import sys

import pytest

from child_trainers.user_files import UserFile, UserFileError


@pytest.fixture(autouse=True)
def clean_imports(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
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
    assert refusal(path) == f"{path} names no attribute; write {path}:NAME, with the function's name."


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


def test_its_own_db_does_not_become_ours(write, tmp_path):
    (tmp_path / "db").mkdir()
    (tmp_path / "db" / "__init__.py").write_text("raise RuntimeError('a stranger')")
    path = write("import db.records\ndef f(): return db.records.State.READY\n")
    assert UserFile.read(f"{path}:f").load()() == "ready"


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
