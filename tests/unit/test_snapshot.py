"""Snapshots of instances."""

from collections.abc import Sequence
from pathlib import Path

import orjson
import pytest

from holdfast.events.types import Event
from holdfast.projections.instance import fold
from holdfast.projections.snapshot import dumps, loads
from holdfast.schemas.errors import StorageError
from tests.support.events import FIRST_RELEASE, SECOND_RELEASE

GOLDEN = Path(__file__).parents[1] / "golden/snapshots"
"""The snapshots after each of the events that a release added, in their order."""

RELEASES = [
    (events[:version], snapshot)
    for name, events in (("v1.json", FIRST_RELEASE), ("v2.json", SECOND_RELEASE))
    for version, snapshot in zip(
        range(1, len(events) + 1), orjson.loads(GOLDEN.joinpath(name).read_bytes()), strict=True
    )
]


@pytest.mark.parametrize(("events", "snapshot"), RELEASES)
def test_every_released_form_is_still_read_and_written(events: Sequence[Event], snapshot: object) -> None:
    state, stored = fold(events), orjson.dumps(snapshot)
    assert loads(stored) == state
    assert dumps(state) == stored


@pytest.mark.parametrize("stored", [b"", b"[]", b"{}", b'{"format":2}', b'{"format":1}', b'{"format":1,"version":"x"}'])
def test_what_is_no_snapshot_is_refused(stored: bytes) -> None:
    with pytest.raises(StorageError, match="a snapshot"):
        loads(stored)
