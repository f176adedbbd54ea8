"""What every controller promises, over all that the program knows and over spaces of every sort."""

import functools
import io
import json
import math
import pathlib
import pkgutil
import subprocess
import sys

import numpy as np
import pytest

from automl import controllers
from automl.controllers.base import ControllerState, Draw, Result
from automl.controllers.reinforce import sampling
from automl.search_spaces.decisions import Choice, Links
from automl.search_spaces.narrowing import Narrowing, parse_rule
from automl.search_spaces.space import Space
from automl.search_spaces.walk import canonical_json

SEED = 7
DRAWS = [Draw(number) for number in range(11)]  # more than are drawn together


def flat():
    return (yield Choice("a", (0, 1))), (yield Choice("b", ("x", "y", "z"))), (yield Choice("only", ("x",)))


def linked():
    layers = []
    for index in range(3):
        layers.append(((yield Choice(f"op{index}", ("p", "q"))), (yield Links(f"inputs{index}", index))))
    return layers


def conditional():
    """Which decisions there are, and how many, hangs on earlier answers."""
    parts = []
    if (yield Choice("family", ("tree", "line"))) == "tree":
        leaves = yield Choice("leaves", (1, 2))
        for index in range(leaves):
            parts.append((yield Choice(f"leaf{index}", (0, 1, 2))))
    else:
        for index in range(3):
            parts.append((yield Links(f"input{index}", index)))
    return parts


RARE = (1, 2, 3, 0, 1, 2)  # one child in 4096 begins like this, and the survey meets none


def rare():
    start = []
    for index in range(6):
        start.append((yield Choice(f"digit{index}", (0, 1, 2, 3))))
    if tuple(start) == RARE:
        start.append((yield Choice("wide", tuple(range(9)))))
        start.append((yield Links("first", 0, kind="inputs")))
        start.append((yield Links("second", 1, kind="inputs")))
    return start


def links_only():
    return (yield Links("first", 0, kind="in")), (yield Links("second", 1, kind="in")), (yield Links("other", 0))


def nothing_to_decide():
    return 7
    yield  # which makes it a generator


NARROWING = Narrowing((parse_rule("op1=q", fix=True), parse_rule("inputs2=0", fix=False)))
SPACES = {
    "flat": Space(flat),
    "conditional": Space(conditional),
    "narrowed": Space(linked, NARROWING),
    "scheduled": Space(conditional, schedule=lambda number: {"leaves": 1 + number % 2} if number < 5 else {}),
    "rare": Space(rare),
    "links_only": Space(links_only),
}
RARE_DRAW = Draw(100, given={f"digit{index}": (token,) for index, token in enumerate(RARE)})


def make(controller, space, **arguments):
    kind = pkgutil.resolve_name(controllers.CONTROLLERS[controller])
    return kind(SPACES[space], **{"seed": SEED, **arguments})


def packed(state):
    """A state as it lies in a store: an npz file, and JSON."""
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **state.arrays)
    return file.getvalue(), json.dumps(state.values, allow_nan=False)


def unpacked(pack):
    with np.load(io.BytesIO(pack[0]), allow_pickle=False) as file:
        return ControllerState(dict(file), json.loads(pack[1]))


def bits(state):
    """All of a state, for comparing bit for bit."""
    arrays = {name: np.asarray(array) for name, array in state.arrays.items()}
    return {name: (array.dtype, array.shape, array.tobytes()) for name, array in arrays.items()}, canonical_json(
        state.values
    )


def results(numbers, proposals):
    """Children whose reward is the share of their tokens that are 1."""
    return [
        Result(number, proposal.tokens, proposal.log_probs, float(np.mean([token == 1 for token in proposal.tokens])))
        for number, proposal in zip(numbers, proposals, strict=True)
    ]


