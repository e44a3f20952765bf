"""How many function calls an order costs the engine: a measure that no other load on the machine disturbs.

    ./dev bench --calls

The order workload runs on the store in memory, without a broker. Counted are the calls of Holdfast's own functions,
each time that a coroutine goes on among them; the store in memory is left out, since it stands for Postgres.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from cProfile import Profile
from datetime import UTC, datetime
from pathlib import Path
from pstats import Stats
from typing import Any, cast, get_args

from benchmarks.order import PERSISTENCE_VARIABLE, OrderPaid, OrderPlaced, app
from benchmarks.workload import order_ids, padding
from holdfast.processor.engine.arrival import Arrival
from holdfast.processor.engine.engine import Engine
from holdfast.processor.engine.environment import RealEnvironment
from holdfast.processor.engine.runtime import Runtime
from holdfast.processor.language.options import Persistence
from holdfast.processor.store.memory import MemoryProvider
from holdfast.schemas.message import Message
from holdfast.schemas.settings import Settings

ORDERS = 100
ROOT = Path(__file__).resolve().parents[1]
PARTS = ("schemas", "events", "projections", "processor")

ByFile = Mapping[str, float]
"""By file, how often an order calls its functions."""


def count(persistence: Persistence) -> ByFile:
    """Run orders in a process of their own and return what one of them costs."""
    command = [sys.executable, "-m", "benchmarks.calls", "--here"]
    environment = os.environ | {PERSISTENCE_VARIABLE: persistence}
    done = subprocess.run(command, env=environment, cwd=ROOT, check=True, capture_output=True, text=True)
    return cast("ByFile", json.loads(done.stdout))


def count_here() -> ByFile:
    """Run orders in the persistence mode that the environment says, and return what one of them costs."""
    profile = Profile(builtins=False)
    asyncio.run(_run(profile))
    found: dict[tuple[str, int, str], tuple[Any, ...]] = cast("Any", Stats(profile)).stats
    calls: dict[str, float] = {}
    for (file, _, _), (_, times, *_) in found.items():
        path = Path(file).resolve()
        if path.is_relative_to(ROOT):
            name = path.relative_to(ROOT)
            if name.parts[0] in PARTS and not name.stem.startswith("memory"):
                calls[str(name)] = calls.get(str(name), 0.0) + times / ORDERS
    return calls


async def _run(profile: Profile) -> None:
    app.check()
    store = MemoryProvider(app.name, lambda: datetime.now(UTC))
    runtime = Runtime(app, store, RealEnvironment(), Settings(), machine="here", process_id=1)
    await runtime.open()
    engine = Engine(runtime)
    profile.enable()
    for kind in (OrderPlaced, OrderPaid):
        await _deliver(engine, [kind(order_id=order_id, padding=padding(order_id)) for order_id in order_ids(ORDERS)])
    profile.disable()
    await engine.abandon_all()


async def _deliver(engine: Engine, messages: list[Message]) -> None:
    """Deliver messages all at once, as a busy queue does, and return when each is settled and all is at rest."""
    unsettled = asyncio.Semaphore(0)
    for message in messages:
        envelope = message.envelope(f"{message.message_type}/{message.correlation_key}")
        engine.deliver(Arrival(envelope=envelope, received_at=engine.runtime.now(), settle=unsettled.release))
    for _ in messages:
        await unsettled.acquire()
    tasks = [holding.task for holding in engine.held.values() if holding.task is not None]
    if tasks:
        await asyncio.wait(tasks)


def report(counts: Mapping[str, ByFile]) -> str:
    """Return the counts of several modes as a table, the most expensive files first."""
    files = sorted({file for found in counts.values() for file in found})
    rows = {"all": [sum(found.values()) for found in counts.values()]}
    rows |= {file: [found.get(file, 0.0) for found in counts.values()] for file in files}
    lines = [f"{'calls an order':44}" + "".join(f"{mode:>12}" for mode in counts)]
    lines += [
        f"{file:44}" + "".join(f"{number:12.1f}" for number in numbers)
        for file, numbers in sorted(rows.items(), key=lambda row: -max(row[1]))
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    if sys.argv[1:] == ["--here"]:
        sys.stdout.write(json.dumps(count_here()))
    else:
        sys.stdout.write(report({mode: count(mode) for mode in get_args(Persistence)}) + "\n")
