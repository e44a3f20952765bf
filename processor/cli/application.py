"""The command ``holdfast``: its subcommands, and how mistakes and failures are reported.

Commands load what they need when they run, so that ``--help`` and usage mistakes cost next to nothing.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from inspect import cleandoc
from typing import Annotated

import typer

from holdfast.processor.cli import (
    activities,
    broker_config,
    compensation,
    control,
    dead_letters,
    diff,
    explain,
    export,
    fork,
    history,
    hosts,
    instances,
    messages,
    migrate,
    migrate_instances,
    nonpersisted,
    options,
    preflight,
    project,
    projections,
    publish,
    replay,
    replays,
    retention,
    schemas,
    scratches,
    show,
    state,
    timers,
    transactions,
    verify,
    worker,
)
from holdfast.schemas.errors import AppError, CompileError, HoldfastError, InvalidMessage, InvalidQuery, SettingsError

FAILED = 1
MISTAKE = 2
_MISTAKES = (AppError, CompileError, InvalidMessage, InvalidQuery, SettingsError)
"""Errors about what the user gave: settings, an app, a message, a query."""


@dataclass
class Flags:
    """Options of ``holdfast`` itself, and the exit code of a command that fails."""

    debug: bool = False
    failed: int = FAILED


app = typer.Typer(
    name="holdfast",
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:  # noqa: FBT001  The signature is the library's.
    if wanted:
        from importlib.metadata import version

        typer.echo(f"holdfast {version('holdfast')}")
        raise typer.Exit


def root(
    context: typer.Context,
    *,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[  # noqa: ARG001  Its callback has done all there is to do.
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Run durable workflows out of RabbitMQ and Postgres, and look at what they do.

    [bold]First steps[/]

        export HOLDFAST_DATABASE_URL=postgresql://user:password@localhost/mydb
        export HOLDFAST_AMQP_URL=amqp://guest:guest@localhost/
        holdfast migrate
        holdfast worker examples.orders.app:app
        holdfast instances

    Every setting is an environment variable HOLDFAST_<NAME>, or stands in the file that
    HOLDFAST_ENV_FILE names. Commands that look at something take --json for scripts.

    [bold]Exit codes[/]

        0  done
        1  what was asked for failed, or verify or diff found differences
        2  a mistake in the command, the settings, the app or the message
    """
    context.obj.debug = debug


def _flowing(text: str) -> str:
    """Return help text with each paragraph in one line, for terminals of any width; what is indented stays as it is."""
    paragraphs = cleandoc(text).split("\n\n")
    return "\n\n".join(p if p.startswith(" ") else p.replace("\n", " ") for p in paragraphs)


def _add(group: typer.Typer, commands: dict[str, Callable[..., None]]) -> None:
    for name, command in commands.items():
        group.command(name, help=_flowing(command.__doc__ or ""))(command)


app.callback(help=_flowing(root.__doc__ or ""))(root)
_add(
    app,
    {
        "migrate": migrate.migrate,
        "worker": worker.worker,
        "activities": activities.activities,
        "project": project.project,
        "publish": publish.publish,
        "hosts": hosts.hosts,
        "instances": instances.instances,
        "show": show.show,
        "explain": explain.explain,
        "history": history.history,
        "transactions": transactions.transactions,
        "compensation": compensation.compensation,
        "state": state.state,
        "diff": diff.diff,
        **{name: control.command(name) for name in control.COMMANDS},
        "resolve": control.resolve,
        "fork": fork.fork,
        "preflight": preflight.preflight,
        "migrate-instances": migrate_instances.migrate_instances,
        "messages": messages.messages,
        "replay": replay.replay,
        "verify": verify.verify,
        "export": export.export,
        "broker-config": broker_config.broker_config,
    },
)
dead = typer.Typer(help=_flowing(dead_letters.__doc__ or ""))
_add(
    dead,
    {
        "list": dead_letters.list_,
        "show": dead_letters.show,
        "requeue": dead_letters.requeue,
        "drop": dead_letters.drop,
    },
)
app.add_typer(dead, name="dead-letters")
exporting = typer.Typer(help=_flowing(schemas.__doc__ or ""))
_add(exporting, {"export": schemas.export})
app.add_typer(exporting, name="schemas")
timing = typer.Typer(help=_flowing(timers.__doc__ or ""))
_add(
    timing,
    {"list": timers.list_, "reschedule": timers.reschedule, "fire": timers.fire, "cancel": timers.cancel},
)
app.add_typer(timing, name="timers")
non_persisted = typer.Typer(cls=options.ListByDefault, help=_flowing(nonpersisted.__doc__ or ""))
_add(non_persisted, {"list": nonpersisted.list_, "remove": nonpersisted.remove})
app.add_typer(non_persisted, name="nonpersisted")
following = typer.Typer(cls=options.ListByDefault, help=_flowing(projections.__doc__ or ""))
_add(
    following,
    {
        "list": projections.list_,
        "rebuild": projections.rebuild,
        "resume": projections.resume,
        "skip": projections.skip,
        "skipped": projections.skipped,
        "scratches": scratches.scratches,
        "drop": scratches.drop,
        "diff": scratches.diff,
    },
)
app.add_typer(following, name="projections")
replaying = typer.Typer(cls=options.ListByDefault, help=_flowing(replays.__doc__ or ""))
_add(replaying, {"list": replays.list_, "remove": replays.remove})
app.add_typer(replaying, name="replays")
keeping = typer.Typer(help=_flowing(retention.__doc__ or ""))
_add(keeping, {"apply": retention.apply})
app.add_typer(keeping, name="retention")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command, given as its arguments or as those of the process, and return the exit code."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    flags = Flags()
    try:
        code = app(given or ["--help"], prog_name="holdfast", standalone_mode=False, obj=flags)
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        path = context.command_path if context is not None else "holdfast"
        problem = error.format_message()
        _complain(f"{problem}{'' if problem.endswith(('.', '?')) else '.'} Try '{path} --help'.")
        return MISTAKE
    except typer.Abort:
        return FAILED
    except Exception as error:  # noqa: BLE001  A person at a terminal gets one clear line for whatever it is.
        if flags.debug:
            traceback.print_exc()
            return _code(error, flags)
        if isinstance(error, HoldfastError):
            _complain(str(error))
        else:
            _complain(f"unexpected {type(error).__name__}: {error}. With `holdfast --debug …` you see where.")
        return _code(error, flags)
    return code if isinstance(code, int) else 0


def _code(error: Exception, flags: Flags) -> int:
    return MISTAKE if isinstance(error, _MISTAKES) else flags.failed


def _complain(message: str) -> None:
    """Say on stderr, in one line, what is the matter."""
    sys.stderr.write(f"holdfast: {' '.join(message.split())}\n")
