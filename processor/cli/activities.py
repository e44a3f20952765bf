"""``holdfast activities``."""

from __future__ import annotations

from typing import Annotated

import typer

from holdfast.processor.cli.options import AmqpUrl, MetricsPort, load_settings


def activities(
    app: Annotated[
        str,
        typer.Argument(
            help="Where the app is: module:attribute, found from the current directory too.",
            metavar="APP",
            show_default=False,
        ),
    ],
    *,
    queue: Annotated[
        list[str] | None,
        typer.Option(help="A queue whose activities are to be done; all that the app has, if none is given."),
    ] = None,
    prefetch: Annotated[int | None, typer.Option(help="Activities of a queue at a time.", metavar="N")] = None,
    amqp_url: AmqpUrl = None,
    metrics_port: MetricsPort = None,
) -> None:
    """Do the activities that an app has on queues, until Ctrl-C or SIGTERM.

    An activity that is declared with a queue is not run by the app's workers but by these. Start as many as
    you like, anywhere: they need RabbitMQ and the app's code, but no database.

        holdfast activities shop.workflows:app --queue mail
        holdfast activities shop.workflows:app --queue mail --queue sms

    Once told to stop, it ends what it is in the middle of; a second Ctrl-C does not wait.
    """
    from functools import partial

    from holdfast.processor.cli.load_app import load_app
    from holdfast.processor.process import run_until_signalled
    from holdfast.processor.services.activity_worker import queues_of, serve

    settings = load_settings(amqp_url=amqp_url, activity_prefetch=prefetch, metrics_port=metrics_port)
    settings.require("amqp_url")
    found = load_app(app)
    run_until_signalled(partial(serve, found, queues_of(found, queue or ()), settings))