def learn(controller, steps):
    """Draws and learns; after the second step of the space that has one, also from a rare child."""
    told = []
    for step in steps:
        draws = [Draw(number) for number in range(4 * step, 4 * step + 4)]
        draws += [RARE_DRAW] if step >= 2 else []  # elsewhere its answers fit no decision
        proposals = controller.ask(draws)
        figures = controller.tell(results([draw.number for draw in draws], proposals))
        told.append((proposals, json.loads(json.dumps(figures, allow_nan=False)), bits(controller.state())))
    return told


@functools.cache  # learning in TensorFlow begins with a second of tracing
def case_of(name, space):
    return Case(name, space)


class Case:
    """One controller on one space: fresh, and after four steps of learning with its state after the second."""

    def __init__(self, controller, space):
        self.names = controller, space
        self.space = SPACES[space]
        self.fresh = make(controller, space)
        self.learned = make(controller, space)
        self.before = learn(self.learned, (0, 1))
        self.halfway = packed(self.learned.state())
        self.after = learn(self.learned, (2, 3))


@pytest.fixture(scope="module", params=SPACES)
def space_name(request):
    return request.param


@pytest.fixture(scope="module", params=controllers.CONTROLLERS)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def case(name, space_name):
    return case_of(name, space_name)


@pytest.fixture(scope="module", params=["fresh", "learned"])
def controller(request, case):
    return getattr(case, request.param)


def test_every_controller_has_presets():
    assert controllers.PRESETS.keys() == controllers.CONTROLLERS.keys()
    for presets in controllers.PRESETS.values():
        assert next(iter(pkgutil.resolve_name(presets))) == "default"


def test_the_survey_does_not_meet_the_rare_kind():
    assert not any("wide" in walk.answers for walk in SPACES["rare"].survey())


def test_what_cannot_be_asked_is_said_in_one_sentence(name):
    with pytest.raises(ValueError, match=r"^ask needs at least one draw, got none\.$"):
        make(name, "flat").ask([])


def test_proposals_are_children_of_the_space(case, controller):
    for draw, proposal in zip(DRAWS, controller.ask(DRAWS), strict=True):
        case.space.decode(json.loads(json.dumps(proposal.tokens)))
        # Under narrowing and schedule too: nothing forced has another value, and nothing masked is drawn.
        walk = case.space.walk(draw.number)
        rest = proposal.tokens
        forced = []
        while (decision := walk.decision) is not None:
            tokens, rest = rest[: decision.num_tokens], rest[decision.num_tokens :]
            assert all(must in (None, token) for must, token in zip(decision.forced, tokens, strict=True))
            assert not isinstance(decision, Choice) or decision.allows(tokens[0])
            forced += decision.forced
            walk.answer(tokens)
        assert rest == ()

        assert [log_prob is None for log_prob in proposal.log_probs] == [token is not None for token in forced]
        assert all(log_prob <= 0 for log_prob in proposal.log_probs if log_prob is not None)
        assert proposal.log_prob == sum(log_prob or 0.0 for log_prob in proposal.log_probs)


def test_a_draw_is_the_same_whatever_is_drawn_beside_it(case, controller):
    draws = [*DRAWS, Draw(0, attempt=1), RARE_DRAW]
    expected = dict(zip(map(repr, draws), controller.ask(draws), strict=True))
    for some in (draws[::-1], draws[3:4], draws[1:], [*draws[:2], *draws[:2]], [RARE_DRAW, *DRAWS]):
        again = make(*case.names)  # one that remembers no draw
        again.restore(controller.state())
        assert again.ask(some) == [expected[repr(draw)] for draw in some]
        assert controller.ask(some) == again.ask(some[::-1])[::-1]


def test_a_space_with_nothing_to_decide_has_one_child(name):
    controller = pkgutil.resolve_name(controllers.CONTROLLERS[name])(Space(nothing_to_decide), seed=SEED)
    (proposal,) = controller.ask([Draw(0)])
    assert (proposal.tokens, proposal.log_probs) == ((), ())
    controller.tell([Result(0, (), (), 0.5)])
    assert controller.ask([Draw(1)]) == [proposal]


