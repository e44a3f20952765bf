"""Where the servers of the tests come from: given addresses first, then containers, then private servers."""

import docker
import pytest
from docker.errors import DockerException
from requests.exceptions import ReadTimeout

from compose.local import containers, services
from compose.local.process import ServerError
from compose.local.services import Containers, running_services

GIVEN = {"HOLDFAST_DATABASE_URL": "postgresql://given", "HOLDFAST_AMQP_URL": "amqp://given"}


class Server:
    """A server that only says what becomes of it."""

    def __init__(self, kind: str, lives: list[str]) -> None:
        self.url = f"{kind} server"
        self._lives = lives

    def start(self) -> None:
        self._lives.append(f"started {self.url}")

    def close(self) -> None:
        self._lives.append(f"closed {self.url}")


@pytest.fixture
def lives(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What becomes of the servers: fakes in the places of real ones."""
    lives: list[str] = []
    monkeypatch.setattr(containers, "ContainedPostgres", lambda _: Server("contained Postgres", lives))
    monkeypatch.setattr(containers, "ContainedRabbitMQ", lambda _: Server("contained RabbitMQ", lives))
    monkeypatch.setattr(services, "Postgres", lambda version: Server(f"private Postgres {version}", lives))
    monkeypatch.setattr(services, "provide_rabbitmq", lambda: Server("private RabbitMQ", lives))
    return lives


def engine(monkeypatch: pytest.MonkeyPatch, *, answers: bool) -> None:
    monkeypatch.setattr(containers, "why_not", lambda: None if answers else "no engine answers")


@pytest.mark.parametrize("answers", [True, False])
@pytest.mark.parametrize("use", ["never", "if possible"])
def test_given_addresses_are_used_and_nothing_is_started(
    use: Containers, *, answers: bool, lives: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine(monkeypatch, answers=answers)
    with running_services(GIVEN, use_containers=use) as found:
        assert (found.database_url, found.amqp_url) == ("postgresql://given", "amqp://given")
        assert (found.postgres, found.rabbitmq, found.origin) == (None, None, "given addresses")
    assert lives == []


@pytest.mark.parametrize("use", ["if possible", "always"])
def test_where_an_engine_answers_they_are_containers(
    use: Containers, lives: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine(monkeypatch, answers=True)
    with running_services({}, use_containers=use) as found:
        assert (found.database_url, found.amqp_url) == ("contained Postgres server", "contained RabbitMQ server")
        assert found.origin.startswith("containers of ")
        assert len(lives) == 2
    assert {line.split()[0] for line in lives} == {"started", "closed"}


def test_what_is_not_given_is_a_container(lives: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    engine(monkeypatch, answers=True)
    given = {"HOLDFAST_DATABASE_URL": "postgresql://given"}
    with running_services(given, use_containers="if possible") as found:
        assert (found.database_url, found.amqp_url) == ("postgresql://given", "contained RabbitMQ server")
        assert found.origin == f"a given address and containers of {containers.images()[1]}"
    assert not any("Postgres" in line for line in lives)


@pytest.mark.parametrize(("use", "answers"), [("if possible", False), ("never", True)])
def test_they_are_private_servers_where_no_engine_answers_or_none_is_wanted(
    use: Containers, *, answers: bool, lives: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine(monkeypatch, answers=answers)
    with running_services({}, use_containers=use, postgres_version=16) as found:
        assert (found.database_url, found.amqp_url) == ("private Postgres 16 server", "private RabbitMQ server")
        assert found.origin == "private servers"
    assert len(lives) > 2


@pytest.mark.parametrize("error", [DockerException("no engine"), ReadTimeout("it says nothing")])
def test_an_engine_that_does_not_answer_well_is_none(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise error

    monkeypatch.setattr(docker, "from_env", refuse)
    monkeypatch.setattr(containers, "why_not", containers.why_not.__wrapped__)
    assert containers.why_not() == str(error)


def test_who_insists_on_containers_is_told_why_there_are_none(
    lives: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine(monkeypatch, answers=False)
    with pytest.raises(ServerError, match="no engine answers"), running_services({}, use_containers="always"):
        pass
    assert lives == []
