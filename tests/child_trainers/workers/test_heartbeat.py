import threading

import pytest
from waiting import SECONDS

from automl.child_trainers.workers.heartbeat import Heartbeat


def beating_threads():
    return [thread for thread in threading.enumerate() if thread.name == "heartbeat"]


def test_it_beats_until_the_block_ends():
    third = threading.Event()
    beats = []

    def beat():
        beats.append(threading.current_thread())
        if len(beats) == 3:
            third.set()
        return True

    with Heartbeat(beat, interval=0.001):
        assert third.wait(SECONDS)
    count = len(beats)
    assert not beating_threads()
    assert len(beats) == count and threading.main_thread() not in beats


def test_a_block_that_ends_soon_waits_for_no_interval():
    with Heartbeat(lambda: pytest.fail("no beat is due"), interval=3600.0):
        assert len(beating_threads()) == 1
    assert not beating_threads()


def test_false_ends_it():
    looked = threading.Event()
    beats = []

    def beat():
        looked.wait(SECONDS)
        beats.append(1)
        return False

    with Heartbeat(beat, interval=0.001):
        (thread,) = beating_threads()
        looked.set()
        thread.join(SECONDS)
        assert not thread.is_alive()
    assert len(beats) == 1


def test_an_error_in_a_beat_is_logged_and_tried_again(caplog):
    second = threading.Event()
    beats = []

    def beat():
        beats.append(1)
        if len(beats) == 1:
            raise OSError("the store is busy")
        second.set()
        return True

    with Heartbeat(beat, interval=0.001):
        assert second.wait(SECONDS)
    (record,) = caplog.records
    assert record.levelname == "WARNING" and "heartbeat failed" in record.message
    assert "the store is busy" in caplog.text


def test_an_error_in_the_block_goes_through_and_ends_it():
    with pytest.raises(KeyboardInterrupt), Heartbeat(lambda: True, interval=0.001):
        raise KeyboardInterrupt
    assert not beating_threads()
