"""Reading and controlling a search from another terminal: watch, logs, stop, propose, and resume --set."""

from __future__ import annotations

import contextlib
import json
import shutil

import pytest
from command_line import MINE, OURS, clean_environment, run_automl

from automl.cli import views
from automl.cli.watch import watch
from automl.db.owner import Owner
from automl.db.records import SearchState
from automl.db.store import Store

INLINE = ("--workers", "0")
TALKING = MINE.replace(
    "    worth =", "    print('even' if spec[0] % 2 == 0 else 'odd', flush=True)\n    worth ="
).replace("    report(2,", "    if spec[0] % 2:\n        raise RuntimeError('it is odd')\n    report(2,")


def read(folder, name="mine"):
    """The search and its children."""
    with contextlib.closing(Store(str(folder / "automl.db"), readonly=True)) as store:
        search = store.search(name)
        return search, store.children(search.id)


def unfamiliar(children):
    """Tokens of a child that the search `mine` does not have."""
    there = [child.tokens for child in children]
    return next(tokens for last in range(4) for more in range(4) if (tokens := [3, 3, 3, more, last]) not in there)


@pytest.fixture
def searched(automl, mine, folder):
    """A finished search of two children."""
    assert automl("search", "mine", *OURS, "--children", "2", *INLINE).code == 0
    return folder


# logs


@pytest.fixture(scope="module")
def talking(tmp_path_factory):
    """The store of a search whose task prints, and fails with every second child."""
    folder = tmp_path_factory.mktemp("talking")
    (folder / "mine.py").write_text(TALKING)
    environment = clean_environment() | {"HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    flags = ("--children", "3", "--workers", "1", "--keep-going")
    ran = run_automl("search", "mine", *OURS, *flags, folder=folder, env=environment)
    assert ran.code == 0, ran.err
    return folder


@pytest.fixture
def logs(automl, talking):
    """The command `logs` for the first child in a state; also its number."""
    _, children = read(talking)

    def logs(state):
        number = next(child.number for child in children if child.state == state)
        return number, automl("logs", "mine", number, "--store", talking / "automl.db")

    return logs


def test_logs_of_a_trained_child(logs):
    number, ran = logs("trained")
    heading, *text = ran.out.splitlines()
    assert heading.startswith(f"== attempt 1 of child {number}: worker ") and heading.endswith(", trained")
    assert "even" in text and "odd" not in text


def test_logs_of_a_failed_child_hold_its_traceback(logs):
    number, ran = logs("failed")
    heading, *text = ran.out.splitlines()
    assert heading.startswith(f"== attempt 1 of child {number}: ") and heading.endswith(", raised")
    assert "odd" in text and "even" not in text
    assert any(line.startswith("Traceback") for line in text) and "RuntimeError: it is odd" in text


def test_logs_of_a_child_that_was_not_tried(logs):
    number, ran = logs("ready")
    assert (ran.code, ran.out) == (0, f"Child {number} of mine has no attempt yet.\n")


def test_logs_of_a_child_that_failed_inline_hold_its_traceback(automl, folder):
    (folder / "mine.py").write_text(TALKING)
    assert automl("search", "mine", *OURS, "--children", "3", *INLINE, "--keep-going").code == 0
    _, children = read(folder)
    number = next(child.number for child in children if child.state == "failed")
    assert "RuntimeError: it is odd" in automl("logs", "mine", number).out


def test_logs_of_an_interrupted_attempt_name_where_they_are(automl, searched):
    with contextlib.closing(Store(str(searched / "automl.db"))) as store:
        lease = store.take_lease("mine", Owner.this_process())
        store.set_state(lease, SearchState.RUNNING)
        store.set_budget(lease, 3)
        claim = store.claim(lease.search_id, "worker-0-1", "cpu")
        store.release(lease, SearchState.PAUSED, "stopped by SIGINT")
    heading, text = automl("logs", "mine", claim.number).out.splitlines()
    assert heading.endswith(" on cpu, interrupted")
    assert text == (
        f"(its output is in the log of its worker, in {searched}/automl.db.logs/mine of the machine that it ran on)"
    )


def test_logs_of_an_unknown_child(automl, talking):
    assert automl("logs", "mine", "99", "--store", talking / "automl.db").error == (
        "'mine' has no child 99; see automl show mine."
    )


def test_logs_of_a_child_that_was_trained_inline(automl, searched):
    lines = automl("logs", "mine", "0").out.splitlines()
    assert lines[0].endswith(" on this process, trained") and lines[1:] == ["(it printed to the terminal)"]


# watch and stop


def test_watching_a_finished_search(automl, searched):
    ran = automl("watch", "mine")
    assert ran.code == 0 and ran.out.splitlines()[0].split()[:2] == ["child", "reward"]
    assert ran.out.splitlines()[-1] == "mine is finished: 2 children trained."


@pytest.fixture
def held(searched):
    """The finished search again under a lease of this process: the store, and the lease."""
    with contextlib.closing(Store(str(searched / "automl.db"))) as store:
        yield store, store.take_lease("mine", Owner.this_process())


def test_watching_until_the_end(held, capsys, monkeypatch):
    store, lease = held
    monkeypatch.setattr(views, "PLAIN_SECONDS", 0.0)
    pauses = []

    def pause(seconds):
        pauses.append(seconds)
        if len(pauses) == 3:
            store.release(lease, SearchState.PAUSED, "stopped by SIGINT")

    watch("mine", None, pause=pause)
    lines = capsys.readouterr().out.splitlines()
    assert pauses == [0.5] * 3
    assert lines[0].startswith("2/2 trained, ") and lines[1].startswith("child ")  # one line, since nothing changed
    assert lines[-1] == "mine is paused (stopped by SIGINT): 2 children trained."


def test_watching_a_search_whose_process_dies(held, capsys, monkeypatch):
    pauses = []

    def pause(seconds):
        pauses.append(seconds)
        monkeypatch.setattr(Store, "is_held", lambda store, name: False)

    watch("mine", None, pause=pause)
    assert len(pauses) == 1
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "mine is interrupted: 2 children trained.",
        "Its process is gone. Take it over with: automl resume mine",
    ]


