"""Spaces that are not the same every time are found, wherever the search is started from."""

import os
import subprocess
import sys

import pytest

from automl.child_trainers.determinism import checking_determinism
from automl.child_trainers.user_files import UserFile
from automl.child_trainers.workers.process import ROOT
from automl.search_spaces.recorded import UnstableSpaceError
from automl.search_spaces.space import Space

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


@pytest.mark.parametrize("hash_seed", [0, 9, 14, 20, 24])
def test_a_list_made_from_a_set_is_recognized(hash_seed):
    """Under most of these hash seeds two of the words collide: then the order of a set depends on how it was made."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from automl.child_trainers.set_order import may_be_from_set\n"
        "found = list({'few', 'many', 'more'})\n"
        "print(may_be_from_set(found), may_be_from_set([{'a': 1}, {'b': 2}]))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": str(hash_seed)}
    command = [sys.executable, "-P", "-c", code, ROOT]
    told = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    assert told == "True False\n"