@pytest.mark.parametrize("most", [0, 5])
def test_a_draw_is_the_same_however_little_is_remembered(monkeypatch, most):
    case = case_of("reinforce", "conditional")
    draws = [*DRAWS, *(Draw(number, attempt=1) for number in range(9))]
    expected = case.learned.ask(draws)
    monkeypatch.setattr(sampling, "MOST_STEPS", most)
    again = make(*case.names)
    again.restore(case.learned.state())
    assert again.ask(draws) == expected == again.ask(draws)


def test_attempts_and_seeds_differ(case):
    numbers = range(20)
    drawn = [proposal.tokens for proposal in case.fresh.ask([Draw(number) for number in numbers])]
    assert drawn != [proposal.tokens for proposal in case.fresh.ask([Draw(number, 1) for number in numbers])]
    other = make(*case.names, seed=SEED + 1)
    assert drawn != [proposal.tokens for proposal in other.ask([Draw(number) for number in numbers])]


def test_asking_does_not_learn(controller):
    before = bits(controller.state())
    controller.ask([RARE_DRAW, *DRAWS])
    assert bits(controller.state()) == before


def test_a_restart_gives_the_same_proposals(case, controller):
    again = make(*case.names)
    again.restore(unpacked(packed(controller.state())))
    assert bits(again.state()) == bits(controller.state())
    draws = [*DRAWS, RARE_DRAW]
    assert again.ask(draws[::-1])[::-1] == controller.ask(draws)


def test_a_restart_learns_the_same(case):
    again = make(*case.names)
    again.restore(unpacked(case.halfway))
    assert learn(again, (2, 3)) == case.after


def test_restoring_forgets_what_came_after(case):
    # Also how far the tables had grown.
    kept = packed(case.learned.state())
    draws = [*DRAWS, RARE_DRAW]
    expected = case.learned.ask(draws)
    case.learned.restore(unpacked(case.halfway))
    assert packed(case.learned.state()) == case.halfway
    again = make(*case.names)
    again.restore(unpacked(case.halfway))
    assert case.learned.ask(draws) == again.ask(draws)
    case.learned.restore(unpacked(kept))
    assert case.learned.ask(draws) == expected


def test_the_probabilities_of_all_children_sum_to_one(case, controller):
    if case.names[1] == "rare":
        pytest.skip("too many children")
    for number in (0, 9):  # under the schedule, and after it
        children = list(case.space.enumerate(number))
        proposals = controller.ask([Draw(number, given=walk.answers) for walk in children])
        assert [proposal.tokens for proposal in proposals] == [walk.tokens for walk in children]
        # float32: each of at most 10 tokens is right to about 1e-7.
        assert math.fsum(math.exp(proposal.log_prob) for proposal in proposals) == pytest.approx(1, abs=1e-5)


def test_given_answers_are_taken_and_what_depends_on_them_is_drawn(name):
    controller = make(name, "conditional")
    (tree,) = controller.ask([Draw(0, given={"family": (0,), "leaves": (1,), "leaf1": (2,)})])
    assert (tree.tokens[:2], tree.tokens[3], len(tree.tokens)) == ((0, 1), 2, 4)
    (line,) = controller.ask([Draw(0, given={"family": (1,), "input2": (1, 0), "leaf1": (2,)})])
    assert (line.tokens[0], line.tokens[2:], len(line.tokens)) == (1, (1, 0), 4)


