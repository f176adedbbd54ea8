"""How a child is shown to users and scripts: its metrics, its record as JSON, and its trainings after the search."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from automl.db.records import Child, Search, Training
from automl.wording import counted, format_number


def ignores_input(child: Child) -> bool:
    """Whether a child's predictions do not depend on its input (a metric of language models)."""
    return (child.metrics or {}).get("ignores_input") is True


def goal_metric(search: Search) -> str | None:
    """The metric that --minimize or --maximize names."""
    task = search.settings.get("task")
    goal = task.get("goal") if isinstance(task, dict) else None
    return str(goal["metric"]) if isinstance(goal, dict) and "metric" in goal else None


def metrics_text(metrics: Mapping[str, Any] | None, search: Search) -> list[str]:
    """A child's numeric metrics with their names; the metric of --minimize or --maximize comes first."""
    goal = goal_metric(search)
    numbers = {
        name: float(value)
        for name, value in (metrics or {}).items()
        if isinstance(value, float) or (name == goal and type(value) is int)
    }
    names = sorted(numbers, key=lambda name: name != goal)
    return [f"{name} {format_number(numbers[name])}" for name in names]


def best_text(child: Child, search: Search) -> str:
    """The result of a child: the metric of --minimize or --maximize, otherwise the reward."""
    goal = goal_metric(search)
    texts = metrics_text(child.metrics, search)
    return texts[0] if goal in (child.metrics or {}) and texts else format_number(child.reward or 0.0)


# Names in JSON and data frames that scripts have read since 0.1.0.
PUBLIC_NAMES = {"policy_step": "drawn_under", "isolated": "alone"}


def child_columns(child: Child) -> dict[str, Any]:
    """Every field of a child, under its public name."""
    return {PUBLIC_NAMES.get(name, name): value for name, value in dataclasses.asdict(child).items()}


def child_json(child: Child) -> dict[str, Any]:
    """The JSON object of a child, for scripts."""
    fields = (
        "number",
        "state",
        "fault",
        "message",
        "tokens",
        "spec",
        "reward",
        "metrics",
        "stopped_at",
        "ending",
        "screened",
        "params",
        "flops",
        "seconds",
        "seed",
        "batch",
        "policy_step",
        "origin",
        "tries",
        "attempts",
        "canonical_hash",
    )
    return {PUBLIC_NAMES.get(name, name): getattr(child, name) for name in fields}


def training_json(training: Training) -> dict[str, Any]:
    """The JSON object of a training after the search, for scripts."""
    fields = ("recipe_hash", "seed", "recipe", "reward", "metrics", "seconds", "ending")
    return {name: getattr(training, name) for name in fields}


def training_lines(trainings: Sequence[Training]) -> list[str]:
    """The results of a child's trainings after the search, one line per recipe: mean and deviation over the seeds."""
    by_recipe: dict[str, list[Training]] = {}
    for training in trainings:
        by_recipe.setdefault(training.recipe_hash, []).append(training)
    lines = []
    for group in by_recipe.values():
        recipe = group[0].recipe
        options = recipe.get("options") or {}
        how = [recipe.get("recipe") or "", *(f"{name} {value}" for name, value in options.items())]
        how.append(counted(len(group), "seed"))
        names = dict.fromkeys(name for training in group for name in training.metrics)
        # Built-in tasks show their validation and test metrics; a user's task may report any names.
        shown = [name for name in names if name.startswith(("val_", "test_"))] or list(names)
        results = []
        for name in shown:
            values = [training.metrics[name] for training in group if isinstance(training.metrics.get(name), float)]
            if values:
                results.append(f"{name} {spread(values)}")
        if not results:
            results.append(f"reward {spread([training.reward for training in group])}")
        lines.append(f"({', '.join(part for part in how if part)}): {', '.join(results)}")
    return lines


def spread(values: Sequence[float]) -> str:
    """Mean and sample standard deviation, or the only value."""
    mean = format_number(statistics.fmean(values))
    return mean if len(values) < 2 else f"{mean} ± {format_number(statistics.stdev(values))}"