def test_a_search_whose_process_died(automl, searched):
    """Every command says that the search is interrupted, none says that it runs, and it can be resumed at once."""
    here = Owner.this_process()
    dead = Owner(here.host, here.boot, here.pid, here.started - 1)
    with contextlib.closing(Store(str(searched / "automl.db"))) as store:
        lease = store.take_lease("mine", dead)
        store.set_budget(lease, 3)
        claim = store.claim(lease.search_id, "worker-0-1", "cpu")
        assert claim is not None
    before = read(searched)
    told = "mine was interrupted: its process is gone. Go on with: automl resume mine"
    listed = automl("list").out
    assert listed.splitlines()[1].split()[:2] == ["mine", "interrupted"] and listed.splitlines()[-1] == told
    shown = automl("show", "mine").out
    assert shown.splitlines()[:2] == [
        told,
        "  2/3 trained, 1 interrupted, best " + shown.partition("best ")[2].split("\n")[0],
    ]
    assert " ready: the search was interrupted\n" in shown and "running" not in shown
    assert automl("top", "mine").out.splitlines()[0] == told
    for found in (automl("list", "--json").json[0], automl("show", "mine", "--json").json):
        assert (found["state"], found["interrupted"]) == ("running", True)
    assert automl("watch", "mine").out.splitlines()[-2:] == [
        "mine is interrupted: 2 children trained.",
        "Its process is gone. Take it over with: automl resume mine",
    ]
    assert automl("stop", "mine").out == "mine is not running (interrupted). Go on with: automl resume mine\n"
    assert " (it was interrupted and can go on with: automl resume mine) " in automl("delete", "mine").error
    (finding,) = [found for found in json.loads(automl("doctor", "--json").out) if found["subject"] == "search mine"]
    assert not finding["well"] and finding["found"].startswith("interrupted, its coordinator (")
    assert read(searched) == before
    tokens = ",".join(map(str, unfamiliar(before[1])))
    assert automl("propose", "mine", "--tokens", tokens).out.splitlines()[-1] == (
        "mine is not running (interrupted). Go on with: automl resume mine"
    )
    lines = automl("resume", "mine", "--children", "3", *INLINE).out.splitlines()
    assert "It was interrupted: its process is gone; 1 child that was running is trained again" in lines
    assert lines[-2] == "Done: 3 children trained."
    assert automl("list", "--json").json[0]["interrupted"] is False


