"""How a stored state is encoded: as it is, or compressed. Equal states give equal bytes in either."""

from __future__ import annotations

import gzip
import zlib
from typing import Literal

StateEncoding = Literal["none", "gzip"]
"""What stands in the column ``state_encoding`` beside each state."""

_LEVEL = 6
"""Higher levels gain next to nothing on JSON of a few kilobytes."""


def pack(text: bytes, encoding: StateEncoding) -> bytes:
    """Return a text as it is to be stored."""
    return text if encoding == "none" else gzip.compress(text, _LEVEL, mtime=0)


def unpack(stored: bytes, encoding: StateEncoding) -> bytes:
    """Return the text that ``pack`` was given; ``ValueError`` if that cannot be told from what is stored."""
    if encoding == "none":
        return stored
    if encoding != "gzip":
        raise ValueError(f"the encoding {encoding!r} is not known")
    try:
        return gzip.decompress(stored)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"no gzip: {error}") from error
