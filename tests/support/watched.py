"""An app to be watched: its workflow stands still where a test wants it to, and its activities log."""

import asyncio
import logging
import time
from decimal import Decimal
from pathlib import Path

import structlog

from holdfast import App, Message, Transaction, receive, send

app = App("watched")


class Placed(Message, correlation="key"):
    key: str
    fate: str = ""
    gate: str = ""
    amount: Decimal = Decimal(0)


class Paid(Message, correlation="key"):
    key: str


class Shipped(Message, correlation="key"):
    key: str
    amount: Decimal = Decimal(0)


@app.activity
async def reserve(key: str) -> str:
    structlog.get_logger("shop").info("reserved", shelf=7)
    return key


@app.activity
def pack(key: str) -> None:
    logging.getLogger("shop").warning("packed")


@app.activity
async def record(tx: Transaction, key: str) -> None:
    await tx.execute("select 1")


@app.activity
async def wait(gate: str) -> None:
    """Wait for as long as there is a file."""
    Path(f"{gate}.reached").touch()  # noqa: ASYNC240  The test is another process.
    while Path(gate).exists():  # noqa: ASYNC110, ASYNC240  The test is another process.
        await asyncio.sleep(0.01)


@app.activity
async def hang(gate: str) -> None:
    """Hold up the event loop for as long as there is a file, as no activity should."""
    while Path(gate).exists():  # noqa: ASYNC240  That it blocks is the point.
        time.sleep(0.01)  # noqa: ASYNC251  So it is here.


@app.activity(queue="mail")
async def mail(key: str) -> str:
    structlog.get_logger("shop").info("mailed")
    return key


@app.workflow(start=Placed, persistence="in_memory")
async def order(placed: Placed) -> None:
    await reserve(placed.key)
    if placed.fate == "wait":
        await record(placed.key)
        await wait(placed.gate)
    if placed.fate == "hang":
        await hang(placed.gate)
    if placed.fate == "fail":
        raise ValueError(placed.key)
    if placed.fate == "mail":
        await mail(placed.key)
    await receive(Paid, placed.key)
    await pack(placed.key)
    await send(Shipped(key=placed.key, amount=placed.amount))
