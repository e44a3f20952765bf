"""Settings of a worker and of the command line, from the environment or a file.

Every setting is read from ``HOLDFAST_<NAME>``, or from the file that ``HOLDFAST_ENV_FILE`` names.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, ValidationError, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from holdfast.schemas.encodings import StateEncoding
from holdfast.schemas.errors import SettingsError

OnIdle = Literal["persist", "unload", "none"]


class Settings(BaseSettings):
    """Validated settings; durations are in seconds, sizes in bytes."""

    model_config = SettingsConfigDict(env_prefix="HOLDFAST_", extra="ignore", frozen=True)

    database_url: str = Field(default="", description="postgresql:// URL of the database")
    amqp_url: str = Field(default="", description="amqp:// URL of RabbitMQ")
    partitions: int = Field(default=1, ge=1, le=100, description="queues that the app's messages are spread over")
    prefetch: int = Field(default=400, ge=1, le=65535, description="unacked messages a partition")
    activity_prefetch: int = Field(
        default=10, ge=1, le=65535, description="activities of one queue that an activity worker does at a time"
    )
    lease: float = Field(default=60.0, gt=0, description="seconds that a host's locks outlive its last renewal")
    host_lock_renewal: float = Field(default=30.0, gt=0, description="seconds between two renewals of the lease")
    runnable_detection: float = Field(default=5.0, gt=0, description="seconds between two looks for runnable instances")
    timer_grace: float = Field(
        default=300.0, ge=0, description="seconds that timers wait for the messages found in a partition, at most"
    )
    on_idle: OnIdle = Field(default="persist", description="what becomes of an idle instance: persist, unload or none")
    time_to_persist: float = Field(default=0.0, ge=0, description="seconds that an instance is idle before it persists")
    time_to_unload: float = Field(default=60.0, ge=0, description="seconds that an idle instance stays loaded")
    ack_deadline: float = Field(
        default=300.0, gt=0, description="seconds that a message stays unacked in memory before it is stored"
    )
    max_bursts: int = Field(default=1000, ge=1, description="instances that run at a time")
    max_loaded: int = Field(default=10_000, ge=1, description="instances that are in memory at a time")
    max_mailbox: int = Field(default=10_000, ge=1, description="messages of one key that wait in the inbox")
    state_encoding: StateEncoding = Field(default="none", description="how states are stored: none or gzip")
    transaction_timeout: float = Field(
        default=60.0, gt=0, description="seconds that a transaction with user SQL may stay open"
    )
    persist_patience: float = Field(
        default=30.0, gt=0, description="seconds that a persist or unload waits for the end of a scope"
    )
    group_size: int = Field(default=100, ge=1, le=1000, description="batches that one commit takes at most")
    max_attempts: int = Field(default=5, ge=1, description="tries of a message before it is dead-lettered")
    max_body_bytes: int = Field(default=1 << 20, ge=1, description="size of the largest message body")
    message_ttl: float = Field(
        default=7 * 86400.0, gt=0, description="seconds that an unclaimed message stays buffered"
    )
    user_connections: int = Field(default=8, ge=1, description="connections for batches with user SQL")
    shutdown_grace: float = Field(default=20.0, ge=0, description="seconds that bursts get to end on shutdown")
    metrics_port: int | None = Field(
        default=None, ge=0, le=65535, description="port of metrics and probes; 0 takes any that is free"
    )
    metrics_address: str = Field(
        default="0.0.0.0",  # noqa: S104  Who gives a port wants to be asked from other machines.
        description="address that the port is opened on",
    )
    projection_poll: float = Field(default=0.5, gt=0, description="seconds between two looks of projections at the log")
    event_feed: bool = Field(default=False, description="whether committed events are published")
    program_key: str = Field(default="", description="secret that signs stored programs")

    @model_validator(mode="after")
    def _idle_makes_sense(self) -> Self:
        """Refuse what the idle policy cannot mean."""
        if self.on_idle != "persist" and self.time_to_persist > 0:
            raise ValueError(f"HOLDFAST_TIME_TO_PERSIST is of no use with HOLDFAST_ON_IDLE={self.on_idle}")
        if self.time_to_persist > self.time_to_unload:
            raise ValueError("HOLDFAST_TIME_TO_PERSIST is longer than HOLDFAST_TIME_TO_UNLOAD, which persists too")
        return self

    @property
    def heartbeat(self) -> int:
        """Seconds between AMQP heartbeats: at most a third of the lease."""
        return max(1, min(60, int(self.lease / 3)))

    @classmethod
    def load(cls, **overrides: object) -> Self:
        """Return the settings of this process, or raise ``SettingsError`` in one clear line."""
        file = os.environ.get("HOLDFAST_ENV_FILE")
        if file and not Path(file).is_file():
            raise SettingsError(f"HOLDFAST_ENV_FILE names {file}, which is not there")
        try:
            settings = cls(_env_file=file, **overrides)  # type: ignore[arg-type] # overrides are validated
        except ValidationError as error:
            raise SettingsError("; ".join(map(_in_words, error.errors(include_url=False)))) from None
        if settings.host_lock_renewal * 2 > settings.lease:
            settings = settings.model_copy(update={"host_lock_renewal": settings.lease / 2})
        return settings

    def require(self, *names: str) -> Self:
        """Return these settings if all of the named ones are given, else raise ``SettingsError``."""
        for name in names:
            if not getattr(self, name):
                raise SettingsError(f"HOLDFAST_{name.upper()} is not set: {type(self).model_fields[name].description}")
        return self


def _in_words(problem: ErrorDetails) -> str:
    """Say what is wrong with one setting, or with several together."""
    if not problem["loc"]:
        return problem["msg"].removeprefix("Value error, ")
    return f"HOLDFAST_{str(problem['loc'][0]).upper()}: {problem['msg']}"
