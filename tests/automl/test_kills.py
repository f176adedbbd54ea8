"""Real processes are killed at 20 points of a search; resumed each time, it ends like one that was never killed."""

from __future__ import annotations

import contextlib
import functools
import os
import random
import signal

from command_line import MINE, OURS, Running, Watcher, lives, running, wait_until

from automl.db.owner import Owner
from automl.db.records import State
from automl.db.store import Store

CHILDREN = 200
KILLS = 20


class Course:
    """The progress of a search, read repeatedly from one read-only connection."""

    def __init__(self, path):
        self._store = Store(str(path), readonly=True)
        self._search = self._store.search("mine")

    def close(self):
        self._store.close()

    def trained(self):
        return self._store.search("mine").num_trained

    def workers_at_work(self):
        """Processes that are training a child right now."""
        running = self._store.children(self._search.id, states=[State.RUNNING])
        rows = [row for child in running for row in self._store.measurements(child.id)]
        return sorted({int(row.metrics["pid"]) for row in rows})

    def held_by(self, pid):
        owner = self._store.search("mine").owner
        return owner is not None and Owner(**owner).pid == pid


def worker_pid(course):
    found = course.workers_at_work()
    return found[0] if found and lives(found[0]) else None


def test_killed_twenty_times_and_resumed_it_is_the_same_search(automl, mine, folder):
    start = ("search", "mine", *OURS, "--children", str(CHILDREN), "--seed", "3", "--replicas", "2")
    assert automl(*start, "--workers", "0", "--store", "never-killed.db").code == 0
    expected = Watcher(folder / "never-killed.db", "mine").digest()

    assert MINE in mine.read_text()
    path = folder / "automl.db"
    watcher = Watcher(path, "mine")
    moments = random.Random(0)
    commands: list[Running] = []
    with contextlib.ExitStack() as stack:

        def run(*arguments):
            command = stack.enter_context(running(*arguments, folder=folder))
            commands.append(command)
            return command

        command = run(*start, "--workers", "2")
        wait_until(lambda: watcher.children(), "the first proposals", command)
        course = stack.enter_context(contextlib.closing(Course(path)))
        for kill in range(KILLS):
            goal = (kill + 1) * CHILDREN // (KILLS + 2)
            wait_until(lambda goal=goal: course.trained() >= goal, f"{goal} children", command, interval=0.001)
            if kill % 2:
                victim = wait_until(lambda: worker_pid(course), "a worker at work", command, interval=0.0005)
                os.kill(victim, signal.SIGKILL)
                continue
            # A moment within the next few children.
            further = goal + moments.randrange(3)
            wait_until(lambda goal=further: course.trained() >= goal, "some more children", command, interval=0.0002)
            command.signal(signal.SIGKILL)
            command.end()
            command = run("resume", "mine")
            wait_until(functools.partial(course.held_by, command.process.pid), "the take-over", command)
        ran = command.end()
        assert ran.code == 0 and f"Done: {CHILDREN} children trained." in ran.out, ran

    assert len(commands) == 1 + KILLS // 2
    assert watcher.digest() == expected
    assert watcher.num("trained") == CHILDREN and watcher.num("running") == 0
    crashed = watcher.ask(
        lambda store, search: [row for child in store.children(search) for row in store.attempts(child.id) if row.fault]
    )
    assert sum(row.signal == signal.SIGKILL for row in crashed) >= 1  # dead workers were noticed
    wait_until(lambda: not any(lives(pid) for pid in watcher.pids()), "the workers' end")
