"""A real worker that is killed in the middle of a child, in a search that prunes children."""

import contextlib

from automl.db.records import State
from automl.db.store import Store

LATE = """
import os, signal, time
from pathlib import Path
from automl import Choice

HERE = Path(__file__).parent


def space():
    return (yield Choice("size", tuple(range(40))))


def train(spec, seed, epochs, report):
    '''The first child is poor for seven epochs; then it is killed, once ten others have ended, and is tried again.'''
    late = HERE / "late"
    try:
        with late.open("x") as file:
            file.write(str(seed))
    except FileExistsError:
        pass
    is_late = late.read_text() == str(seed)
    for epoch in range(1, epochs + 1):
        value = (0.01 if epoch <= 7 else 0.99) if is_late else 0.5 + spec / 1000
        report(epoch, reward=value)
        if is_late and epoch == 7 and not (HERE / "killed").exists():
            while len(list(HERE.glob("ended-*"))) < 10:
                time.sleep(0.01)
            (HERE / "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
    (HERE / f"ended-{seed}").touch()
    return value
"""


def test_a_child_whose_worker_is_killed_is_not_pruned_for_earlier_epochs(automl, folder):
    (folder / "late.py").write_text(LATE)
    own = ("--space", "late.py:space", "--task", "late.py:train", "--set", "task.epochs=9", "--controller", "random")
    ran = automl("search", "late", *own, "--early-stop", "median", "--children", "14", "--workers", "2")
    assert ran.code == 0, ran
    seed = int((folder / "late").read_text())
    with contextlib.closing(Store("automl.db", readonly=True)) as store:
        children = store.children(store.search("late").id)
        (late,) = (child for child in children if child.seed == seed)
        attempts = store.attempts(late.id)
        epochs = [row.epoch for row in store.measurements(late.id)]
    assert [attempt.signal for attempt in attempts] == [9, None]
    assert (late.state, late.stopped_at, late.reward) == (State.TRAINED, None, 0.99)
    assert epochs == list(range(1, 10))
