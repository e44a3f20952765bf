"""The orders of the soak: placed, recorded, paid or not, packed by a subflow or here, and settled."""

from datetime import timedelta

from holdfast import App, Message, Retry, Transaction, delay, first_of, receive, send, start

app = App("soak")


class Placed(Message, correlation="order_id"):
    order_id: str
    patience: timedelta = timedelta(days=1)


class PlacedInMemory(Message, correlation="order_id"):
    order_id: str
    patience: timedelta = timedelta(days=1)


class PlacedInParts(Message, correlation="order_id"):
    order_id: str
    patience: timedelta = timedelta(days=1)


class Paid(Message, correlation="order_id"):
    order_id: str


class Packed(Message, correlation="order_id"):
    order_id: str


class Settled(Message, correlation="order_id"):
    order_id: str
    outcome: str


@app.activity(retry=Retry(attempts=3))
async def reserve(order_id: str) -> str:
    return f"reservation-of-{order_id}"


@app.activity
def pack(order_id: str) -> str:
    return f"parcel-of-{order_id}"


# The table has no unique key, so that a row written twice is there twice.
@app.activity
async def record(tx: Transaction, order_id: str, step: str) -> None:
    await tx.execute("insert into records (order_id, step) values (%s, %s)", (order_id, step))


@app.workflow(start=Packed)
async def packing(packed: Packed) -> str:
    parcel = await pack(packed.order_id)
    await record(packed.order_id, "packed")
    return parcel


@app.workflow(start=Placed)
async def order(placed: Placed) -> str:
    reservation = await reserve(placed.order_id)
    await record(placed.order_id, "placed")
    outcome = await first_of(paid=receive(Paid, placed.order_id), late=delay(placed.patience))
    await record(placed.order_id, outcome.name)
    await pack(placed.order_id)
    await send(Settled(order_id=placed.order_id, outcome=outcome.name))
    return reservation


@app.workflow(start=PlacedInMemory, persistence="in_memory")
async def order_in_memory(placed: PlacedInMemory) -> str:
    reservation = await reserve(placed.order_id)
    await record(placed.order_id, "placed")
    outcome = await first_of(paid=receive(Paid, placed.order_id), late=delay(placed.patience))
    await record(placed.order_id, outcome.name)
    await pack(placed.order_id)
    await send(Settled(order_id=placed.order_id, outcome=outcome.name))
    return reservation


@app.workflow(start=PlacedInParts)
async def order_in_parts(placed: PlacedInParts) -> str:
    reservation = await reserve(placed.order_id)
    await record(placed.order_id, "placed")
    outcome = await first_of(paid=receive(Paid, placed.order_id), late=delay(placed.patience))
    await start(packing, Packed(order_id=placed.order_id))
    await record(placed.order_id, outcome.name)
    await send(Settled(order_id=placed.order_id, outcome=outcome.name))
    return reservation
