"""Trains many update rules side by side: a sweep of learning rates, then a longer training at the best rate."""

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

SCREENED, DIVERGED, PRUNED = "screened", "diverged", "hopeless"  # stored reasons why a rule was not trained to the end


@dataclasses.dataclass(frozen=True)
class MetricSpec:
    """The metric of a validation, and the reward for it.

    Attributes:
        metric: its name.
        maximize: whether a larger value is better.
        worst: the value stored for a rule that was not trained or diverged.
        pruned: a rule ends after its sweep if no learning rate gives a value better than this.
        reward: the reward for a value.
    """

    metric: str
    maximize: bool
    worst: float
    pruned: float
    reward: Callable[[float], float]

    def better(self, value: float, other: float) -> bool:
        return value > other if self.maximize else value < other

    def best(self, values: Sequence[float]) -> int:
        """The index of the best finite value, the first if several are equal. At least one value must be finite."""
        finite = [index for index, value in enumerate(values) if math.isfinite(value)]
        return max(finite, key=lambda index: values[index] if self.maximize else -values[index])


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
        """Reports an epoch. Returns the exception that ends this child, or None."""
        try:
            self.child.report(epoch, **metrics)
        except Exception as error:
            return error
        return None


Ended = tuple[int, Outcome | Exception]


class RuleTrainer:
    """Trains populations of rules with functions that are compiled once for all of them.

    The sweep trains one network for each rule and learning rate for a few epochs, all of a rule from the same weights.
    The long training then trains a network from these weights at the rule's best rate. The best epoch counts.

    A rule that diverges at every rate, or in the long training, has the reward 0. A rule that is pruned after the sweep
    keeps the result of the sweep. A rule that fails the screening test has the reward 0 and is not trained. A small
    share of the rules that fail is trained anyway, to measure what screening costs.

    Source: Bello et al. 2017 (arXiv:1709.07417), section 4.1.
    """

    def __init__(self, network: FlatNetwork, metric: MetricSpec, sweep: Sweep) -> None:
        self._network = network
        self._metric = metric
        self._sweep = sweep
        self._population = Population(network, sweep.population * len(sweep.rates))
        self._screen = Screen(sweep.rates)

    def train(self, children: Sequence[Assignment]) -> Iterator[Ended]:
        """Yields the index of each child in `children` with its outcome, as soon as that is known.

        An exception of a child's report ends only that child, and is yielded as its outcome.
        """
        rules = [_Rule(index, child, encode(cast("UpdateRule", child.spec))) for index, child in enumerate(children)]
        for rule in rules:
            rule.child.report.follow(self._population.steps_done)
        if self._sweep.screened:
            for rule in list(rules):
                with self._timed("screen", [rule]):
                    passed = self._screen.passes(rule.program, rule.child.seed)
                if not passed:
                    rule.screened = True
                    if not self._trained_anyway(rule.child.seed):
                        rules.remove(rule)
                        yield rule.index, self._ended(rule, 0.0, SCREENED)
        if rules:
            with self._timed("trace", rules):
                self._population.compile()
            swept = yield from self._sweep_rates(rules)
            yield from self._train_long(swept)

    def _trained_anyway(self, seed: int) -> bool:
        return bool(np.random.PCG64(seed).random_raw() / 2**64 < self._sweep.screen_sample)

    def _sweep_rates(self, rules: list[_Rule]) -> Generator[Ended, None, list[_Rule]]:
        """Yields the rules that end. Returns the others, each with a new network at its best rate."""
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
        remaining = []
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
                remaining.append(rule)
        return remaining

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
                        rule.metrics |= {metric: value, "epoch": epoch + 2}  # the sweep was epoch 1
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
            for name in ("epoch", "loss"):  # of a result that no longer counts; its weights are dropped, too
                metrics.pop(name, None)
            weights = None
        epoch = metrics.get("epoch", 0)
        return Outcome(reward, metrics, weights, epoch, dict(rule.seconds), ending=why, screened=rule.screened)

    @contextlib.contextmanager
    def _timed(self, phase: str, rules: Sequence[_Rule]) -> Iterator[None]:
        """Context manager that adds an equal share of its time to the seconds of each rule."""
        began = time.perf_counter()
        try:
            yield
        finally:
            for rule in rules:
                rule.seconds[phase] += (time.perf_counter() - began) / len(rules)
