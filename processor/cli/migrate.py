"""``holdfast migrate``."""

from __future__ import annotations

from holdfast.processor.cli.options import DatabaseUrl, JsonDocument, load_settings, run
from holdfast.processor.cli.output import emit, say


def migrate(*, database_url: DatabaseUrl = None, as_json: JsonDocument = False) -> None:
    """Create Holdfast's tables, or bring them up to this version.

    Safe to run at any time and from many places at once: what is up to date stays as it is.
    It works in the schema "holdfast" and touches nothing else.

        holdfast migrate --database-url postgresql://user:password@localhost/mydb

    With --json one document: "applied" lists the migrations, oldest first.
    """
    from holdfast.schemas.postgres.migrate import migrate as apply

    applied = run(apply(load_settings(database_url=database_url).require("database_url").database_url))
    if as_json:
        emit({"applied": applied})
    elif applied:
        say(f"applied {', '.join(applied)}")
    else:
        say("nothing to do: the database is up to date")
