"""Rebuilds and projectors as processes: what a person sees of them, and what becomes of a page when they die in it."""

import asyncio
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import termios
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest
from psycopg import AsyncConnection

from holdfast.processor.cli import progress
from tests.support.commands import HOLDFAST, ROOT, holdfast
from tests.support.gates import COUNT, at_gate, closed_gate, gated, plain
from tests.support.projections import rows, settle, start, write
from tests.support.workers import Worker, eventually


def fill(url: str, count: int) -> None:
    async def work() -> None:
        async with await AsyncConnection.connect(url) as connection:
            await write(connection, [[start()] for _ in range(count)])
        await settle(url)

    asyncio.run(work())


def on_terminal(*arguments: str, env: dict[str, str]) -> tuple[int, str]:
    """Run a command on a terminal, and return its exit code and what was shown there."""
    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 140, 0, 0))
    process = subprocess.Popen(
        [HOLDFAST, *arguments], env=env | {"TERM": "xterm"}, cwd=ROOT, stdin=terminal, stdout=terminal, stderr=terminal
    )
    os.close(terminal)
    shown = b""
    try:
        while data := os.read(controller, 65536):
            shown += data
    except OSError:  # The other end is closed.
        pass
    os.close(controller)
    return process.wait(60), plain(shown.decode())


@pytest.mark.parametrize(
    "command", [("projections", "rebuild", "shop:app", "started"), ("replay", "--app", "shop:app", "--into", "started")]
)
def test_a_terminal_shows_how_far_it_is_how_fast_it_goes_and_how_long_it_still_takes(
    database_url: str, tmp_path: Path, command: tuple[str, ...]
) -> None:
    env = gated(database_url, tmp_path)
    fill(database_url, 4000)
    assert holdfast("project", "shop:app", "--once", env=env).returncode == 0
    code, shown = on_terminal(*command, env=env)
    assert code == 0, shown
    frames = re.findall(r"started \S+ ([\d,]+)/([\d,]+) ([\d,]+) events/s (\d:\d\d:\d\d)", shown)
    under_way = [
        left
        for position, end, rate, left in frames
        if int(position.replace(",", "")) < int(end.replace(",", "")) and rate != "0" and left != "0:00:00"
    ]
    assert under_way, shown


def test_elsewhere_a_line_now_and_then_says_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter([0.0, 0.0, 4.0, 5.0, 6.0, 11.0])
    monkeypatch.setattr("holdfast.processor.cli.progress.time", SimpleNamespace(monotonic=lambda: next(clock)))
    with progress.bar("sales", "events") as told:
        for position in (1000, 3000, 6000, 7000, 12000):
            told(position, 21000)
    assert capsys.readouterr().err.splitlines() == [
        "sales: 6,000 of 21,000 events, 1,000 events/s, 15 s left",
        "sales: 12,000 of 21,000 events, 1,000 events/s, 9 s left",
    ]


def test_an_interrupted_rebuild_says_that_it_can_be_continued(database_url: str, tmp_path: Path) -> None:
    env = gated(database_url, tmp_path)
    fill(database_url, 200)
    assert holdfast("project", "shop:app", "--once", env=env).returncode == 0
    command = ["projections", "rebuild", "shop:app", "started"]
    with closed_gate(database_url):
        process = subprocess.Popen([HOLDFAST, *command], env=env, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        eventually("it is within a page", lambda: at_gate(database_url) == ["holdfast"])
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (130, "interrupted: the same command goes on where it was\n")
    assert holdfast(*command, env=env).returncode == 0
    assert rows(database_url, COUNT) == [(200,)]


def test_a_page_within_which_a_process_is_killed_is_handled_once_by_another(database_url: str, tmp_path: Path) -> None:
    env = {name: gated(database_url, tmp_path, name) for name in ("first", "second")}
    fill(database_url, 120)
    assert holdfast("project", "shop:app", "--once", env=env["first"]).returncode == 0
    with ExitStack() as ending:
        running = {}
        for name, value in env.items():
            running[name] = Worker([HOLDFAST, "project", "shop:app"], value, tmp_path / f"{name}.log")
            ending.callback(running[name].kill)
        with closed_gate(database_url):
            fill(database_url, 120)
            eventually("one of them is within a page", lambda: len(at_gate(database_url)) == 1)
            (victim,) = at_gate(database_url)
            running.pop(victim).kill()
            assert rows(database_url, COUNT) == [(120,)]
        (survivor,) = running.values()
        eventually("the other one has taken over", lambda: rows(database_url, COUNT) == [(240,)])
        assert rows(database_url, "select handled::int, status from holdfast.projections") == [(240, "running")]
        assert survivor.stop() == 0
