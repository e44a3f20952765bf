"""The compose files agree with the code and the page, and Compose takes them; no engine is needed."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from compose.local.containers import POSTGRES_IMAGE, RABBITMQ_IMAGE
from holdfast.schemas.settings import Settings
from tests.architecture.house import ROOT
from tests.support.app_image import blocks, settings_file

FOLDER = ROOT / "compose"
PRODUCTION = ("compose.yml", "cluster.yml")
NEEDED = re.compile(r"\$\{(\w+):\?\}")


def read(name: str) -> str:
    return (FOLDER / name).read_text()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return settings_file(tmp_path)


def compose(*options: str | Path) -> subprocess.CompletedProcess[str]:
    program = shutil.which("docker-compose")
    if program is None:
        pytest.skip("docker-compose is not installed")
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        [program, *options, "config", "--quiet"], cwd=FOLDER, env=kept, capture_output=True, text=True, check=False
    )


def test_every_setting_reaches_the_workers() -> None:
    text = read("services.yml") + read("compose.yml")
    named = {name.lower() for name in re.findall(r"^ +HOLDFAST_(\w+):", text, re.MULTILINE)}
    assert named == {*Settings.model_fields}


def test_the_servers_are_those_of_the_tests() -> None:
    assert f"HOLDFAST_POSTGRES_IMAGE:-{POSTGRES_IMAGE}}}" in read("services.yml")
    assert f"HOLDFAST_RABBITMQ_IMAGE:-{RABBITMQ_IMAGE}}}" in read("services.yml")


def test_the_file_of_the_page_sets_what_has_no_default_and_secrets_that_nobody_knows(file: Path) -> None:
    values = dict(line.split("=", 1) for line in file.read_text().splitlines())
    needed = {name for each in PRODUCTION for name in NEEDED.findall(read(each))}
    assert {*values} == needed | {"COMPOSE_PROJECT_NAME", "WORKERS"}
    assert file.stat().st_mode & 0o077 == 0
    secrets = [value for name, value in values.items() if name.endswith(("_PASSWORD", "_KEY", "_COOKIE"))]
    assert len(secrets) == len({*secrets}) == 7
    assert all(re.fullmatch("[0-9a-f]{48}", secret) for secret in secrets)


@pytest.mark.parametrize("name", PRODUCTION)
def test_compose_takes_what_is_for_production_with_that_file_and_refuses_it_without(name: str, file: Path) -> None:
    done = compose("--env-file", file, "-f", name)
    assert (done.returncode, done.stderr) == (0, "")
    done = compose("-f", name)
    assert done.returncode != 0
    assert any(missing in done.stderr for missing in NEEDED.findall(read(name)))


def test_compose_takes_what_the_page_adds_for_activities(file: Path, tmp_path: Path) -> None:
    (text,) = blocks("yaml")
    added = tmp_path / "mail.yml"
    added.write_text(text.replace("services.yml", f"{FOLDER}/services.yml"))
    done = compose("--env-file", file, "-f", "compose.yml", "-f", added)
    assert (done.returncode, done.stderr) == (0, "")


def test_compose_takes_what_is_for_development_as_it_stands() -> None:
    done = compose()
    assert (done.returncode, done.stderr) == (0, "")


def test_only_development_knows_passwords_and_builds_an_image() -> None:
    for file in ("services.yml", *PRODUCTION):
        text = read(file)
        assert "build:" not in text
        assert "development" not in re.sub(r"#.*", "", text)
        secret = r"^ +\w*(?:PASS|PASSWORD|KEY|COOKIE): (?!\$\{\w+:\?\}$)"
        assert re.findall(secret, text, re.MULTILINE) == []
        assert re.findall(r"://\w+:(?!\$\{\w+:\?\}@)\S*@", text) == []
    assert read("development.yml").count("build:") == 1
    assert not re.search("PASSWORD|KEY|COOKIE", read(".env"))
