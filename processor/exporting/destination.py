"""Where an export goes: to a file that is there once it is whole, or to a stream."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from holdfast.schemas.errors import ExportRefused


@contextmanager
def destination(to: Path | BinaryIO) -> Iterator[BinaryIO]:
    """Give what is to be written to; a file takes its name when the block ends well, and replaces what has it.

    Until then it is a file beside, whose name ends with ``.part``. Raises ``ExportRefused`` if it cannot be written.
    """
    if not isinstance(to, Path):
        yield to
        return
    if to.exists() and not to.is_file():
        raise ExportRefused(f"{to} is no file: an export is written to a file, which it replaces")
    part = to.with_name(f"{to.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(to)
    except (TimeoutError, ConnectionError):
        # Of what is read, which is none of the file's.
        part.unlink(missing_ok=True)
        raise
    except OSError as error:
        part.unlink(missing_ok=True)
        raise ExportRefused(f"{to} cannot be written: {error.strerror or error}") from error
    except BaseException:
        part.unlink(missing_ok=True)
        raise