@pytest.mark.parametrize(
    "given",
    [
        {"op0": (2,)},  # two options
        {"op0": (-1,)},
        {"op0": ()},
        {"op0": (0, 0)},
        {"op1": (0,)},  # forced to 1
        {"inputs1": (2,)},  # bits
        {"inputs2": (1,)},  # takes two
        {"inputs2": (1, 1)},  # the second is forced to 0
        {"elsewhere": (1,)},
    ],
    ids=str,
)
def test_a_given_answer_that_does_not_fit_is_drawn_instead(name, given):
    controller = make(name, "narrowed")
    assert controller.ask([Draw(0, given=given)]) == controller.ask([Draw(0)])


def test_children_that_were_never_proposed_are_learned_from(name):
    controller = make(name, "narrowed")
    # As a person may queue them, against the narrowing too: layer 1 is no q, and layer 2 has the input 1.
    controller.tell(
        [Result(50, (0, 0, 1, 1, 0, 1), (None,) * 6, 0.5), Result(51, (1, 1, 0, 1, 1, 0), (-0.1,) * 6, 0.25)]
    )
    assert all(np.isfinite(array).all() for array in controller.state().arrays.values())
    controller.ask(DRAWS)


def test_lost_children_have_no_weight(name):
    states = []
    lost = Result(2, (1, 0, 0), (-0.1, -0.1, None), None)
    told = [Result(0, (0, 2, 0), (-0.1, -0.1, None), 0.25), Result(1, (1, 2, 0), (-0.1, -0.1, None), 1.0)]
    for batch in ([*told, lost], told):
        controller = make(name, "flat")
        controller.tell(batch)
        states.append(bits(controller.state()))
    assert states[0] == states[1]
    assert controller.tell([lost]) == {}
    assert bits(controller.state()) == states[0]


@pytest.mark.parametrize("reward", [math.nan, math.inf, -math.inf])
def test_a_reward_must_be_finite(name, reward):
    controller = make(name, "flat")
    before = bits(controller.state())
    with pytest.raises(ValueError, match=rf"^Child 3 has reward {reward}; a reward must be finite\.$"):
        controller.tell([Result(2, (0, 0, 0), (), 1.0), Result(3, (0, 0, 0), (), reward)])
    assert bits(controller.state()) == before


PRESETS = [(name, preset) for name, presets in controllers.PRESETS.items() for preset in pkgutil.resolve_name(presets)]


@pytest.mark.parametrize(("name", "preset"), PRESETS)
def test_no_reward_makes_anything_infinite(name, preset):
    settings = pkgutil.resolve_name(controllers.PRESETS[name])[preset]
    controller = make(name, "conditional", **settings)
    for first, step in (
        (0.0, 0.0),
        (0.5, 0.0),
        (1e30, 0.0),
        (-1e30, 0.0),
        (-1e30, 1e30),
        (0.0, 1e-30),
        (1e300, -1e299),
    ):
        proposals = controller.ask(DRAWS)
        figures = controller.tell(
            [
                Result(draw.number, proposal.tokens, proposal.log_probs, first + step * draw.number)
                for draw, proposal in zip(DRAWS, proposals, strict=True)
            ]
        )
        state = controller.state()
        canonical_json(figures), canonical_json(state.values)  # neither has a NaN
        assert all(np.isfinite(array).all() for array in state.arrays.values())
    assert all(math.isfinite(proposal.log_prob) for proposal in controller.ask(DRAWS))


def drawn_everywhere():
    """Proposals of every controller on every space, as JSON."""
    return json.dumps(
        {
            f"{name} {space}": [
                [proposal.tokens, proposal.log_probs] for proposal in make(name, space).ask([*DRAWS, RARE_DRAW])
            ]
            for name in controllers.CONTROLLERS
            for space in SPACES
        }
    )


def test_another_process_draws_the_same():
    here = pathlib.Path(__file__)
    program = f"import {here.stem}; print({here.stem}.drawn_everywhere())"
    # The path of this process, so that it finds what this one found.
    paths = f"import sys; sys.path[:] = {[str(here.parent), *sys.path]!r}; "
    done = subprocess.run([sys.executable, "-c", paths + program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == drawn_everywhere()
