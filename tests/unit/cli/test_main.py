"""Mistakes are answered in one line, with an exit code that scripts can act on."""

import subprocess
import sys

import pytest

from holdfast.processor.cli import application
from holdfast.processor.cli.application import main
from holdfast.schemas.errors import StorageError

ID = "0199c1a2-0000-7000-8000-000000000000"
COMMANDS = (
    "migrate",
    "worker",
    "activities",
    "publish",
    "instances",
    "show",
    "explain",
    "history",
    "transactions",
    "compensation",
    "state",
    "suspend",
    "resume",
    "resolve",
    "cancel",
    "terminate",
    "nonpersisted",
    "messages",
    "replay",
    "replays",
    "timers",
    "dead-letters",
    "verify",
)


SUBCOMMANDS = (
    *(f"dead-letters {it}" for it in ("list", "show", "requeue", "drop")),
    *(f"nonpersisted {it}" for it in ("list", "remove")),
    *(f"replays {it}" for it in ("list", "remove")),
    "retention apply",
)


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOLDFAST_DATABASE_URL", "HOLDFAST_AMQP_URL", "HOLDFAST_ENV_FILE"):
        monkeypatch.delenv(name, raising=False)


def complaint(capsys: pytest.CaptureFixture[str]) -> str:
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("holdfast: ")
    assert err.endswith("\n")
    assert err.count("\n") == 1
    return err[len("holdfast: ") : -1]


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help_lists_every_command_and_the_exit_codes(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert [name for name in COMMANDS if f" {name} " not in out] == []
    assert "Exit codes" in out


@pytest.mark.parametrize("command", [*COMMANDS, *SUBCOMMANDS])
def test_every_command_has_help_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command.split(), "--help"]) == 0
    assert f"    holdfast {command}" in capsys.readouterr().out


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("holdfast 0.")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["instances", "--nonsense"], "No such option: --nonsense"),
        (["instances", "--status", "happy"], "'happy'"),
        (["instances", "--limit", "0"], "--limit"),
        (["instances", "--count", "--key", "7"], "--count"),
        (["instances", "--count", "--all"], "--count"),
        (["instances", "--all", "--after", ID], "--all begins with the first: leave out --after"),
        (["instances", "--older-than", "3"], "'3' is no duration"),
        (["instances", "--created-since", "soon"], "--created-since takes a moment in ISO 8601, not 'soon'"),
        (["instances", "--waits-for-kind", "luck"], "'luck'"),
        (["instances", "--sort", "size"], "'size'"),
        (["instances", "--after", "the first"], "--after"),
        (["messages", "--all", "--after", "3"], "--all is about all that fit: leave out --after"),
        (["messages", "--all", "--count"], "say either --count or --all"),
        (["show"], "INSTANCE"),
        (["show", "7"], "INSTANCE"),
        (["resolve", ID], "say one of --done RESULT, --retry and --fail"),
        (["resolve", ID, "--retry", "--fail"], "say one of --done RESULT, --retry and --fail"),
        (["resolve", ID, "--done", "{receipt"], "this is not JSON"),
        (["state", ID, "--at", "yesterday"], "'yesterday'"),
        (["messages", "--since", "yesterday"], "'yesterday'"),
        (["messages", "--verdict", "lost"], "'lost'"),
        (["messages", "--count", "--after", "7"], "--after"),
        *(
            (["messages", "--tally", *more], "--tally counts by --app, --type and --verdict, and by nothing else")
            for more in (
                *(["--key", "7"], ["--instance", ID], ["--since", "2026-01-31"]),
                *(["--count"], ["--all"], ["--after", "7"]),
            )
        ),
        (["timers", "list", "--before", "soon"], "'soon'"),
        (["dead-letters"], "Missing command"),
        (["nonpersisted", "nonsense"], "No such command 'nonsense'"),
        (["nonpersisted", "--class", "happy"], "'happy'"),
        (["nonpersisted", "--older-than", "2"], "'2' is no duration"),
        (["nonpersisted", "--older-than", f"{'9' * 20}w"], "too long"),
        (["nonpersisted", "remove"], "Name instances, or give a --class"),
        (["nonpersisted", "remove", ID, "--class", "orphan"], "Name instances, or give a --class"),
        (["nonpersisted", "remove", "--class", "orphan"], "--older-than"),
        (["nonpersisted", "remove", "--class", "live", "--older-than", "2h"], "What a worker holds is not removed"),
        (["publish", "orders", "Paid", "{}"], "--key"),
        (["publish", "orders", "Paid", "{}", "--key", "7", "--key-field", "key"], "--key"),
        (["publish", "orders", "Paid", "-", "--key", "7", "--message-id", "1"], "--message-id"),
        (["publish", "examples.orders.app:app", "PaymentReceived", "{}", "--key", "7"], "--key"),
    ],
    ids=" ".join,
)
def test_a_usage_mistake_is_told_in_one_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    answer = complaint(capsys)
    assert said in answer
    assert "--help" in answer


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["instances"], "HOLDFAST_DATABASE_URL is not set"),
        (["migrate"], "HOLDFAST_DATABASE_URL is not set"),
        (["worker", "examples.orders.app:app"], "HOLDFAST_DATABASE_URL is not set"),
        (["worker", "examples.orders.app:app", "--database-url", "postgresql:///x"], "HOLDFAST_AMQP_URL is not set"),
        (["publish", "orders", "Paid", "{}", "--key", "7"], "HOLDFAST_AMQP_URL is not set"),
        (["instances", "--database-url", "nonsense"], "the database URL cannot be read"),
        (["publish", "orders", "Paid", "{}", "--key", "7", "--amqp-url", "nonsense"], "RabbitMQ URL cannot be read"),
        (["worker", "examples.orders.app:app", "--partitions", "0"], "HOLDFAST_PARTITIONS"),
        (["worker", "no_such_module:app", "--database-url", "a", "--amqp-url", "b"], "no module 'no_such_module'"),
        (["publish", "examples.orders.app:app", "Nonsense", "{}"], "it has OrderPlaced, OrderShipped, PaymentReceived"),
        (["publish", "examples.orders.app:app", "OrderPlaced", "{}", "--amqp-url", "amqp://x/"], "order_id: Field req"),
        (["publish", "examples.orders.app:app", "OrderPlaced", "{", "--amqp-url", "amqp://x/"], "not_json"),
        (["publish", "orders", "Paid", "[1]", "--key-field", "k", "--amqp-url", "amqp://x/"], "no field 'k'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_in_settings_app_or_message_is_told_in_one_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert said in complaint(capsys)


def test_a_failure_is_told_in_one_line_without_a_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object, **_options: object) -> None:
        raise StorageError("the database\n\tsaid no")

    monkeypatch.setattr(application, "app", fail)
    assert main(["instances"]) == 1
    assert complaint(capsys) == "the database said no"


def test_an_unexpected_error_says_how_to_see_more(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object, **_options: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(application, "app", fail)
    assert main(["instances"]) == 1
    assert complaint(capsys).startswith("unexpected ZeroDivisionError: by zero. With `holdfast --debug")


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--debug", "instances"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("Traceback (most recent call last):")
    assert "SettingsError" in err


def test_help_loads_neither_database_nor_broker_nor_the_users_world() -> None:
    code = (
        "import sys; from holdfast.processor.cli import main; main(['--help']);"
        "print(*{'psycopg', 'aio_pika', 'aiormq', 'pydantic_settings', 'alembic', 'structlog'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == ""


def test_a_queue_that_no_activity_is_on_is_a_mistake(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOLDFAST_AMQP_URL", "amqp://localhost:1/")
    assert main(["activities", "tests.support.mailing:app", "--queue", "male"]) == 2
    assert complaint(capsys) == "app mailing has no activity on queue 'male'; it has copy, mail, print"


def test_activity_workers_need_an_app_that_has_something_to_do(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOLDFAST_AMQP_URL", "amqp://localhost:1/")
    assert main(["activities", "examples.orders.app:app"]) == 2
    assert complaint(capsys).startswith("app orders has no activity on a queue")
