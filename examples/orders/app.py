"""An order is placed, its stock reserved and its row recorded; then it waits for the payment and is shipped."""

from datetime import timedelta
from decimal import Decimal

from holdfast import App, Message, Retry, Transaction, delay, first_of, receive, send

app = App("orders")


class OrderPlaced(Message, correlation="order_id"):
    order_id: str
    item: str
    amount: Decimal
    pay_within: timedelta = timedelta(days=3)


class PaymentReceived(Message, correlation="order_id"):
    order_id: str
    reference: str


class OrderShipped(Message, correlation="order_id"):
    order_id: str
    payment: str


class OutOfStock(Exception):
    """There is nothing left of an item."""


class PaymentMissing(Exception):
    """The payment did not come in time."""


# A code activity: any code, outside the database transaction. It runs at least once, so what it calls gets the order's
# id to recognise a call that is made again.
@app.activity(retry=Retry(attempts=5))
async def reserve_stock(order_id: str, item: str) -> str:
    if item == "unicorn":
        raise OutOfStock(item)
    return f"reservation-of-{order_id}"


# A record activity: it asks for a Transaction, so its SQL commits together with the order's state, exactly once.
@app.activity
async def record_order(tx: Transaction, order: OrderPlaced, reservation: str) -> None:
    await tx.execute(
        "insert into orders (order_id, item, amount, reservation) values (%s, %s, %s, %s)",
        (order.order_id, order.item, order.amount, reservation),
    )


@app.workflow(start=OrderPlaced)
async def order(placed: OrderPlaced) -> str:
    reservation = await reserve_stock(placed.order_id, placed.item)
    await record_order(placed, reservation)
    outcome = await first_of(
        paid=receive(PaymentReceived, placed.order_id),
        late=delay(placed.pay_within),
    )
    if outcome.name == "late":
        raise PaymentMissing(placed.order_id)
    await send(OrderShipped(order_id=placed.order_id, payment=outcome.value.reference))
    return reservation
