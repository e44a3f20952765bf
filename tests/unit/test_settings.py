"""Settings: where they come from, and that the documentation tells the truth about each."""

import re
from pathlib import Path

import annotated_types
import pytest

from holdfast.schemas.errors import SettingsError
from holdfast.schemas.settings import Settings
from tests.architecture.house import ROOT

ROW = re.compile(r"\| `HOLDFAST_(\w+)` \| (.+?) \| (.*?) ?\| ", re.MULTILINE)


@pytest.fixture
def documented() -> dict[str, tuple[str, str]]:
    """Default and bounds of each setting, as the table in the documentation has them."""
    text = (ROOT / "docs" / "configuration.md").read_text()
    return {name.lower(): (default, bounds) for name, default, bounds in ROW.findall(text)}


def test_the_documentation_lists_every_setting_in_order(documented: dict[str, tuple[str, str]]) -> None:
    assert list(documented) == list(Settings.model_fields)


def test_the_documentation_gives_the_defaults(documented: dict[str, tuple[str, str]]) -> None:
    defaults = {name: field.default for name, field in Settings.model_fields.items()}
    assert {name: said(value) for name, value in defaults.items()} == {
        name: default for name, (default, _) in documented.items()
    }


def said(value: str | float | None) -> str:
    """Say in words what a setting is if it is not given."""
    if value in ("", None):
        return "none"
    return value if isinstance(value, str) else f"{value:.15g}"


def test_the_documentation_gives_the_bounds(documented: dict[str, tuple[str, str]]) -> None:
    assert {name: bounds(name) for name in Settings.model_fields} == {
        name: said for name, (_, said) in documented.items()
    }


def bounds(name: str) -> str:
    """Say in words what a setting may be."""
    least: object = None
    most: object = None
    above: object = None
    for limit in Settings.model_fields[name].metadata:
        if isinstance(limit, annotated_types.Ge):
            least = limit.ge
        elif isinstance(limit, annotated_types.Le):
            most = limit.le
        elif isinstance(limit, annotated_types.Gt):
            above = limit.gt
    if above is not None:
        return f"above {above:g}"
    if most is not None:
        return f"{least} to {most}"
    return "" if least is None else f"{least} or more"


def test_the_environment_wins_over_the_file_and_what_is_given_over_both(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "settings.env"
    file.write_text("HOLDFAST_PREFETCH=1\nHOLDFAST_GROUP_SIZE=2\nHOLDFAST_MAX_ATTEMPTS=3\n")
    monkeypatch.setenv("HOLDFAST_ENV_FILE", str(file))
    monkeypatch.setenv("HOLDFAST_GROUP_SIZE", "20")
    monkeypatch.setenv("HOLDFAST_MAX_ATTEMPTS", "30")
    settings = Settings.load(max_attempts=300)
    assert (settings.prefetch, settings.group_size, settings.max_attempts) == (1, 20, 300)


def test_a_file_that_is_not_there_is_a_mistake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOLDFAST_ENV_FILE", str(tmp_path / "nothing.env"))
    with pytest.raises(SettingsError, match="HOLDFAST_ENV_FILE"):
        Settings.load()


def test_all_that_is_out_of_bounds_is_named_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_PARTITIONS", "0")
    monkeypatch.setenv("HOLDFAST_LEASE", "long")
    with pytest.raises(SettingsError) as caught:
        Settings.load()
    assert re.fullmatch(r"HOLDFAST_PARTITIONS: .+; HOLDFAST_LEASE: .+", str(caught.value))


def test_the_lease_is_renewed_twice_in_its_time_at_least() -> None:
    assert Settings.load(lease=10, host_lock_renewal=30).host_lock_renewal == 5


@pytest.mark.parametrize(("lease", "heartbeat"), [(1, 1), (60, 20), (3600, 60)])
def test_the_heartbeat_is_a_third_of_the_lease_within_bounds(lease: float, heartbeat: int) -> None:
    assert Settings.load(lease=lease).heartbeat == heartbeat


def test_a_setting_that_is_needed_and_missing_is_named_with_its_meaning() -> None:
    with pytest.raises(SettingsError, match=r"HOLDFAST_AMQP_URL is not set: amqp:// URL of RabbitMQ"):
        Settings(amqp_url="", database_url="x").require("database_url", "amqp_url")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"on_idle": "none", "time_to_persist": 1}, "HOLDFAST_TIME_TO_PERSIST is of no use with HOLDFAST_ON_IDLE=none"),
        ({"on_idle": "unload", "time_to_persist": 1}, "HOLDFAST_TIME_TO_PERSIST is of no use"),
        ({"time_to_persist": 2, "time_to_unload": 1}, "HOLDFAST_TIME_TO_PERSIST is longer than"),
        ({"on_idle": "sleep"}, "HOLDFAST_ON_IDLE: "),
        ({"time_to_unload": -1}, "HOLDFAST_TIME_TO_UNLOAD: "),
    ],
)
def test_an_idle_policy_that_makes_no_sense_is_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(said)) as caught:
        Settings.load(**settings)
    assert "\n" not in str(caught.value)
