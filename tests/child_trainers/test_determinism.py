"""Spaces that are not the same every time are found, wherever the search is started from."""

import pytest

from child_trainers.determinism import checking_determinism
from child_trainers.user_files import UserFile
from search_spaces.recorded import UnstableSpaceError
from search_spaces.space import Space

OF_A_SET = """
from automl import Choice

def space():
    return (yield Choice("word", tuple({"one", "two"})))
"""


def test_modules_in_the_current_folder_are_not_taken_for_those_of_python(tmp_path, monkeypatch):
    here = tmp_path / "here"
    here.mkdir()
    (here / "json.py").write_text("raise SystemExit(3)\n")
    (tmp_path / "of_a_set.py").write_text(OF_A_SET)
    monkeypatch.chdir(here)
    file = UserFile.read(f"{tmp_path / 'of_a_set.py'}:space")
    with pytest.raises(UnstableSpaceError, match="'word'"), checking_determinism(Space(file.load()), file, {}):
        pass