def test_a_search_whose_process_died_with_its_budget_trained_ends_when_it_is_resumed(automl, searched):
    here = Owner.this_process()
    with contextlib.closing(Store(str(searched / "automl.db"))) as store:
        store.take_lease("mine", Owner(here.host, here.boot, here.pid, here.started - 1))
    assert automl("resume", "mine", *INLINE).out.splitlines()[-2] == "Done: 2 children trained."
    assert automl("list", "--json").json[0]["state"] == "finished"


def test_a_lease_that_ran_out_is_an_interruption_on_other_machines_too(automl, searched):
    """The state of the process is unknown on this machine, but its lease has expired."""
    with contextlib.closing(Store(str(searched / "automl.db"), clock=lambda: 1e9)) as store:
        store.take_lease("mine", Owner("elsewhere", "boot", 1, 1))
    assert automl("show", "mine", "--json").json["interrupted"] is True
    (finding,) = [found for found in json.loads(automl("doctor", "--json").out) if found["subject"] == "search mine"]
    assert "(process 1 on elsewhere) has not renewed its lease" in finding["found"]


def test_a_search_that_runs_is_not_interrupted(automl, held):
    assert automl("list").out.splitlines()[1].split()[:2] == ["mine", "running"]
    assert automl("show", "mine", "--json").json["interrupted"] is False
    assert automl("show", "mine").out.startswith("mine: running\n")


def test_stopping_a_search_that_does_not_run(automl, searched):
    before = read(searched)
    assert automl("stop", "mine").out == (
        "mine is not running (finished). Go on with: automl resume mine --children 4\n"
    )
    assert read(searched) == before


def test_stopping_a_search_that_runs(automl, held):
    store, _ = held
    assert automl("stop", "mine").out == (
        "Asked mine to stop: children that run get 10 s.\nGo on later with: automl resume mine\n"
    )
    assert store.search("mine").stop_requested is not None


def test_a_search_that_is_not_there(automl, searched):
    for command in (("watch", "mien"), ("logs", "mien", "0"), ("stop", "mien"), ("propose", "mien", "--tokens", "0")):
        assert "'mien'" in automl(*command).error


# propose


@pytest.fixture
def propose(automl, searched):
    """The command `propose` for `mine`; an object is written to a file for --spec."""

    def propose(*flags, spec=None):
        if spec is not None:
            (searched / "spec.json").write_text(spec if isinstance(spec, str) else json.dumps(spec))
            flags += ("--spec", "spec.json")
        return automl("propose", "mine", *flags)

    return propose


@pytest.mark.parametrize("way", ["tokens", "decisions"])
def test_a_proposed_child_is_trained(automl, propose, searched, way):
    tokens = unfamiliar(read(searched)[1])
    if way == "tokens":
        ran = propose("--tokens", ",".join(map(str, tokens)))
    else:
        ran = propose(spec={f"digit{index}": token for index, token in enumerate(tokens)})
    assert ran.out == (
        "Queued for mine: it comes with the next batch that is proposed (see automl show mine).\n"
        "mine is not running (finished). Go on with: automl resume mine --children 4\n"
    )
    assert "  request 1: waits for the next batch\n" in automl("show", "mine").out
    waiting = "This child is already waiting for the next batch of 'mine'."
    assert propose("--tokens", str(tokens)).error == waiting
    assert automl("resume", "mine", "--children", "12", *INLINE).code == 0
    (child,) = [child for child in read(searched)[1] if child.origin == "person"]
    assert (child.tokens, child.state) == (tokens, "trained")
    assert f"  request 1: is child {child.number}\n" in automl("show", "mine").out
    (request,) = automl("show", "mine", "--json").json["requests"]
    assert (request["child"], request["refusal"]) == (child.number, None)
    assert propose("--tokens", str(tokens)).error == f"'mine' already has this child: child {child.number}."


