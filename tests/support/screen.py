"""What a terminal shows after some text was written to it."""

from __future__ import annotations

import re

PART = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])|([\r\n])|([^\x1b\r\n])")


def screen(text: str, width: int, height: int) -> list[str]:
    """The lines of a terminal of this size, including those that have scrolled out at the top.

    It understands what rich writes: text, which wraps at the end of a line, new lines, and the sequences
    that move the cursor upwards and erase a line.
    """
    rows = [""]
    row = column = 0
    for parameters, command, control, character in PART.findall(text):
        if command == "A":
            row = max(row - int(parameters or 1), len(rows) - height, 0)
        elif command == "K":
            rows[row] = "" if parameters == "2" else rows[row][:column]
        elif control == "\r":
            column = 0
        elif control == "\n":
            row, column = row + 1, 0
        elif character:
            if column == width:
                row, column = row + 1, 0
            rows += [""] * (row + 1 - len(rows))
            rows[row] = rows[row][:column].ljust(column) + character + rows[row][column + 1 :]
            column += 1
        rows += [""] * (row + 1 - len(rows))
    return rows
