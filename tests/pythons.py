"""Tries the wheel in fresh environments: ``python -m tests.pythons [PYTHON ...]``.

Every Python on PATH that djpyfs supports, with Django 5.2 and the newest, with the newest
setuptools, which fs brings, and with none.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parent.parent
PYTHONS = ("python3.11", "python3.12", "python3.13")
DJANGOS = ("Django~=5.2.0", "Django")

SCENARIO = """
from django.conf import settings
settings.configure(DJFS={"type": "memory", "redis_url": "memory://"})
import djpyfs.backends.s3
from djpyfs import djpyfs, expire_objects, get_filesystem
files = get_filesystem("plots")
files.writebytes("sine.png", b"picture")
files.expire("sine.png", seconds=300)
assert files.readbytes("sine.png") == b"picture"
assert expire_objects().deleted == 0
import djpyfs_tasks
djpyfs_tasks.app.conf.beat_schedule
"""


def run(*command: str | Path) -> str:
    """What ``command`` wrote, on both streams; if it fails, in a note of the error."""
    result = subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if result.returncode:
        error = subprocess.CalledProcessError(result.returncode, command)
        error.add_note(result.stdout)
        raise error
    return result.stdout


def build_wheel(into: Path) -> Path:
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", into)
    [wheel] = into.glob("*.whl")
    return wheel


class Environment:
    """A fresh environment of ``python``, without pip and setuptools."""

    def __init__(self, place: Path, python: str = sys.executable) -> None:
        run(python, "-m", "venv", "--without-pip", place)
        self.python = place / "bin" / "python"

    def install(self, *requirements: str | Path) -> None:
        # Most of the modules are never imported.
        self.pip("install", "--upgrade", "--no-compile", *requirements)

    def uninstall(self, distribution: str) -> None:
        self.pip("uninstall", "--yes", distribution)

    def pip(self, *arguments: str | Path) -> None:
        options = ("--quiet", "--disable-pip-version-check", "--python", self.python)
        run(sys.executable, "-m", "pip", *options, *arguments)

    def use(self) -> str:
        """Plays a short scenario with every warning an error; returns what it printed."""
        return self.run("-W", "error", "-c", SCENARIO)

    def run(self, *arguments: str | Path) -> str:
        """Run its Python, which finds only what is installed there."""
        return run(self.python, "-I", *arguments)

    def version_of(self, distribution: str) -> str:
        question = f"import importlib.metadata as m; print(m.version({distribution!r}), end='')"
        return self.run("-c", question)


def try_everything(pythons: list[str]) -> None:
    with TemporaryDirectory() as scratch:
        wheel = build_wheel(Path(scratch))
        for number, (python, django) in enumerate((p, d) for p in pythons for d in DJANGOS):
            environment = Environment(Path(scratch, str(number)), python)
            environment.install(wheel, django)
            printed = environment.use()
            environment.uninstall("setuptools")
            printed += environment.use()
            version = environment.version_of("Django")
            print(f"{python}, Django {version}: {printed or 'silent'}", flush=True)


if __name__ == "__main__":
    try_everything(sys.argv[1:] or [name for name in PYTHONS if shutil.which(name)])
