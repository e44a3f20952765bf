"""Renew the locks: resolve pyproject.toml for every platform, with hashes, and without naming a registry.

The resolver is kept out of the environment that it locks: it runs from one of its own, thrown away afterwards.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
LOCKS = {
    "requirements/dev.txt": ["pyproject.toml", "--group", "dev"],
    "requirements/runtime.txt": ["pyproject.toml", "--constraint", "requirements/dev.txt"],
    "requirements/build.txt": ["--group", "build", "--constraint", "requirements/dev.txt"],
    "requirements/mining.txt": ["--group", "mining"],
}


def lock(resolver: Path) -> None:
    """Write each lock file, the others held to the versions of the first: what is tested is what is installed."""
    for name, options in LOCKS.items():
        command = [resolver, "pip", "compile", *options, "--output-file", name]
        command += ["--universal", "--python-version", "3.11", "--generate-hashes", "--upgrade"]
        command += ["--no-config", "--no-annotate", "--quiet", "--custom-compile-command", "./dev lock"]
        subprocess.run(command, cwd=ROOT, check=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([f"{folder}/bin/python", "-m", "pip", "install", "--quiet", "uv"], check=True)
        lock(Path(folder) / "bin" / "uv")
