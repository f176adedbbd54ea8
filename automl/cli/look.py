"""The commands that only look: `list`, `show`, `top`, `doctor`. They open the store read-only."""

from __future__ import annotations

import contextlib
import sys
from datetime import datetime
from typing import Any

from automl.cli.commands import interruption, look_at, retry_command
from automl.cli.tables import print_children, print_table
from automl.cli.terminal import print, print_json
from automl.standing import (
    INTERRUPTED,
    Clerk,
    child_json,
    duration,
    early_endings,
    failures_told,
    figure,
    is_interrupted,
    shown_state,
    spec_drawing,
    spec_line,
)
from automl.stores import store_address
from automl.wording import counted
from child_trainers.behaviour import FIRST_VERSION, earlier_behaviours
from db.records import Search
from db.store import Store


def _open(store_option: str | None) -> contextlib.closing[Store]:
    return look_at(store_option)


def print_list(store_option: str | None, *, as_json: bool) -> None:
    with _open(store_option) as store:
        searches = store.searches()
        counts = {search.name: store.counts(search.id) for search in searches}
        best = {search.name: store.top(search.id, 1) for search in searches}
        states = {search.name: shown_state(store, search) for search in searches}
    if as_json:
        print_json(
            [
                {
                    **_search_json(search),
                    "interrupted": states[search.name] == INTERRUPTED,
                    "children": counts[search.name],
                    "best_reward": best[search.name][0].reward if best[search.name] else None,
                }
                for search in searches
            ]
        )
        return
    if not searches:
        print("No searches yet. Start one with: automl search NAME")
        return
    rows = [
        [
            search.name,
            states[search.name],
            f"{search.num_trained}{'' if search.budget is None else f'/{search.budget}'}",
            figure(best[search.name][0].reward or 0.0) if best[search.name] else "-",
            search.space,
            search.task,
            search.controller,
            _date(search.created),
        ]
        for search in searches
    ]
    print_table(["name", "state", "trained", "best", "space", "task", "controller", "started"], rows)
    for name, state in states.items():
        if state == INTERRUPTED:
            print(interruption(store, name))


def print_top(name: str, store_option: str | None, count: int, *, as_json: bool) -> None:
    with _open(store_option) as store:
        search = store.search(name)
        children = store.top(search.id, count)
        interrupted = is_interrupted(store, search)
    if as_json:
        print_json([child_json(child) for child in children])
        return
    if interrupted:
        print(interruption(store, name))
    if not children:
        print(f"No child of {name} is trained yet.")
        return
    print_children(children, search.space)


def print_show(name: str, store_option: str | None, *, as_json: bool) -> None:
    with _open(store_option) as store:
        search = store.search(name)
        standing = Clerk(store, name).standing(0.0)
        segments = store.segments(search.id)
        steps = store.steps(search.id)
        digest = store.digest(search.id) if as_json else None  # for scripts; it reads every child
        requests = store.requests(search.id, answered=True)
        endings = store.endings(search.id)
        failures = store.failures(search.id)
    try:
        keeps = earlier_behaviours(search.settings)
        kept = f"keeps the behaviour of {FIRST_VERSION}: {'; '.join(keeps)}" if keeps else ""
    except ValueError as error:  # a look is possible all the same
        keeps, kept = [str(error)], str(error)
    if as_json:
        print_json(
            {
                **_search_json(search),
                "interrupted": standing.interrupted,
                "settings": _without_texts(search.settings),
                "children": standing.counts,
                "refused": search.refused,
                "digest": digest,
                "segments": [_fields(segment) for segment in segments],
                "steps": [_fields(step) for step in steps],
                "best": None if not standing.best else standing.best[0].number,
                "waiting": standing.waiting,
                "requests": [_fields(request) for request in requests],
                "endings": [_fields(count) for count in endings],
                "failures": [_fields(count) for count in failures],
                "keeps": keeps,
            }
        )
        return
    if standing.interrupted:
        print(interruption(store, name))
    else:
        print(f"{search.name}: {search.state}{f' ({search.cause})' if search.cause else ''}")
    print(f"  {standing.summary}")
    if standing.waiting:
        print(f"  {standing.waiting}")
    if standing.phases:
        print(f"  time of the latest children: {standing.phases}")
    if standing.ignoring:
        print(f"  {standing.ignoring}")
    if told := early_endings(endings):
        print(f"  {told}")
    if failures:
        print(f"  {failures_told(failures)}; {retry_command(store, name)} makes them ready again")
    for request in requests:
        answer = f"refused, {request.refusal}" if request.refusal else "waits for the next batch"
        print(f"  request {request.id}: {answer if request.child is None else f'is child {request.child}'}")
    print(f"  space {search.space}, task {search.task}, controller {search.controller}, seed {search.seed}")
    print(
        f"  {counted(search.replicas, 'batch', 'batches')} of {search.batch_size} in flight, "
        f"{counted(search.threads, 'thread')} a worker"
    )
    if kept:
        print(f"  {kept}")
    if search.refused:
        print("  draws refused: " + ", ".join(f"{count} {reason}" for reason, count in search.refused.items()))
    for segment in segments:
        length = "" if segment.ended is None else f", {duration(segment.ended - segment.started)}"
        changes = f", changed {', '.join(segment.changes)}" if segment.changes else ""
        workers = counted(segment.workers, "worker")
        ending = f"{segment.ending or 'not ended'}{changes}"
        print(f"  run {segment.number} on {_date(segment.started)}{length}: {workers}, {ending}")
    learned = [step for step in steps if step.figures.get("probabilities")]
    if learned:
        last = learned[-1]
        print(f"  after {last.number} controller steps (entropy {last.figures['entropy']:.3f} nats a token), mostly:")
        for kind, chances in last.figures["probabilities"].items():
            print(f"    {kind}: {'  '.join(f'{chance:.0%}' for chance in chances)}")
    if standing.best:
        print(f"  best: child {standing.best[0].number}, {spec_line(standing.best[0].spec, search.space)}")
        for line in spec_drawing(standing.best[0].spec, search.space):
            print(f"    {line}")


def print_doctor(store_option: str | None, data_dir: str | None, *, as_json: bool) -> None:
    from automl.doctor import as_json as finding_json
    from automl.doctor import examine

    findings = examine(store_address(store_option), data_dir)
    if as_json:
        print_json([finding_json(finding) for finding in findings])
    else:
        for finding in findings:
            print(f"{'ok ' if finding.well else 'NO '} {finding.subject}: {finding.found}")
            if finding.advice:
                print(f"     {finding.advice}")
    if not all(finding.well for finding in findings):
        sys.exit(1)


def _search_json(search: Search) -> dict[str, Any]:
    names = ("name", "state", "cause", "space", "task", "controller", "seed", "replicas", "batch_size", "threads")
    return {key: getattr(search, key) for key in (*names, "budget", "num_trained", "created")}


def _fields(record: Any) -> dict[str, Any]:
    hidden = ("search_id", "blob", "blob_sha256")
    return {key: value for key, value in vars(record).items() if key not in hidden}


def _without_texts(settings: dict[str, Any]) -> dict[str, Any]:
    """A person's files by path and checksum; their texts would drown the rest."""
    shown = dict(settings)
    for group in ("space", "task"):
        if (file := settings[group]["file"]) is not None:
            shown[group] = {**settings[group], "file": {key: file[key] for key in ("path", "attribute", "sha256")}}
    return shown


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M")
