"""The demo shows what it promises, also where there is no terminal, and leaves nothing running."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from tests.support.commands import ROOT
from tests.support.rabbitmq import remove_app
from tests.support.workers import environment, eventually

DEMO = [sys.executable, "-m", "examples.demo"]


@pytest.fixture
def env(database_url: str, amqp_url: str) -> Iterator[dict[str, str]]:
    remove_app(amqp_url, "orders")
    yield environment(database_url, amqp_url)
    remove_app(amqp_url, "orders")


def workers(env: dict[str, str]) -> list[psutil.Process]:
    """Return the processes that run a worker on the database of this test."""
    found = []
    for process in psutil.process_iter():
        try:
            command, own = process.cmdline(), process.environ()
        except psutil.Error:
            continue
        if "worker" in command and own.get("HOLDFAST_DATABASE_URL") == env["HOLDFAST_DATABASE_URL"]:
            found.append(process)
    return found


def test_the_demo_shows_everything_and_the_commands_that_show_it(env: dict[str, str]) -> None:
    done = subprocess.run(DEMO, env=env, cwd=ROOT, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    shown = done.stdout

    assert re.search(r"^orders  order +completed +240$", shown, re.MULTILINE)
    assert re.search(r"^orders  order +suspended +30$", shown, re.MULTILINE)
    assert re.search(r"^orders  order +non-persisted, suspended +30$", shown, re.MULTILINE)
    assert "the warehouse got 240 messages OrderShipped" in shown

    history = after(shown, r"holdfast history \S+")
    assert "app.py:58: outcome = await first_of(" in history
    assert "InstanceCompleted" in history
    state = after(shown, r"holdfast state \S+ --at 7")
    assert re.search(r"^status +idle$", state, re.MULTILINE)
    suspended = after(shown, r"holdfast show \S+")
    assert re.search(r"^exception +examples\.orders\.app\.PaymentMissing: ", suspended, re.MULTILINE)
    assert "OutOfStock" in after(shown, r"holdfast nonpersisted --app orders --limit 3")
    assert "amount: Field required" in after(shown, r"holdfast dead-letters show \S+")
    assert "no difference" in after(shown, r"holdfast verify --app orders")

    assert workers(env) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_a_demo_that_is_interrupted_stops_its_worker(env: dict[str, str], number: signal.Signals) -> None:
    with subprocess.Popen(DEMO, env=env, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as demo:
        try:
            eventually("the worker runs", lambda: workers(env) != [])
            demo.send_signal(number)
            assert demo.wait(60) == 128 + number
            assert demo.stderr is not None
            assert b"Traceback" not in demo.stderr.read()
        finally:
            demo.kill()
    assert workers(env) == []


def after(shown: str, command: str) -> str:
    """Return what was printed after a command that was shown, up to the next one."""
    found = re.search(rf"^\$ {command}\n(.*?)(?=^\$ |\Z)", shown, re.MULTILINE | re.DOTALL)
    assert found is not None, f"{command} was not shown"
    return found[1]
