"""Build stand-ins for the images that the compose files and the tests use, where nothing can be pulled.

    python -m compose.images

prints the variables that have them used. It takes an engine, debootstrap, the rights to run both, and a minute the
first time; what is there already is kept. The stand-ins have what Debian 12 packages: PostgreSQL 15, RabbitMQ 3.10,
Python 3.11.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
NAME = "holdfast-stand-in"
BASE = f"{NAME}/debian"
VARIABLES = {
    "python": "HOLDFAST_PYTHON_IMAGE",
    "postgres": "HOLDFAST_POSTGRES_IMAGE",
    "rabbitmq": "HOLDFAST_RABBITMQ_IMAGE",
}
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


def main() -> int:
    """Give the exit status."""
    missing = [program for program in ("docker", "debootstrap", "tar") if shutil.which(program) is None]
    if missing:
        print(f"not installed: {', '.join(missing)}", file=sys.stderr)
        return 1
    try:
        if not exists(BASE):
            import_base()
        for image in VARIABLES:
            if not exists(f"{NAME}/{image}"):
                build(image)
    except subprocess.CalledProcessError as error:
        print(f"{' '.join(map(str, error.cmd))} failed:\n{error.stderr or error.stdout or ''}", file=sys.stderr)
        return 1
    for image, variable in VARIABLES.items():
        print(f"export {variable}={NAME}/{image}")
    # The container that clears away after tests cannot be pulled either.
    print("export TESTCONTAINERS_RYUK_DISABLED=true")
    return 0


def exists(image: str) -> bool:
    """Tell whether the engine has an image."""
    return subprocess.run(["docker", "image", "inspect", image], capture_output=True, check=False).returncode == 0


def import_base() -> None:
    """Make the smallest Debian there is an image."""
    with tempfile.TemporaryDirectory() as folder:
        _run("debootstrap", "--variant=minbase", "bookworm", folder)
        with subprocess.Popen(["tar", "-C", folder, "-c", "."], stdout=subprocess.PIPE) as archive:
            subprocess.run(["docker", "import", "-", BASE], stdin=archive.stdout, capture_output=True, check=True)


def build(image: str) -> None:
    """Build one stand-in."""
    with tempfile.TemporaryDirectory() as folder:
        context = shutil.copytree(HERE / image, Path(folder) / image)
        if image == "python":
            # Packages are fetched while an image is built, perhaps past a proxy that only this machine trusts.
            shutil.copy2(CERTIFICATES, context)
        _run("docker", "build", "--quiet", "--build-arg", f"BASE={BASE}", "--tag", f"{NAME}/{image}", f"{context}")


def _run(*command: str) -> None:
    subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)


if __name__ == "__main__":
    sys.exit(main())
