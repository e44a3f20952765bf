"""The app of the runs whose workers are told to stop: its work takes as long as a file of the test is there."""

import asyncio
import os
import time
from pathlib import Path

from holdfast import App, Message, send

app = App("shutdowns")
FOLDER = Path(os.environ.get("SHUTDOWNS_FOLDER", "."))


class Ordered(Message, correlation="key"):
    key: str
    stubborn: bool = False
    in_thread: bool = False


class Done(Message, correlation="key"):
    key: str


def takes_longer(key: str) -> bool:
    return (FOLDER / f"{key}-takes-long").exists()


@app.activity
async def work(key: str) -> None:
    while takes_longer(key):  # noqa: ASYNC110  Who removes the file is in another process.
        await asyncio.sleep(0.02)


@app.activity
async def work_on(key: str) -> None:
    """Pay no heed to being cancelled."""
    while takes_longer(key):
        try:
            await asyncio.sleep(0.02)
        except asyncio.CancelledError:
            continue


@app.activity
def work_in_thread(key: str) -> None:
    while takes_longer(key):
        time.sleep(0.02)


@app.workflow(start=Ordered)
async def order(ordered: Ordered) -> None:
    if ordered.stubborn:
        await work_on(ordered.key)
    elif ordered.in_thread:
        await work_in_thread(ordered.key)
    else:
        await work(ordered.key)
    await send(Done(key=ordered.key))
