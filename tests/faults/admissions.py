"""The app of the runs with instances that are not persisted yet: how an examination goes, files of the test say."""

import asyncio
import os
from datetime import timedelta
from pathlib import Path

from holdfast import App, Message, Retry, receive

app = App("admissions")
FOLDER = Path(os.environ.get("ADMISSIONS_FOLDER", "."))


class Admitted(Message, correlation="patient"):
    patient: str


class Called(Message, correlation="patient"):
    patient: str


class Referred(Message, correlation="patient"):
    patient: str


@app.activity(retry=Retry(attempts=1))
async def examine(patient: str) -> str:
    if (FOLDER / f"{patient}-is-stuck").exists():
        await asyncio.get_running_loop().create_future()
    if (FOLDER / f"{patient}-fails").exists():
        raise ValueError(patient)
    return patient


@app.workflow(start=Admitted, on_unhandled="abandon", expected_lifetime=timedelta(milliseconds=1))
async def admit(admitted: Admitted) -> str:
    examined = await examine(admitted.patient)
    await receive(Called, admitted.patient)
    return examined


@app.workflow(start=Referred)
async def refer(referred: Referred) -> str:
    return await examine(referred.patient)
