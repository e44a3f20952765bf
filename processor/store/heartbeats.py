"""Heartbeats of activity workers: which requests are being served, and which of them were given up.

A request is known from its first heartbeat on, so that the time for which it lies in its queue does not count.
"""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.processor.engine.provider import Intake
from holdfast.processor.store import inbox
from holdfast.processor.store.connections import Connection
from holdfast.schemas.activity_messages import SILENT, ActivityHeartbeat, ActivityResult, lost
from holdfast.schemas.postgres.statements import load

_SQL = load(__package__)


async def beat(connection: Connection, app: str, beats: Sequence[ActivityHeartbeat]) -> None:
    """Note that workers are busy with requests, of those that an instance waits for."""
    seconds = {each.request: each.seconds for each in beats}
    await connection.execute(
        _SQL["beat"],
        {
            "app": app,
            "result_type": ActivityResult.message_type,
            "requests": list(seconds),
            "seconds": list(seconds.values()),
        },
        binary=True,
    )


async def lapse(connection: Connection, app: str, limit: int) -> int:
    """Answer the requests whose workers fell silent, and count them.

    An answer is stored before the heartbeat is forgotten, and has the same id each time, so that it comes once
    whatever happens in between.
    """
    cursor = await connection.execute(
        _SQL["silent"], {"app": app, "result_type": ActivityResult.message_type, "limit": limit}, binary=True
    )
    found: list[tuple[str, bool]] = await cursor.fetchall()
    answers = [
        Intake(envelope=lost(request, SILENT), verdict="buffered") for request, is_awaited in found if is_awaited
    ]
    if answers:
        await inbox.take_in(connection, app, answers)
    if found:
        await connection.execute(
            _SQL["forget_heartbeats"], {"app": app, "requests": [request for request, _ in found]}, binary=True
        )
    return len(answers)
