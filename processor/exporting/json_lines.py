"""JSON Lines: a row is an object in a line of its own, in UTF-8; what is JSON in it stands there as it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO

import orjson

from holdfast.processor.exporting.rows import JSON, Row


class JsonLines:
    """Writes rows to a file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, rows: Sequence[Row]) -> None:
        """Write one line for each row."""
        self._file.write(b"".join(map(_line, rows)))

    def close(self) -> None:
        """Do nothing more: every line is whole by itself."""


def _line(row: Row) -> bytes:
    nested = {name: orjson.Fragment(row[name]) for name in JSON if row.get(name) is not None}
    return orjson.dumps({**row, **nested}, option=orjson.OPT_APPEND_NEWLINE)
