"""Controllers as a user writes them, in one file outside the packages."""

import math

import numpy as np

from automl.controllers.base import Controller, ControllerState, PolicyController, Proposal
from automl.controllers.keyed import stream
from automl.controllers.random_search import uniform_answer
from automl.search_spaces.decisions import Choice
from automl.search_spaces.walk import possible_answers


class Evolution(Controller):
    """Changes a few answers of one of the best children. It stores no state: a resume replays all batches."""

    def __init__(self, space, *, seed, parents=3):
        super().__init__(space, seed=seed)
        self.parents = parents
        self.told = []

    def propose(self, draws, pending):
        return [self.draw(draw) for draw in draws]

    def draw(self, draw):
        random = stream(self.seed, draw.number, draw.attempt)
        best = sorted(self.told, key=lambda result: (-result.reward, result.number))[: self.parents]
        parent = self.space.decode(best[random.integers(len(best))].tokens).answers if best else {}
        walk = self.space.walk(draw.number)
        while (decision := walk.decision) is not None:
            old = parent.get(decision.name)
            if (given := draw.answer(decision)) is not None:
                walk.answer(given)
            elif old is not None and decision.admits(old) and random.random() < 0.8:
                walk.answer(old)
            else:
                walk.answer(uniform_answer(decision, random))
        return Proposal(walk.tokens)

    def learn(self, results):
        self.told += results
        return {"parents": len(self.told)}


class Climber(PolicyController):
    """Draws around the best child so far, with log-probabilities. Its state is one number and one array."""

    def __init__(self, space, *, seed):
        super().__init__(space, seed=seed)
        self.best, self.tokens = None, np.zeros(0, np.int64)

    def propose(self, draws, pending):
        old = {} if self.best is None else self.space.decode(tuple(self.tokens.tolist())).answers
        return [self.draw(draw, old) for draw in draws]

    def draw(self, draw, old):
        random = stream(self.seed, draw.number, draw.attempt)
        walk = self.space.walk(draw.number)
        log_probs = []
        while (decision := walk.decision) is not None:
            before = old.get(decision.name, (None,) * decision.num_tokens)
            choices = possible_answers(decision) if isinstance(decision, Choice) else [(0,), (1,)]
            answers = [answer[0] for answer in choices]
            given, tokens = draw.answer(decision), []
            for place, forced in enumerate(decision.forced):
                weights = np.array([1.0 + 3.0 * (answer == before[place]) for answer in answers])
                chances = weights / weights.sum()
                drawn = answers[int(np.searchsorted(chances.cumsum()[:-1], random.random(), side="right"))]
                token = given[place] if given is not None else drawn if forced is None else forced
                tokens.append(token)
                log_probs.append(None if forced is not None else math.log(chances[answers.index(token)]))
            walk.answer(tuple(tokens))
        return Proposal(walk.tokens, tuple(log_probs))

    def learn(self, results):
        for result in results:
            if self.best is None or result.reward > self.best:
                self.best, self.tokens = result.reward, np.array(result.tokens, np.int64)
        return {"best": self.best}

    def state(self):
        return ControllerState({"tokens": self.tokens}, {"best": self.best})

    def restore(self, state):
        self.best, self.tokens = state.values["best"], state.arrays["tokens"]
