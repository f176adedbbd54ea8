"""Entry point of the installed command. It imports nothing slow, and first prepares standard streams and Ctrl-C."""

from __future__ import annotations

import sys

from automl.cli import startup, streams
from automl.cli.terminal import print


def main() -> None:
    """Runs the installed command and exits with its code."""
    streams.prepare()
    startup.exit_on_interrupt()
    code: int | str | None = 0
    try:
        from automl.cli.app import main as run

        run()
    except SystemExit as end:
        code = end.code
    except streams.OutputClosed:
        code = 0
    try:
        sys.stdout.flush()
    except streams.OutputClosed:
        pass
    except streams.OutputError as error:
        print(f"Error: {error}", file=sys.stderr)
        code = code or 1
    sys.exit(code)
