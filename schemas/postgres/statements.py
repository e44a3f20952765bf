"""SQL statements by name.

A package keeps its SQL in the ``.sql`` files of its folder ``sql``. A file holds one or more
statements, each under a line ``-- name: the_name``. Parameters are psycopg's: ``%(who)s``, or
``%(who)b`` to pass one in binary. What several statements of a file have in common stands before them, once, under a
line ``-- part: the_part``, and a line ``-- the_part`` in a statement stands for it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from types import MappingProxyType

_HEADING = re.compile(r"^-- (name|part): (\w+)\n", re.MULTILINE)


@cache
def load(package: str) -> Mapping[str, bytes]:
    """Return the statements of a package, such as ``holdfast.events``, by name.

    They are bytes because psycopg's types take SQL that comes from no literal only in this form.
    Raises ``ValueError`` for a name that is given twice and for text that stands under no name.
    """
    statements: dict[str, bytes] = {}
    for file in sorted(files(package).joinpath("sql").iterdir(), key=lambda file: file.name):
        if file.name.endswith(".sql"):
            for name, text in parse(file.read_text(encoding="utf-8")):
                if name in statements:
                    raise ValueError(f"{package} names the statement {name!r} twice, again in {file.name}")
                statements[name] = text.encode()
    return MappingProxyType(statements)


def parse(text: str) -> list[tuple[str, str]]:
    """Return the names and statements of one file, in its order."""
    before, *found = _HEADING.split(text)
    if before.strip():
        raise ValueError(f"SQL stands under no name: {before.strip()[:60]!r}")
    parts: dict[str, str] = {}
    statements = []
    for kind, name, body in zip(found[::3], found[1::3], found[2::3], strict=True):
        whole = body.strip().removesuffix(";")
        for part, stands_for in parts.items():
            whole = re.sub(rf"^ *-- {part}$", lambda _, it=stands_for: it, whole, flags=re.MULTILINE)
        if kind == "part":
            parts[name] = whole
        else:
            statements.append((name, whole))
    return statements
