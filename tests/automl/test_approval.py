"""Which files `resume` may run: those that the user has run on this machine."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from command_line import MINE, OURS

from automl import approval
from automl.approval import approve, check_approved
from automl.child_trainers.user_files import UserFile, UserFileError

INLINE = ("--workers", "0")


def approvals() -> Path:
    return Path(os.environ["XDG_CONFIG_HOME"]) / "automl" / "approved.json"


def approved(file):
    try:
        check_approved(file, name="mine", flag="--space")
    except UserFileError:
        return False
    return True


@pytest.fixture
def file(mine):
    return UserFile.read("mine.py:space")


def test_a_file_is_approved_by_path_and_text(file, mine, folder):
    assert not approved(file)
    approve(file)
    assert approved(file)
    mine.write_text(MINE + "\n")
    assert not approved(UserFile.read("mine.py:space"))
    copy = folder / "copy.py"
    copy.write_text(MINE)
    assert not approved(UserFile.read("copy.py:space"))
    # The attribute is not part of the approval: a file is run as a whole.
    assert approved(UserFile(file.path, "evaluate", file.sha256, ""))


def test_the_list_grows_and_names_nothing_twice(file, folder):
    other = folder / "other.py"
    other.write_text("x = 1\n")
    for one in (file, UserFile.read("other.py:x"), file):
        approve(one)
    assert len(json.loads(approvals().read_text())) == 2
    assert [path.name for path in approvals().parent.iterdir()] == ["approved.json"]


def test_a_folder_that_cannot_be_written_is_no_error(file, tmp_path):
    in_the_way = tmp_path / "a file"
    in_the_way.write_text("")
    os.environ["XDG_CONFIG_HOME"] = str(in_the_way)
    approve(file)
    assert not approved(file)


@pytest.mark.parametrize("content", ["", "not JSON", "{}", '"text"', "[1, 2]", "\ud800"])
def test_a_damaged_list_approves_nothing_and_is_written_anew(file, content):
    approvals().parent.mkdir(parents=True)
    approvals().write_bytes(content.encode("utf-8", "surrogatepass"))
    assert not approved(file)
    approve(file)
    assert approved(file)


def test_starting_a_search_approves_its_files(automl, mine):
    assert automl("search", "mine", *OURS, "--children", "1", *INLINE).code == 0
    assert automl("resume", "mine", "--children", "2").code == 0


def test_naming_the_files_approves_them_on_another_machine(automl, mine, tmp_path):
    assert automl("search", "mine", *OURS, "--children", "1", *INLINE).code == 0
    os.environ["XDG_CONFIG_HOME"] = str(tmp_path / "another machine")
    assert "--space" in automl("resume", "mine", "--children", "2").error
    named = ("--space", "mine.py:space", "--task", "mine.py:evaluate")
    assert automl("resume", "mine", "--children", "2", *named).code == 0
    assert automl("resume", "mine", "--children", "3").code == 0


def test_a_search_whose_config_folder_cannot_be_written_still_runs(automl, mine, tmp_path):
    in_the_way = tmp_path / "a file"
    in_the_way.write_text("")
    os.environ["XDG_CONFIG_HOME"] = str(in_the_way)
    assert automl("search", "mine", *OURS, "--children", "1", *INLINE).code == 0
    assert "was not started or approved by you" in automl("resume", "mine", "--children", "2").error


def test_a_change_is_accepted_and_recorded(automl, mine):
    assert automl("search", "mine", *OURS, "--children", "2", *INLINE).code == 0
    mine.write_text(MINE + "\n# better now\n")
    assert automl("resume", "mine", "--children", "3", "--accept-change").code == 0
    shown = automl("show", "mine", "--json").json
    changes = shown["segments"][1]["changes"]
    assert set(changes) == {"space.file", "task.file"}
    assert shown["settings"]["space"]["file"]["sha256"] == changes["space.file"]["sha256"]
    assert automl("resume", "mine", "--children", "4").code == 0  # from now on this is the search's file


def test_a_change_that_makes_other_children_of_the_tokens_is_refused(automl, mine):
    assert automl("search", "mine", *OURS, "--children", "2", *INLINE).code == 0
    before = automl("show", "mine", "--json").json
    mine.write_text(MINE.replace("range(5)", "range(4)"))
    assert automl("resume", "mine", "--children", "3", "--accept-change").error == (
        "The changed file makes another child from the tokens of child 0: the decision 'digit4' is no longer there; "
        "the change cannot be accepted. Start a new search with it."
    )
    after = automl("show", "mine", "--json").json
    assert after["settings"] == before["settings"] and len(after["segments"]) == 1
    mine.write_text(MINE)
    assert automl("resume", "mine", "--children", "3").code == 0


def test_a_file_that_has_moved(automl, mine, folder):
    assert automl("search", "mine", *OURS, "--children", "2", *INLINE).code == 0
    (folder / "new").mkdir()
    mine.rename(folder / "new" / "mine.py")
    named = ("--space", "new/mine.py:space", "--task", "new/mine.py:evaluate")
    assert automl("resume", "mine", "--children", "3", *named).code == 0
    assert automl("resume", "mine", "--children", "4").code == 0


def test_a_search_without_user_files_accepts_none(automl, digits, mine, folder):
    path, _ = digits
    (folder / "automl.db").write_bytes(path.read_bytes())
    assert automl("resume", "digits", "--children", "9", "--space", "mine.py:space").error == (
        "The search 'digits' uses no file of yours as its space; drop --space."
    )


def test_two_processes_that_approve_at_once_keep_both_entries(monkeypatch):
    """The other process approves between this one's check and its write."""
    first, second = (UserFile(f"/{name}.py", "space", name * 64, "") for name in "ab")
    look, looks = approval._entries, []

    def entries():
        looks.append(None)
        found = look()
        if len(looks) == 1:
            approve(second)
        return found

    monkeypatch.setattr(approval, "_entries", entries)
    approve(first)
    monkeypatch.undo()
    for file in (first, second):
        approval.check_approved(file, name="mine", flag="--space")
