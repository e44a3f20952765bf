"""A program as the store keeps it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredProgram:
    """A program as ``holdfast.programs`` keeps it; ``program`` is its JSON tree, and operators see the lifetime.

    ``reuse_key`` says that a closed instance of its workflow does not keep a start message from starting another one.
    """

    program_hash: str
    workflow: str
    format: int
    program: Any
    starts_with: str | None
    receives: tuple[str, ...]
    signature: bytes | None
    expected_lifetime: timedelta | None = None
    reuse_key: bool = False
