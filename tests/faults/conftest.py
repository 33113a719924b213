"""The form of the fault suite, full or short, and the table of what it measured."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, cast

import pytest

from tests.faults.canary import Canary
from tests.faults.processes import Race
from tests.servers import RedisServer
from tests.tables import laid_out

FULL_TIMEOUT = 3_600  # s, for one test of the full form
HEADINGS = ("fault", "to reach", "measured", "")
ROW = "row of the table of faults"

Measured = Callable[[str], None]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if (fault := item.get_closest_marker("fault")) is not None:
            item.user_properties.append((ROW, list(fault.args)))
            if config.getoption("full"):
                item.add_marker(pytest.mark.timeout(FULL_TIMEOUT))


@pytest.fixture
def full(pytestconfig: pytest.Config) -> bool:
    """Whether the fault is tried as often, and with as many files, as the table says."""
    return bool(pytestconfig.getoption("full"))


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Measured:
    """Call it with the figures that were seen, for the fault's row in the table."""

    def tell(figures: str) -> None:
        for name, row in request.node.user_properties:
            if name == ROW:
                row.append(figures)

    return tell


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if not config.getoption("full"):
        return
    rows = [HEADINGS]
    for report in sorted(_faults(terminalreporter), key=lambda report: report.location):
        what, to_reach, *figures = _row(report)
        met = {"passed": "ok", "failed": "MISSED"}.get(report.outcome, report.outcome)
        rows.append((what, to_reach, "; ".join(figures), met))
    if len(rows) > 1:
        terminalreporter.section("faults")
        terminalreporter.write_line(laid_out(rows))


def _faults(terminalreporter: pytest.TerminalReporter) -> Iterator[pytest.TestReport]:
    for report in chain(*terminalreporter.stats.values()):
        # A test that failed in its set-up, or was skipped there, was never called.
        called = isinstance(report, pytest.TestReport) and (
            report.when == "call" or not report.passed
        )
        if called and _row(report):
            yield report


def _row(report: pytest.TestReport) -> list[str]:
    return next((cast(list[str], row) for name, row in report.user_properties if name == ROW), [])


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Canary]:
    """Files outside the root, which must be as they were when the test ends."""
    canary = Canary(tmp_path / "canary")
    yield canary
    canary.assert_unharmed()


@pytest.fixture
def race_with(
    djfs: Callable[..., None], tmp_path: Path, redis_server: RedisServer
) -> Iterator[Callable[..., Race]]:
    begun: list[Race] = []
    client = redis_server.client()

    def begin(**djfs_here: Any) -> Race:
        place = {"type": "osfs", "directory_root": str(tmp_path / "files")}
        records = {"redis_url": redis_server.url, "key_prefix": f"test-{uuid.uuid4().hex}"}
        all_of_it = {**place, **records, **djfs_here}
        djfs(**all_of_it)
        begun.append(Race(all_of_it, client))
        return begun[-1]

    yield begin
    for race in begun:
        race.end()
    client.close()
