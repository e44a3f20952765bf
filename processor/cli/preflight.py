"""``holdfast preflight``."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast.processor.cli.options import AppPath, DatabaseUrl, JsonLines, load_settings, open_client, run_long

if TYPE_CHECKING:
    from holdfast.processor.core.migration import Obstacle
    from holdfast.processor.migrating import Verdict


def preflight(
    app: AppPath,
    *,
    summary: Annotated[bool, typer.Option("--summary", help="Only count, by reason.")] = False,
    database_url: DatabaseUrl = None,
    as_json: JsonLines = False,
) -> None:
    """Say of each living instance whether the code as it is here can go on with it, before it is deployed.

    An instance on an older program goes on with that: where the new code lacks what it needs, it would be
    suspended. Whether it could be moved to the new program instead, with `holdfast migrate-instances`, is said
    too, and why not. All is computed from the log, and nothing is written. Signatures are looked at where
    HOLDFAST_PROGRAM_KEY is set.

    The exit code is 1 if there is an instance that workers with this code could not run.

        holdfast preflight shop.workflows:app

    With --json one line for each instance: "instance_id", "workflow", "correlation_key", "program_hash", "version",
    "line", "is_current", "is_suspended", "can_run", "can_move", and what speaks against it: "hindrances" to running
    it as it is and "obstacles" to moving it, each with "reason", "detail", "frame", "old_line" and "new_line".
    """

    async def work() -> bool:
        from holdfast.processor.cli.load_app import load_app
        from holdfast.processor.cli.output import emit

        loaded = load_app(app)
        counts: Counter[str] = Counter()
        stuck = False
        async with open_client(database_url, loaded.name) as client:
            async for verdict in client.preflight(loaded, program_key=load_settings().program_key):
                stuck |= not verdict.can_run
                counts[_in_a_word(verdict)] += 1
                counts.update(f"  {reason}" for reason in {each.reason for each in _against(verdict)})
                if as_json:
                    emit(document(verdict))
                elif not summary and not (verdict.is_current and verdict.can_run):
                    tell(verdict)
        if not as_json:
            _sum_up(counts)
        return stuck

    if run_long(work()):
        raise typer.Exit(1)


def document(verdict: Verdict) -> dict[str, Any]:
    """Return a verdict for scripts."""
    return {**asdict(verdict), "can_run": verdict.can_run, "can_move": verdict.can_move}


def tell(verdict: Verdict) -> None:
    """Print a verdict, with what speaks against it."""
    from holdfast.processor.cli.output import say

    say(f"{verdict.instance_id}  {verdict.workflow}/{verdict.correlation_key}: {_in_a_word(verdict)}")
    for title, against in (("cannot run", verdict.hindrances), ("cannot be moved", verdict.obstacles)):
        for each in against:
            say(f"  {title}: {said(each)}")
    if verdict.can_move:
        tell_suspended(verdict)


def tell_suspended(verdict: Verdict) -> None:
    """Say of an instance that can be moved that this alone does not make it go on."""
    from holdfast.processor.cli.output import say

    if verdict.is_suspended:
        say("  suspended: moved or not, it stays so until `holdfast resume`")


def said(obstacle: Obstacle) -> str:
    """Return an obstacle in one line."""
    places = [
        f"{which} line {line}"
        for which, line in (("old", obstacle.old_line), ("new", obstacle.new_line))
        if line is not None
    ]
    where = f" (frame {obstacle.frame}{''.join(f', {place}' for place in places)})" if obstacle.frame else ""
    return f"{obstacle.reason}: {obstacle.detail}{where}"


def _against(verdict: Verdict) -> tuple[Obstacle, ...]:
    return (*verdict.hindrances, *verdict.obstacles)


def _in_a_word(verdict: Verdict) -> str:
    if verdict.is_current:
        return "up to date" if verdict.can_run else "cannot run"
    run = "goes on with its old program" if verdict.can_run else "cannot run its old program"
    return f"{run}, {'can be moved' if verdict.can_move else 'cannot be moved'}"


def _sum_up(counts: Counter[str]) -> None:
    from holdfast.processor.cli.output import say, table

    if not counts:
        say("no living instance")
        return
    verdicts = sorted(word for word in counts if not word.startswith(" "))
    reasons = sorted(word for word in counts if word.startswith(" "))
    table(["", "instances"], [(word, counts[word]) for word in (*verdicts, *reasons)])
