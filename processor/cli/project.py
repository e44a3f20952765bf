"""``holdfast project``."""

from __future__ import annotations

from typing import Annotated

import typer

from holdfast.processor.cli.options import AmqpUrl, AppPath, DatabaseUrl, MetricsPort, load_settings, run_long


def project(
    app: AppPath,
    *,
    once: Annotated[bool, typer.Option("--once", help="End where the log ends now.")] = False,
    database_url: DatabaseUrl = None,
    amqp_url: AmqpUrl = None,
    metrics_port: MetricsPort = None,
) -> None:
    """Run an app's projections, and nothing else of it, until Ctrl-C or SIGTERM.

    Workers run them too. This is for a process that does only that, on another machine say, and with
    --once for a script. Start as many as you like: each projection is run by one at a time. With
    HOLDFAST_EVENT_FEED=on it publishes the app's events, too.

        holdfast project examples.permits.app:app
        holdfast project examples.permits.app:app --once
    """
    from holdfast.processor import projecting
    from holdfast.processor.cli.load_app import load_app
    from holdfast.processor.process import configure_logging

    settings = load_settings(database_url=database_url, amqp_url=amqp_url, metrics_port=metrics_port)
    settings.require("database_url")
    if once:
        configure_logging()
        run_long(projecting.catch_up(load_app(app), settings))
    else:
        projecting.run(load_app(app), settings)
