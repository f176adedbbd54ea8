"""Ctrl-C, SIGTERM, the end of --time, two coordinators, and a coordinator that is killed: with real processes."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import signal
import subprocess

import pytest
from command_line import MINE, OURS, Watcher, lives, running, script, wait_until
from waiting import SECONDS

from automl.child_trainers.workers.heartbeat import Heartbeat
from automl.db.records import Fault, SearchState
from automl.db.store import Store
from automl.endings import StopNow

WORKERS = ("--workers", "2")


@pytest.fixture
def hold(mine, folder):
    """A folder: children do not end while it exists."""
    path = folder / "hold"
    path.mkdir()
    return path


@pytest.fixture
def watcher(folder):
    return Watcher(folder / "automl.db", "mine")


@pytest.fixture
def held(mine, hold, folder, watcher):
    """A search whose two workers are each training a child."""
    with running("search", "mine", *OURS, *WORKERS, "--children", "8", folder=folder) as command:
        wait_until(lambda: len(watcher.pids()) == 2, "both workers to train", command)
        yield command
    pids = watcher.pids() - {os.getpid()}
    wait_until(lambda: not any(lives(pid) for pid in pids), "the workers' end")


def state(watcher):
    return watcher.ask(lambda store, search: store.searches()[0].state)


def uncharged(watcher):
    """No attempt of any child was charged."""
    return all(child.attempts <= (child.state == "trained") for child in watcher.children())


def test_ctrl_c_lets_running_children_finish(held, hold, watcher, automl):
    held.signal(signal.SIGINT)
    wait_until(lambda: state(watcher) == SearchState.STOPPING, "the search to stop", held)
    hold.rmdir()
    ran = held.end()
    assert ran.code == 130 and ran.err == ""
    assert ran.out.splitlines()[-2:] == ["Paused: stopped by SIGINT", "Go on with: automl resume mine"]
    assert (watcher.num("trained"), watcher.num("running")) == (2, 0)  # no other child was claimed
    assert state(watcher) == SearchState.PAUSED
    ran = automl("resume", "mine", "--workers", "0")
    assert ran.code == 0 and "Done: 8 children trained." in ran.out
    assert uncharged(watcher)


def test_a_grace_that_ends_while_the_search_is_still_prepared_pauses_it(mine, automl, monkeypatch):
    def prepare(store, name, run, stop, **rest):
        stop.request("the time given with --time is over")
        raise StopNow

    monkeypatch.setattr("automl.cli.search.run_search", prepare)
    ran = automl("search", "mine", *OURS, "--workers", "0", "--children", "8")
    assert (ran.code, ran.err) == (4, "")  # nothing was trained
    assert ran.out.splitlines()[-2:] == [
        "Paused: the time given with --time is over",
        "Go on with: automl resume mine",
    ]


def test_children_that_do_not_finish_within_the_grace_are_ready_again(held, watcher):
    held.signal(signal.SIGTERM)
    ran = held.end()  # ten seconds later
    assert ran.code == 3
    assert ran.out.splitlines()[-2:] == ["Paused: stopped by SIGTERM", "Go on with: automl resume mine"]
    assert (watcher.num("trained"), watcher.num("running")) == (0, 0)
    assert uncharged(watcher)
    faults = watcher.ask(
        lambda store, search: {row.fault for child in store.children(search) for row in store.attempts(child.id)}
    )
    assert faults == {Fault.INTERRUPTED}


def test_the_second_signal_ends_at_once(held, hold, watcher, automl):
    held.signal(signal.SIGHUP)
    wait_until(lambda: state(watcher) == SearchState.STOPPING, "the search to stop", held)
    held.signal(signal.SIGINT)
    ran = held.end()
    assert ran.code == 130 and ran.err == ""
    assert ran.out.splitlines()[-1] == "Stopped at once. Go on with: automl resume mine"
    assert state(watcher) == SearchState.PAUSED
    assert watcher.ask(lambda store, search: store.segments(search)[0].ending) == "stopped at once"
    hold.rmdir()
    assert "Done: 8 children trained." in automl("resume", "mine", "--workers", "0").out
    assert uncharged(watcher)


def test_the_end_of_the_time(automl, mine, watcher):
    flags = ("search", "mine", *OURS, "--time", "0.5s", "--workers", "0")
    lines = automl(*flags).out.splitlines()
    assert lines[-2:] == ["Paused: the time given with --time is over", "Go on with: automl resume mine"]
    trained = watcher.num("trained")
    assert 0 < trained < 1024
    # A bare resume repeats the time.
    assert "Paused: the time given with --time is over" in automl("resume", "mine").out
    assert watcher.num("trained") > trained


def test_a_child_in_this_process_gets_the_grace_too(automl, mine, hold, watcher, monkeypatch):
    """The task sends the signal of Ctrl-C itself, and then does not end."""
    monkeypatch.setattr("automl.endings.GRACE_SECONDS", 0.2)
    monkeypatch.setattr("automl.cli.interrupts.GRACE_SECONDS", 0.2)
    mine.write_text(
        MINE.replace("    while Path", "    import signal\n    os.kill(os.getpid(), signal.SIGINT)\n    while Path")
    )
    lines = automl("search", "mine", *OURS, "--children", "4", "--workers", "0").out.splitlines()
    assert lines[-2:] == ["Paused: stopped by SIGINT", "Go on with: automl resume mine"]
    assert (watcher.num("trained"), watcher.num("running")) == (0, 0)
    assert watcher.ask(lambda store, search: store.segments(search)[0].ending) == "stopped by SIGINT"
    assert uncharged(watcher)


def test_ctrl_c_twice_in_this_process(automl, mine, watcher):
    twice = "    import signal\n" + 2 * "    os.kill(os.getpid(), signal.SIGINT)\n"
    mine.write_text(MINE.replace("    while Path", twice + "    while Path"))
    ran = automl("search", "mine", *OURS, "--children", "4", "--workers", "0")
    assert ran.code == 130 and ran.out.splitlines()[-1] == "Stopped at once. Go on with: automl resume mine"
    assert state(watcher) == SearchState.PAUSED and watcher.num("running") == 0


def test_a_signal_that_is_ignored_stays_ignored(mine, hold, folder, watcher):
    """As with nohup and SIGHUP: closing the terminal must not end the search."""
    nohup = shutil.which("nohup")
    if nohup is None:
        pytest.skip("nohup is not installed")
    arguments = [nohup, script(), "search", "mine", *OURS, "--workers", "1", "--children", "2"]
    with subprocess.Popen(arguments, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: watcher.num("running") == 1, "a child")
            process.send_signal(signal.SIGHUP)
            hold.rmdir()
            out, _ = process.communicate(timeout=SECONDS)
        finally:
            process.kill()
    assert b"Done: 2 children trained." in out


def test_a_second_coordinator_is_refused_with_the_holder_of_the_lease(held, hold, watcher, automl):
    before = watcher.ask(lambda store, search: store.searches()[0])
    holder = f"process {held.process.pid} on "
    for command in (("resume", "mine"), ("resume", "mine", "--children", "99"), ("delete", "mine", "--yes")):
        error = automl(*command).error
        assert error.startswith(f"The search 'mine' is running in {holder}"), error
        assert error.endswith("; stop it there with Ctrl-C or with: automl stop mine --store automl.db")
    after = watcher.ask(lambda store, search: store.searches()[0])
    assert (after.epoch, after.budget, after.settings) == (before.epoch, before.budget, before.settings)
    findings = {finding["subject"]: finding for finding in automl("doctor", "--json").json}
    assert findings["search mine"]["well"] and holder in findings["search mine"]["found"]
    hold.rmdir()
    assert held.end().code == 0


def test_a_killed_coordinator_is_taken_over_at_once(held, hold, watcher, automl):
    pids = watcher.pids()
    held.signal(signal.SIGKILL)
    held.end()
    wait_until(lambda: not any(lives(pid) for pid in pids), "the workers' end")
    report = automl("doctor", "--json")
    assert report.code == 1
    (finding,) = [found for found in json.loads(report.out) if found["subject"] == "search mine"]
    assert not finding["well"] and f"its coordinator (process {held.process.pid} on " in finding["found"]
    assert finding["advice"] == "automl resume mine takes it over at once and makes 2 running children ready again"
    hold.rmdir()
    ran = automl("resume", "mine", "--workers", "0")
    assert ran.code == 0 and "Done: 8 children trained." in ran.out
    assert uncharged(watcher)
    assert automl("doctor", "--json").code == 0


def test_a_coordinator_that_was_taken_over_writes_nothing(automl, mine, folder, watcher, monkeypatch):
    """Its lease expires while it is stopped, and another takes the search. When it continues, it is refused."""
    monkeypatch.setattr("automl.runtime.Heartbeat", functools.partial(Heartbeat, interval=0.1))
    os.environ["TAKE_OVER"] = str(folder / "automl.db")
    mine.write_text(
        MINE.replace(
            "    while Path",
            "    from automl.db.owner import Owner\n    from automl.db.store import Store\n"
            "    store = Store(os.environ['TAKE_OVER'])\n"
            "    lease = store.take_lease('mine', Owner.this_process(), gone=lambda owner: True)\n"
            "    store.close()\n    while Path",
        )
    )
    error = automl("search", "mine", *OURS, "--children", "4", "--workers", "0").error
    assert error == "Another process has taken this search over (or deleted it); nothing was written."
    assert watcher.num("trained") == 0
    with contextlib.closing(Store("automl.db", readonly=True)) as store:
        search = store.search("mine")
        assert (search.state, search.epoch) == (SearchState.RUNNING, 2)
