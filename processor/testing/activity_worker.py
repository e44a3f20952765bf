"""The activity worker of a simulation: does what is on the queues of an app, whatever becomes of its hosts."""

from __future__ import annotations

import asyncio

from holdfast.processor.engine.performing import perform
from holdfast.processor.engine.provider import Outgoing
from holdfast.processor.language.app import App
from holdfast.processor.testing.broker import SimulatedBroker
from holdfast.processor.testing.clock import Clock
from holdfast.schemas.activity_messages import ActivityRequest


class SimulatedActivityWorker:
    """Serves all queues of an app; a request that goes out twice is done twice, and answered under one id."""

    def __init__(self, app: App, clock: Clock, broker: SimulatedBroker) -> None:
        self._app = app
        self._clock = clock
        self._broker = broker
        self._jobs: set[asyncio.Task[None]] = set()

    def take(self, message: Outgoing) -> None:
        """Begin to do what a request asks for."""
        job = asyncio.create_task(self._serve(ActivityRequest.parse_body(message.body)))
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)

    async def _serve(self, request: ActivityRequest) -> None:
        with self._clock.work.going_on(request.activity):
            result = await perform(self._app, request, environment=self._clock, now=self._clock.now)
            self._broker.take(result.envelope(f"{request.request}:result"))

    async def stop(self) -> None:
        """Drop what is under way."""
        jobs = list(self._jobs)
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)
