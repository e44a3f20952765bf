"""``holdfast broker-config``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from holdfast.processor.cli.options import JsonDocument, load_settings
from holdfast.processor.cli.output import emit, say

_SIZE = re.compile(r"(\d+)(?:b|([kmgt])(?:i?b)?)?", re.IGNORECASE)


def size(text: str) -> int:
    """Return the bytes of a size as Compose takes it, such as 2g, 512MiB or 1073741824."""
    found = _SIZE.fullmatch(text)
    if found is None or not int(found[1]):
        raise typer.BadParameter(f"{text} is no size: give one such as 2g or 512m.")
    power: int = "kmgt".index(found[2].lower()) + 1 if found[2] else 0
    return int(found[1]) << 10 * power


def broker_config(
    directory: Annotated[Path, typer.Argument(help="Where to write them; it is made if need be.", metavar="DIR")],
    *,
    plugin: Annotated[
        list[str] | None, typer.Option(help="A further plugin to enable; may be given again.", metavar="NAME")
    ] = None,
    node: Annotated[
        list[str] | None, typer.Option(help="A node of the cluster to form; given for each of them.", metavar="NAME")
    ] = None,
    memory: Annotated[
        int | None,
        typer.Option(
            parser=size, help="What the node has, if it runs in a container with a limit, as in 2g.", metavar="SIZE"
        ),
    ] = None,
    as_json: JsonDocument = False,
) -> None:
    """Write the configuration that RabbitMQ needs to serve Holdfast's workers.

    Three files: enabled_plugins, and rabbitmq.conf and advanced.config for what the node is to know. Queues
    and exchanges are not in it, the workers declare them. Name them to a node by
    RABBITMQ_ENABLED_PLUGINS_FILE, RABBITMQ_CONFIG_FILE and RABBITMQ_ADVANCED_CONFIG_FILE, or copy them into
    /etc/rabbitmq. They follow from HOLDFAST_LEASE and
    HOLDFAST_ACK_DEADLINE, which have to be those of the workers. A file that it did not write itself is
    not overwritten.

        holdfast broker-config /etc/rabbitmq --plugin rabbitmq_management
        holdfast broker-config ./config --node rabbit@one --node rabbit@two --node rabbit@three

    With --json one document: "written" lists the files.
    """
    from holdfast.processor.broker.configuration import files, is_own

    settings = load_settings()
    texts = files(settings, plugins=plugin or (), nodes=node or (), memory=memory)
    written = {directory / name: text for name, text in texts.items()}
    for file in written:
        if file.exists() and not is_own(file.read_text()):
            raise typer.BadParameter(f"{file} is not overwritten, as something else wrote it: give another directory.")
    directory.mkdir(parents=True, exist_ok=True)
    for file, text in written.items():
        file.write_text(text)
    if as_json:
        emit({"written": [str(file) for file in written]})
    else:
        say(f"wrote {', '.join(str(file) for file in written)}")
