"""The order workload as a Holdfast app; ``README.md`` fixes what it does."""

from __future__ import annotations

import os
from typing import cast

from benchmarks.workload import PAID, PLACED, RESULT, SHIPPED
from holdfast import App, Message, receive, send
from holdfast.processor.language.options import Persistence

PERSISTENCE_VARIABLE = "HOLDFAST_BENCHMARK_PERSISTENCE"

app = App("benchmark")


class OrderPlaced(Message, correlation="order_id", type=PLACED):
    order_id: str
    padding: str


class OrderPaid(Message, correlation="order_id", type=PAID):
    order_id: str
    padding: str


class OrderShipped(Message, correlation="order_id", type=SHIPPED):
    order_id: str
    padding: str


@app.activity
async def reserve(_order_id: str) -> str:
    return RESULT


@app.activity
async def price(_order_id: str) -> str:
    return RESULT


@app.activity
async def invoice(_order_id: str) -> str:
    return RESULT


@app.activity
async def book(_order_id: str) -> str:
    return RESULT


@app.activity
async def pack(_order_id: str) -> str:
    return RESULT


@app.workflow(start=OrderPlaced, persistence=cast("Persistence", os.environ.get(PERSISTENCE_VARIABLE, "in_memory")))
async def order(placed: OrderPlaced) -> str:
    reserved = await reserve(placed.order_id)
    priced = await price(placed.order_id)
    invoiced = await invoice(placed.order_id)
    paid = await receive(OrderPaid, placed.order_id)
    booked = await book(paid.order_id)
    packed = await pack(paid.order_id)
    await send(OrderShipped(order_id=placed.order_id, padding=paid.padding))
    return f"{reserved[0]}{priced[0]}{invoiced[0]}{booked[0]}{packed}"
