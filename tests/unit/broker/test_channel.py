"""Who is cancelled while the AMQP library is at work has been cancelled, whatever the library makes of it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest
from aiormq.exceptions import ChannelInvalidStateError

from holdfast.processor.broker.channel import Channel, broker_errors
from holdfast.schemas.errors import BrokerError


class Library:
    """A library's channel whose closing swallows a cancellation."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()

    async def close(self) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.closed.set()


class Closing(Channel):
    """A channel with nothing but what closing it takes."""

    def __init__(self, library: Library) -> None:
        self.library = cast("Any", library)
        self.ended = asyncio.get_running_loop().create_future()
        self._out = []


async def cancelled_in(work: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
    """Return a task that was cancelled while it waited, once it has ended."""

    async def run() -> None:
        await work()

    task = asyncio.create_task(run())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    return task


async def test_a_cancellation_that_closing_swallows_is_raised() -> None:
    library = Library()
    task = await cancelled_in(Closing(library).close)
    assert library.closed.is_set()
    assert task.cancelled()


async def test_a_cancellation_that_comes_back_as_an_error_of_the_library_is_none() -> None:
    async def work() -> None:
        with broker_errors("trying"):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError as error:
                raise ChannelInvalidStateError("closed") from error

    assert (await cancelled_in(work)).cancelled()


async def test_an_error_after_an_earlier_cancellation_stays_an_error() -> None:
    async def work() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            with pytest.raises(BrokerError, match="trying: refused"), broker_errors("trying"):
                raise ConnectionError("refused") from None
            raise

    assert (await cancelled_in(work)).cancelled()
