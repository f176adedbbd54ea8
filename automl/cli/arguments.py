"""Arguments and flags that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

from automl.cli.flags import flag

Name = Annotated[str, typer.Argument(help="Name of the search.")]
StoreOption = Annotated[
    str | None,
    typer.Option("--store", help="Database URL or SQLite file.", envvar="AUTOML_STORE", show_default="automl.db"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
DataDir = Annotated[str | None, flag("data_dir")]
Data = Annotated[
    str | None, typer.Option("--data", metavar="PATH", help="New path of the search's npz: or text: data.")
]
Workdir = Annotated[str | None, flag("workdir", resume=True)]
