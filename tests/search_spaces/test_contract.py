"""The contract suite over all spaces of the program and all their presets."""

import functools
import json
import pkgutil

import pytest

from automl import search_spaces
from automl.testing.spaces import SpaceContract

MEMBERS = [
    (name, preset) for name in search_spaces.SPACES for preset in pkgutil.resolve_name(search_spaces.PRESETS[name])
]
OF_DATA = {
    "table-row": {
        "columns": [["layer0", [0, 1, 2]], ["layer1", [0, 1, 2]], ["act", ["relu", "tanh"]]],
        "ordered": ["layer1"],
    }
}


def test_every_space_has_presets():
    assert search_spaces.PRESETS.keys() == search_spaces.SPACES.keys()
    assert {name for name, _ in MEMBERS} == search_spaces.SPACES.keys()


class TestBuiltIn(SpaceContract):
    @pytest.fixture(autouse=True, params=MEMBERS, ids="-".join)
    def member(self, request):
        name, preset = request.param
        # Through JSON, since settings come from a command line and are stored.
        of_preset = pkgutil.resolve_name(search_spaces.PRESETS[name])[preset]
        settings = json.loads(json.dumps(of_preset | OF_DATA.get(name, {})))
        self.function = functools.partial(pkgutil.resolve_name(search_spaces.SPACES[name]), **settings)

    def make(self):
        return self.function
