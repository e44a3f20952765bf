"""``holdfast worker``."""

from __future__ import annotations

from typing import Annotated

import typer

from holdfast.processor.cli.options import AmqpUrl, AppPath, DatabaseUrl, MetricsPort, load_settings


def worker(
    app: AppPath,
    *,
    partitions: Annotated[
        int | None,
        typer.Option(help="Queues that the app's messages are spread over. Fixed once an app has run.", metavar="N"),
    ] = None,
    prefetch: Annotated[int | None, typer.Option(help="Unacked messages a partition.", metavar="N")] = None,
    lease: Annotated[
        float | None, typer.Option(help="Seconds after which others take over from a worker that died.", metavar="S")
    ] = None,
    database_url: DatabaseUrl = None,
    amqp_url: AmqpUrl = None,
    metrics_port: MetricsPort = None,
) -> None:
    """Run an app's workflows, until Ctrl-C or SIGTERM.

    It makes the app's exchange and queues in RabbitMQ, takes in messages, runs the workflows and
    publishes what they send. Start as many as you like, anywhere: they share the work and take over
    from each other. Once told to stop, it ends what it is in the middle of; a second Ctrl-C does not wait.

        holdfast worker examples.orders.app:app
        holdfast worker shop.workflows:app --partitions 8

    Further settings are environment variables: HOLDFAST_GROUP_SIZE, HOLDFAST_MAX_ATTEMPTS,
    HOLDFAST_PROGRAM_KEY and so on.
    """
    from holdfast.processor.cli.load_app import load_app
    from holdfast.processor.worker import run

    settings = load_settings(
        database_url=database_url,
        amqp_url=amqp_url,
        partitions=partitions,
        prefetch=prefetch,
        lease=lease,
        metrics_port=metrics_port,
    ).require("database_url", "amqp_url")
    run(load_app(app), settings)
