"""Keeps the host alive: renews its lease, and says so when the lease is lost."""

from __future__ import annotations

import structlog

from holdfast.processor.engine.deadline import OutOfTime, within
from holdfast.processor.engine.runtime import Runtime
from holdfast.processor.services.first_of import first_of
from holdfast.schemas.errors import StorageError

log = structlog.get_logger("holdfast.lease")


async def keep_lease(runtime: Runtime) -> None:
    """Renew the lease until it is lost, then return.

    While Postgres cannot be reached the renewal is tried again. Whether the lease outlived that is for the store's
    clock to say; but when a whole lease has passed since the last answer, it has lapsed whatever the store would say.
    Who waited for an answer any longer would keep messages from the hosts that have taken over.
    """
    environment, settings = runtime.environment, runtime.settings
    pause = settings.host_lock_renewal
    while True:
        await first_of(environment.sleep(pause), runtime.lease_in_doubt.wait())
        runtime.lease_in_doubt.clear()
        left = runtime.renewed_at + settings.lease - environment.monotonic()
        try:
            if left <= 0 or not await within(environment, left, runtime.provider.renew_host(runtime.host_id)):
                break
            runtime.renewed_at = environment.monotonic()
            await within(environment, settings.lease, runtime.read_clock())
        except OutOfTime:
            break
        except StorageError as error:
            log.warning("lease not renewed", error=str(error))
            pause = min(1.0, settings.host_lock_renewal)
        else:
            pause = settings.host_lock_renewal
    log.warning("lease lost", host_id=str(runtime.host_id))
