"""``holdfast migrate``."""

from __future__ import annotations

from holdfast.processor.cli.options import DatabaseUrl, JsonDocument, load_settings, run
from holdfast.processor.cli.output import emit, say


def migrate(*, database_url: DatabaseUrl = None, as_json: JsonDocument = False) -> None:
    """Create Holdfast's tables, or bring them up to this version.

    Safe to run at any time and from many places at once: what is up to date stays as it is.
    It works in the schema "holdfast" and touches nothing else. After a restore or a promotion of a standby it
    raises the epoch of the log, and it gives roles that were made since the rights that they lack.

        holdfast migrate --database-url postgresql://user:password@localhost/mydb

    With --json one document: "applied" lists the migrations, oldest first, "epoch" is the new epoch if it was
    raised, "granted" lists the roles that lacked rights, "missing" those that are not there and that this user may
    not create.
    """
    from holdfast.schemas.postgres.migrate import migrate as apply

    done = run(apply(load_settings(database_url=database_url).require("database_url").database_url))
    if as_json:
        emit({"applied": done.applied, "epoch": done.epoch, "granted": done.granted, "missing": done.missing})
        return
    if done.applied:
        say(f"applied {', '.join(done.applied)}")
    if done.epoch is not None:
        say(f"raised the epoch to {done.epoch}: the database was moved, restored or promoted")
    if done.granted:
        say(f"gave their rights to {', '.join(done.granted)}")
    if not (done.applied or done.epoch or done.granted):
        say("nothing to do: the database is up to date")
    if done.missing:
        say(f"not there, and this user may not create it: {', '.join(done.missing)}; run it again when it is there")
