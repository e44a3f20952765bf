"""Tools of analysis, among them pm4py for process mining, which read exports in an environment of their own."""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "requirements" / "mining.txt"
INSTALLED = ROOT / ".venv" / "mining"
"""Where the environment is kept between runs."""

READ = """
import pm4py

log = pm4py.read_xes("{file}")
variants = sorted([[*path], count] for path, count in pm4py.get_variants(log).items())
found = {{"cases": int(log["case:concept:name"].nunique()), "events": len(log), "variants": variants}}
"""


def mine(file: Path) -> Any:
    """Return what pm4py finds in an XES file: how many cases and events, and the variants with their counts."""
    return analyse(READ.format(file=file.name), file.parent)


def analyse(code: str, folder: Path) -> Any:
    """Run code in a folder, where the tools are installed, and return what it names ``found``, as JSON gives it."""
    code += "\nimport json\n\nprint()\nprint(json.dumps(found))\n"
    command: list[str | Path] = [_install() / "bin" / "python", "-c", code]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def _install() -> Path:
    """Install what is locked, unless it is there; of several processes that want it at once one does."""
    folder = INSTALLED / hashlib.sha256(LOCK.read_bytes()).hexdigest()[:16]
    with INSTALLED.with_suffix(".lock").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        _make(folder)
    return folder


def _make(folder: Path) -> None:
    if not (folder / "whole").exists():
        shutil.rmtree(INSTALLED, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True, timeout=120)
        options = ["-qq", "--disable-pip-version-check", "--no-compile", "--require-hashes", "-r", str(LOCK)]
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", *options]
        done = subprocess.run(pip, capture_output=True, text=True, timeout=900, check=False)
        assert done.returncode == 0, f"pip could not install what {LOCK} locks:\n{done.stdout}{done.stderr}"
        (folder / "whole").touch()
