"""Children drawn without a controller."""

import random

from automl.search_spaces.decisions import Choice
from automl.search_spaces.space import Space
from automl.search_spaces.walk import Walk


def sample(space: Space, seed: int) -> Walk:
    """A finished walk, each answer drawn uniformly from those that are allowed."""
    generator = random.Random(seed)
    walk = space.walk(0)
    while (decision := walk.decision) is not None:
        if isinstance(decision, Choice):
            allowed = [token for token in range(len(decision.options)) if decision.allows(token)]
            walk.answer((generator.choice(allowed),))
        else:
            walk.answer(tuple(generator.randrange(2) if bit is None else bit for bit in decision.forced))
    return walk
