"""The status of a search, and the panel that shows it."""

from __future__ import annotations

import dataclasses
import io
import json

import pytest
from rich.console import Console

from automl.cli.tables import children_lines
from automl.cli.views import LiveView, PlainView, panel
from automl.db.records import Child, EndingCount, Search, State, StoreError
from automl.search_spaces.recurrent_cell.space import recurrent_cell
from automl.search_spaces.space import Space
from automl.search_spaces.spec import spec_to_json
from automl.search_spaces.update_rule.spec import UpdateRule
from automl.search_spaces.views import spec_drawing, spec_line
from automl.status import SearchStatus, early_endings
from automl.testing.spaces import sample
from automl.wording import duration, format_number, quantity

SEARCH = Search(
    id=1,
    name="tiny",
    state="running",
    cause=None,
    space="convnet",
    task="digits",
    controller="reinforce",
    seed=0,
    replicas=2,
    batch_size=8,
    threads=1,
    settings={},
    budget=10,
    num_trained=0,
    refused={},
    epoch=1,
    owner=None,
    lease_until=None,
    unclean=0,
    created=0.0,
    stop_requested=None,
)
CHILD = Child(
    id=1,
    search_id=1,
    number=0,
    batch=0,
    policy_step=0,
    origin="policy",
    tries=1,
    tokens=[0],
    log_probs=[None],
    canonical_hash="",
    spec=[0],
    seed=0,
    params=1_500_000,
    flops=950,
    population=None,
    isolated=False,
    state="trained",
    fault=None,
    message=None,
    reward=0.5,
    metrics={"val_accuracy": 0.75},
    consumed_by=None,
    fence=1,
    worker="1.0.0",
    lease_until=None,
    progress=0,
    attempts=1,
    interruptions=0,
    started=100.0,
    finished=104.0,
    seconds=4.0,
    phases=None,
)


def child(number=0, **fields):
    return dataclasses.replace(CHILD, number=number, **fields)


def status(search=SEARCH, *, busy=(), latest=(), best=(), seconds_left=None, slots=None, **counts):
    """30 s after the run began, at 165 s by the database's clock."""
    counts = {state: counts.get(state, 0) for state in State}
    return SearchStatus(search, counts, list(best), list(busy), list(latest), 165.0, 30.0, seconds_left, slots or {})


def running(number=3, **fields):
    return child(number, state="running", reward=None, metrics=None, **fields)


@pytest.mark.parametrize(
    "state, counts, num_running, reason",
    [
        ("running", {"ready": 0}, 0, ""),
        ("paused", {"ready": 5}, 0, "5 ready: the search is paused"),
        ("finished", {"ready": 5, "trained": 10}, 0, "5 ready: the search is finished"),
        ("stopping", {"ready": 5}, 1, "5 ready: the search is stopping"),
        ("running", {"ready": 5, "trained": 8}, 2, "5 ready: the budget of 10 children is reached"),
        ("running", {"ready": 5, "trained": 7}, 2, "5 ready: 2 are running and every worker is busy"),
        ("running", {"ready": 5, "trained": 7}, 1, "5 ready: 1 is running and every worker is busy"),
        ("running", {"ready": 8}, 0, "8 ready: no worker is ready yet"),
    ],
)
def test_why_children_wait(state, counts, num_running, reason):
    search = dataclasses.replace(SEARCH, state=state)
    assert status(search, busy=[running()] * num_running, **counts).waiting == reason


def test_a_search_without_a_budget_never_reaches_it():
    search = dataclasses.replace(SEARCH, budget=None)
    assert status(search, busy=[running()], ready=1, trained=99).waiting.endswith("every worker is busy")


def test_the_curve_runs_from_the_oldest_to_the_latest():
    rewards = [0.0, 0.5, None, 1.0]  # a failed child has none
    latest = [child(number, reward=reward) for number, reward in enumerate(rewards)][::-1]
    assert status(latest=latest).curve == "▁▅█  0.0000 to 1.0000"


