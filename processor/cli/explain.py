"""``holdfast explain``."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING

from holdfast.processor.cli.options import DatabaseUrl, InstanceId, JsonDocument, open_client, run

if TYPE_CHECKING:
    from holdfast.processor.source import Source
    from holdfast.projections.explanation import Explanation
    from holdfast.projections.inbox import InboxMessage


def explain(instance_id: InstanceId, *, database_url: DatabaseUrl = None, as_json: JsonDocument = False) -> None:
    """Explain why an instance stands where it stands, and what would move it.

    Says since when it waits and for what, which worker holds it or could, what lies in its mailbox, and which
    messages came close: of the right type with another key, of its key with another type, and dead letters.

        holdfast explain 0199c1a2-…

    With --json one document: "instance" with the columns of the view holdfast.instances, "circumstances",
    "non_persisted" (its class, if it is), "ways", "waits", "changed_timers", "mailbox" and "near_misses".
    """

    async def work() -> None:
        from holdfast.processor.cli.output import emit
        from holdfast.processor.source import Source

        async with open_client(database_url) as client:
            found = await client.explain(instance_id)
            source = Source(await client.program(found.instance.app, found.instance.program_hash))
        if as_json:
            emit({**asdict(found), "ways": found.ways})
        else:
            _print(found, source)

    run(work())


def _print(found: Explanation, source: Source) -> None:
    from holdfast.processor.cli.condition import wait
    from holdfast.processor.cli.output import details, local, say

    instance = found.instance
    details(
        {
            "instance": instance.instance_id,
            "workflow": instance.workflow,
            "correlation key": instance.correlation_key,
            "status": _status(found),
            "detail": found.detail,
            "updated": local(instance.last_updated_time),
            "workers alive": f"{found.circumstances.living_workers} of app {instance.app}",
        }
    )
    if found.waits:
        say("\nwaits for", style="bold")
        for each in found.waits:
            place = source.of_bookmark(each.name).place(each.line)
            say(f"  {each.name}: {wait(each)}, since {local(each.opened_at)}, {place}")
    if found.changed_timers:
        say("\nchanged by hand", style="bold")
        for change in found.changed_timers:
            became = "will not fire" if change.due is None else f"due {local(datetime.fromisoformat(change.due))}"
            why = f": {change.why}" if change.why else ""
            say(f"  {change.bookmark}: {became}, by {change.by}{why}, {local(change.recorded_at)}")
    say("\nwhat would move it", style="bold")
    for way in found.ways:
        say(f"  {way.text}")
    if not found.ways:
        say("  nothing: it is closed")
    if found.mailbox:
        say("\nin its mailbox", style="bold")
        for message in found.mailbox:
            say(f"  {_line(message)}")
    if found.near_misses:
        say("\nnear misses", style="bold")
        for miss in found.near_misses:
            why = miss.why.replace("_", " ") + (" that looks alike" if miss.looks_alike else "")
            say(f"  {why}: {_line(miss)}")


def _status(found: Explanation) -> str:
    """Return how an instance is, why, and where."""
    from holdfast.processor.cli.condition import condition, reason

    instance = found.instance
    parts = [condition(instance)]
    if found.non_persisted is not None:
        parts.append(f"class {found.non_persisted.class_}")
    if instance.is_suspended:
        parts.append(f"because of {reason(instance)}")
    if instance.current_machine is not None:
        parts.append(f"held by {instance.current_machine}")
    elif found.circumstances.holder_lapsed:
        parts.append(f"held by a worker on {instance.last_machine} that is gone")
    return ", ".join(parts)


def _line(message: InboxMessage) -> str:
    from holdfast.processor.cli.output import local

    given_up = f", {message.reason}" if message.reason else ""
    return (
        f"{message.type} {message.message_id} with key {message.correlation_key!r}, "
        f"{message.verdict}{given_up}, {local(message.received_at)}"
    )