def test_a_proposed_child_that_the_search_refuses(automl, mine):
    assert automl("search", "mine", *OURS, "--children", "2", "--fix", "digit0=3", *INLINE).code == 0
    assert automl("propose", "mine", "--tokens", "0,0,0,0,0").code == 0
    assert automl("resume", "mine", "--children", "12", *INLINE).code == 0
    refused = "it is outside what --fix, --only or the schedule leaves"
    assert f"  request 1: refused, {refused}\n" in automl("show", "mine").out
    (request,) = automl("show", "mine", "--json").json["requests"]
    assert (request["child"], request["refusal"]) == (None, refused)


BOTH = "Give the child as either --spec FILE or --tokens 0,2,1,…"
NO_NUMBERS = "is not a list of whole numbers; write for example 0,2,1."


def test_what_cannot_be_proposed(propose, searched):
    before = read(searched)
    assert propose().error == propose("--tokens", "0", spec={}).error == BOTH
    for text in ("", "a,b", "1,-2", "1.5"):
        assert propose("--tokens", text).error.endswith(NO_NUMBERS)
    assert propose("--tokens", "0,1,2").error.startswith("The tokens end before 'digit3': ")
    assert propose("--tokens", "0,1,2,3,4").error.startswith("Token 4 is out of range for 'digit4': ")
    assert propose("--tokens", "0,0,0,0,0,0").error.startswith("1 of 6 tokens are left over after the last decision. ")
    assert propose("--spec", "none.json").error == "none.json cannot be read: No such file or directory."
    assert propose(spec="{").error.startswith("spec.json is not JSON: ")
    (searched / "latin.txt").write_bytes(b"caf\xe9")
    assert propose("--spec", "latin.txt").error == "latin.txt is not UTF-8 text."
    assert propose(spec=[3, 3, 3, 3, 3]).error.startswith("A spec of this space is a JSON object with a value for ")
    whole = {f"digit{index}": 3 for index in range(5)}
    assert propose(spec=whole | {"digit3": 7}).error == "'digit3' cannot be 7; it is one of 0, 1, 2, 3."
    assert propose(spec=whole | {"digit9": 1}).error == "This child has no decision 'digit9'."
    del whole["digit4"]
    assert propose(spec=whole).error == "No value is given for the decision 'digit4'."
    first = before[1][0]
    assert propose("--tokens", str(first.tokens)).error == "'mine' already has this child: child 0."
    assert read(searched) == before


@pytest.fixture
def copied(digits, folder):
    """A copy of the digits' store in the current folder."""
    path, _ = digits
    shutil.copy(path, folder / "automl.db")
    return folder


def test_a_child_that_counts_as_another(automl, folder):
    """The two inputs of a cell's root, swapped."""
    (folder / "worth.py").write_text("def evaluate(spec):\n    return 1.0\n")
    flags = (
        "--space",
        "recurrent-cell",
        "--set",
        "space.base=2",
        "--task",
        "worth.py:evaluate",
        "--controller",
        "random",
    )
    assert automl("search", "cells", *flags, "--children", "8", *INLINE).code == 0
    child = next(child for child in read(folder, "cells")[1] if child.spec["nodes"][0] != child.spec["nodes"][1])
    left, right, root = child.spec["nodes"]
    places = {name: (1, 0, 2)[child.spec[name]] for name in ("memory_node", "injection_node")}
    (folder / "spec.json").write_text(json.dumps(child.spec | {"nodes": [right, left, root]} | places))
    assert automl("propose", "cells", "--spec", "spec.json").error == (
        f"'cells' already has an equal child: child {child.number}."
    )


