"""Build stand-ins for the images that the compose files and the tests use, where nothing can be pulled.

    python -m compose.images [--release trixie | bookworm]

prints the variables that have them used. It takes an engine, debootstrap, the rights to run both, and a minute or two
the first time; what is there already is kept. The stand-ins have what a release of Debian packages: PostgreSQL 17,
RabbitMQ 4.0 and Python 3.13, or PostgreSQL 15, RabbitMQ 3.10 and Python 3.11.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
NAME = "holdfast-stand-in"
POSTGRES = {"trixie": 17, "bookworm": 15}
"""The version that each release packages."""
VARIABLES = {
    "python": "HOLDFAST_PYTHON_IMAGE",
    "postgres": "HOLDFAST_POSTGRES_IMAGE",
    "rabbitmq": "HOLDFAST_RABBITMQ_IMAGE",
}
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


def main() -> int:
    """Give the exit status."""
    parser = argparse.ArgumentParser(prog="python -m compose.images")
    parser.add_argument("--release", choices=POSTGRES, default="trixie", help="of Debian; default: %(default)s")
    release: str = parser.parse_args().release
    missing = [program for program in ("docker", "debootstrap", "tar") if shutil.which(program) is None]
    if missing:
        print(f"not installed: {', '.join(missing)}", file=sys.stderr)
        return 1
    try:
        if not exists(name_of("debian", release)):
            import_base(release)
        for image in VARIABLES:
            if not exists(name_of(image, release)):
                build(image, release)
    except subprocess.CalledProcessError as error:
        print(f"{' '.join(map(str, error.cmd))} failed:\n{error.stderr or error.stdout or ''}", file=sys.stderr)
        return 1
    for image, variable in VARIABLES.items():
        print(f"export {variable}={name_of(image, release)}")
    # The container that clears away after tests cannot be pulled either.
    print("export TESTCONTAINERS_RYUK_DISABLED=true")
    return 0


def name_of(image: str, release: str) -> str:
    """Return what the engine knows a stand-in by."""
    return f"{NAME}/{image}:{release}"


def exists(image: str) -> bool:
    """Tell whether the engine has an image."""
    return subprocess.run(["docker", "image", "inspect", image], capture_output=True, check=False).returncode == 0


def import_base(release: str) -> None:
    """Make the smallest Debian there is an image."""
    with tempfile.TemporaryDirectory() as folder:
        _run("debootstrap", "--variant=minbase", release, folder)
        with subprocess.Popen(["tar", "-C", folder, "-c", "."], stdout=subprocess.PIPE) as archive:
            imported = ["docker", "import", "-", name_of("debian", release)]
            subprocess.run(imported, stdin=archive.stdout, capture_output=True, check=True)


def build(image: str, release: str) -> None:
    """Build one stand-in."""
    arguments = {"BASE": name_of("debian", release), "POSTGRES": str(POSTGRES[release])}
    with tempfile.TemporaryDirectory() as folder:
        context = shutil.copytree(HERE / image, Path(folder) / image)
        if image == "python":
            # Packages are fetched while an image is built, perhaps past a proxy that only this machine trusts.
            shutil.copy2(CERTIFICATES, context)
        given = [part for name, value in arguments.items() for part in ("--build-arg", f"{name}={value}")]
        _run("docker", "build", "--quiet", *given, "--tag", name_of(image, release), f"{context}")


def _run(*command: str) -> None:
    subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)


if __name__ == "__main__":
    sys.exit(main())
