"""A record that prints the progress of a training."""

import time

from automl.child_trainers.task import Record
from automl.child_trainers.training.checkpoints import Checkpoint


class PrintedRecord(Record):
    """Prints the metrics of every epoch, and the seconds since the record was made.

    Args:
        who: the name of what is trained, for the output.
    """

    def __init__(self, who: str, checkpoint: Checkpoint | None = None) -> None:
        super().__init__(checkpoint)
        self._who = who
        self._began = time.perf_counter()

    def __call__(self, epoch: int, **metrics: float) -> None:
        super().__call__(epoch, **metrics)
        text = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        print(f"{self._who}: epoch {epoch}, {text}, {time.perf_counter() - self._began:.0f} s", flush=True)
