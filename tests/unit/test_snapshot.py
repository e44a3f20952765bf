"""Snapshots of instances."""

from pathlib import Path

import orjson
import pytest

from holdfast.projections.instance import fold
from holdfast.projections.snapshot import dumps, loads
from holdfast.schemas.errors import StorageError
from tests.support.events import EVERY_TYPE

GOLDEN = orjson.loads(Path(__file__).parents[1].joinpath("golden/snapshots/v1.json").read_bytes())
"""The snapshots after each of the first events of all types."""


@pytest.mark.parametrize(("version", "snapshot"), [*enumerate(GOLDEN, 1)])
def test_the_first_released_form_is_still_read_and_written(version: int, snapshot: object) -> None:
    state, stored = fold(EVERY_TYPE[:version]), orjson.dumps(snapshot)
    assert loads(stored) == state
    assert dumps(state) == stored


def test_the_released_form_covers_every_event() -> None:
    assert len(GOLDEN) == len(EVERY_TYPE)


@pytest.mark.parametrize("stored", [b"", b"[]", b"{}", b'{"format":2}', b'{"format":1}', b'{"format":1,"version":"x"}'])
def test_what_is_no_snapshot_is_refused(stored: bytes) -> None:
    with pytest.raises(StorageError, match="a snapshot"):
        loads(stored)