@pytest.mark.parametrize("rewards, curve", [([], ""), ([0.5], ""), ([0.5, 0.5], "▁▁  0.5000 to 0.5000")])
def test_the_curve_of_few_or_equal_rewards(rewards, curve):
    assert status(latest=[child(reward=reward) for reward in rewards]).curve == curve


def test_where_the_time_of_the_latest_children_went():
    told = [
        child(0, seconds=4.0, phases={"build": 1.0, "train": 2.0}, metrics={"traces": 1.0}),
        child(1, seconds=6.0, phases={"train": 5.0}, metrics={"traces": 2.0}),
        child(2, seconds=9.0, phases=None),
    ]
    assert status(latest=told).phases == "build 10%, train 70%, other 20%, 2 traces a child"
    assert status(latest=told[2:]).phases == status().phases == ""
    own = child(seconds=4.0, phases={"train": 4.0}, metrics={"traces": "two"})  # the user's own metric
    assert status(latest=[own]).phases == "train 100%, other 0%"
    assert status(latest=[child(seconds=4.0, phases={"train": 4.0})]).phases == "train 100%, other 0%"


def test_what_workers_do():
    workers = status(busy=[running(progress=40), running(4, worker="2.inline")], slots={3: 1}).workers
    assert workers[0] == "worker 1: child 3 for 1m05s, 40 steps, [0]"
    assert workers[1] == "worker 2.inline: child 4 for 1m05s, 0 steps, [0]"
    assert status(busy=[running(started=None, worker=None)]).workers == ["worker ?: child 3 for 0s, 0 steps, [0]"]


def test_the_summary():
    assert status().summary == "0/10 trained"
    whole = status(best=[child(7)], seconds_left=125.0, trained=4, running=2, failed=1, lost=1, ready=9)
    assert whole.summary == "4/10 trained, 2 running, 1 failed, 1 lost, best 0.5000 (child 7), 2m05s left"


@pytest.mark.parametrize("seconds, text", [(0.4, "0s"), (59.6, "1m00s"), (185, "3m05s"), (7620, "2h07m")])
def test_durations(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize("number, text", [(None, "-"), (950, "950"), (26_200, "26.2k"), (1_500_000, "1.5M")])
def test_quantities(number, text):
    assert quantity(number) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0.0000"), (0.58, "0.5800"), (7.1234e-5, "7.12e-05"), (-137.25, "-137.2500"), (1.2345e40, "1.23e+40")],
)
def test_figures(value, text):
    assert format_number(value) == text


def test_a_spec_in_one_line():
    layer = {
        "filter_height": 3,
        "filter_width": 5,
        "num_filters": 24,
        "stride_height": 1,
        "stride_width": 1,
        "pool": False,
        "inputs": [],
    }
    layers = [layer, layer | {"stride_height": 2, "pool": True, "inputs": [0]}]
    assert spec_line({"layers": layers}, "convnet") == "3x5x24(image) 3x5x24/2x1p(0)"
    assert spec_line({"layer": 1}, "mine.py:space") == '{"layer": 1}'


def test_a_spec_of_each_space_as_that_space_writes_it():
    rule = UpdateRule.parse("g * sign(m)")
    rule_spec = spec_to_json(rule)
    cell = sample(Space(recurrent_cell), seed=0).spec
    cell_spec = spec_to_json(cell)
    assert spec_line(rule_spec, "update-rule") == str(rule)
    assert spec_line(cell_spec, "recurrent-cell") == cell.line()
    assert spec_drawing(cell_spec, "recurrent-cell") == cell.drawing().splitlines()
    joint = {"tree": cell_spec, "rule": rule_spec, "learning_rate": 0.1}
    assert spec_line(joint, "joint") == f"{cell.line()} by {rule} at 0.1"
    assert spec_drawing(joint, "joint") == cell.drawing().splitlines()
    assert spec_drawing(rule_spec, "update-rule") == []


