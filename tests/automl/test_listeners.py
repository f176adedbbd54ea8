"""Listeners of a search: called in their order, and unable to end the search."""

from __future__ import annotations

import logging
import os

import pytest
from store_helpers import Clock, claim, start, trained

import automl
from automl.db.records import Delivery, Fault, SearchState, State
from automl.db.store import Store
from automl.endings import StopNow
from automl.listeners.base import ChildEnded, ChildStarted, Measured, SearchListener
from automl.listeners.child_events import ChildEvents
from automl.listeners.dispatch import Listeners

OURS = {"space": "mine.py:space", "task": "mine.py:evaluate", "controller": "random", "workers": 0}
EVENTS = [
    "search_started",
    "batch_proposed",
    "child_started",
    "measured",
    "child_ended",
    "step_learned",
    "turn_ended",
    "segment_ended",
]


class Recorder(SearchListener):
    """Records all events, as (method, event)."""

    def __init__(self):
        self.told = []

    def of(self, *names):
        return [event for name, event in self.told if name in names]


for name in EVENTS:
    setattr(Recorder, name, lambda self, event, name=name: self.told.append((name, event)))


def test_a_listener_receives_all_events_of_a_search(mine, folder):
    told, other = Recorder(), Recorder()
    result = automl.search("mine", **OURS, children=5, batch_size=4, listeners=[told, other])
    assert told.told == other.told
    names = [name for name, _ in told.told]
    assert names[0] == "search_started" and names[-1] == "segment_ended" and set(names) == set(EVENTS)
    (started,) = told.of("search_started")
    assert (started.search.name, started.segment, started.workers) == ("mine", 0, 0)
    assert [(event.batch, [child.number for child in event.children]) for event in told.of("batch_proposed")] == [
        (0, [0, 1, 2, 3]),
        (1, [4, 5, 6, 7]),
    ]
    assert [event.child.number for event in told.of("child_ended")] == [0, 1, 2, 3, 4]
    assert [event.child.reward for event in told.of("child_ended")] == [child.reward for child in result.children[:5]]
    assert {(event.device, event.slot) for event in told.of("child_started")} == {("this process", None)}
    assert [(event.number, event.epoch) for event in told.of("measured")] == [
        (number, epoch) for number in range(5) for epoch in (1, 2)
    ]
    (learned,) = told.of("step_learned")
    assert (learned.step, learned.batch) == (1, 0)
    assert learned.rewards == {child.number: child.reward for child in result.children[:4]}
    (ended,) = told.of("segment_ended")
    assert (ended.segment, ended.state, ended.cause) == (0, SearchState.FINISHED, None)
    # A child starts, is measured and ends, and then its batch is learned from.
    of_first = [name for name, event in told.told if number_of(event) == 0]
    assert of_first == ["child_started", "measured", "measured", "child_ended"]
    assert names.index("step_learned") > max(
        place for place, (name, event) in enumerate(told.told) if name == "child_ended" and event.child.number < 4
    )


def number_of(event):
    """The number of the child that an event is about, or None."""
    if isinstance(event, Measured):
        return event.number
    return event.child.number if isinstance(event, ChildStarted | ChildEnded) else None


def test_events_of_workers_have_their_slots(mine, folder):
    told = Recorder()
    automl.search("mine", **OURS | {"workers": 2}, children=4, listeners=[told])
    assert {event.slot for event in told.of("child_started")} <= {0, 1}
    assert {event.device for event in told.of("child_started")} == {"cpu"}
    assert sorted(event.child.number for event in told.of("child_ended")) == [0, 1, 2, 3]
    assert sorted((event.number, event.epoch) for event in told.of("measured")) == [
        (number, epoch) for number in range(4) for epoch in (1, 2)
    ]


def test_a_resume_has_events_of_its_own_children_only(mine, folder):
    automl.search("mine", **OURS, children=3)
    told = Recorder()
    automl.resume("mine", children=5, listeners=[told])
    assert [event.child.number for event in told.of("child_ended")] == [3, 4]
    assert told.of("search_started")[0].segment == told.of("segment_ended")[0].segment == 1


