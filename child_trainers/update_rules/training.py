"""Judges update rules: a sweep of learning rates, then a longer training at the best rate."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import numpy as np

from automl.child_trainers.outcome import Outcome
from automl.child_trainers.recipes import Sweep
from automl.child_trainers.task import Assignment, MoreChildren
from automl.child_trainers.update_rules.flat_networks import FlatNetwork
from automl.child_trainers.update_rules.population import Member, Population
from automl.child_trainers.update_rules.screening import Screen
from automl.search_spaces.update_rule.program import encode
from automl.search_spaces.update_rule.spec import UpdateRule

RULES_TOGETHER = 8  # rules whose screening tests run at once on a GPU
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
    reached: dict[int, float] = dataclasses.field(default_factory=dict)  # by the sweep, for each rate's index
    values: list[float] = dataclasses.field(default_factory=list)
    weights: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def report(self, epoch: int, **metrics: float) -> Exception | None:
        """Reports an epoch. Returns the exception that ends this child, or None."""
        try:
            self.child.report(epoch, **metrics)
        except Exception as error:
            return error
        return None


@dataclasses.dataclass
class _Network:
    """A network in training: at one rate of a rule's sweep, or in the long training at the best of them.

    Attributes:
        rate: its index in the sweep.
        epochs: in all.
        epoch: the number of epochs done.
        loss: of the latest epoch.
    """

    rule: _Rule
    rate: int
    epochs: int
    long: bool = False
    epoch: int = 0
    loss: float = 0.0

    @property
    def is_due(self) -> bool:
        """Whether a validation follows the epoch."""
        return self.long or self.epoch == self.epochs

    @property
    def ends(self) -> bool:
        return self.epoch == self.epochs or not math.isfinite(self.loss)


Ended = tuple[int, Outcome | Exception]


class RuleTrainer:
    """Trains populations of rules with functions that are compiled once for all of them.

    The sweep trains one network for each rule and learning rate for a few epochs, all of a rule from the same weights.
    The long training then trains a network from these weights at the rule's best rate. The best epoch counts.

    A rule that diverges at every rate, or in the long training, has the reward 0. A rule that is pruned after the sweep
    keeps the result of the sweep. A rule that fails the screening test has the reward 0 and is not trained. A small
    share of the rules that fail is trained anyway, to measure what screening costs.

    Source: Bello et al. 2017 (arXiv:1709.07417), section 4.1.

    Args:
        population: of this network; networks of all rules and rates share its places, and a place that becomes free is
            used again in the next epoch.
    """

    def __init__(self, network: FlatNetwork, population: Population, metric: MetricSpec, sweep: Sweep) -> None:
        self._network = network
        self._population = population
        self._metric = metric
        self._sweep = sweep
        self._together = RULES_TOGETHER if population.side_by_side else 1
        self._screen = Screen(sweep.rates, together=self._together)

    def train(self, children: Sequence[Assignment], more: MoreChildren) -> Iterator[Ended]:
        """Yields the index of each child in `children` with its outcome, as soon as that is known.

        An exception of a child's report ends only that child, and is yielded as its outcome. Children of `more` have
        the indices that follow. A population whose members take turns trains no more children.
        """
        waiting: deque[_Network] = deque()
        running: dict[int, _Network] = {}
        count = len(children)
        yield from self._admit(children, 0, waiting)
        while True:
            free = deque(place for place in range(self._population.places) if place not in running)
            while (
                self._population.side_by_side
                and len(free) - len(waiting) >= len(self._sweep.rates)
                and (added := more())
            ):
                yield from self._admit(added, count, waiting)
                count += len(added)
            while waiting and free:
                network = waiting.popleft()
                place = free.popleft()
                running[place] = network
                self._population.begin(place, self._member(network))
            if not running:
                return
            yield from self._train_epoch(running, waiting)

    def _admit(self, children: Sequence[Assignment], first: int, waiting: deque[_Network]) -> Iterator[Ended]:
        """Yields the children that the screening test rejects; the networks of the others wait.

        Args:
            first: the index of the first of these children.
        """
        rules = [
            _Rule(first + number, child, encode(cast("UpdateRule", child.spec)))
            for number, child in enumerate(children)
        ]
        for rule in rules:
            rule.child.report.follow(self._population.steps_done)
        passed = []
        for start in range(0, len(rules), self._together):
            group = rules[start : start + self._together]
            if self._sweep.screened:
                with self._timed("screen", group):
                    found = self._screen.passes([rule.program for rule in group], [rule.child.seed for rule in group])
                for rule, good in zip(group, found, strict=True):
                    rule.screened = not good
            for rule in group:
                if rule.screened and not self._trained_anyway(rule.child.seed):
                    yield rule.index, self._ended(rule, 0.0, SCREENED)
                else:
                    passed.append(rule)
        if passed:
            with self._timed("trace", passed):
                self._population.compile()
        epochs = self._sweep.sweep_epochs
        waiting += [_Network(rule, rate, epochs) for rule in passed for rate in range(len(self._sweep.rates))]

    def _trained_anyway(self, seed: int) -> bool:
        return bool(np.random.PCG64(seed).random_raw() / 2**64 < self._sweep.screen_sample)

    def _member(self, network: _Network) -> Member:
        rule, steps = network.rule, self._network.steps_per_epoch * network.epochs
        return Member(rule.program, self._sweep.rates[network.rate], rule.child.seed, steps)

    def _train_epoch(self, running: dict[int, _Network], waiting: deque[_Network]) -> Iterator[Ended]:
        """Trains an epoch of all networks. Yields the rules that end, and removes the networks that end. The long
        training of a rule whose sweep ends is the next to begin."""
        networks = dict(running)
        with self._timed("train", [network.rule for network in networks.values()]):
            losses = self._population.train_epoch(list(networks), [network.epoch for network in networks.values()])
        for network, loss in zip(networks.values(), losses, strict=True):
            network.epoch += 1
            network.loss = loss
        due = [place for place, network in networks.items() if math.isfinite(network.loss) and network.is_due]
        with self._timed("validate", [networks[place].rule for place in due]):
            values = dict(zip(due, self._population.validate(due), strict=True))
        for place, network in networks.items():
            rule, value = network.rule, values.get(place, math.nan)
            if network.long:
                ended = self._continue_long(place, network, value)
            else:
                ended = None
                if network.ends:
                    rule.reached[network.rate] = value
                    if len(rule.reached) == len(self._sweep.rates):
                        ended = self._end_sweep(rule, waiting)
            if network.ends or ended is not None:
                del running[place]
            if ended is not None:
                yield rule.index, ended

    def _end_sweep(self, rule: _Rule, waiting: deque[_Network]) -> Outcome | Exception | None:
        """The outcome of a rule that ends after its sweep. None if the long training follows, which then waits."""
        rates = self._sweep.rates
        reached = [rule.reached[rate] for rate in range(len(rates))]
        rule.metrics["sweep"] = [value if math.isfinite(value) else None for value in reached]
        if not any(math.isfinite(value) for value in reached):
            return self._ended(rule, 0.0, DIVERGED)
        best = self._metric.best(reached)
        rule.metrics |= {self._metric.metric: reached[best], "learning_rate": rates[best]}
        if (error := rule.report(1, **{self._metric.metric: reached[best]})) is not None:
            return error
        if not self._metric.better(reached[best], self._metric.pruned):
            return self._ended(rule, self._metric.reward(reached[best]), PRUNED)
        waiting.appendleft(_Network(rule, best, self._sweep.epochs, long=True))
        return None

    def _continue_long(self, place: int, network: _Network, value: float) -> Outcome | Exception | None:
        """Records an epoch of the long training. Returns the outcome of a rule that ends."""
        rule, metric, epoch = network.rule, self._metric.metric, network.epoch
        if not (math.isfinite(network.loss) and math.isfinite(value)):
            return self._ended(rule, 0.0, DIVERGED)
        rule.values.append(value)
        if self._metric.best(rule.values) == epoch - 1:
            rule.weights = self._population.weights(place)
            rule.metrics |= {metric: value, "epoch": epoch + 1}  # the sweep was epoch 1
        rule.metrics["loss"] = network.loss
        if (error := rule.report(epoch + 1, **{metric: value, "loss": network.loss})) is not None:
            return error
        return self._ended(rule, self._metric.reward(rule.metrics[metric])) if network.ends else None

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
        """Context manager that adds an equal share of its time to the seconds of each of these rules, which may occur
        several times."""
        began = time.perf_counter()
        try:
            yield
        finally:
            for rule in rules:
                rule.seconds[phase] += (time.perf_counter() - began) / len(rules)
