"""What a benchmark says of a training while it runs."""

import time

from automl.child_trainers.task import Record
from automl.child_trainers.training.checkpoints import Checkpoint


class PrintedRecord(Record):
    """Prints the metrics of every epoch, and the seconds since it was made.

    Args:
        who: is trained.
    """

    def __init__(self, who: str, checkpoint: Checkpoint | None = None) -> None:
        super().__init__(checkpoint)
        self._who = who
        self._began = time.perf_counter()

    def __call__(self, epoch: int, **metrics: float) -> None:
        super().__call__(epoch, **metrics)
        told = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        print(f"{self._who}: epoch {epoch}, {told}, {time.perf_counter() - self._began:.0f} s", flush=True)
