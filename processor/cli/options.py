"""What the options of several commands have in common, and how they become settings and a client."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Coroutine
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, TypeVar
from uuid import UUID

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from holdfast.events.recorded import Cursor
    from holdfast.processor.client import Client
    from holdfast.schemas.settings import Settings

T = TypeVar("T")

AppName = Annotated[str | None, typer.Option("--app", help="Only those of this app.", metavar="NAME")]
DatabaseUrl = Annotated[
    str | None, typer.Option(help="Address of the database, instead of HOLDFAST_DATABASE_URL.", metavar="URL")
]
AmqpUrl = Annotated[str | None, typer.Option(help="Address of RabbitMQ, instead of HOLDFAST_AMQP_URL.", metavar="URL")]
After = Annotated[UUID | None, typer.Option(help="Go on behind this instance.", metavar="INSTANCE")]
AppPath = Annotated[
    str,
    typer.Argument(
        help="Where the app is: module:attribute, found from the current directory too.",
        metavar="APP",
        show_default=False,
    ),
]
InstanceId = Annotated[UUID, typer.Argument(help="Id of the instance.", metavar="INSTANCE", show_default=False)]
JsonDocument = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
JsonLines = Annotated[bool, typer.Option("--json", help="Print one line of JSON each.")]
MetricsPort = Annotated[
    int | None, typer.Option(min=0, help="Port of metrics and probes; none is opened without it.", metavar="PORT")
]
Limit = Annotated[int, typer.Option(min=1, help="How many at most.", metavar="N")]


_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class ListByDefault(TyperGroup):
    """A group whose subcommand ``list`` need not be named."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put ``list`` before options of its own, and in the place of nothing."""
        if not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names):
            args = ["list", *args]
        return super().parse_args(ctx, args)


def duration(text: str) -> timedelta:
    """Read a duration such as ``90s``, ``30m``, ``2h``, ``1.5d`` or ``1w``."""
    found = _DURATION.fullmatch(text)
    if found is None:
        raise typer.BadParameter(f"{text!r} is no duration: write a number and s, m, h, d or w, such as 2h")
    try:
        return timedelta(**{_UNITS[found[2]]: float(found[1])})
    except OverflowError:
        raise typer.BadParameter(f"{text!r} is too long") from None


def json_or_text(text: str) -> Any:
    """Return a JSON value; what is none stands for itself, as a string."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def load_settings(**given: object) -> Settings:
    """Return the settings of this process; what is given on the command line wins over the environment."""
    from holdfast.schemas.settings import Settings

    return Settings.load(**{name: value for name, value in given.items() if value is not None})


def open_client(database_url: str | None, app: str | None = None) -> Client:
    """Return a client for what lies in the database, or raise ``SettingsError``."""
    from holdfast.processor.client import Client

    settings = load_settings(database_url=database_url).require("database_url")
    return Client(settings.database_url, app=app)


def moment(option: str, text: str, what: str = "a moment in ISO 8601") -> datetime:
    """Return the moment that an option gives; without an offset from UTC it is local time."""
    try:
        given = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{option} takes {what}, not {text!r}.") from None
    return given if given.tzinfo is not None else given.astimezone()


def place(option: str, text: str) -> Cursor | datetime:
    """Return the place in the log that an option gives: a cursor, or a moment; what may be either is a date."""
    from holdfast.events.recorded import Cursor

    try:
        datetime.fromisoformat(text)
    except ValueError:
        try:
            return Cursor.parse(text)
        except ValueError:
            pass
    return moment(option, text, "a cursor, or a moment in ISO 8601")


def bound(option: str, text: str | None) -> str | datetime | None:
    """Return where a stretch of the log begins or ends, if an option gives it: a cursor, as text, or a moment."""
    found = None if text is None else place(option, text)
    return found if found is None or isinstance(found, datetime) else str(found)


def version_or_moment(option: str, text: str | None) -> int | datetime | None:
    """Return the version or the moment that an option gives; a version counts from 1."""
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal()):
        return moment(option, text, "a version or a moment in ISO 8601")
    if int(text) == 0:
        raise typer.BadParameter(f"{option} takes a version from 1 on, or a moment in ISO 8601.")
    return int(text)


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a command's work and return its result."""
    return asyncio.run(work)


def run_long(work: Coroutine[Any, Any, T]) -> T:
    """Run work that goes through much of the log, on the faster event loop."""
    import uvloop

    return uvloop.run(work)
