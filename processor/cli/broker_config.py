"""``holdfast broker-config``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from holdfast.processor.cli.options import JsonDocument, load_settings
from holdfast.processor.cli.output import emit, say


def broker_config(
    directory: Annotated[Path, typer.Argument(help="Where to write them; it is made if need be.", metavar="DIR")],
    *,
    plugin: Annotated[
        list[str] | None, typer.Option(help="A further plugin to enable; may be given again.", metavar="NAME")
    ] = None,
    node: Annotated[
        list[str] | None, typer.Option(help="A node of the cluster to form; given for each of them.", metavar="NAME")
    ] = None,
    as_json: JsonDocument = False,
) -> None:
    """Write the configuration that RabbitMQ needs to serve Holdfast's workers.

    Two files: enabled_plugins, and rabbitmq.conf for what the node is to know. Queues and exchanges
    are not in it, the workers declare them. Name them to a node by RABBITMQ_ENABLED_PLUGINS_FILE and
    RABBITMQ_CONFIG_FILE, or copy them into /etc/rabbitmq.

        holdfast broker-config /etc/rabbitmq --plugin rabbitmq_management
        holdfast broker-config ./config --node rabbit@one --node rabbit@two --node rabbit@three

    With --json one document: "written" lists the files.
    """
    from holdfast.processor.broker.configuration import enabled_plugins, node_settings

    directory.mkdir(parents=True, exist_ok=True)
    files = {
        directory / "enabled_plugins": enabled_plugins(plugin or ()),
        directory / "rabbitmq.conf": node_settings(load_settings(), node or ()),
    }
    for file, text in files.items():
        file.write_text(text)
    if as_json:
        emit({"written": [str(file) for file in files]})
    else:
        say(f"wrote {', '.join(str(file) for file in files)}")
