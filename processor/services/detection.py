"""Finds what can run: due timers, instances of lapsed hosts, messages that were stored for later."""

from __future__ import annotations

import asyncio

import structlog

from holdfast.processor.engine.ack_deadline import look_after_unacked
from holdfast.processor.engine.engine import Engine
from holdfast.processor.services.first_of import first_of
from holdfast.schemas.errors import StorageError

log = structlog.get_logger("holdfast.detection")

LIMIT = 500
"""How many findings one look takes up at most; if there are as many, it looks again at once."""

SHORTEST = 0.02
"""Seconds between two looks at least, so that a timer that cannot fire does not keep the store busy."""


class Detection:
    """Looks for runnable instances every few seconds, and sooner when a timer is due or somebody hints."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._hint = asyncio.Event()
        self._expiry_due = 0.0
        self._unpersisted_due = 0.0

    def hint(self) -> None:
        """Look again soon: a timer was opened, or another process says that there is something."""
        self._hint.set()

    async def run(self) -> None:
        """Look for ever; a failure of one finding or one look never stops the rest."""
        runtime = self.engine.runtime
        while True:
            found, pause = 0, runtime.settings.runnable_detection
            try:
                found = await self.look()
                timer = await runtime.provider.next_timer(runtime.host_id, self.engine.backlogs.held_back)
                if timer is not None:
                    pause = min(pause, max(SHORTEST, timer))
                await self._housekeeping()
            except StorageError as error:
                log.warning("detection failed", error=str(error))
            except Exception:
                log.exception("detection failed")
            await self._pause(SHORTEST if found >= LIMIT else pause)

    async def look(self) -> int:
        """Take up what can run now; returns how much that was."""
        runtime = self.engine.runtime
        self._hint.clear()
        if any(activity.heartbeat for activity in runtime.app.activities.values()):
            await runtime.provider.lapse(LIMIT)
        findings = await runtime.provider.runnable(
            runtime.host_id, tuple(runtime.app.starts), LIMIT, self.engine.backlogs.held_back
        )
        results = await asyncio.gather(*(self.engine.take_up(f) for f in findings), return_exceptions=True)
        for finding, result in zip(findings, results, strict=True):
            if isinstance(result, Exception):
                log.warning("not taken up", instance_id=str(finding.instance_id), error=repr(result))
        return len(findings)

    async def _housekeeping(self) -> None:
        runtime = self.engine.runtime
        await self.engine.unload_idle()
        look_after_unacked(self.engine)
        now = runtime.environment.monotonic()
        if now >= self._unpersisted_due:
            # Not with each hint: every one of these instances asks the store.
            self.engine.look_after_unpersisted()
            self._unpersisted_due = now + runtime.settings.runnable_detection
        if now >= self._expiry_due:
            expired = await runtime.provider.expire(runtime.settings.message_ttl, LIMIT)
            runtime.counts.verdicts["expired", ""] += expired
            self._expiry_due = now + min(60.0, runtime.settings.message_ttl)

    async def _pause(self, seconds: float) -> None:
        """Wait that long, or until somebody hints; hints that come together count once."""
        environment = self.engine.runtime.environment
        await first_of(environment.sleep(seconds), self._hint.wait())
        await environment.sleep(SHORTEST)
