"""The app of the runs whose workers stand still: its work takes as long as a file of the test is there."""

import asyncio
import os
from pathlib import Path

from holdfast import App, Message, Transaction

app = App("stalls")
FOLDER = Path(os.environ.get("STALLS_FOLDER", "."))


class Ordered(Message, correlation="key"):
    key: str


@app.activity
async def prepare(key: str) -> str:
    return f"prepared {key}"


@app.activity
async def work(key: str) -> int:
    with (FOLDER / "worked").open("a") as log:
        log.write(f"{os.getpid()} {key}\n")
    while (FOLDER / f"{key}-takes-long").exists():  # noqa: ASYNC110  Who removes the file is in another process.
        await asyncio.sleep(0.02)
    return os.getpid()


@app.activity
async def record(tx: Transaction, key: str, worker: int) -> None:
    await tx.execute("insert into records (key, worker) values (%s, %s)", (key, worker))


@app.workflow(start=Ordered)
async def order(ordered: Ordered) -> int:
    await prepare(ordered.key)
    worker = await work(ordered.key)
    await record(ordered.key, worker)
    return worker
