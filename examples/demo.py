"""Shows Holdfast at work on the orders example, and how to look at what it did: ./dev demo.

It needs HOLDFAST_DATABASE_URL and HOLDFAST_AMQP_URL, and stops what it starts. Every command that it shows is one that
it really runs.
"""

import asyncio
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn
from uuid import uuid4

import aio_pika
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from examples.orders.publish import A_WHILE, orders, payments
from examples.publishing import publish
from holdfast import Client
from holdfast.schemas.errors import HoldfastError

ORDERS = 300
START = 30
"""Seconds that the worker may take to start."""
PATIENCE = 90
"""Seconds that all orders may take."""
HOLDFAST = Path(sys.executable).with_name("holdfast")

console = Console(highlight=False, soft_wrap=True)


@dataclass(frozen=True)
class Fates:
    """How many orders came to which end."""

    completed: int = 0
    suspended: int = 0
    nonpersisted: int = 0

    def __sub__(self, before: "Fates") -> "Fates":
        return Fates(
            self.completed - before.completed,
            self.suspended - before.suspended,
            self.nonpersisted - before.nonpersisted,
        )

    @property
    def all(self) -> int:
        return self.completed + self.suspended + self.nonpersisted


async def fates(client: Client) -> Fates:
    """Count what can be counted before the demo too: it may run more than once on one database."""
    tallies = await client.tally()
    return Fates(
        completed=sum(t.instances for t in tallies if t.outcome == "completed"),
        suspended=sum(t.instances for t in tallies if t.is_suspended and t.is_initialized),
        nonpersisted=sum(t.instances for t in tallies if t.is_suspended and not t.is_initialized),
    )


def tell(text: str) -> None:
    console.print(f"\n{text}", style="bold", markup=False)


def show(*command: str) -> None:
    """Print a command and run it, as a person at a terminal would."""
    console.print(f"$ {shlex.join(command)}", style="green", markup=False)
    sys.stdout.flush()
    program = [str(HOLDFAST)] if command[0] == "holdfast" else [sys.executable]
    subprocess.run([*program, *command[1:]], check=True)


def first(*arguments: str, **wanted: object) -> dict[str, object]:
    """Give the first line of a command's JSON in which all that is wanted is so."""
    done = subprocess.run([HOLDFAST, *arguments, "--json"], check=True, stdout=subprocess.PIPE)
    lines = (json.loads(line) for line in done.stdout.splitlines())
    return next(line for line in lines if all(line[name] == value for name, value in wanted.items()))


@contextmanager
def worker(log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Give a worker process, in a session of its own so that Ctrl-C leaves it to us to end it in order."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [HOLDFAST, "worker", "examples.orders.app:app"], stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for_start(process: subprocess.Popen[bytes], log: Path) -> None:
    """Return once the worker says that it has started."""
    deadline = time.monotonic() + START
    while '"started"' not in (text := log.read_text()):
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"the worker did not start:\n{text}")
        time.sleep(0.05)


async def shop(batch: str) -> None:
    """Place the orders, and pay for most of them: at once, or a while later."""
    await publish("orders", orders(batch, ORDERS))
    await publish("orders", payments(batch, ORDERS, last_digits=range(7)))
    await asyncio.sleep(A_WHILE)
    await publish("orders", payments(batch, ORDERS, last_digits=range(7, 8)))


async def watch(client: Client, before: Fates) -> Fates:
    """Show how the orders come to their ends, until all have."""
    columns = TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console) as progress:
        bars = {
            "completed": progress.add_task("paid and shipped", total=ORDERS * 8 // 10),
            "suspended": progress.add_task("never paid", total=ORDERS // 10),
            "nonpersisted": progress.add_task("out of stock", total=ORDERS // 10),
        }
        async with asyncio.timeout(PATIENCE):
            while (now := await fates(client) - before).all < ORDERS:
                for name, bar in bars.items():
                    progress.update(bar, completed=getattr(now, name))
                await asyncio.sleep(0.2)
        for name, bar in bars.items():
            progress.update(bar, completed=getattr(now, name))
    return now


async def place_orders(client: Client, batch: str) -> None:
    """Have the worker handle orders of several fates, with a warehouse that hears what is to be shipped."""
    before = await fates(client)
    connection = await aio_pika.connect(os.environ["HOLDFAST_AMQP_URL"])
    async with connection:
        channel = await connection.channel()
        warehouse = await channel.declare_queue(exclusive=True)
        await warehouse.bind("holdfast.orders.out", "OrderShipped")
        shopping = asyncio.create_task(shop(batch))
        now = await watch(client, before)
        await shopping
        async with asyncio.timeout(PATIENCE), warehouse.iterator(no_ack=True) as shipped:
            for _ in range(now.completed):
                await anext(shipped)
    console.print(f"  the warehouse got {now.completed} messages OrderShipped", markup=False)


def look(batch: str) -> None:
    """Show what a person would look at."""
    mine = ("instances", "--app", "orders", "--key")
    paid = str(first(*mine, f"{batch}-7")["instance_id"])
    unpaid = str(first(*mine, f"{batch}-8")["instance_id"])
    tell("How are the instances?")
    show("holdfast", "instances", "--app", "orders", "--count")
    tell("What happened to an order that was paid a while later, and at which lines?")
    show("holdfast", "history", paid)
    tell("How was it before it was paid?")
    show("holdfast", "state", paid, "--at", "7")
    tell("Why does this one stand still? It was never paid.")
    show("holdfast", "show", unpaid)
    tell("Which are registered, but have nothing persisted yet? Their stock could not be reserved.")
    show("holdfast", "nonpersisted", "--app", "orders", "--limit", "3")
    tell("Which messages were given up, and why?")
    show("holdfast", "dead-letters", "list", "--app", "orders", "--limit", "3")
    show("holdfast", "dead-letters", "show", f"{batch}-outdated/placed")
    tell("Is the instance store what the event log says?")
    show("holdfast", "verify", "--app", "orders")


def main() -> int:
    missing = [name for name in ("HOLDFAST_DATABASE_URL", "HOLDFAST_AMQP_URL") if not os.environ.get(name)]
    if missing:
        console.print(f"{' and '.join(missing)} must be set; ./dev demo does that", markup=False)
        return 2
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    batch = f"order-{uuid4().hex[:6]}"
    tell("Create Holdfast's tables, and the one that the example's orders are recorded in.")
    show("holdfast", "migrate")
    show("python", "-m", "examples.orders.create_table")
    tell(f"Start a worker, and place {ORDERS} orders: most are paid, some late, some never; some are out of stock.")
    console.print("$ holdfast worker examples.orders.app:app &", style="green", markup=False)
    with tempfile.TemporaryDirectory(prefix="holdfast-demo-") as folder:
        log = Path(folder) / "worker.log"
        with worker(log) as process:
            wait_for_start(process, log)
            asyncio.run(_with_client(batch))
            look(batch)
    tell("The worker is stopped. The workflow is in examples/orders/app.py; ./dev shell has servers to try it on.")
    return 0


async def _with_client(batch: str) -> None:
    async with Client(os.environ["HOLDFAST_DATABASE_URL"], app="orders") as client:
        await place_orders(client, batch)


def _leave(number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except (HoldfastError, subprocess.CalledProcessError, TimeoutError) as error:
        sys.exit(f"the demo failed: {type(error).__name__} {error}")
