"""The contract suite over a user's controllers, one with a state and one without. It notices broken controllers."""

import re
from pathlib import Path

import pytest
from own_controllers import Climber, Evolution

from automl.controllers.base import Proposal
from automl.controllers.random_search import RandomSearch
from automl.search_spaces.space import Space
from automl.testing.controllers import ControllerContract, flat

OF_README: dict = {}
README = (Path(__file__).parents[2] / "README.md").read_text()
exec(re.search(r"```python\n(# evolution\.py\nfrom automl\.controllers.*?)```", README, re.DOTALL)[1], OF_README)


class TestEvolution(ControllerContract):
    def make(self, space, *, seed):
        return Evolution(space, seed=seed)


class TestClimber(ControllerContract):
    def make(self, space, *, seed):
        return Climber(space, seed=seed)


class TestReadme(ControllerContract):
    """The controller of the README."""

    def make(self, space, *, seed):
        return OF_README["Evolution"](space, seed=seed)


class Counts(RandomSearch):
    """Draws other children at each call."""

    asked = 0

    def propose(self, draws, pending):
        self.asked += 1
        numbers = [type(draw)(draw.number + self.asked, draw.attempt, draw.given) for draw in draws]
        return super().propose(numbers, pending)


class Overconfident(RandomSearch):
    def propose(self, draws, pending):
        proposals = super().propose(draws, pending)
        doubled = [tuple(value and value / 2 for value in one.log_probs) for one in proposals]
        return [Proposal(one.tokens, log_probs) for one, log_probs in zip(proposals, doubled, strict=True)]


class Narrow(RandomSearch):
    """Ignores given answers and the narrowing."""

    def propose(self, draws, pending):
        return Space(self.space.function) and [
            RandomSearch(Space(self.space.function), seed=self.seed).ask([type(draw)(draw.number, draw.attempt)])[0]
            for draw in draws
        ]


@pytest.mark.parametrize(
    ("kind", "test", "arguments"),
    [
        (Counts, "test_a_draw_is_the_same_whatever_is_drawn_beside_it", ("flat", "fresh")),
        (Overconfident, "test_the_probabilities_of_all_children_sum_to_one", ("flat", "fresh")),
        (Narrow, "test_proposals_are_children_of_the_space", ("narrowed", "fresh")),
        (Narrow, "test_given_answers_are_taken_and_what_depends_on_them_is_drawn", ()),
    ],
)
def test_the_suite_notices_a_broken_contract(kind, test, arguments):
    class Contract(ControllerContract):
        def make(self, space, *, seed):
            return kind(space, seed=seed)

    with pytest.raises(AssertionError):
        getattr(Contract(), test)(*arguments)


def test_the_options_of_a_controller_are_its_keyword_arguments():
    assert Evolution.options() == ("parents",)
    assert Climber.options() == RandomSearch.options() == ()


def test_a_controller_without_a_state_says_so():
    controller = Evolution(Space(flat), seed=0)
    assert controller.state() is None
    with pytest.raises(NotImplementedError, match="Evolution has a state but no method restore"):
        controller.restore(None)