def test_an_exported_spec_that_a_user_changed(automl, copied):
    """Its layers are those of the child. If the space has no such child, the message names the nearest."""
    assert automl("export", "digits", "--format", "json", "--to", "child.json").code == 0
    child = json.loads((copied / "child.json").read_text())
    number = child["number"]
    assert automl("propose", "digits", "--spec", "child.json").error == (
        f"'digits' already has this child: child {number}."
    )
    layer = child["spec"]["layers"][0]
    layer["num_filters"] = 9
    (copied / "child.json").write_text(json.dumps(child))
    assert automl("propose", "digits", "--spec", "child.json").error == (
        "'layer0/num_filters' cannot be 9; it is one of 8, 12, 16, 24."
    )
    layer |= {"num_filters": 8, "more": 1}
    (copied / "child.json").write_text(json.dumps(child))
    assert automl("propose", "digits", "--spec", "child.json").error.startswith("The space has no such child; ")
    del layer["more"]
    (copied / "other.json").write_text('{"layers": 3}')
    assert automl("propose", "digits", "--spec", "other.json").error == (
        "This is no spec of a ConvNet as export --format json writes it."
    )
    there = [other.spec for other in read(copied, "digits")[1]]
    sizes = [(height, width) for height in (1, 3, 5) for width in (1, 3, 5)]
    for height, width in sizes:
        layer["filter_height"], layer["filter_width"] = height, width
        if child["spec"] not in there:
            break
    (copied / "child.json").write_text(json.dumps(child["spec"]))
    assert automl("propose", "digits", "--spec", "child.json").out.startswith("Queued for digits: ")
    assert automl("resume", "digits", "--children", "7", *INLINE).code == 0
    (made,) = [other for other in read(copied, "digits")[1] if other.origin == "person"]
    assert (made.spec, made.state) == (child["spec"], "trained")
    assert f"  request 1: is child {made.number}\n" in automl("show", "digits").out


# resume --set


@pytest.mark.parametrize(
    "option, error",
    [
        ("space.strides=true", "space.strides cannot be changed after a search has begun; start another search with "),
        ("controller.hidden_units=8", "controller.hidden_units cannot be changed after a search has begun: "),
        ("task.num_validation=50", "task.num_validation cannot be changed after a search has begun: "),
        ("task.epohcs=2", "There is no task option called 'epohcs'; there is epochs, "),
        ("controller.entorpy=2", "There is no controller option called 'entorpy'; there is entropy"),
    ],
)
def test_what_a_resume_cannot_change(automl, copied, option, error):
    before = read(copied, "digits")
    assert automl("resume", "digits", "--children", "9", *INLINE, "--set", option).error.startswith(error)
    assert read(copied, "digits") == before


def test_a_resume_that_changes_the_controller(automl, mine, folder):
    flags = ("--space", "mine.py:space", "--task", "mine.py:evaluate", "--batch-size", "2", *INLINE)
    assert automl("search", "mine", *flags, "--children", "2").code == 0
    assert automl("resume", "mine", "--children", "4", "--set", "controller.entropy=0.25").code == 0
    shown = automl("show", "mine", "--json").json
    assert [segment["changes"] for segment in shown["segments"]] == [{}, {"controller.entropy": 0.25}]
    assert shown["settings"]["controller"]["options"] == {"entropy": 0.25}
    assert "finished, changed controller.entropy" in automl("show", "mine").out
    assert automl("resume", "mine", "--children", "6").code == 0  # the change stays for later resumes
    assert automl("show", "mine", "--json").json["settings"]["controller"]["options"] == {"entropy": 0.25}
