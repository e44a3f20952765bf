"""What `docs/deploy.md` has an operator make: Holdfast's image, that of an app, and the file of settings."""

import re
import subprocess
from pathlib import Path

from tests.architecture.house import ROOT
from tests.support.compose import docker

PACKAGE = "iniconfig"
WORKFLOWS = f"""
import {PACKAGE}
from holdfast import App, Message, receive

app = App("shop")


class Asked(Message, correlation="key"):
    key: str


class Answered(Message, correlation="key"):
    key: str


@app.workflow(start=Asked)
async def question(asked: Asked) -> str:
    answered = await receive(Answered, asked.key)
    return {PACKAGE}.__name__ + answered.key
"""


def blocks(language: str) -> list[str]:
    """Return the blocks of the page in a language."""
    page = (ROOT / "docs" / "deploy.md").read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def build_holdfast() -> str:
    """Build Holdfast's image and return its name; the base can be another one, as in Compose."""
    given = ("--build-arg", "HOLDFAST_PYTHON_IMAGE")
    docker("build", "--quiet", *given, "--file", f"{ROOT}/compose/Dockerfile", "--tag", "holdfast", f"{ROOT}")
    return "holdfast"


def build_shop(folder: Path) -> str:
    """Build the image of an app, from files that are written into a folder, and return its name."""
    build_holdfast()
    (dockerfile,) = blocks("dockerfile")
    locked = (ROOT / "requirements" / "dev.txt").read_text()
    (requirement,) = re.findall(rf"^{PACKAGE}==.*?[^\\]\n", locked, re.MULTILINE | re.DOTALL)
    (folder / "Dockerfile").write_text(dockerfile)
    (folder / "requirements.txt").write_text(requirement)
    (folder / "shop").mkdir()
    (folder / "shop" / "workflows.py").write_text(WORKFLOWS)
    docker("build", "--quiet", "--tag", "holdfast-test-shop", f"{folder}")
    return "holdfast-test-shop"


def settings_file(folder: Path) -> Path:
    """Return FILE, which the lines of the page write into a folder."""
    (lines,) = (block for block in blocks("sh") if block.startswith("(umask 077 && cat >FILE)"))
    subprocess.run(["sh", "-c", lines], cwd=folder, check=True)
    return folder / "FILE"
