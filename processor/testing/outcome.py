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


def names_of(tables: Tables) -> dict[str, str]:
    """Return a name for each instance's id that is the same in every run: workflow and key, and a number if need be."""
    seen: Counter[str] = Counter()
    names: dict[str, str] = {}
    for instance_id, row in tables.ever().items():
        name = f"{row.registration.workflow}/{row.registration.correlation_key}"
        seen[name] += 1
        names[str(instance_id)] = name if seen[name] == 1 else f"{name}#{seen[name]}"
    # Where an id is a key, a name stands in a name.
    return {instance_id: with_names(name, names) for instance_id, name in names.items()}


def with_names(text: str, names: Mapping[str, str]) -> str:
    """Return a text with ids replaced by names, in the order in which these are given."""
    for found, name in names.items():
        text = text.replace(found, name)
    return text


def outcome_of(world: Simulation, *, loosely: bool = False) -> Outcome:
    """Return what came of a simulation: states, committed SQL, published messages, verdicts and acks.

    ``loosely`` leaves out what a suspension changes: versions, and the versions in the ids of messages, which are
    then named by their order, and commands.
    """
    names = names_of(world.tables)
    if loosely:
        sent: Counter[str] = Counter()
        ordinals = {}
        for message in world.published:
            sender = message.message_id.partition(":")[0]
            sent[sender] += 1
            ordinals[message.message_id] = f"message {sent[sender]} of {sender}"
        names = ordinals | names
    told = {with_names(what, names): with_names(text, names) for what, text in _outcome(world)}
    left_out = ("version of", "command ") if loosely else ()
    return {what: text for what, text in told.items() if not what.startswith(left_out)}


def differences(expected: Outcome, found: Outcome) -> list[str]:
    """Return what differs between two outcomes, in words."""
    return [
        f"{what} is {found.get(what, 'missing')}, not {expected.get(what, 'there')}"
        for what in sorted({*expected, *found})
        if expected.get(what) != found.get(what)
    ]


def repeated(runs: list[ActivityRun], names: Mapping[str, str]) -> list[str]:
    """Return the calls of activities that were begun again with an attempt that was begun before."""
    begun = Counter((with_names(run.idempotency_key, names), run.attempt) for run in runs)
    return sorted(key for (key, _), times in begun.items() if times > 1)


def _outcome(world: Simulation) -> Iterator[tuple[str, str]]:
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
        what = "command" if row.message.kind == "control" else "verdict of"
        yield f"{what} {message_id}", f"{row.verdict} ({row.reason or 'no reason'}, {row.instance_id or 'nobody'})"
    for delivery in world.deliveries:
        yield f"delivery of {delivery.envelope.message_id}", _acked(delivery)


def _acked(delivery: Delivery) -> str:
    return "acked" if delivery.is_acked else "not acked"
