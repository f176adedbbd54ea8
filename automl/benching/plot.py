"""The plot of a bench: mean curves with the bands of their confidence intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from automl.benching.searches import History
from automl.benching.summary import best_curve, incumbent_values, mean_of

POINTS = 100  # of a curve


def plot(searches: Mapping[str, Sequence[History]], length: int, optimum: float | None, title: str, path: Path) -> None:
    """Draws the mean best reward of each competitor, or its mean regret if the optimum is known.

    Args:
        length: the number of children on the horizontal axis.
        path: an image file that `pictures.check_plot` accepts.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
    places = np.unique(np.linspace(1, length, min(length, POINTS)).astype(int))
    for competitor, histories in searches.items():
        if optimum is None:
            curves = np.array([best_curve(one, length) for one in histories])
        else:
            curves = optimum - np.array([incumbent_values(one, length) for one in histories])
        means = [mean_of(curves[:, place - 1]) for place in places]
        (line,) = axes.plot(places, [mean.mean for mean in means], label=competitor)
        if len(histories) > 1:
            bounds = np.array([(mean.low, mean.high) for mean in means], float)
            axes.fill_between(places, bounds[:, 0], bounds[:, 1], color=line.get_color(), alpha=0.15)
    seeds = max(len(histories) for histories in searches.values())
    axes.set(
        xlabel="trained children",
        ylabel="best reward" if optimum is None else "regret of the best child",
        title=f"{title}, mean of {seeds} seeds with its 95 % interval",
    )
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(path)
    pyplot.close(figure)
