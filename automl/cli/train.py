"""The command `train`."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from automl.child_trainers.devices import start_tensorflow
from automl.child_views import spread
from automl.cli import startup
from automl.cli.data import report_data
from automl.cli.streams import ignore_closed_output
from automl.cli.terminal import print, print_json
from automl.db.store import Store
from automl.machine import prepare_process
from automl.paths import artefacts_of, store_address
from automl.retraining import full_recipe, retrain
from automl.search_spaces.spec import Spec
from automl.settings.schema import MOST_PROCESSES
from automl.stored import in_workdir
from automl.trained_model import find_child
from automl.wording import format_number


def train(
    name: str,
    store_option: str | None,
    *,
    child: int | None,
    recipe: str | None,
    options: Sequence[str],
    seeds: int,
    threads: int | None,
    data_dir: str | None,
    data: str | None,
    workdir: str | None,
    as_json: bool,
) -> None:
    if seeds < 1:
        raise ValueError(f"--seeds is {seeds}; it must be 1 or more.")
    if threads is not None and not 1 <= threads <= MOST_PROCESSES:
        raise ValueError(f"--threads is {threads}; it must be 1 to {MOST_PROCESSES}.")
    ignore_closed_output()
    if data_dir is not None:
        os.environ["AUTOML_DATA"] = data_dir
    with contextlib.closing(Store(store_address(store_option), upgrade=True)) as store:
        search = store.search(name)
        chosen = find_child(store, search, child)
        prepare_process(threads or os.cpu_count() or 1, 0, "cpu")

        def progress(seed: int, epoch: int, metrics: Mapping[str, float], seconds: float) -> None:
            text = ", ".join(
                f"{key} {value}" if isinstance(value, str) else f"{key} {format_number(value)}"
                for key, value in metrics.items()
            )
            if not as_json:
                print(f"seed {seed}, epoch {epoch}: {text} ({seconds:.1f} s)", flush=True)

        def diverged(seed: int, how: str) -> None:
            print(f"seed {seed} diverged: {how}", file=sys.stderr)

        def show(spec: Spec) -> None:
            print(spec.line())
            for line in spec.drawing().splitlines():
                print(f"    {line}")

        if not as_json:
            with_recipe = recipe or full_recipe(search.space, search.task)
            print(f"Training child {chosen.number} of {name}{f' with the recipe {with_recipe}' if with_recipe else ''}")
        start_tensorflow()
        startup.finish()
        with in_workdir(search, workdir):
            trainings = retrain(
                store,
                search,
                chosen,
                recipe=recipe,
                options=options,
                seeds=range(seeds),
                artefacts=artefacts_of(store, name),
                progress=progress,
                diverged=diverged,
                data=data,
                on_spec=(lambda spec: None) if as_json else show,
                on_data=None if as_json else lambda summary: report_data(summary, print, warnings=False),
            )
    if as_json:
        print_json([_shown(training.__dict__) for training in trainings])
        return
    for training in trainings:
        text = ", ".join(
            f"{key} {format_number(value)}" for key, value in training.metrics.items() if isinstance(value, float)
        )
        print(f"seed {training.seed}: {text}, {training.seconds:.0f} s")
    for metric in (name for name in trainings[0].metrics if name.startswith(("val_", "test_"))):
        values = [training.metrics[metric] for training in trainings if metric in training.metrics]
        if values:
            print(f"{metric} over {len(values)} seeds: {spread(values)}")
    if any(metric.startswith("val_") for metric in trainings[0].metrics):
        print(f"Export the best of them with: automl export {name} --child {chosen.number} --format keras --to FILE")


def _shown(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if key not in ("child_id", "finished")}