OWN_SPECS = [  # what users' spaces may return, with the keys of our specs
    {"layers": [16, 32]},
    {"layers": [{"units": 16}]},
    {"layers": 3},
    {"groups": 4},
    {"groups": [{"size": 2}]},
    {"tree": {"depth": 3}, "rule": "gini", "learning_rate": 0.1},
    {"net": [1], "rule": {"groups": 1}, "learning_rate": "high"},
    {"nodes": [], "injection": None, "memory_node": 0, "injection_node": 0},
    [[1], {"layers": None}],
    "relu",
    0.5,
    None,
    {},
]


@pytest.mark.parametrize("spec", OWN_SPECS, ids=str)
def test_a_spec_of_the_users_space_is_shown_as_json(spec):
    assert spec_line(spec, "mine.py:space") == json.dumps(spec)
    assert spec_drawing(spec, "session:space") == []


@pytest.mark.parametrize("space", ["convnet", "recurrent-cell", "update-rule", "joint"])
@pytest.mark.parametrize("spec", OWN_SPECS, ids=str)
def test_a_spec_that_its_space_cannot_read_is_shown_as_json(caplog, spec, space):
    assert spec_line(spec, space) == json.dumps(spec)
    assert spec_drawing(spec, space) == []
    assert all("cannot be read" in record.message for record in caplog.records)


def test_a_spec_cannot_steer_the_terminal():
    assert spec_line("\x1b[2J\u202e\ud800 für\n", "mine.py:space") == '"\\u001b[2J\\u202e\\ud800 für\\n"'


def test_a_spec_that_its_space_cannot_read_does_not_steer_the_terminal_by_the_log(caplog):
    spec_line({"\x1b]0;owned\x07": 1}, "recurrent-cell")
    (record,) = caplog.records
    assert "owned" in record.getMessage() and record.getMessage().isprintable()


def test_children_an_hour_of_the_latest_run():
    """Three gaps of 10 s: 360 an hour. The child of an earlier run does not count."""
    latest = [child(number, finished=1000.0 + 10.0 * number) for number in range(4)]
    found = dataclasses.replace(status(latest=[*latest, child(9, finished=5.0)]), since=100.0)
    assert (found.children_an_hour, found.speed) == (360.0, "360 children an hour")
    for few in (latest[:2], [child(number, finished=1000.0) for number in range(4)], [running(1, finished=None)] * 4):
        assert (status(latest=few).children_an_hour, status(latest=few).speed) == (None, "")
    assert "speed" in "\n".join(shown(found))


def shown(status, notes=()):
    console = Console(record=True, width=110, file=io.StringIO())
    console.print(panel(status, notes))
    return [line.strip("│ ").rstrip() for line in console.export_text().splitlines()]


def test_the_panel():
    search = dataclasses.replace(SEARCH, refused={"repeat": 3, "too large": 1})
    latest = [child(number, reward=number / 4, phases={"train": 3.0}) for number in (2, 1, 0)]
    whole = status(
        search,
        busy=[running(8, progress=40)],
        slots={8: 0},
        latest=latest,
        best=[child(2, spec=["x"] * 99), child(1)],
        seconds_left=65.0,
        trained=3,
        ready=4,
        running=1,
    )
    lines = shown(whole, ["2 workers can be used of 4"])
    text = "\n".join(lines)
    assert lines[0].startswith("╭─ tiny: convnet on digits by reinforce ─") and lines[-1].endswith("─╯")
    assert "trained        3 of 10 in 30s, about 1m05s left" in text
    assert "rewards        ▁▅█  0.0000 to 0.5000" in text
    assert "time           train 75%, other 25%" in text
    assert "note           2 workers can be used of 4" in text
    assert "draws refused  3 repeat, 1 too large" in text
    assert "worker 0: child 8 for 1m05s, 40 steps, [0]" in text
    heading = next(index for index, line in enumerate(lines) if line.startswith("child  reward"))
    assert lines[heading + 1].split()[:7] == ["2", "0.5000", "val_accuracy", "0.7500", "1.5M", "950", "4.0"]
    assert lines[heading + 3].endswith("…") and lines[heading + 4].endswith("[0]")


