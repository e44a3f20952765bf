"""Detection on Postgres: instances that cannot go on, many of them, beside those that can."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
import structlog

from holdfast import App, InstanceView, Message, Participant, Transaction, delay, first_of, receive
from holdfast.processor.engine.provider import Intake
from holdfast.processor.services.detection import LIMIT, Detection
from holdfast.processor.store.wakeups import PAGE
from holdfast.schemas.control import Command
from holdfast.schemas.settings import Settings
from tests.support.hosts import Host, running_host

app = App("detecting")
refusing: set[str] = set()


class Begun(Message, correlation="key"):
    key: str


class Moody(Message, correlation="key"):
    key: str


class Told(Message, correlation="key"):
    key: str


@app.workflow(start=Begun)
async def patient(start: Begun) -> str:
    outcome = await first_of(late=delay(timedelta(days=1)), told=receive(Told, start.key))
    return outcome.name


@app.workflow(start=Moody)
async def moody(start: Moody) -> str:
    outcome = await first_of(late=delay(timedelta(days=1)), told=receive(Told, start.key))
    return outcome.name


@app.participant(workflows=["moody"])
class Fickle(Participant):
    """Lets itself not be loaded for as long as it refuses."""

    async def on_load(self, tx: Transaction, instance: InstanceView) -> None:
        if instance.workflow in refusing:
            raise RuntimeError("no")


STUCK = LIMIT + 100
HEALTHY = 20


@pytest.fixture
async def host(database_url: str) -> AsyncIterator[Host]:
    async with running_host(app, database_url, Settings()) as host:
        yield host
    refusing.clear()


async def begin(host: Host, kind: type[Message], keys: list[str]) -> None:
    """Bring an instance of each key to where it waits, and let go of all."""
    await asyncio.gather(*(host.hear(kind.model_validate({"key": key}).envelope(f"{key}/begun")) for key in keys))
    await host.engine.unload_idle(0)


async def fall_due(host: Host) -> None:
    """Let every timer be due, those of the stuck ones first."""
    await host.ask(
        """
        update holdfast.bookmarks b
        set due = now() - case when r.correlation_key like 'stuck%%' then interval '2 h' else interval '1 h' end
        from holdfast.instance_rows r
        where r.instance_id = b.instance_id and b.kind = 'timer' returning 1
        """
    )


async def completed(host: Host) -> int:
    ((count,),) = await host.ask("select count(*) from holdfast.instances where outcome = 'completed'")
    return int(count)


async def look_until_done(host: Host, looks: int) -> None:
    """Look so often at most until every healthy instance is completed, one look after the other as a worker does."""
    detection = Detection(host.engine)
    for _ in range(looks):
        await detection.look()
        await host.rest()
        if await completed(host) == HEALTHY:
            return
    pytest.fail(f"{await completed(host)} of {HEALTHY} after {looks} looks")


UNREADABLE = [
    b'{"format": 99}',
    b"no JSON",
    b"\xff\xfe",
    b"[]",
    b"null",
    b'{"format": 1, "frames": {"0": {}}, "bookmarks": {}}',
    b'{"format": 1, "frames": 5, "bookmarks": {}}',
]


async def test_states_that_cannot_be_read_stop_no_timer_of_others(host: Host) -> None:
    await begin(host, Begun, [f"stuck-{number}" for number in range(STUCK)])
    await begin(host, Begun, [f"k-{number}" for number in range(HEALTHY)])
    for number, state in enumerate(UNREADABLE):
        await host.ask(
            """
            update holdfast.instance_states s set state = %s from holdfast.instance_rows r
            where r.instance_id = s.instance_id and r.correlation_key like 'stuck%%'
                and substr(r.correlation_key, 7)::int %% %s = %s returning 1
            """,
            state,
            len(UNREADABLE),
            number,
        )
    await fall_due(host)
    await look_until_done(host, 2)


async def test_programs_that_are_not_known_here_stop_no_timer_of_others(host: Host) -> None:
    await begin(host, Begun, [f"stuck-{number}" for number in range(STUCK)])
    await begin(host, Begun, [f"k-{number}" for number in range(HEALTHY)])
    await host.ask(
        """
        update holdfast.instance_states s
        set state = convert_to(replace(convert_from(state, 'UTF8'), r.program_hash, 'another'), 'UTF8')
        from holdfast.instance_rows r
        where r.instance_id = s.instance_id and r.correlation_key like 'stuck%%' returning 1
        """
    )
    await fall_due(host)
    await look_until_done(host, 2)


async def test_instances_whose_load_raises_stop_no_timer_of_others(host: Host) -> None:
    await begin(host, Moody, [f"stuck-{number}" for number in range(STUCK)])
    await begin(host, Begun, [f"k-{number}" for number in range(HEALTHY)])
    refusing.add("moody")
    await fall_due(host)
    await look_until_done(host, 2)


async def test_rows_that_the_database_cannot_give_stop_no_timer_of_others(host: Host) -> None:
    """A moment that has no form here stands for what damages a row."""
    await begin(host, Begun, [f"k-{number}" for number in range(HEALTHY)])
    await host.ask(
        """
        with starts as (
            insert into holdfast.inbox (app, message_id, type, correlation_key, body, digest, verdict, received_at)
            select 'detecting', 'start-' || n, 'Begun', 'stuck-' || n, '{}', '', 'dead_lettered', 'infinity'
            from generate_series(1, 50) n
        ), rows as (
            insert into holdfast.instance_rows
                (instance_id, app, workflow, program_hash, correlation_key, start_message_id)
            select gen_random_uuid(), 'detecting', 'patient', 'x', 'stuck-' || n, 'start-' || n
            from generate_series(1, 50) n
            returning instance_id
        )
        insert into holdfast.bookmarks (instance_id, name, app, kind, due, line)
        select instance_id, 'b', 'detecting', 'timer', now(), 1 from rows returning 1
        """
    )
    await fall_due(host)
    await look_until_done(host, 1)


async def test_commands_that_cannot_be_obeyed_stop_no_command_of_others(host: Host) -> None:
    await begin(host, Begun, [f"stuck-{number}" for number in range(STUCK)])
    await begin(host, Begun, [f"k-{number}" for number in range(HEALTHY)])
    await host.ask(
        """
        update holdfast.instance_states s set state = 'no JSON' from holdfast.instance_rows r
        where r.instance_id = s.instance_id and r.correlation_key like 'stuck%%' returning 1
        """
    )
    rows = await host.ask("select instance_id from holdfast.instances order by correlation_key desc")
    for (instance_id,) in rows:
        await host._client.suspend(instance_id, by="tester")
    suspended = "select count(*) from holdfast.instances where is_suspended"
    detection = Detection(host.engine)
    for _ in range(2):
        await detection.look()
        await host.rest()
    assert await host.ask(suspended) == [(HEALTHY,)]


async def test_a_backlog_that_nobody_waits_for_hides_no_message_for_long(host: Host) -> None:
    await begin(host, Begun, [f"k-{number}" for number in range(HEALTHY)])
    await host.ask(
        """
        insert into holdfast.inbox (app, message_id, type, correlation_key, body, digest, verdict)
        select 'detecting', 'stuck-' || n, 'Told', 'stuck-' || n, '{}', '', 'buffered'
        from generate_series(1, %s) n returning 1
        """,
        PAGE + STUCK,
    )
    # Laid into the inbox by somebody who did not look who waits.
    told = [Told(key=f"k-{number}").envelope(f"m-{number}") for number in range(HEALTHY)]
    await host.runtime.provider.take_in([Intake(envelope=each, verdict="buffered") for each in told])
    await look_until_done(host, 2)


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    with structlog.testing.capture_logs():
        yield


async def test_a_command_is_found_as_one_whatever_else_waits_for_its_instance(host: Host) -> None:
    instance_id = await host.deliver(Begun(key="k"))
    provider, host_id = host.runtime.provider, host.runtime.host_id
    command = Command(command="terminate", by="me").envelope("c-1", "k")
    await provider.take_in(
        [
            Intake(envelope=Told(key="k").envelope("t-1"), verdict="buffered"),
            Intake(envelope=command, verdict="buffered", kind="control", instance_id=instance_id),
        ]
    )
    # A look that takes all the room, and one behind where it ended.
    assert len(await provider.runnable(host_id, (), 1)) == 1
    await provider.runnable(host_id, (), LIMIT)
    found = await provider.runnable(host_id, (), LIMIT)
    assert [(each.instance_id, each.why) for each in found] == [(instance_id, "control")]
