"""Processes that are killed while they save rows with files: what is left, and what is lost."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.faults.conftest import Measured
from tests.servers import RedisServer, python

LIFE = 6  # s; no transaction may take longer, on a machine that is busy


@pytest.fixture(params=["SQLite", "PostgreSQL"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """The settings of a database of the test's own."""
    if request.param == "PostgreSQL":
        own: dict[str, Any] = request.getfixturevalue("postgres")
        return own
    pragma = "PRAGMA synchronous = OFF"
    options = {"transaction_mode": "IMMEDIATE", "timeout": LIFE / 2, "init_command": pragma}
    engine = "django.db.backends.sqlite3"
    return {"ENGINE": engine, "NAME": str(tmp_path / "rows"), "OPTIONS": options}


@pytest.mark.fault(
    "processes killed at random moments while they save rows with files, 30 % of them rolled back",
    "0 orphans after the life, 0 files of committed rows lost",
)
def test_savers_that_are_killed_leave_the_files_of_committed_rows_and_no_others(
    database: dict[str, Any],
    redis_server: RedisServer,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    full: bool,
    measured: Measured,
) -> None:
    told = {
        "djfs": {
            "directory_root": str(tmp_path / "files"),
            "redis_url": redis_server.url,
            "key_prefix": f"test-{uuid.uuid4().hex}",
            "grace": 1,
        },
        "database": database,
        "life": LIFE,
        "saves": 5_000 if full else 100,
        "kills": 25 if full else 3,
        "count": str(tmp_path / "count"),
    }
    process = python(
        "import sys; from tests.faults.savers import main; main(sys.argv[1])", json.dumps(told)
    )
    output, _ = process.communicate()
    assert process.returncode == 0
    found = json.loads(output)
    assert (found["orphans"], found["lost"], found["records"]) == (0, 0, 0), found
    # Otherwise nobody was killed between a commit and its end; the short form has too few kills.
    assert not full or found["owned"], found
    measured(
        f"{request.node.callspec.id}: {found['saves']:,} saves, {found['kills']} kills, "
        f"{found['rows']:,} files of rows; 0 orphans, 0 lost"
    )