def test_the_panel_of_a_search_that_has_just_begun():
    text = "\n".join(shown(status(dataclasses.replace(SEARCH, budget=None, name="[red]"))))
    assert "[red]: convnet" in text and "0 in 30s" in text
    assert not any(word in text for word in ("rewards", "time ", "note", "draws", "worker", "reward", " of ", "left"))


@pytest.mark.parametrize("note", ["its log is /data/[old]/worker-0.log", "its log is /data[/old]/worker-0.log"])
def test_a_note_is_shown_as_it_is(note):
    assert any(line.endswith(note) for line in shown(status(), [note]))


def test_early_endings_are_counted_with_the_cost_of_screening():
    counts = [
        EndingCount(None, False, 10, 0.5),
        EndingCount("screened", True, 20, 0.0),
        EndingCount("hopeless", True, 2, 0.125),
        EndingCount("diverged", False, 8, 0.0),
    ]
    assert early_endings(counts) == (
        "of 40 trained: 20 rejected by the screening test (50%), 8 diverged (20%), 2 pruned after the sweep (5%), "
        "2 trained in spite of a rejection (best reward 0.1250)"
    )
    assert early_endings([EndingCount(None, False, 10, 0.5)]) == "" == early_endings([])


@pytest.mark.parametrize("kind", [PlainView, LiveView])
def test_a_view_that_cannot_be_drawn_is_one_line_of_log(caplog, kind):
    store = object()  # which answers nothing
    view = kind(store, "tiny")
    view._interval = 0.0
    view.turn()
    view.turn()
    view.result()
    (record,) = caplog.records
    assert record.message.startswith("The view could not be drawn: AttributeError: 'object' object has no attribute")
    assert record.exc_info is None or not record.exc_info


def test_a_view_that_cannot_be_drawn_does_not_steer_the_terminal(caplog):
    class Damaged:
        def search(self, name):
            raise StoreError("\x1b]0;owned\x07")

    view = PlainView(Damaged(), "tiny")  # type: ignore[arg-type]
    view.result()
    (record,) = caplog.records
    assert "owned" in record.getMessage() and record.getMessage().isprintable()


NET = {
    "layers": [
        {
            "filter_height": 3,
            "filter_width": 5,
            "num_filters": 24,
            "inputs": list(range(index)),
            "stride_height": 1,
            "stride_width": 1,
            "pool": index == 1,
        }
        for index in range(9)
    ]
}
WORDS = [f"3x5x24{'p' if i == 1 else ''}({','.join(map(str, range(i))) or 'image'})" for i in range(9)]


@pytest.mark.parametrize("width", [20, 40, 80, 120, 200, 1000, None])
def test_every_layer_of_a_network_can_be_read_at_any_width(width):
    children = [child(number, spec=NET, metrics={"val_accuracy": 0.5, "loss": 1.25}) for number in range(3)]
    lines = children_lines(children, SEARCH, width)
    assert width is None or all(len(line) <= width for line in lines), lines
    assert " ".join(lines).split().count(WORDS[-1]) == 3 or width == 20
    assert all("".join(lines).replace(" ", "").count(word) >= 3 for word in WORDS)
    assert lines[0].split()[:2] == ["child", "reward"] and "…" not in "".join(lines)
    if width in (200, 1000, None):
        assert "loss 1.2500" in lines[1] and "950" in lines[1]
    if width == 40:
        assert lines[1].split() == ["0", "0.5000", "val_accuracy", "0.5000"]


def test_the_live_view_of_a_narrow_terminal():
    console = Console(record=True, width=40, file=io.StringIO())
    console.print(panel(status(best=[child(1, spec=NET), child(2, spec=NET)], trained=2)))
    lines = [line.strip("│ ") for line in console.export_text().splitlines()]
    (heading,) = (number for number, line in enumerate(lines) if line.startswith("child  reward"))
    assert lines[heading + 1].split()[:2] == ["1", "0.5000"]
    assert lines[heading + 2].startswith("3x5x24(image) 3x5x24p(0)")
    assert lines[heading + 4].endswith("…")  # three lines of a spec, for the view to stay on the screen
    assert lines[heading + 5].split()[:2] == ["2", "0.5000"]
