"""The commands `list`, `show`, `top` and `doctor`, which open the store read-only."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from automl.child_views import best_text, child_json, training_json, training_lines
from automl.cli.commands import interruption, open_for_reading, retry_command
from automl.cli.tables import fits, print_children, print_paragraph, print_table
from automl.cli.terminal import print, print_json
from automl.db.records import Child, Search, Step, StoreError
from automl.paths import store_address
from automl.search_spaces.views import spec_drawing, spec_line
from automl.status import INTERRUPTED, StatusReader, early_endings, failures_text, is_interrupted, shown_state
from automl.wording import counted, duration


def print_list(store_option: str | None, *, as_json: bool) -> None:
    """Prints the searches of a store. Raises StoreError, at the end, if some of them cannot be read."""
    with open_for_reading(store_option) as store:
        searches, errors = store.readable_searches()
        counts, best, states = {}, {}, {}
        for search in list(searches):
            try:
                best[search.name] = store.top(search.id, 1)
                counts[search.name] = store.counts(search.id)
                states[search.name] = shown_state(store, search)
            except StoreError as error:
                searches.remove(search)
                errors[search.name] = error
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
    elif searches:
        _print_searches(searches, states, best)
        for name, state in states.items():
            if state == INTERRUPTED:
                print(interruption(store, name))
    elif not errors:
        print("No searches yet. Start one with: automl search NAME")
    if errors:
        raise StoreError(_unreadable(errors))


def _unreadable(errors: dict[str, StoreError]) -> str:
    """Which searches cannot be read, and why the first one cannot."""
    first, error = next(iter(errors.items()))
    why = f"{str(error)[:1].lower()}{str(error)[1:]}"
    if len(errors) == 1:
        return f"The search {first!r} cannot be read: {why}"
    return f"{len(errors)} searches cannot be read, {', '.join(map(repr, errors))}; the first one: {why}"


def _print_searches(searches: Sequence[Search], states: Mapping[str, str], best: Mapping[str, Sequence[Child]]) -> None:
    headings = ["name", "state", "trained", "best", "space", "task", "controller", "started"]
    for date, longest in ((16, 100), (10, 100), (10, 16), (10, 10)):  # with time of day and whole names if they fit
        rows = [
            [
                search.name,
                states[search.name],
                f"{search.num_trained}{'' if search.budget is None else f'/{search.budget}'}",
                best_text(best[search.name][0], search) if best[search.name] else "-",
                _short(search.space, longest),
                _short(search.task, longest),
                search.controller,
                _date(search.created)[:date],
            ]
            for search in searches
        ]
        if fits(headings, rows):
            break
    # Name and state are never left out: commands need the name, and the state says what to do next.
    print_table(headings, rows, drop=("controller", "started", "space", "task", "best", "trained"))


def print_top(name: str, store_option: str | None, count: int, *, as_json: bool) -> None:
    with open_for_reading(store_option) as store:
        search = store.search(name)
        children = store.top(search.id, count)
        interrupted = is_interrupted(store, search)
        again = store.trained_again(search.id)
        endings = store.endings(search.id)
    if as_json:
        print_json(
            [
                {**child_json(child), "trained_again": [training_json(one) for one in again.get(child.number, [])]}
                for child in children
            ]
        )
        return
    if interrupted:
        print(interruption(store, name))
    if not children:
        reasons = early_endings(endings)
        print(f"No child of {name} is trained to its end yet{f': {reasons}' if reasons else ''}.")
        return
    print_children(children, search)
    for child in children:
        for line in training_lines(again.get(child.number, [])):
            print_paragraph(f"child {child.number} trained again {line}")


def print_show(name: str, store_option: str | None, *, as_json: bool) -> None:
    # These modules import NumPy. `list` and `top` are faster without it.
    from automl.child_trainers.behaviour import FIRST_VERSION, earlier_behaviours
    from automl.child_trainers.experiment import reward_definition
    from automl.donors.describing import donor_json, donor_line, weights_of
    from automl.settings.stored import completed
    from automl.worker_plan import sharing_text

    with open_for_reading(store_option) as store:
        search = store.search(name)
        status = StatusReader(store, name).read()
        segments = store.segments(search.id)
        steps = store.steps(search.id)
        digest = store.digest(search.id) if as_json else None  # only for scripts, since it reads every child
        requests = store.requests(search.id, answered=True)
        endings = store.endings(search.id)
        failures = store.failures(search.id)
        again = store.trained_again(search.id)
        donors = store.donors(search.id)
        weights = weights_of(steps[-1] if steps else None, donors)
    reward: str | None = None
    sharing: str | None = None
    try:
        settings = completed(search.settings)
        sharing = sharing_text(settings)
        reward = reward_definition(settings)
        keeps = earlier_behaviours(settings)
        kept = f"keeps the behaviour of {FIRST_VERSION}: {'; '.join(keeps)}" if keeps else ""
    except (ValueError, StoreError) as error:  # settings of another version: show the rest
        keeps, kept = [str(error)], str(error)
    if as_json:
        print_json(
            {
                **_search_json(search),
                "interrupted": status.interrupted,
                "settings": _without_texts(search.settings),
                "children": status.counts,
                "refused": search.refused,
                "digest": digest,
                "segments": [_fields(segment) for segment in segments],
                "steps": [_fields(step) for step in steps],
                "best": None if not status.best else status.best[0].number,
                "waiting": status.waiting,
                "children_an_hour": status.children_an_hour,
                "requests": [_fields(request) for request in requests],
                "endings": [_fields(count) for count in endings],
                "failures": [_fields(count) for count in failures],
                "keeps": keeps,
                "reward": reward,
                "donors": [donor_json(*pair) for pair in zip(donors, weights, strict=True)],
                "trained_again": [
                    {"number": number, **training_json(training)} for number in again for training in again[number]
                ],
            }
        )
        return
    if status.interrupted:
        print_paragraph(interruption(store, name))
    else:
        print_paragraph(f"{search.name}: {search.state}{f' ({search.cause})' if search.cause else ''}")
    print_paragraph(f"  {status.summary}")
    if status.waiting:
        print_paragraph(f"  {status.waiting}")
    if status.speed:
        print_paragraph(f"  speed of the latest run: {status.speed}")
    if status.phases:
        print_paragraph(f"  time of the latest children: {status.phases}")
    if status.ignoring:
        print_paragraph(f"  {status.ignoring}")
    if reasons := early_endings(endings):
        print_paragraph(f"  {reasons}")
    if failures:
        print_paragraph(f"  {failures_text(failures)}; {retry_command(store, name)} makes them ready again")
    for request in requests:
        answer = f"refused, {request.refusal}" if request.refusal else "waits for the next batch"
        print_paragraph(f"  request {request.id}: {answer if request.child is None else f'is child {request.child}'}")
    print_paragraph(f"  space {search.space}, task {search.task}, controller {search.controller}, seed {search.seed}")
    if reward is not None:
        print_paragraph(f"  reward: {reward}")
    for donor, weight in zip(donors, weights, strict=True):
        print_paragraph(f"  learns from {donor_line(donor, weight)}")
    print_paragraph(
        f"  {counted(search.replicas, 'batch', 'batches')} of {search.batch_size} in flight, "
        f"{counted(search.threads, 'thread')} a worker"
    )
    if sharing is not None:
        print_paragraph(f"  {sharing}")
    if kept:
        print_paragraph(f"  {kept}")
    if search.refused:
        print_paragraph(
            "  draws refused: " + ", ".join(f"{count} {reason}" for reason, count in search.refused.items())
        )
    for segment in segments:
        length = "" if segment.ended is None else f", {duration(segment.ended - segment.started)}"
        changes = f", changed {', '.join(segment.changes)}" if segment.changes else ""
        workers = counted(segment.workers, "worker")
        ending = f"{segment.ending or 'not ended'}{changes}"
        print_paragraph(f"  run {segment.number} on {_date(segment.started)}{length}: {workers}, {ending}")
    of_policy = [step for step in steps if _has_probabilities(step)]
    if of_policy:
        last = of_policy[-1]
        steps_text = f"after {last.number} controller steps (entropy {last.stats['entropy']:.3f} nats a token)"
        print_paragraph(f"  {steps_text}, mean probabilities:")
        options = _options_by_kind(search)
        for kind, probabilities in last.stats["probabilities"].items():
            names = options.get(kind, ())
            names = names if len(names) == len(probabilities) else ("",) * len(probabilities)
            pairs = (f"{name} {value:.0%}".strip() for name, value in zip(names, probabilities, strict=True))
            print_paragraph(f"    {kind}: {'  '.join(pairs)}")
    if status.best:
        print_paragraph(f"  best: child {status.best[0].number}, {spec_line(status.best[0].spec, search.space)}")
        for line in spec_drawing(status.best[0].spec, search.space):
            print(f"    {line}")
    for number, trainings in again.items():
        for line in training_lines(trainings):
            print_paragraph(f"  child {number} trained again {line}")


def _has_probabilities(step: Step) -> bool:
    """Whether a step's statistics have a policy's probabilities, in the form in which a controller writes them."""
    by_kind, entropy = step.stats.get("probabilities"), step.stats.get("entropy")
    if not (isinstance(by_kind, dict) and by_kind and isinstance(entropy, float)):
        return False
    lists = [values for values in by_kind.values() if isinstance(values, list)]
    numbers = (isinstance(value, float | int) for values in lists for value in values)
    return len(lists) == len(by_kind) and all(numbers)


def _options_by_kind(search: Search) -> dict[str, tuple[str, ...]]:
    """The options of each kind of choice in a built-in space, without kinds whose decisions differ in their options.
    Empty for a space in a user's file, because a view does not run that file."""
    from automl.child_trainers.experiment import make_space
    from automl.search_spaces import SPACES
    from automl.search_spaces.decisions import Choice
    from automl.settings.stored import completed

    try:
        settings = completed(search.settings)
        if settings["space"]["name"] not in SPACES:
            return {}
        walks = make_space(settings).survey()
    except (ValueError, StoreError):  # settings of another version, or damaged
        return {}
    options_of: dict[str, set[tuple[str, ...]]] = {}
    for walk in walks:
        for decision in walk.decisions:
            if isinstance(decision, Choice):
                options_of.setdefault(decision.kind, set()).add(tuple(map(str, decision.options)))
    return {kind: next(iter(options)) for kind, options in options_of.items() if len(options) == 1}


