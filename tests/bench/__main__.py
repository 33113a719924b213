"""Runs the comparisons and prints one table; the exit status is 1 if a goal is missed and
docs/explanation/speed.md does not say which limit stops it.

With arguments, only those of the modules that they name; ``--full`` takes ten times as many
records. The table is kept in ``.bench``, too, as JSON and as a drawing.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module

import django

from tests.pythons import ROOT

MODULES = ("disk", "s3", "network", "workers", "crowd", "trees", "views", "records", "calls")


def main(modules: list[str]) -> int:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    django.setup()
    from tests.bench.goals import as_json, as_svg, passes, table

    asked = [import_module(f"tests.bench.{name}") for name in modules or MODULES]
    reached = [goal for module in asked for goal in module.goals()]
    print(table(reached))
    kept = ROOT / ".bench"
    kept.mkdir(exist_ok=True)
    (kept / ".gitignore").write_text("*\n")
    (kept / "results.json").write_text(as_json(reached))
    (kept / "results.svg").write_text(as_svg(reached))
    return 0 if passes(reached) else 1


if __name__ == "__main__":
    sys.exit(main([name for name in sys.argv[1:] if name != "--full"]))
