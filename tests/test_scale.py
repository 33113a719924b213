"""The simulation that docs/explanation/scale.md builds on still runs."""

from __future__ import annotations

import subprocess
import sys

from tests.pythons import ROOT


def test_a_day_of_a_few_files_passes() -> None:
    a_few = ["--parts=1000000", "--speed=86400"]
    command = [sys.executable, "-m", "tests.scale", *a_few]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found = dict(line.split("  ", 1) for line in ran.stdout.splitlines()[2:])
    arrived, _ = found["arrived, and gone"].strip().split(", ")
    assert int(arrived.replace(",", "")) > 0
    assert 100 < int(found["bytes per record at rest"]) < 1_000
