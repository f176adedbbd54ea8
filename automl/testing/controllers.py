"""The contract of controllers: a suite that pytest runs over a controller and spaces of every kind."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from automl.controller_records import pack_state, unpack_state
from automl.controllers.base import (
    Controller,
    ControllerState,
    Donor,
    DonorChild,
    Draw,
    PendingChild,
    PolicyController,
    Proposal,
    Result,
    ResultState,
)
from automl.db import blobs
from automl.search_spaces.decisions import Choice, Links
from automl.search_spaces.narrowing import Narrowing, parse_rule
from automl.search_spaces.numeric import Integer, Real
from automl.search_spaces.space import Space
from automl.search_spaces.spec import canonical_json

SEED = 7
DRAWS = [Draw(number) for number in range(11)]
RARE = (1, 2, 3, 0, 1, 2)  # one child in 4096 begins like this; the survey of the space `rare` finds none of them
RARE_DRAW = Draw(100, given={f"digit{index}": (token,) for index, token in enumerate(RARE)})


def flat() -> Any:
    return (yield Choice("a", (0, 1))), (yield Choice("b", ("x", "y", "z"))), (yield Choice("only", ("x",)))


def ranges() -> Any:
    return (yield Integer("units", 4, 16, 2, log=True)), (yield Real("rate", 0, 1, 3))


def linked() -> Any:
    layers = []
    for index in range(3):
        layers.append(((yield Choice(f"op{index}", ("p", "q"))), (yield Links(f"inputs{index}", index))))
    return layers


def conditional() -> Any:
    """Its decisions and their number depend on earlier answers."""
    parts = []
    if (yield Choice("family", ("tree", "line"))) == "tree":
        leaves = yield Choice("leaves", (1, 2))
        for index in range(leaves):
            parts.append((yield Choice(f"leaf{index}", (0, 1, 2))))
    else:
        for index in range(3):
            parts.append((yield Links(f"input{index}", index)))
    return parts


def rare() -> Any:
    start = []
    for index in range(6):
        start.append((yield Choice(f"digit{index}", (0, 1, 2, 3))))
    if tuple(start) == RARE:
        start.append((yield Choice("wide", tuple(range(9)))))
        start.append((yield Links("first", 0, kind="inputs")))
        start.append((yield Links("second", 1, kind="inputs")))
    return start


def links_only() -> Any:
    return (yield Links("first", 0, kind="in")), (yield Links("second", 1, kind="in")), (yield Links("other", 0))


def nothing_to_decide() -> Any:
    return 7
    yield  # makes the function a generator


def one_name() -> Any:
    """A name whose options depend on an earlier answer."""
    if (yield Choice("family", ("small", "large"))) == "small":
        return (yield Choice("size", (1, 2, 3)))
    return (yield Choice("size", (100, 200, 300, 400, 500)))


SPACES: Mapping[str, Space] = {
    "flat": Space(flat),
    "ranges": Space(ranges),
    "conditional": Space(conditional),
    "narrowed": Space(linked, Narrowing((parse_rule("op1=q", fix=True), parse_rule("inputs2=0", fix=False)))),
    "scheduled": Space(conditional, schedule=lambda number: {"leaves": 1 + number % 2} if number < 5 else {}),
    "rare": Space(rare),
    "links_only": Space(links_only),
    "one_name": Space(one_name),
}


class ControllerContract:
    """Tests of a controller.

    Subclass it in a pytest file, under a name that begins with `Test`, and override `make`:

        class TestEvolution(ControllerContract):
            def make(self, space, *, seed):
                return Evolution(space, seed=seed)

    Attributes:
        spaces: the spaces that the controller is tested on, by name.
    """

    spaces: ClassVar[Mapping[str, Space]] = SPACES

    def make(self, space: Space, *, seed: int) -> Controller:
        """A fresh controller."""
        raise NotImplementedError("Override make(space, *, seed), which returns a fresh controller.")

    def pytest_generate_tests(self, metafunc: Any) -> None:
        """Runs a test for every space, with a fresh controller and with one that has learned."""
        if "space_name" in metafunc.fixturenames:
            metafunc.parametrize("space_name", list(self.spaces))
        if "stage" in metafunc.fixturenames:
            metafunc.parametrize("stage", ["fresh", "learned"])

    def test_asking_for_nothing_is_refused_in_one_sentence(self) -> None:
        try:
            self.make(Space(flat), seed=SEED).ask([])
        except ValueError as error:
            assert str(error) == "ask needs at least one draw, got none."
        else:
            raise AssertionError("ask([]) must raise ValueError")

    def test_proposals_are_children_of_the_space(self, space_name: str, stage: str) -> None:
        controller = _case(type(self), space_name).at(stage)
        for draw, proposal in zip(DRAWS, controller.ask(DRAWS), strict=True):
            # Under narrowing and a schedule too: a forced token has its value, and a masked option is never drawn.
            walk = self.spaces[space_name].walk(draw.number)
            rest = tuple(json.loads(json.dumps(proposal.tokens)))
            while (decision := walk.decision) is not None:
                tokens, rest = rest[: decision.num_tokens], rest[decision.num_tokens :]
                assert decision.admits(tokens), f"{draw}: {decision.name!r} cannot be {tokens}"
                walk.answer(tokens)
            assert rest == (), f"{draw}: {rest} are left over"
            _check_log_probs(controller, proposal, walk.forced)

    def test_a_draw_is_the_same_whatever_is_drawn_beside_it(self, space_name: str, stage: str) -> None:
        case = _case(type(self), space_name)
        controller = case.at(stage)
        draws = [*DRAWS, Draw(0, attempt=1), RARE_DRAW]
        expected = dict(zip(map(repr, draws), controller.ask(draws), strict=True))
        for some in (draws[::-1], draws[3:4], draws[1:], [*draws[:2], *draws[:2]], [RARE_DRAW, *DRAWS]):
            again = case.restarted(stage)  # a controller that has no draws in a cache
            assert again.ask(some) == [expected[repr(draw)] for draw in some], f"{some} are drawn differently together"
            assert controller.ask(some) == again.ask(some[::-1])[::-1]

    def test_children_in_flight_may_be_shown(self, space_name: str) -> None:
        controller = self.make(self.spaces[space_name], seed=SEED)
        first = controller.ask(DRAWS[:4])
        pending = [PendingChild(draw.number, proposal.tokens) for draw, proposal in zip(DRAWS, first, strict=False)]
        for draw, proposal in zip(DRAWS[4:], controller.ask(DRAWS[4:], pending), strict=True):
            self.spaces[space_name].decode(proposal.tokens)
            _check_log_probs(controller, proposal, _forced(self.spaces[space_name], draw.number, proposal))

    def test_a_space_with_nothing_to_decide_has_one_child(self) -> None:
        controller = self.make(Space(nothing_to_decide), seed=SEED)
        (proposal,) = controller.ask([Draw(0)])
        assert (proposal.tokens, proposal.log_probs) == ((), ())
        controller.tell([Result(0, (), (), 0.5)])
        assert controller.ask([Draw(1)]) == [proposal]

    def test_attempts_differ_and_so_do_the_seeds_of_a_policy(self, space_name: str) -> None:
        controller = _case(type(self), space_name).at("fresh")
        numbers = range(20)
        drawn = _tokens(controller.ask([Draw(number) for number in numbers]))
        assert drawn != _tokens(controller.ask([Draw(number, 1) for number in numbers]))
        if isinstance(controller, PolicyController):
            other = self.make(self.spaces[space_name], seed=SEED + 1)
            assert drawn != _tokens(other.ask([Draw(number) for number in numbers]))

    def test_asking_does_not_learn(self, space_name: str, stage: str) -> None:
        controller = _case(type(self), space_name).at(stage)
        before = bits(controller)
        controller.ask([RARE_DRAW, *DRAWS])
        assert bits(controller) == before

    def test_a_restart_gives_the_same_proposals(self, space_name: str, stage: str) -> None:
        case = _case(type(self), space_name)
        controller, again = case.at(stage), case.restarted(stage)
        assert bits(again) == bits(controller)
        draws = [*DRAWS, RARE_DRAW]
        assert again.ask(draws[::-1])[::-1] == controller.ask(draws)

    def test_a_restart_learns_the_same(self, space_name: str) -> None:
        case = _case(type(self), space_name)
        again = case.restarted("halfway")
        assert learn(again, (2, 3))[0] == case.after

    def test_restoring_forgets_what_came_after(self, space_name: str) -> None:
        case = _case(type(self), space_name)
        if case.halfway is None:
            return  # a resume makes a controller without a state anew
        state = case.learned.state()
        assert state is not None
        kept = packed(state)
        draws = [*DRAWS, RARE_DRAW]
        expected = case.learned.ask(draws)
        try:
            case.load(case.learned, case.halfway, 2)
            state = case.learned.state()
            assert state is not None and packed(state) == case.halfway
            assert case.learned.ask(draws) == case.restarted("halfway").ask(draws)
        finally:
            case.load(case.learned, kept, 4)
        assert case.learned.ask(draws) == expected

    def test_the_probabilities_of_all_children_sum_to_one(self, space_name: str, stage: str) -> None:
        controller = _case(type(self), space_name).at(stage)
        if not isinstance(controller, PolicyController) or space_name == "rare":  # too many children
            return
        for number in (0, 9):  # under the schedule, and after it
            children = list(self.spaces[space_name].enumerate(number))
            proposals = controller.ask([Draw(number, given=walk.answers) for walk in children])
            assert _tokens(proposals) == [walk.tokens for walk in children]
            # float32: each of at most 10 tokens is right to about 1e-7.
            total = math.fsum(math.exp(proposal.log_prob) for proposal in proposals)
            assert math.isclose(total, 1, abs_tol=1e-5), f"they sum to {total}"

    def test_given_answers_are_taken_and_what_depends_on_them_is_drawn(self) -> None:
        controller = self.make(Space(conditional), seed=SEED)
        (tree,) = controller.ask([Draw(0, given={"family": (0,), "leaves": (1,), "leaf1": (2,)})])
        assert (tree.tokens[:2], tree.tokens[3], len(tree.tokens)) == ((0, 1), 2, 4)
        (line,) = controller.ask([Draw(0, given={"family": (1,), "input2": (1, 0), "leaf1": (2,)})])
        assert (line.tokens[0], line.tokens[2:], len(line.tokens)) == (1, (1, 0), 4)

    def test_a_given_answer_that_does_not_fit_is_drawn_instead(self) -> None:
        controller = self.make(SPACES["narrowed"], seed=SEED)
        for given in (
            {"op0": (2,)},  # two options
            {"op0": (-1,)},
            {"op0": ()},
            {"op0": (0, 0)},
            {"op1": (0,)},  # forced to 1
            {"inputs1": (2,)},  # bits
            {"inputs2": (1,)},  # takes two
            {"inputs2": (1, 1)},  # the second is forced to 0
            {"elsewhere": (1,)},
        ):
            assert controller.ask([Draw(0, given=given)]) == controller.ask([Draw(0)]), given

    def test_children_that_were_never_proposed_are_learned_from(self) -> None:
        controller = self.make(SPACES["narrowed"], seed=SEED)
        # A user may propose children outside the narrowing: layer 1 is not q, and layer 2 has the input 1.
        results = [Result(50, (0, 0, 1, 1, 0, 1), (), 0.5), Result(51, (1, 1, 0, 1, 1, 0), (), 0.25)]
        if isinstance(controller, PolicyController):
            log_probs = (None,) * 6, (-0.1,) * 6
            results = [
                Result(50, results[0].tokens, log_probs[0], 0.5),
                Result(51, results[1].tokens, log_probs[1], 0.25),
            ]
        controller.tell(results)
        _check_finite(controller)
        controller.ask(DRAWS)

    def test_lost_children_have_no_weight(self) -> None:
        states = []
        lost = Result(2, (1, 0, 0), (), None, ResultState.LOST, fault="node_lost")
        trained = [Result(0, (0, 2, 0), (), 0.25), Result(1, (1, 2, 0), (), 1.0)]
        for batch in ([*trained, lost], trained):
            controller = self.make(Space(flat), seed=SEED)
            controller.tell(batch)
            states.append(bits(controller))
        assert states[0] == states[1]
        controller.tell([lost])
        assert bits(controller) == states[0]

    def test_a_reward_must_be_finite(self) -> None:
        controller = self.make(Space(flat), seed=SEED)
        before = bits(controller)
        for reward in (math.nan, math.inf, -math.inf):
            try:
                controller.tell([Result(2, (0, 0, 0), (), 1.0), Result(3, (0, 0, 0), (), reward)])
            except ValueError as error:
                assert str(error) == f"Child 3 has reward {reward}; a reward must be finite."
            else:
                raise AssertionError(f"tell must refuse the reward {reward}")
            assert bits(controller) == before

    def test_the_same_donors_give_the_same_search(self, space_name: str) -> None:
        space = self.spaces[space_name]
        if not self.make(space, seed=SEED).accepts_donors:
            return
        walks = [walk for walk in space.survey() if walk.tokens][:12]
        ranks = [1 - (place + 0.5) / len(walks) for place in range(len(walks))]
        children = [DonorChild(walk.tokens, 10 * rank, rank) for walk, rank in zip(walks, ranks, strict=True)]
        donors = [Donor("earlier", tuple(children)), Donor("one child", (DonorChild(walks[-1].tokens, 0.0, 0.5),))]

        def make() -> Controller:
            controller = self.make(space, seed=SEED)
            controller.warm_start(donors)
            return controller

        controller, again = make(), make()
        if controller.state() is not None:  # donors are no part of the state
            assert bits(controller) == bits(self.make(space, seed=SEED))
        for draw, proposal in zip(DRAWS, controller.ask(DRAWS), strict=True):
            _check_log_probs(controller, proposal, _forced(space, draw.number, proposal))
        results = learn(controller, (0, 1))[1]
        state = controller.state()
        if state is None:
            again.replay(results)
        else:
            again.restore(unpacked(packed(state)))
            if again.remembers:
                again.remember(results)
        assert again.ask(DRAWS[::-1])[::-1] == controller.ask(DRAWS)

    def test_no_reward_makes_anything_infinite(self) -> None:
        check_rewards(self.make(Space(conditional), seed=SEED))


def check_rewards(controller: Controller) -> None:
    """Gives equal, huge and tiny rewards to a fresh controller of the space `conditional`."""
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
        stats = controller.tell(
            [
                Result(draw.number, proposal.tokens, proposal.log_probs, first + step * draw.number)
                for draw, proposal in zip(DRAWS, proposals, strict=True)
            ]
        )
        canonical_json(stats)  # refuses NaN
        _check_finite(controller)
    assert all(math.isfinite(proposal.log_prob) for proposal in controller.ask(DRAWS))


class _Case:
    """A controller on one space, once fresh and once after four steps of learning, and its state after the second."""

    def __init__(self, contract: ControllerContract, space: Space) -> None:
        self._contract, self._space = contract, space
        self.fresh, self.learned = self._make(), self._make()
        self.results: list[Sequence[Result]] = learn(self.learned, (0, 1))[1]
        state = self.learned.state()
        self.halfway = None if state is None else packed(state)
        self.after, results = learn(self.learned, (2, 3))
        self.results += results

    def _make(self) -> Controller:
        return self._contract.make(self._space, seed=SEED)

    def at(self, stage: str) -> Controller:
        return {"fresh": self.fresh, "learned": self.learned}[stage]

    def restarted(self, stage: str) -> Controller:
        """A new controller as a resume makes it: from the state at this stage, or from the results until then."""
        again = self._make()
        num_batches = {"fresh": 0, "halfway": 2, "learned": 4}[stage]
        if self.halfway is None:
            again.replay(self.results[:num_batches])
        elif stage == "halfway":
            self.load(again, self.halfway, num_batches)
        else:
            state = self.at(stage).state()
            assert state is not None
            self.load(again, packed(state), num_batches)
        return again

    def load(self, controller: Controller, state: bytes, num_batches: int) -> None:
        """Restores a state that was made after so many batches, as a resume does."""
        controller.restore(unpacked(state))
        if controller.remembers:
            controller.remember(self.results[:num_batches])


_cases: dict[
    tuple[type[ControllerContract], str], _Case
] = {}  # shared by the tests, since the first step of learning may take seconds


def _case(contract: type[ControllerContract], space_name: str) -> _Case:
    key = contract, space_name
    if key not in _cases:
        _cases[key] = _Case(contract(), contract.spaces[space_name])
    return _cases[key]


def learn(controller: Controller, steps: Sequence[int]) -> tuple[list[Any], list[Sequence[Result]]]:
    """Lets the controller draw and learn, from the third step on also a rare child, if the space has one.

    Returns:
        for each step, the proposals, the statistics from `tell` and the controller's state as `bits`; and for each
        step, the results that the controller received.
    """
    seen: list[Any] = []
    received: list[Sequence[Result]] = []
    for step in steps:
        draws = [Draw(number) for number in range(4 * step, 4 * step + 4)]
        draws += [RARE_DRAW] if step >= 2 else []  # in other spaces its answers fit no decision
        proposals = controller.ask(draws)
        results = [
            # the reward is the share of tokens that are 1
            Result(draw.number, proposal.tokens, proposal.log_probs, _share_of_ones(proposal.tokens))
            for draw, proposal in zip(draws, proposals, strict=True)
        ]
        stats = json.loads(json.dumps(controller.tell(results), allow_nan=False))
        seen.append((proposals, stats, bits(controller)))
        received.append(results)
    return seen, received


def _share_of_ones(tokens: Sequence[int]) -> float:
    return float(np.mean([token == 1 for token in tokens]))


def packed(state: ControllerState) -> bytes:
    """A state in the form in which it is stored."""
    return pack_state(state)


def unpacked(blob: bytes) -> ControllerState:
    return unpack_state(blob, blobs.sha256(blob))


def bits(controller: Controller) -> Any:
    """A controller's state, for comparison bit for bit; its draws, if it has no state."""
    state = controller.state()
    if state is None:
        return controller.ask(DRAWS)
    arrays = {name: np.asarray(array) for name, array in state.arrays.items()}
    of_arrays = {name: (array.dtype, array.shape, array.tobytes()) for name, array in arrays.items()}
    return of_arrays, canonical_json(state.values)


def _check_log_probs(controller: Controller, proposal: Proposal, forced: Sequence[int | None]) -> None:
    if not isinstance(controller, PolicyController):
        assert proposal.log_probs == (), "only a PolicyController has log-probabilities"
        return
    assert [log_prob is None for log_prob in proposal.log_probs] == [token is not None for token in forced]
    assert all(log_prob <= 0 for log_prob in proposal.log_probs if log_prob is not None)
    assert proposal.log_prob == sum(log_prob or 0.0 for log_prob in proposal.log_probs)


def _forced(space: Space, number: int, proposal: Proposal) -> tuple[int | None, ...]:
    walk, rest = space.walk(number), proposal.tokens
    while (decision := walk.decision) is not None:
        walk.answer(rest[: decision.num_tokens])
        rest = rest[decision.num_tokens :]
    return walk.forced


def _check_finite(controller: Controller) -> None:
    state = controller.state()
    if state is not None:
        canonical_json(state.values)
        for name, array in state.arrays.items():
            assert np.isfinite(array).all(), f"{name} is not finite"


def _tokens(proposals: Sequence[Proposal]) -> list[tuple[int, ...]]:
    return [proposal.tokens for proposal in proposals]
