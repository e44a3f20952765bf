"""Keeps the host alive: renews its lease, and says so when the lease is lost."""

from __future__ import annotations

import structlog

from holdfast.processor.engine.runtime import Runtime
from holdfast.processor.services.first_of import first_of
from holdfast.schemas.errors import StorageError

log = structlog.get_logger("holdfast.lease")


async def keep_lease(runtime: Runtime) -> None:
    """Renew the lease until it is lost, then return.

    While Postgres cannot be reached the renewal is tried again; whether the lease outlived that is for
    the store's clock to say.
    """
    pause = runtime.settings.host_lock_renewal
    while True:
        await first_of(runtime.environment.sleep(pause), runtime.lease_in_doubt.wait())
        runtime.lease_in_doubt.clear()
        try:
            if not await runtime.provider.renew_host(runtime.host_id):
                log.warning("lease lost", host_id=str(runtime.host_id))
                return
            runtime.renewed_at = runtime.environment.monotonic()
            await runtime.read_clock()
        except StorageError as error:
            log.warning("lease not renewed", error=str(error))
            pause = min(1.0, runtime.settings.host_lock_renewal)
        else:
            pause = runtime.settings.host_lock_renewal
