"""The options of a workflow: how its instances are run and kept."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Literal, TypedDict

from holdfast.schemas.encodings import StateEncoding
from holdfast.schemas.settings import OnIdle

Persistence = Literal["regular", "in_memory"]
OnUnhandled = Literal["abandon_and_suspend", "abandon", "cancel", "terminate"]
OnCompletion = Literal["keep", "delete"]


class WorkflowOptions(TypedDict, total=False):
    """What ``@app.workflow`` takes beside ``start`` and ``name``; what is left out is as ``Workflow`` says.

    ``persistence``: ``regular`` commits each activity's result before the next one starts, ``in_memory`` commits a
    whole burst at once. ``on_unhandled`` says what an unhandled exception does: ``abandon_and_suspend`` goes back to
    the last persistence point and suspends, ``abandon`` goes back and retries the message, ``cancel`` undoes what is
    compensable and ends the instance as cancelled, ``terminate`` ends it as faulted at once. ``expected_lifetime`` is
    how long an instance should take: operators are shown which non-persisted ones are older. ``promote`` names
    variables that queries are to find, in the column ``promoted``. ``max_bursts`` is how many instances may run on one
    host at a time.

    ``on_idle`` says what becomes of an instance that waits: ``persist`` takes a persistence point after
    ``time_to_persist`` and lets go of it after ``time_to_unload``, ``unload`` does both at once, ``none`` leaves it in
    memory until it has to be unloaded. What is left out is as the host's settings say.

    ``state_encoding`` is how the instance store holds states: ``none`` or ``gzip``; without it the worker's setting
    counts. ``on_completion="delete"`` deletes row and state of an instance in the commit that closes it, whatever its
    outcome; its history stays. With ``reuse_key`` a start message starts a new instance although the one before it with
    that key is closed and still kept.
    """

    persistence: Persistence
    on_unhandled: OnUnhandled
    expected_lifetime: timedelta | None
    promote: Sequence[str]
    max_bursts: int | None
    on_idle: OnIdle | None
    time_to_persist: timedelta | None
    time_to_unload: timedelta | None
    state_encoding: StateEncoding | None
    on_completion: OnCompletion
    reuse_key: bool
