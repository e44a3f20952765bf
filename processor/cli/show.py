"""``holdfast show``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING
from uuid import UUID

from holdfast.processor.cli.options import DatabaseUrl, InstanceId, JsonDocument, open_client, run

if TYPE_CHECKING:
    from holdfast.processor.forks import ForkedAs
    from holdfast.processor.source import Source
    from holdfast.projections.queries import Instance, OpenBookmark, Relative


def show(instance_id: InstanceId, *, database_url: DatabaseUrl = None, as_json: JsonDocument = False) -> None:
    """Show one instance: how it is, what it waits for, its subflows, why it stands still, and what would move it.

    Ids are those that `holdfast instances` shows. One that is discarded is told from its history, which is all
    that is kept of it.

        holdfast show 0199c1a2-…

    With --json one document: the columns of the view holdfast.instances except state, "is_discarded", "origin" and
    "origin_version" of a fork, "forks" that were made of it, "bookmarks" with all that it waits for,
    "suspension_detail", and "subflows" with the columns of each, nearest first, and its "depth".
    """

    async def work() -> None:
        from holdfast.processor.cli.output import emit
        from holdfast.processor.source import Source

        async with open_client(database_url) as client:
            instance, bookmarks = await client.instance(instance_id)
            detail = (await client.state(instance_id)).suspension_detail if instance.is_suspended else None
            source = Source(await client.program(instance.app, instance.program_hash))
            subflows = (await client.tree(instance_id))[1:]
            origin = await client.origin(instance_id)
            forks = await client.forks(instance_id)
        if as_json:
            link = {"origin": origin and origin[0], "origin_version": origin and origin[1]}
            document = {**asdict(instance), **link, "forks": forks, "bookmarks": bookmarks, "suspension_detail": detail}
            emit({**document, "subflows": subflows})
        else:
            _print(instance, origin, bookmarks, detail, source)
            _print_tree(instance, subflows)
            _print_forks(forks)

    run(work())


def _print(
    instance: Instance,
    origin: tuple[UUID, int] | None,
    bookmarks: list[OpenBookmark],
    detail: str | None,
    source: Source,
) -> None:
    import orjson

    from holdfast.processor.cli.condition import condition, wait
    from holdfast.processor.cli.output import details, local, say

    name = instance.suspension_exception_name
    details(
        {
            "instance": instance.instance_id,
            "app": instance.app,
            "workflow": instance.workflow,
            "file": source.file,
            "program": instance.program_hash,
            "correlation key": instance.correlation_key,
            "started by": None if origin or not instance.start_message_id else f"message {instance.start_message_id}",
            "forked from": origin and f"{origin[0]} at version {origin[1]}",
            "came out of": instance.parent_id and f"{instance.parent_id} ({instance.subflow})",
            "created": local(instance.creation_time),
            "updated": local(instance.last_updated_time),
            "version": instance.version,
            "kept": _kept(instance),
            "status": condition(instance),
            "reason": instance.suspension_reason,
            "exception": (detail or name) if name else None,
            "detail": None if name else detail,
            "loaded on": instance.current_machine,
            "locked until": local(instance.lock_expiration),
            "last loaded on": None if instance.current_machine else instance.last_machine,
            "next timer": local(instance.pending_timer),
        }
    )
    if instance.promoted:
        say("\npromoted", style="bold")
        for name, value in instance.promoted.items():
            say(f"  {name} = {orjson.dumps(value).decode()}")
    if bookmarks:
        say("\nwaits for", style="bold")
        for bookmark in bookmarks:
            since = local(bookmark.opened_at)
            place = source.of_bookmark(bookmark.name).place(bookmark.line)
            say(f"  {bookmark.name}: {wait(bookmark)}, since {since}, {place}")
    if instance.is_suspended:
        say("\nto let it go on", style="bold")
        if instance.suspension_reason == "in_doubt":
            say(f"  holdfast resolve {instance.instance_id} --why '…' with --done RESULT, --retry or --fail")
        else:
            say(f"  holdfast resume {instance.instance_id} --why '…'")


def _kept(instance: Instance) -> str | None:
    if instance.is_discarded:
        return "its history alone"
    return instance.state_encoding and f"its history, and its state with encoding {instance.state_encoding}"


def _print_tree(instance: Instance, subflows: list[Relative]) -> None:
    from holdfast.processor.cli.output import say

    if subflows:
        say("\nsubflows", style="bold")
        for line in tree(instance.instance_id, subflows):
            say(line)


def _print_forks(forks: list[ForkedAs]) -> None:
    from holdfast.processor.cli.output import local, say

    if forks:
        say("\nforks", style="bold")
        for it in forks:
            why = "" if it.why is None else f": {it.why}"
            say(f"  {it.instance_id} from version {it.at}, by {it.by} at {local(it.made_at)}{why}")


def tree(instance_id: UUID, subflows: list[Relative]) -> Iterator[str]:
    """Yield a line for each subflow of an instance.

    Those of a subflow stand below it, further to the right; what an instance goes on as stands just below that one.
    """
    from holdfast.processor.cli.condition import condition

    below: dict[UUID | None, list[Relative]] = {}
    for each in subflows:
        below.setdefault(each.parent_id, []).append(each)
    waiting = [(each, 1) for each in below.get(instance_id, [])[::-1]]
    while waiting:
        each, depth = waiting.pop()
        title = f"{each.workflow}/{each.correlation_key}"
        yield f"{'  ' * depth}{each.subflow} {title}: {condition(each)}, {each.instance_id}"
        inside = below.get(each.instance_id, [])
        waiting += [(it, depth + (it.subflow != "continued")) for it in inside[::-1]]
