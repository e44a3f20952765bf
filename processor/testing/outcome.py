"""What came of a simulation, as text by name, so that two runs can be compared whatever ids they gave out."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from uuid import UUID

import orjson

from holdfast.processor.store.memory_tables import Tables
from holdfast.processor.testing.broker import Delivery
from holdfast.processor.testing.simulation import Simulation
from holdfast.processor.testing.stand_ins import ActivityRun

Outcome = Mapping[str, str]
"""What is to be the same in every run, by what it is."""


def names_of(tables: Tables) -> dict[UUID, str]:
    """Return a name for each instance that is the same in every run: its workflow and key, and a number if need be."""
    seen: Counter[str] = Counter()
    names: dict[UUID, str] = {}
    for instance_id, row in tables.instances.items():
        name = f"{row.registration.workflow}/{row.registration.correlation_key}"
        seen[name] += 1
        names[instance_id] = name if seen[name] == 1 else f"{name}#{seen[name]}"
    # A subflow's key is its parent's id, so that names stand in names.
    return {instance_id: with_names(name, names) for instance_id, name in names.items()}


def with_names(text: str, names: Mapping[UUID, str]) -> str:
    """Return a text with each instance's id replaced by its name."""
    for instance_id, name in names.items():
        text = text.replace(str(instance_id), name)
    return text


def outcome_of(world: Simulation) -> Outcome:
    """Return what came of a simulation: states, committed SQL, published messages, verdicts and acks."""
    names = names_of(world.tables)
    return {with_names(what, names): with_names(text, names) for what, text in _outcome(world, names)}


def differences(expected: Outcome, found: Outcome) -> list[str]:
    """Return what differs between two outcomes, in words."""
    return [
        f"{what} is {found.get(what, 'missing')}, not {expected.get(what, 'there')}"
        for what in sorted({*expected, *found})
        if expected.get(what) != found.get(what)
    ]


def repeated(runs: list[ActivityRun], names: Mapping[UUID, str]) -> list[str]:
    """Return the calls of activities that were begun again with an attempt that was begun before."""
    begun = Counter((with_names(run.idempotency_key, names), run.attempt) for run in runs)
    return sorted(key for (key, _), times in begun.items() if times > 1)


def _outcome(world: Simulation, names: Mapping[UUID, str]) -> Iterator[tuple[str, str]]:
    for instance in world.instances:
        state = orjson.loads(orjson.dumps(instance.state, default=str))
        for part, value in state.items():
            yield f"{part} of {instance.instance_id}", orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
        yield f"suspension of {instance.instance_id}", str(instance.suspension_reason)
    statements: dict[UUID, list[str]] = defaultdict(list)
    for statement in world.sql:
        statements[statement.instance_id].append(f"{statement.query} {statement.parameters!r}")
    for instance_id, lines in statements.items():
        yield f"SQL committed by {instance_id}", "; ".join(lines)
    for message in world.outbox:
        where = f"{message.exchange}/{message.routing_key}"
        yield f"message {message.message_id}", f"{message.type} {message.key!r} to {where}: {message.body!r}"
    for message_id, row in world.tables.inbox.items():
        about = row.reason or "no reason", names.get(row.instance_id, "nobody") if row.instance_id else "nobody"
        yield f"verdict of {message_id}", f"{row.verdict} ({', '.join(about)})"
    for delivery in world.deliveries:
        yield f"delivery of {delivery.envelope.message_id}", _acked(delivery)


def _acked(delivery: Delivery) -> str:
    return "acked" if delivery.is_acked else "not acked"
