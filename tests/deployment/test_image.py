"""The image of a worker: small, without rights, and extended by an app as the page shows it."""

import os

import pytest

from tests.support.app_image import PACKAGE, build_holdfast, build_shop
from tests.support.compose import docker, inspect

OWN_SIZE = 125_000_000
"""Bytes above those of the base image; 100 million were measured."""
RESTRICTED = ("--rm", "--init", "--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", "--entrypoint=sh")


@pytest.fixture(scope="module")
def image() -> str:
    return build_holdfast()


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> str:
    return build_shop(tmp_path_factory.mktemp("shop"))


def test_it_adds_little_to_its_base(image: str) -> None:
    base = os.environ.get("HOLDFAST_PYTHON_IMAGE", "python:3.13-slim-bookworm")
    assert inspect(image)["Size"] - inspect(base)["Size"] < OWN_SIZE


def test_its_user_has_no_rights_and_it_needs_no_disk(image: str) -> None:
    config = inspect(image)["Config"]
    assert (config["User"], config["StopSignal"], config["Entrypoint"]) == ("holdfast", "SIGTERM", ["holdfast"])
    assert (
        docker("run", *RESTRICTED, image, "-c", "id -u; holdfast --help >/tmp/help && id -u").split() == ["10001"] * 2
    )
    # Not even where the file system could be written.
    tried = docker("run", "--rm", "--entrypoint=sh", image, "-c", "touch /app/x /opt/holdfast/x 2>&1 || true")
    assert tried.count("Permission denied") == 2


def test_it_has_no_pip_for_who_gets_in(image: str) -> None:
    assert docker("run", *RESTRICTED, image, "-c", "python3 -m pip 2>&1 || true").endswith("No module named pip\n")


def test_an_app_is_added_with_packages_of_its_own_by_hash(shop: str) -> None:
    imports = f"import {PACKAGE}, shop.workflows; print({PACKAGE}.__file__)"
    printed = docker("run", *RESTRICTED, shop, "-c", f"python3 -c '{imports}'; id -u").split()
    assert printed[0].startswith("/opt/holdfast/")
    assert printed[1] == "10001"
    assert inspect(shop)["Config"]["User"] == "holdfast"
    assert inspect(shop)["Config"]["Cmd"] == ["worker", "shop.workflows:app"]
