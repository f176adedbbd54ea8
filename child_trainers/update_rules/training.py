"""Judges update rules: a sweep of learning rates, then a training at the best of them, many rules side by side."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, cast

import numpy as np

from automl.child_trainers.outcome import Outcome
from automl.child_trainers.recipes import Sweep
from automl.child_trainers.task import Assignment
from automl.child_trainers.update_rules.flat_networks import FlatNetwork
from automl.child_trainers.update_rules.population import Member, Population
from automl.child_trainers.update_rules.screening import Screen
from automl.search_spaces.update_rule.program import encode
from automl.search_spaces.update_rule.spec import UpdateRule

SCREENED, DIVERGED, PRUNED = "screened", "diverged", "hopeless"  # why a rule was not trained to its end, as stored


@dataclasses.dataclass(frozen=True)
class MetricSpec:
    """What a validation says.

    Attributes:
        metric: its name.
        maximize: whether more is better.
        worst: what stands for a rule that was not trained, or diverged.
        pruned: a rule whose sweep reaches nothing better than this ends there.
        reward: of a value.
    """

    metric: str
    maximize: bool
    worst: float
    pruned: float
    reward: Callable[[float], float]

    def better(self, value: float, other: float) -> bool:
        return value > other if self.maximize else value < other

    def best(self, values: Sequence[float]) -> int:
        """The place of the best, the first of equals; there is one that is finite, and only such count."""
        finite = [place for place, value in enumerate(values) if math.isfinite(value)]
        return max(finite, key=lambda place: values[place] if self.maximize else -values[place])


@dataclasses.dataclass
class _Rule:
    """A rule in training."""

    index: int
    child: Assignment
    program: np.ndarray
    seconds: dict[str, float] = dataclasses.field(default_factory=lambda: defaultdict(float))
    metrics: dict[str, Any] = dataclasses.field(default_factory=dict)
    screened: bool = False
    place: int = 0
    values: list[float] = dataclasses.field(default_factory=list)
    weights: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def report(self, epoch: int, **metrics: float) -> Exception | None:
        """Why this child must end, or None."""
        try:
            self.child.report(epoch, **metrics)
        except Exception as error:
            return error
        return None


Ended = tuple[int, Outcome | Exception]


class RuleTrainer:
    """Trains populations of rules, each with a sweep of its own; compiled once for all of them.

    Of each rule, networks are trained for a short while at every rate of the sweep, all from the same weights; then one
    from these weights again, at the rate that came out best. Its best epoch counts.

    A rule that diverges at every rate, or in the long training, has the reward 0; one whose sweep is pruned ends with
    what it has reached. One that descends none of the screen's functions has the reward 0 without any training, except
    for a small share that is trained to see what the screen costs.

    Source: Bello et al. 2017 (arXiv:1709.07417), section 4.1.
    """

    def __init__(self, network: FlatNetwork, metric: MetricSpec, sweep: Sweep) -> None:
        self._network = network
        self._metric = metric
        self._sweep = sweep
        self._population = Population(network, sweep.population * len(sweep.rates))
        self._screen = Screen(sweep.rates)

    def train(self, children: Sequence[Assignment]) -> Iterator[Ended]:
        """Yields what became of each child, by its place among `children`, as soon as it is known.

        An exception of a child's report ends that child alone.
        """
        rules = [_Rule(index, child, encode(cast("UpdateRule", child.spec))) for index, child in enumerate(children)]
        for rule in rules:
            rule.child.report.follow(self._population.steps_done)
        if self._sweep.screened:
            for rule in list(rules):
                with self._timed("screen", [rule]):
                    descends = self._screen.passes(rule.program, rule.child.seed)
                if not descends:
                    rule.screened = True
                    if not self._tried_anyway(rule.child.seed):
                        rules.remove(rule)
                        yield rule.index, self._ended(rule, 0.0, SCREENED)
        if rules:
            with self._timed("trace", rules):
                self._population.compile()
            swept = yield from self._sweep_rates(rules)
            yield from self._train_long(swept)

    def _tried_anyway(self, seed: int) -> bool:
        return bool(np.random.PCG64(seed).random_raw() / 2**64 < self._sweep.screen_sample)

    def _sweep_rates(self, rules: list[_Rule]) -> Generator[Ended, None, list[_Rule]]:
        """Returns the rules that deserve the long training, begun at their best rates."""
        rates, population = self._sweep.rates, self._population
        steps = self._network.steps_per_epoch
        for number, rule in enumerate(rules):
            rule.place = number * len(rates)
            for offset, rate in enumerate(rates):
                member = Member(rule.program, rate, rule.child.seed, steps * self._sweep.sweep_epochs)
                population.begin(rule.place + offset, member)
        running = list(range(len(rules) * len(rates)))
        with self._timed("train", rules):
            for epoch in range(self._sweep.sweep_epochs):
                losses = population.train_epoch(running, epoch)
                running = [place for place, loss in zip(running, losses, strict=True) if math.isfinite(loss)]
        with self._timed("validate", rules):
            values = dict(zip(running, population.validate(running), strict=True))
        going_on = []
        for rule in rules:
            reached = [values.get(rule.place + offset, math.nan) for offset in range(len(rates))]
            rule.metrics["sweep"] = [value if math.isfinite(value) else None for value in reached]
            if not any(math.isfinite(value) for value in reached):
                yield rule.index, self._ended(rule, 0.0, DIVERGED)
                continue
            best = self._metric.best(reached)
            rule.metrics |= {self._metric.metric: reached[best], "learning_rate": rates[best]}
            if (error := rule.report(1, **{self._metric.metric: reached[best]})) is not None:
                yield rule.index, error
            elif not self._metric.better(reached[best], self._metric.pruned):
                yield rule.index, self._ended(rule, self._metric.reward(reached[best]), PRUNED)
            else:
                population.begin(
                    rule.place, Member(rule.program, rates[best], rule.child.seed, steps * self._sweep.epochs)
                )
                going_on.append(rule)
        return going_on

    def _train_long(self, rules: list[_Rule]) -> Iterator[Ended]:
        population, metric = self._population, self._metric.metric
        for epoch in range(self._sweep.epochs):
            if not rules:
                return
            places = [rule.place for rule in rules]
            with self._timed("train", rules):
                losses = population.train_epoch(places, epoch)
            with self._timed("validate", rules):
                values = population.validate(places)
            for rule, loss, value in zip(list(rules), losses, values, strict=True):
                error = None
                if diverged := not (math.isfinite(loss) and math.isfinite(value)):
                    yield rule.index, self._ended(rule, 0.0, DIVERGED)
                else:
                    rule.values.append(value)
                    if self._metric.best(rule.values) == epoch:
                        rule.weights = population.weights(rule.place)
                        rule.metrics |= {metric: value, "epoch": epoch + 2}  # the sweep was the first
                    rule.metrics["loss"] = loss
                    error = rule.report(epoch + 2, **{metric: value, "loss": loss})
                    if error is not None:
                        yield rule.index, error
                if diverged or error is not None:
                    rules.remove(rule)
        for rule in rules:
            yield rule.index, self._ended(rule, self._metric.reward(rule.metrics[metric]))

    def _ended(self, rule: _Rule, reward: float, why: str | None = None) -> Outcome:
        metrics = dict(rule.metrics)
        weights = rule.weights or None
        if why in (SCREENED, DIVERGED):
            metrics |= {self._metric.metric: self._metric.worst}
            for name in ("epoch", "loss"):  # those of a value that no longer counts, as its weights are
                metrics.pop(name, None)
            weights = None
        epoch = metrics.get("epoch", 0)
        return Outcome(reward, metrics, weights, epoch, dict(rule.seconds), ending=why, screened=rule.screened)

    @contextlib.contextmanager
    def _timed(self, phase: str, rules: Sequence[_Rule]) -> Iterator[None]:
        """Charges each of the rules an equal part of the time."""
        began = time.perf_counter()
        try:
            yield
        finally:
            for rule in rules:
                rule.seconds[phase] += (time.perf_counter() - began) / len(rules)
