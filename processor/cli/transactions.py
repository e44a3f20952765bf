"""``holdfast transactions``."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from holdfast.processor.cli.options import DatabaseUrl, InstanceId, JsonLines, open_client, run

if TYPE_CHECKING:
    from holdfast.projections.transactions import Commit


def transactions(instance_id: InstanceId, *, database_url: DatabaseUrl = None, as_json: JsonLines = False) -> None:
    """Show the database transactions of an instance: where it committed, why, and what else each of them held.

    Beside the instance's own events that is the messages that it took and sent, the subflows that it
    started, the subflows that ran within the same transaction, the values that participants kept,
    and the record activities whose SQL committed there. What SQL wrote is in your own tables.

        holdfast transactions 0199c1a2-…
        holdfast transactions 0199c1a2-… --json | jq -r .reason

    With --json one line for each transaction: epoch and xid (together its id), recorded_at,
    first_version, last_version, reason, events (their types), record_activities, values (names of those
    that changed, which participants get back on load), promoted (the same of those for queries),
    consumed, sent, children, joined (instances that ran within this one, or it within them), others
    (how many instances only shared the group).
    """

    async def work() -> None:
        from holdfast.processor.cli.output import emit, hint

        async with open_client(database_url) as client:
            count = 0
            async for commit in client.transactions(instance_id):
                count += 1
                if as_json:
                    emit(asdict(commit))
                else:
                    _print(commit)
            if count == 0 and not as_json:
                hint("No transactions: the instance is not persisted.")

    run(work())


def _print(commit: Commit) -> None:
    from holdfast.processor.cli.output import local, say

    versions = f"versions {commit.first_version} to {commit.last_version}"
    head = f"transaction {commit.xid}, {local(commit.recorded_at, precise=True)}, {versions}: {commit.reason}"
    say(head, style="bold")
    say(f"  events         {', '.join(commit.events)}")
    for name in commit.record_activities:
        say(f"  SQL of         {name}")
    for title, names in (("values kept", commit.values), ("promoted", commit.promoted)):
        if names:
            say(f"  {title:<14} {', '.join(names)}")
    for taken in commit.consumed:
        fate = f", {taken.verdict} at version {taken.version}" if taken.verdict else ""
        say(f"  message taken  {taken.message_type} {taken.message_id}{fate}")
    for sent in commit.sent:
        say(f"  message sent   {sent.message_type} {sent.message_id} with key {sent.correlation_key}")
    for child in commit.children:
        what = f" {child.workflow} with key {child.correlation_key}" if child.workflow else ""
        say(f"  {child.mode:<14} {child.instance_id}{what}")
    for other in commit.joined:
        versions = f"versions {other.first_version} to {other.last_version}"
        say(f"  together with  {other.workflow} {other.instance_id}, {versions}: {', '.join(other.events)}")
    if commit.others:
        say(f"  in its group   {commit.others} more instances")
