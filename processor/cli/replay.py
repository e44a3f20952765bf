"""``holdfast replay``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast.processor.cli.options import (
    AmqpUrl,
    DatabaseUrl,
    JsonDocument,
    bound,
    load_settings,
    run_long,
)
from holdfast.processor.cli.where import WhereEvents, event_criteria_of

if TYPE_CHECKING:
    from holdfast.processor.client import Client
    from holdfast.processor.language.app import App
    from holdfast.processor.services.replay import ReplayStep
    from holdfast.processor.services.replay_into import IntoStep
    from holdfast.processor.store.replays import Replay

_RATE = re.compile(r"(\d{1,7})(?:/s)?")


def replay(
    *,
    to_exchange: Annotated[
        str | None, typer.Option(help="Publish events to this exchange.", metavar="NAME", show_default=False)
    ] = None,
    to_queue: Annotated[
        str | None, typer.Option(help="Publish events to this queue.", metavar="NAME", show_default=False)
    ] = None,
    into: Annotated[
        str | None, typer.Option(help="Give events to this projection once more.", metavar="PROJECTION")
    ] = None,
    resume: Annotated[
        str | None, typer.Option(help="Go on with the replay of this name.", metavar="NAME", show_default=False)
    ] = None,
    app: Annotated[
        str | None,
        typer.Option(help="Whose events: the app's name, or module:attribute, which --into takes.", metavar="APP"),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="What to call the replay; a new id otherwise.", metavar="NAME")
    ] = None,
    from_: Annotated[
        str | None, typer.Option("--from", help="The first event: a cursor, or a moment.", metavar="CURSOR|TIME")
    ] = None,
    to: Annotated[
        str | None,
        typer.Option("--to", help="The last event; where the log ends now without it.", metavar="CURSOR|TIME"),
    ] = None,
    where: WhereEvents = None,
    skipped: Annotated[
        bool, typer.Option("--skipped", help="With --into: only those that the projection passed over.")
    ] = False,
    rate: Annotated[
        str | None,
        typer.Option(help="Messages a second at most, 1000 without it; 0 for no bound.", metavar="N/s"),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count the events that are meant.")] = False,
    database_url: DatabaseUrl = None,
    amqp_url: AmqpUrl = None,
    as_json: JsonDocument = False,
) -> None:
    """Publish an app's history again, or give it to a projection once more. Instances never get it.

    To an exchange or a queue of your own, events go out as the event feed publishes them, in the order of the log and
    under the same ids, with the header x-holdfast-replayed. Interrupt it at any time: --resume goes on behind what
    RabbitMQ has confirmed. `holdfast replays` lists replays.

        holdfast replay --app orders --to-exchange audit --name july --from 2026-07-01 --to 2026-08-01
        holdfast replay --app orders --to-queue lab --where workflow=order --where type=InstanceFaulted --rate 50/s
        holdfast replay --resume july

    A projection gets events once more that lie behind its checkpoint, which stays where it is. With --skipped it gets
    those that it passed over, to make good for them once its code is mended.

        holdfast replay --app examples.permits.app:app --into traces --skipped
        holdfast replay --app examples.permits.app:app --into traces --from 1-90812-4970 --dry-run

    --from and --to take a cursor, as `holdfast history --json` shows it, or a moment in ISO 8601, at which events were
    recorded; both ends are included.

    With --json one document: what was replayed, and how many events, with --dry-run of which types.
    """
    ways = [it for it in (to_exchange, to_queue, into, resume) if it is not None]
    if len(ways) != 1:
        raise typer.BadParameter("Say where to: one of --to-exchange, --to-queue and --into; or --resume a replay.")
    chosen: dict[str, Any] = {
        "since": bound("--from", from_),
        "until": bound("--to", to),
        **event_criteria_of(where or []),
    }
    if into is not None:
        if name is not None or rate is not None:
            raise typer.BadParameter("--name and --rate are for what is published, not for --into.")
        _into(_load(app), into, {**chosen, "skipped": skipped}, database_url, dry_run=dry_run, as_json=as_json)
        return
    if skipped:
        raise typer.BadParameter("--skipped goes with --into.")
    if resume is not None:
        if any(it is not None for it in (app, name, from_, to, where)) or dry_run:
            raise typer.BadParameter("A replay goes on as it began: give --resume nothing but --rate.")
        _publish(resume, {}, rate=rate, database_url=database_url, amqp_url=amqp_url, as_json=as_json)
    elif app is None:
        raise typer.BadParameter("Whose history is meant: give the app's name with --app.")
    elif dry_run:
        _count(_name_of(app), chosen, database_url, as_json=as_json)
    else:
        begun = {**chosen, "to_exchange": to_exchange, "to_queue": to_queue}
        _publish(
            name,
            begun,
            app=_name_of(app),
            rate=rate,
            database_url=database_url,
            amqp_url=amqp_url,
            as_json=as_json,
        )


def _publish(
    name: str | None,
    begun: dict[str, Any],
    *,
    app: str | None = None,
    rate: str | None,
    database_url: str | None,
    amqp_url: str | None,
    as_json: bool,
) -> None:
    """Begin a replay, unless nothing is said of it, and run it to its end."""
    from holdfast.processor.cli.output import be_quiet, hint
    from holdfast.processor.cli.progress import watch
    from holdfast.processor.replaying import RATE

    settings = load_settings(database_url=database_url, amqp_url=amqp_url).require("database_url", "amqp_url")
    per_second = RATE if rate is None else _per_second(rate)
    be_quiet()

    async def work() -> None:
        from holdfast.processor.client import Client

        async with Client(settings.database_url, settings.amqp_url, app) as client:
            if not begun and (over := await _finished(client, name)):
                _tell_finished(over, as_json=as_json)
                return
            known_as = (await client.replays.begin(name, **begun)).name if begun else name or ""
            hint(f"replay {known_as}: if it is interrupted, `holdfast replay --resume {known_as}` goes on with it")
            last = await watch(known_as, client.replays.run(known_as, rate=per_second))
        if last is not None:
            _tell_published(last, as_json=as_json)

    run_long(work())


async def _finished(client: Client, name: str | None) -> Replay | None:
    return next((it for it in await client.replays.list() if it.name == name and it.finished_at is not None), None)


def _tell_finished(replay: Replay, *, as_json: bool) -> None:
    from holdfast.processor.cli.output import emit, local, say
    from holdfast.processor.cli.replays import document

    if as_json:
        emit(document(replay))
    else:
        at = local(replay.finished_at)
        say(f"replay {replay.name} has finished at {at}, with {replay.published} events: there is nothing to resume")


def _tell_published(last: ReplayStep, *, as_json: bool) -> None:
    from holdfast.processor.cli.output import emit, say
    from holdfast.processor.cli.replays import document

    if as_json:
        emit(document(last.replay))
    else:
        say(f"replay {last.replay.name}: {last.replay.published} events published to {last.replay.destination}")


def _into(
    app: App, projection: str, chosen: dict[str, Any], database_url: str | None, *, dry_run: bool, as_json: bool
) -> None:
    from holdfast.processor.cli.options import open_client
    from holdfast.processor.cli.output import be_quiet
    from holdfast.processor.cli.progress import watch

    be_quiet()

    async def work() -> None:
        async with open_client(database_url, app.name) as client:
            if dry_run:
                _tell_count(await client.replays.count_into(app, projection, **chosen), as_json=as_json)
                return
            last = await watch(projection, client.replays.into(app, projection, **chosen))
        if last is not None:
            _tell_given(projection, last, as_json=as_json)

    run_long(work())


def _tell_given(projection: str, last: IntoStep, *, as_json: bool) -> None:
    from holdfast.processor.cli.output import emit, say

    if as_json:
        emit({"projection": projection, "handled": last.handled, "skipped": last.skipped, "cursor": last.cursor})
    else:
        passed_over = f", {last.skipped} passed over" if last.skipped else ""
        say(f"projection {projection}: {last.handled} events handled once more{passed_over}")


def _count(app: str, chosen: dict[str, Any], database_url: str | None, *, as_json: bool) -> None:
    from holdfast.processor.cli.options import open_client

    async def work() -> dict[str, int]:
        client: Client
        async with open_client(database_url, app) as client:
            return await client.replays.count(**chosen)

    _tell_count(run_long(work()), as_json=as_json)


def _tell_count(found: dict[str, int], *, as_json: bool) -> None:
    from holdfast.processor.cli.output import emit, table

    if as_json:
        emit({"events": sum(found.values()), "types": found})
    else:
        table(["type", "events"], [*found.items(), ("all", sum(found.values()))])


def _per_second(text: str) -> int:
    found = _RATE.fullmatch(text)
    if found is None:
        raise typer.BadParameter(f"--rate takes messages a second, such as 200/s, or 0 for no bound, not {text!r}")
    return int(found[1])


def _load(app: str | None) -> App:
    from holdfast.processor.cli.load_app import load_app

    if app is None or ":" not in app:
        raise typer.BadParameter("--into runs a projection's code: say with --app where the app is, module:attribute.")
    return load_app(app)


def _name_of(app: str) -> str:
    from holdfast.processor.cli.load_app import load_app

    return load_app(app).name if ":" in app else app
