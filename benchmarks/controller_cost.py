"""Milliseconds that the controller costs per child in the largest space: 20 layers with strides and skips, m = 8.

    python benchmarks/controller_cost.py [--batches 30]

The cost of a child is its share of drawing a batch, learning from it, and packing the state that is stored. Tracing and
compiling, in the first two batches, are reported separately.
"""

import argparse
import os
import statistics
import time

from automl.child_trainers.devices import environment

BATCH = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=30)
    arguments = parser.parse_args()
    os.environ.update(environment(1, None))

    from automl.controller_records import pack_state
    from automl.controllers.base import Draw, Result
    from automl.controllers.reinforce.controller import Reinforce
    from automl.search_spaces.convnet.space import PRESETS, convnet
    from automl.search_spaces.narrowing import Narrowing, parse_rule
    from automl.search_spaces.space import Space

    narrowing = Narrowing((parse_rule("depth=20", fix=True),))
    space = Space(lambda: convnet(**(PRESETS["paper"] | {"strides": True})), narrowing)
    controller = Reinforce(space, seed=0)
    ask_seconds, tell_seconds = [], []
    for batch in range(arguments.batches + 2):
        began = time.perf_counter()
        numbers = range(batch * BATCH, (batch + 1) * BATCH)
        proposals = controller.ask([Draw(number) for number in numbers])
        drawn = time.perf_counter()
        controller.tell(
            [
                Result(number, proposal.tokens, proposal.log_probs, float(number % 7))
                for number, proposal in zip(numbers, proposals, strict=True)
            ]
        )
        pack_state(controller.state())
        ask_seconds.append(drawn - began)
        tell_seconds.append(time.perf_counter() - drawn)
    tokens = len(proposals[0].tokens)
    tracing = sum(ask_seconds[:2]) + sum(tell_seconds[:2])
    ask, tell = (statistics.median(times[2:]) / BATCH * 1000 for times in (ask_seconds, tell_seconds))
    print(f"{tokens} tokens a child; the first two batches took {tracing:.1f} s")
    print(f"ask={ask:.1f} tell={tell:.1f} milliseconds_per_child={ask + tell:.1f}")


if __name__ == "__main__":
    main()
