"""How an awaited thing, or a whole frame, came out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Returned:
    """It gave back ``value``."""

    value: Any = None


@dataclass(frozen=True, slots=True)
class Raised:
    """It raised ``error``."""

    error: BaseException
