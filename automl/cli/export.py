"""The command `export`."""

from __future__ import annotations

import os
from pathlib import Path

from automl.child_trainers.devices import quiet_native_start
from automl.cli import startup
from automl.cli.commands import open_for_reading
from automl.cli.terminal import print
from automl.export import export_child
from automl.machine import prepare_process


def write(
    name: str,
    store_option: str | None,
    format: str,
    to: Path,
    *,
    child: int | None,
    source: str | None,
    force: bool,
    data_dir: str | None,
    data: str | None,
    workdir: str | None,
) -> None:
    if data_dir is not None:
        os.environ["AUTOML_DATA"] = data_dir
    with open_for_reading(store_option) as store:
        search = store.search(name)
        startup.finish()
        prepare_process(os.cpu_count() or 1, 1, "cpu")
        with quiet_native_start():
            exported = export_child(
                store,
                search.name,
                format,
                to,
                number=child,
                source=source,
                force=force,
                data=data,
                workdir=workdir,
            )
    print(f"Exported child {exported.number} of {name} to {exported.path}: {exported.note}.")
    for line in exported.use:
        print(line)
