"""The options of a workflow: how its instances are run and kept."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Literal, TypedDict

Persistence = Literal["regular", "in_memory"]
OnUnhandled = Literal["abandon_and_suspend", "abandon", "cancel", "terminate"]


class WorkflowOptions(TypedDict, total=False):
    """What ``@app.workflow`` takes beside ``start`` and ``name``; what is left out is as ``Workflow`` says.

    ``persistence``: ``regular`` commits each activity's result before the next one starts, ``in_memory`` commits a
    whole burst at once. ``on_unhandled`` says what an unhandled exception does: ``abandon_and_suspend`` goes back to
    the last persistence point and suspends, ``abandon`` goes back and retries the message, ``cancel`` undoes what is
    compensable and ends the instance as cancelled, ``terminate`` ends it as faulted at once. ``expected_lifetime`` is
    how long an instance should take: operators are shown which non-persisted ones are older. ``promote`` names
    variables that queries are to find, in the column ``promoted``.
    """

    persistence: Persistence
    on_unhandled: OnUnhandled
    expected_lifetime: timedelta | None
    promote: Sequence[str]
