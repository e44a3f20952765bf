"""Private servers live as long as whoever started them, and keep their data in between."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from pwd import getpwnam, getpwuid
from urllib.parse import parse_qs, urlsplit

import aio_pika
import psutil
import psycopg
import pytest

from compose.local import containers, provide
from compose.local.postgres import Postgres
from compose.local.process import Server, ServerError
from compose.local.services import Services
from tests.architecture.house import ROOT

HOLDER = """
import signal, sys
from pathlib import Path
from pwd import getpwnam, getpwuid
from urllib.parse import parse_qs, urlsplit
from compose.local.process import Server
server = Server(Path(sys.argv[1]), ["sh", "-c", "echo $$ >pid.new; mv pid.new pid; exec sleep 1000"])
server.start(Path("pid").exists, last_signal=signal.SIGTERM, timeout=10)
print("started", flush=True)
signal.pause()
"""


def a_server(folder: Path, script: str) -> Server:
    folder.mkdir()
    return Server(folder, ["sh", "-c", f"cd {folder}; {script}"])


def test_a_closed_server_has_ended_and_its_folder_is_gone(tmp_path: Path) -> None:
    server = a_server(tmp_path / "server", "echo $$ >pid; touch ready; exec sleep 1000")
    server.start((server.folder / "ready").exists, last_signal=signal.SIGTERM, timeout=10)
    process = psutil.Process(int((server.folder / "pid").read_text()))
    server.close()
    assert not process.is_running()
    assert not server.folder.exists()


def test_a_stopped_server_keeps_its_folder(tmp_path: Path) -> None:
    server = a_server(tmp_path / "server", "touch ready; exec sleep 1000")
    server.start((server.folder / "ready").exists, last_signal=signal.SIGTERM, timeout=10)
    server.stop(signal.SIGINT)
    assert not server.is_running
    assert server.folder.exists()
    server.close()
    assert not server.folder.exists()


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    server = a_server(tmp_path / "server", "echo no room left; exit 1")
    with pytest.raises(ServerError, match="no room left"):
        server.start(lambda: False, last_signal=signal.SIGTERM, timeout=10)
    server.close()


def test_a_server_ends_when_its_holder_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "server"
    folder.mkdir()
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, folder], cwd=folder, env=environment, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"started\n"
        server = psutil.Process(int((folder / "pid").read_text()))
        leash = server.parent()
        holder.kill()
    psutil.wait_procs([process for process in (server, leash) if process], timeout=20)
    assert not server.is_running()
    assert not folder.exists()


def test_postgres_keeps_what_was_committed_through_a_crash(own_services: Services) -> None:
    assert own_services.postgres is not None
    with psycopg.connect(own_services.new_database("crash")) as connection:
        connection.execute("create table kept as select 1 as number")
        connection.commit()
        own_services.postgres.restart("immediate")
    with psycopg.connect(own_services.database("crash")) as connection:
        assert connection.execute("select number from kept").fetchall() == [(1,)]
    own_services.drop_database("crash")


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    """A private server, also where the tests run on others."""
    postgres = Postgres()
    try:
        postgres.start()
        yield postgres
    finally:
        postgres.close()


def test_postgres_runs_with_the_rights_of_nobody_when_root_starts_it(postgres: Postgres) -> None:
    folder = parse_qs(urlsplit(postgres.url).query)["host"][0]
    server = psutil.Process(int(Path(folder, "data", "postmaster.pid").read_text().split()[0]))
    account = getpwnam("nobody") if os.geteuid() == 0 else getpwuid(os.geteuid())
    assert (server.uids().effective, server.gids().effective) == (account.pw_uid, account.pw_gid)


def test_postgres_data_are_closed_to_other_users(postgres: Postgres) -> None:
    with psycopg.connect(postgres.url) as connection:
        row = connection.execute("show data_directory").fetchone()
    assert row is not None
    assert Path(row[0]).parent.stat().st_mode & 0o077 == 0


async def test_rabbitmq_keeps_its_messages_through_a_restart(own_services: Services, app_name: str) -> None:
    assert own_services.rabbitmq is not None
    async with await aio_pika.connect(own_services.amqp_url) as connection:
        channel = await connection.channel()
        await channel.declare_queue(app_name, durable=True, arguments={"x-queue-type": "quorum"})
        message = aio_pika.Message(b"kept", delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
        await channel.default_exchange.publish(message, app_name)
    own_services.rabbitmq.stop()
    own_services.rabbitmq.start()
    async with await aio_pika.connect(own_services.amqp_url) as connection:
        channel = await connection.channel()
        queue = await channel.get_queue(app_name)
        async with queue.iterator(no_ack=True) as messages:
            assert (await anext(messages)).body == b"kept"


def test_without_any_rabbitmq_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provide, "find_server", lambda: None)
    monkeypatch.setattr(containers, "why_not", lambda: "no engine answers")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ServerError, match="apt-get install rabbitmq-server"):
        provide.provide_rabbitmq()


def run_with_given_addresses(*command: str) -> subprocess.Popen[str]:
    environment = os.environ | {"HOLDFAST_DATABASE_URL": "postgresql://given/", "HOLDFAST_AMQP_URL": "amqp://given/"}
    return subprocess.Popen(
        [sys.executable, "-m", "compose.local", *command], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    )


def test_a_command_is_given_the_addresses_and_gives_its_exit_status() -> None:
    with run_with_given_addresses(
        "--", "sh", "-c", "echo $HOLDFAST_DATABASE_URL $HOLDFAST_AMQP_URL; exit 3"
    ) as process:
        assert process.communicate()[0] == "postgresql://given/ amqp://given/\n"
    assert process.returncode == 3


def test_a_command_ends_when_the_services_are_told_to_end() -> None:
    script = "trap 'echo ended; exit' TERM; echo started; while :; do sleep 0.1; done"
    with run_with_given_addresses("--", "sh", "-c", script) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        process.terminate()
        assert process.communicate()[0] == "ended\n"
    assert process.returncode == 128 + signal.SIGTERM
