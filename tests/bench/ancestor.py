"""openedx-django-pyfs, in an environment of its own that is made once and kept."""

from __future__ import annotations

import json
import os
import subprocess
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.bench.goals import tell
from tests.pythons import ROOT, Environment

NAME = "openedx-django-pyfs 4.0"
REQUIREMENTS = ("openedx-django-pyfs==4.0.0", "setuptools<82")
SCRIPT = Path(__file__).with_name("ancestor_sweep.py")


@cache
def _python() -> Path:
    place = ROOT / ".bench" / "ancestor"
    ready = place / "ready"
    if not ready.exists():
        tell(f"Installing {NAME} into {place.relative_to(ROOT)}; that takes a minute.")
        place.parent.mkdir(exist_ok=True)
        (place.parent / ".gitignore").write_text("*\n")
        Environment(place).install(*REQUIREMENTS)
        ready.touch()
    return place / "bin" / "python"


def seconds_per_file(djfs: dict[str, Any], count: int, **environ: str) -> float:
    """Let it register and sweep ``count`` files; return what the sweep of one took."""
    with TemporaryDirectory() as directory:
        database = os.path.join(directory, "db.sqlite3")
        command = (_python(), "-I", "-W", "ignore", SCRIPT, json.dumps(djfs), database, str(count))
        result = subprocess.run(
            command,
            cwd=directory,
            env={**os.environ, **environ},
            stdout=subprocess.PIPE,
            check=True,
        )
    return float(result.stdout) / count