def _short(reference: str, longest: int) -> str:
    """The name of a space or a task, with a path cut to its last part. Of a text that is still too long, the end."""
    if reference.partition(":")[0].endswith(".py"):  # as in `UserFile.is_reference`, whose module imports NumPy
        path, _, function = reference.rpartition(":")
        reference = f"{Path(path).name}:{function}"
    elif ":" in reference:
        kind, _, path = reference.partition(":")
        reference = f"{kind}:{Path(path).name}"
    return reference if len(reference) <= longest else f"…{reference[1 - longest :]}"


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
    """Settings with user files as path and checksum, and a vocabulary as its size, since their texts are long."""
    shown = dict(settings)
    for group in ("space", "task", "controller"):
        part = settings.get(group)
        if isinstance(part, dict) and isinstance(file := part.get("file"), dict):
            shown[group] = {**part, "file": {key: value for key, value in file.items() if key != "text"}}
    reading = shown["task"].get("reading") if isinstance(shown.get("task"), dict) else None
    if isinstance(reading, dict) and isinstance(reading.get("vocabulary"), list):
        summary = {"options": reading.get("options"), "types": len(reading["vocabulary"])}
        shown["task"] = {**shown["task"], "reading": summary}
    return shown


def _date(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M")
    except (ValueError, OverflowError, OSError):  # there is no such date
        return "-"
