"""Watches from outside whether each partition of an app has a consumer, as the broker sees it."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self, cast

import aiormq
from aiormq import Channel

BEAT = 0.05
"""Seconds between two looks."""


class ConsumerWatch:
    """Looks at the partitions, again and again, while the ``with`` block lasts.

    ``gaps`` has how long each partition was without a consumer at most, in seconds, ``longest`` the worst of them.
    """

    def __init__(self, amqp_url: str, app: str, partitions: int) -> None:
        self._url = amqp_url
        self._queues = [f"holdfast.{app}.{number:02}" for number in range(partitions)]
        self._ended = threading.Event()
        self._pool = ThreadPoolExecutor(1)
        self.gaps = dict.fromkeys(self._queues, 0.0)

    @property
    def longest(self) -> float:
        """The longest time that some partition had no consumer."""
        return max(self.gaps.values())

    def __enter__(self) -> Self:
        self._watching = self._pool.submit(lambda: asyncio.run(self._watch()))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        self._pool.shutdown()
        if error is None:
            self._watching.result()

    async def _watch(self) -> None:
        connection = await aiormq.connect(self._url)
        channel = cast("Channel", await connection.channel())
        since: dict[str, float] = {}
        while not self._ended.is_set():
            for queue in self._queues:
                before = time.monotonic()
                consumers = (await channel.queue_declare(queue, passive=True)).consumer_count
                if consumers:
                    since.pop(queue, None)
                else:
                    since.setdefault(queue, before)
                    self.gaps[queue] = max(self.gaps[queue], time.monotonic() - since[queue])
            await asyncio.sleep(BEAT)
        await connection.close()
