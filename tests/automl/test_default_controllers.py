"""The default presets of the policies: new searches have a reward model, searches of 0.1.0 keep the policy alone."""

import dataclasses

import pytest

from automl.child_trainers.behaviour import Behaviour, earlier_behaviours
from automl.child_trainers.experiment import Experiment
from automl.child_trainers.function_task import FunctionTask
from automl.preparation import make_controller
from automl.search_spaces.decisions import Choice
from automl.search_spaces.space import Space

EARLIER = {}
NEWEST = dataclasses.asdict(Behaviour())


def space():
    for index in range(3):
        yield Choice(f"digit{index}", (0, 1, 2))


def made(name, preset, behaviour, **options):
    chosen = {"name": name, "preset": preset, "options": options, "file": None}
    experiment = Experiment(Space(space), FunctionTask(lambda spec: 0.0))
    return make_controller({"controller": chosen, "behaviour": behaviour}, experiment, seed=0).settings


@pytest.mark.parametrize("name", ["reinforce", "ppo"])
@pytest.mark.parametrize(
    ("preset", "behaviour", "candidates", "heads"),
    [
        (None, NEWEST, 64, "decision"),
        ("default", NEWEST, 64, "decision"),
        (None, EARLIER, 0, "kind"),
        ("default", EARLIER, 0, "kind"),
        ("plain", NEWEST, 0, "kind"),
        ("paper", NEWEST, 0, "kind"),
        ("paper", EARLIER, 0, "kind"),
    ],
)
def test_the_presets_with_a_reward_model(name, preset, behaviour, candidates, heads):
    settings = made(name, preset, behaviour)
    assert (settings.candidates, settings.heads) == (candidates, heads)


def test_a_search_that_keeps_the_earlier_default_takes_options_as_before():
    assert made("ppo", None, EARLIER, entropy=0.1) == dataclasses.replace(made("ppo", "plain", NEWEST), entropy=0.1)


def test_the_earlier_default_is_named_for_policies_alone():
    def phrases(controller):
        parts = {"space": "convnet", "task": "digits", "controller": controller}
        settings = {part: {"name": name, "file": None} for part, name in parts.items()}
        return earlier_behaviours(settings | {"behaviour": NEWEST | {"controller_default": 1}})

    assert phrases("ppo") == phrases("reinforce") == ["a policy without a reward model by default"]
    assert phrases("random") == []
