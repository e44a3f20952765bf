"""What anybody may put into an app's control queue; ``docs/control.md`` is the contract."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from holdfast.schemas.control import Command, CommandName, Decision
from holdfast.schemas.message import Message


class Where(BaseModel):
    """Which instances are meant: those that have not ended and fit all that is given, of which there must be something.

    ``older_than`` is in seconds, or a duration in ISO 8601, since the instance was registered; ``promoted`` are values
    that it shows for queries, by name.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    workflow: str | None = None
    correlation_key: str | None = None
    execution_status: Literal["executing", "idle"] | None = None
    is_suspended: bool | None = None
    is_initialized: bool | None = None
    older_than: timedelta | None = None
    promoted: Annotated[dict[str, Any], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.model_dump(exclude_none=True):
            raise ValueError("say what is meant: a command for every instance of an app is none")
        return self


class ControlMessage(Message, type="holdfast.Control"):
    """Asks one instance, or all that a query finds, to do something.

    It is a command as ``Command`` has it, for ``instance_id`` or for those ``where`` something holds. ``by`` says who
    asks, for the history.
    """

    model_config = ConfigDict(extra="forbid")

    command: CommandName
    by: Annotated[str, Field(min_length=1)]
    why: str | None = None
    instance_id: UUID | None = None
    where: Where | None = None
    call: str | None = None
    decision: Decision | None = None
    result: Any = None
    timer: str | None = None
    due: AwareDatetime | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.instance_id is None) == (self.where is None):
            raise ValueError("say either instance_id or where")
        if self.where is not None and (self.command == "resolve" or self.command.endswith("_timer")):
            raise ValueError(f"{self.command} is for one instance: say instance_id")
        if (self.command == "resolve") != (self.decision is not None):
            raise ValueError("resolve, and nothing else, takes a decision")
        if self.command.endswith("_timer") != (self.timer is not None):
            raise ValueError("commands about a timer, and no others, name the timer")
        if (self.command == "reschedule_timer") != (self.due is not None):
            raise ValueError("reschedule_timer, and nothing else, takes the moment at which the timer is to be due")
        return self

    def to_command(self) -> Command:
        """Return the command that is meant."""
        return Command(
            command=self.command,
            by=self.by,
            why=self.why,
            call=self.call,
            decision=self.decision,
            result=self.result,
            timer=self.timer,
            due=None if self.due is None else self.due.isoformat(),
        )
