"""What an app's messages and events look like, in standard forms for people and programs that do not have its code."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from holdfast.processor.cli.options import JsonLines, load_settings


def export(
    app: Annotated[
        str,
        typer.Argument(
            help="Where the app is: module:attribute, found from the current directory too.",
            metavar="APP",
            show_default=False,
        ),
    ],
    *,
    to: Annotated[Path, typer.Option(help="Folder to write to; it is made if need be.", metavar="FOLDER")] = Path(
        "schemas"
    ),
    app_version: Annotated[
        str, typer.Option(help="Version of the app, for the AsyncAPI document.", metavar="VERSION")
    ] = "0.0.0",
    partitions: Annotated[
        int | None, typer.Option(help="Partitions of the app, instead of HOLDFAST_PARTITIONS.", metavar="N")
    ] = None,
    as_json: JsonLines = False,
) -> None:
    """Write JSON Schemas and an AsyncAPI document of an app.

    asyncapi.json has the exchanges and queues, the messages that the app takes in and those that it sends.
    messages/ has the JSON Schema of each message type's body, events/ that of each event type as the log stores
    it. Files that are there already are overwritten.

        holdfast schemas export examples.orders.app:app --to schemas

    With --json one line for each file: file, kind, name.
    """
    import orjson

    from holdfast.events.event_schemas import event_schemas
    from holdfast.processor.broker.asyncapi import asyncapi, received
    from holdfast.processor.broker.topology import Topology
    from holdfast.processor.cli.load_app import load_app
    from holdfast.processor.cli.output import emit, say
    from holdfast.schemas.message_schemas import message_schema

    found = load_app(app)
    topology = Topology(found.name, load_settings(partitions=partitions).partitions, found.activity_queues)
    taken_in = received(found)
    documents: list[tuple[str, str, str, Any]] = [
        ("asyncapi.json", "asyncapi", found.name, asyncapi(found, topology, app_version))
    ]
    for name, kind in found.messages.items():
        schema = message_schema(kind, "validation" if kind in taken_in else "serialization")
        documents.append((f"messages/{_file(name)}.json", "message", name, schema))
    documents += [(f"events/{name}.json", "event", name, schema) for name, schema in event_schemas().items()]
    for file, kind_of, name, document in documents:
        path = to / file
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")
        except OSError as error:
            raise typer.BadParameter(f"--to takes a folder to write to, and {path}: {error.strerror}") from None
        if as_json:
            emit({"file": str(path), "kind": kind_of, "name": name})
    if not as_json:
        say(f"{len(documents)} files in {to}")


def _file(name: str) -> str:
    """Return a message type as the name of a file."""
    from urllib.parse import quote

    return quote(name, safe=" ")
