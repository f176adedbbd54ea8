"""When a process is certainly gone, and when that is unknown."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from automl.db import owner as owner_module
from automl.db.owner import Owner

THIS = Owner.this_process()
pytestmark = pytest.mark.skipif(not THIS.boot, reason="processes are told apart by /proc, which this system lacks")


def owner_of(process: subprocess.Popen[bytes]) -> Owner:
    started = owner_module._start_time(process.pid)
    assert started is not None
    return dataclasses.replace(THIS, pid=process.pid, started=started)


def waiting_process() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)


def test_this_process_is_not_gone() -> None:
    assert THIS.pid == os.getpid()
    assert not THIS.is_gone()
    assert str(THIS) == f"process {os.getpid()} on {THIS.host}"


def test_an_owner_goes_through_json() -> None:
    assert Owner(**json.loads(json.dumps(THIS.to_json()))) == THIS


def test_a_process_is_gone_when_it_has_ended() -> None:
    with waiting_process() as process:
        owner = owner_of(process)
        assert not owner.is_gone()
        process.kill()
        # Not reaped yet: a zombie runs no more.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert owner.is_gone()
    assert process.returncode == -signal.SIGKILL
    assert owner.is_gone()


def test_a_stopped_process_is_not_gone() -> None:
    with waiting_process() as process:
        owner = owner_of(process)
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        assert not owner.is_gone()
        process.kill()


def test_an_owner_of_an_earlier_version_is_recognised() -> None:
    """In clock ticks since boot, field 22 of /proc/PID/stat: dead processes of a store of 0.1.0 are recognised."""
    for pid in (os.getpid(), os.getppid()):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        assert owner_module._start_time(pid) == int(fields[19])


def test_another_process_with_the_same_number_is_not_the_owner() -> None:
    assert dataclasses.replace(THIS, started=THIS.started - 1).is_gone()


def test_a_process_of_an_earlier_boot_is_gone() -> None:
    assert dataclasses.replace(THIS, boot="another boot").is_gone()


def test_a_process_on_another_host_is_never_known_to_be_gone() -> None:
    elsewhere = dataclasses.replace(THIS, host=f"not-{THIS.host}")
    assert not elsewhere.is_gone()
    assert not dataclasses.replace(elsewhere, boot="another boot", pid=2**22 + 1, started=0).is_gone()


def test_without_a_boot_id_nothing_is_known() -> None:
    assert not dataclasses.replace(THIS, boot="", pid=2**22 + 1).is_gone()
