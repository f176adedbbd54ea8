"""Milliseconds that a controller costs per child.

    python benchmarks/controller_cost.py [--controller reinforce] [--preset plain] [--space convnet] [--known 0]

The space `convnet` is the largest, with 20 layers, strides and skips; the others are landscapes, of which `forty` has
40 decisions of four options. The cost of a child is its share of drawing a batch of 8 (one child at a time where the
controller is sequential), of learning from it, and of packing the state that is stored. Tracing and compiling, in the
first two batches, are reported separately. Beside the wall time, `processor` is the processor time of the process, all
threads together. With `--known 100,1000,20000`, the controller first knows so many children, as after a resume.
"""

import argparse
import dataclasses
import os
import pkgutil
import statistics
import time
from collections.abc import Iterator

import numpy as np

from automl.child_trainers.devices import environment
from automl.controllers import CONTROLLERS, PRESETS
from automl.controllers.base import Controller, Draw, PendingChild, Proposal, Result
from automl.search_spaces.convnet.space import PRESETS as NETWORKS
from automl.search_spaces.convnet.space import convnet
from automl.search_spaces.landscape.space import KINDS, landscape
from automl.search_spaces.narrowing import Narrowing, parse_rule
from automl.search_spaces.space import Space

BATCH = 8


def make_space(name: str) -> Space:
    if name != "convnet":
        return Space(lambda: landscape(kind=name))
    narrowing = Narrowing((parse_rule("depth=20", fix=True),))
    return Space(lambda: convnet(**(NETWORKS["paper"] | {"strides": True})), narrowing)


def reward(number: int) -> float:
    return float(number * 7919 % 1009)


def known_batches(space: Space, count: int) -> Iterator[list[Result]]:
    from automl.controllers.keyed import stream
    from automl.controllers.variation import uniform_walk

    for number in range(count):
        yield [Result(number, uniform_walk(space, number, stream(0, number, 0)).tokens, (), reward(number))]


def drawn_batch(controller: Controller, numbers: range) -> list[Proposal]:
    if not controller.sequential:
        return controller.ask([Draw(number) for number in numbers])
    proposals: list[Proposal] = []
    for number in numbers:
        pending = [PendingChild(one, proposal.tokens) for one, proposal in zip(numbers, proposals, strict=False)]
        proposals += controller.ask([Draw(number)], pending)
    return proposals


def informed(controller: Controller, known: int) -> None:
    """Gives the controller so many children."""
    batches = known_batches(controller.space, known)
    state = controller.state()
    if state is None:
        controller.replay(batches)
        return
    if "rewards" in state.arrays:  # of a policy that learns from ranks
        arrays = {**state.arrays, "rewards": np.array([reward(number) for number in range(known)])}
        controller.restore(dataclasses.replace(state, arrays=arrays))
    if controller.remembers:
        controller.remember(batches)


def measure(name: str, preset: str, space: Space, known: int, batches: int) -> None:
    from automl.controller_records import pack_state

    settings = pkgutil.resolve_name(PRESETS[name])[preset]
    controller = pkgutil.resolve_name(CONTROLLERS[name])(space, seed=0, **settings)
    if known:
        informed(controller, known)
    ask_seconds, tell_seconds, processor_seconds = [], [], []
    for batch in range(batches + 2):
        began, processor = time.perf_counter(), time.process_time()
        numbers = range(known + batch * BATCH, known + (batch + 1) * BATCH)
        proposals = drawn_batch(controller, numbers)
        drawn = time.perf_counter()
        controller.tell(
            [
                Result(number, proposal.tokens, proposal.log_probs, reward(number))
                for number, proposal in zip(numbers, proposals, strict=True)
            ]
        )
        if (state := controller.state()) is not None:
            pack_state(state)
        ask_seconds.append(drawn - began)
        tell_seconds.append(time.perf_counter() - drawn)
        processor_seconds.append(time.process_time() - processor)
    tracing = sum(ask_seconds[:2]) + sum(tell_seconds[:2])
    # The mean: hyperparameters are fitted in few batches, whose cost belongs to all.
    ask, tell, processor = (
        statistics.fmean(times[2:]) / BATCH * 1000 for times in (ask_seconds, tell_seconds, processor_seconds)
    )
    print(
        f"known={known} tokens={len(proposals[0].tokens)} first_two_batches={tracing:.1f}s "
        f"ask={ask:.1f} tell={tell:.1f} milliseconds_per_child={ask + tell:.1f} processor={processor:.1f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", choices=("convnet", *KINDS), default="convnet")
    parser.add_argument("--controller", choices=(*CONTROLLERS,), default="reinforce")
    parser.add_argument("--preset", default="plain")
    parser.add_argument("--known", default="0", help="numbers of children, with commas between them")
    parser.add_argument("--batches", type=int, default=30)
    arguments = parser.parse_args()
    os.environ.update(environment(1, None))
    space = make_space(arguments.space)
    for known in map(int, arguments.known.split(",")):
        measure(arguments.controller, arguments.preset, space, known, arguments.batches)


if __name__ == "__main__":
    main()
