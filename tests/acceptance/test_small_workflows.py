"""Small workflows of the examples under a real worker: questions with answers, and families of instances."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aio_pika
import psycopg

from examples.workflows import approval, onboarding
from holdfast import App, Client
from tests.support.commands import holdfast
from tests.support.rabbitmq import remove_app
from tests.support.workers import Workers, await_hosts, environment, eventually


@asynccontextmanager
async def working(app: App, module: str, database_url: str, amqp_url: str, folder: Path) -> AsyncIterator[Client]:
    """Run a worker of an app, and give a client of it."""
    env = environment(database_url, amqp_url, runnable_detection=1)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(asyncio.to_thread, remove_app, amqp_url, app.name)
        workers = stack.enter_context(Workers(f"{module}:app", env, folder))
        workers.start()
        await asyncio.to_thread(await_hosts, database_url, 1)
        yield await stack.enter_async_context(Client(database_url, amqp_url=amqp_url, app=app.name))


async def test_who_asks_gets_the_answer_in_the_queue_that_it_named(
    database_url: str, amqp_url: str, tmp_path: Path
) -> None:
    async with (
        working(approval.app, approval.__name__, database_url, amqp_url, tmp_path) as client,
        await aio_pika.connect(amqp_url) as connection,
    ):
        answers = await (await connection.channel()).declare_queue(exclusive=True)
        await client.publish(approval.Asked(case="easy", amount=100), reply_to=answers.name)
        async with answers.iterator(no_ack=True) as arriving:
            answer = await anext(arriving)
    assert (answer.type, answer.correlation_id) == ("Decided", "easy")
    assert json.loads(answer.body) == {"case": "easy", "decision": "approved"}


async def test_show_lists_the_subflows_of_an_instance_below_it(
    database_url: str, amqp_url: str, tmp_path: Path
) -> None:
    def look(*arguments: str) -> str:
        done = holdfast(*arguments, env=environment(database_url, amqp_url))
        assert done.returncode == 0, done.stderr
        return done.stdout

    def parent() -> list[dict[str, Any]]:
        return [json.loads(line) for line in look("instances", "--workflow", "onboard", "--json").splitlines()]

    with psycopg.connect(database_url) as connection:
        connection.execute("create table accounts (name text)")
    async with working(onboarding.app, onboarding.__name__, database_url, amqp_url, tmp_path) as client:
        await client.publish(onboarding.Hired(person="Ada"))
        await client.publish(onboarding.LaptopReady(person="Ada", serial="X1"))
        await asyncio.to_thread(eventually, "all is done", lambda: [it["outcome"] for it in parent()] == ["completed"])
    shown = look("show", parent()[0]["instance_id"])
    family = re.findall(r"^ +(run|spawn|start) (\w+)/Ada: (\w+)", shown, re.MULTILINE)
    assert sorted(family) == [
        ("run", "account", "completed"),
        ("spawn", "welcome", "completed"),
        ("start", "laptop", "completed"),
    ]
