"""Runs every comparison and prints one table; the exit status is 1 where a goal is missed."""

from __future__ import annotations

import os
import sys

import django


def main() -> int:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    django.setup()
    from tests.bench import calls, disk, records, s3, trees, views
    from tests.bench.goals import table

    modules = disk, s3, trees, views, records, calls
    reached = [goal for module in modules for goal in module.goals()]
    print(table(reached))
    return 0 if all(goal.met for goal in reached) else 1


if __name__ == "__main__":
    sys.exit(main())