def test_an_exception_in_a_listener_is_logged_once_and_ends_nothing(mine, folder, caplog):
    class Broken(SearchListener):
        def child_ended(self, event):
            raise ValueError(f"no child {event.child.number}")

        def turn_ended(self, event):
            raise OSError("the disk is full")

    told = Recorder()
    with caplog.at_level(logging.WARNING, "automl.listeners"):
        result = automl.search("mine", **OURS, children=3, listeners=[Broken(), Broken(), told])
    assert result.ending.state == SearchState.FINISHED and len(told.of("child_ended")) == 3
    messages = [record.getMessage() for record in caplog.records if record.name.startswith("automl.listeners")]
    assert len(messages) == 4  # two listeners with two methods each
    assert messages[0] == (
        "The listener Broken raised in turn_ended, and the search goes on (OSError: the disk is full). "
        "Further errors of this method are not shown."
    )


@pytest.mark.parametrize("error", [KeyboardInterrupt, StopNow])
def test_an_exception_that_ends_the_process_is_not_caught(error):
    class Ends(SearchListener):
        def turn_ended(self, event):
            raise error

    with pytest.raises(error):
        Listeners([Ends()]).turn_ended(None)


def test_an_object_that_is_not_a_listener(mine, folder):
    with pytest.raises(TypeError, match=r"must be an instance of a subclass of SearchListener, got <built-in function"):
        automl.search("mine", **OURS, listeners=[print])
    with pytest.raises(TypeError, match=r"must be an instance of a subclass of SearchListener, got <class"):
        automl.search("mine", **OURS, listeners=[Recorder])


def test_listeners_work_in_the_caller_s_folder(mine, folder, monkeypatch):
    seen = []

    class Where(SearchListener):
        def child_ended(self, event):
            seen.append(os.getcwd())

    automl.search("mine", **OURS, children=1)
    other = folder / "other"
    other.mkdir()
    monkeypatch.chdir(other)
    automl.resume("mine", store="../automl.db", children=2, listeners=[Where()])
    assert seen == [str(other)]


# Events of children, read from the store


@pytest.fixture
def begun(tmp_path):
    """A search with four children that no worker has claimed yet, and a clock."""
    clock = Clock()
    store = Store(str(tmp_path / "store.db"), create=True, clock=clock)
    search, lease = start(store)
    yield store, search, lease, clock
    store.close()


def told_of(recorder):
    told = [(name.removeprefix("child_"), number_of(event)) for name, event in recorder.told]
    recorder.told.clear()
    return told


def test_no_event_comes_twice_and_none_is_missed(begun):
    store, search, lease, clock = begun
    recorder = Recorder()
    store.deliver(claim(store, search), trained())  # before there is a listener
    events = ChildEvents(store, search.id, Listeners([recorder]))
    events.look()
    assert told_of(recorder) == []
    one = claim(store, search)
    events.look()
    store.measure(one, 1, {"a": 1.0})
    events.look()
    events.look()
    assert told_of(recorder) == [("started", 1), ("measured", 1)]
    store.deliver(one, trained())
    two = claim(store, search)
    store.measure(two, 1, {"a": 1.0})
    store.deliver(two, Delivery(fault=Fault.RAISED))  # begun and ended between two polls
    events.look()
    assert told_of(recorder) == [("ended", 1), ("started", 2), ("measured", 2), ("ended", 2)]
    clock.pass_seconds(-3600)  # the clock is set back
    three = claim(store, search)
    store.deliver(three, trained())
    events.look()
    events.look()
    assert told_of(recorder) == [("started", 3), ("ended", 3)]
    assert store.retry("tiny", number=2, lease=lease) == [2]
    again = claim(store, search)
    store.deliver(again, trained())
    events.look()
    assert told_of(recorder) == [("started", 2), ("ended", 2)]
    assert store.counts(search.id)[State.TRAINED] == 4


def test_no_event_without_a_listener_is_read(begun, monkeypatch):
    store, search, _, _ = begun

    class Turns(SearchListener):
        def turn_ended(self, event): ...

    monkeypatch.setattr(store, "running", lambda search_id: pytest.fail("it looked"))
    ChildEvents(store, search.id, Listeners([Turns()])).look()
