"""What openedx-django-pyfs has in its table, taken over."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.utils import ConnectionHandler
from pytest_django import DjangoDbBlocker

from djpyfs import expire_objects, get_filesystem, inspection
from djpyfs.audit import Audit
from djpyfs.errors import BackendUnavailable, TableUnreadable
from djpyfs.filesystem import ExpiringFS
from djpyfs.takeover import TakeOver, take_over
from tests.conftest import KEYS, counted
from tests.servers import RedisServer
from tests.test_commands import manage
from tests.test_s3 import refusing_address

LATER = datetime(2199, 1, 2, 3, 4, 5, 678901, UTC)
EARLIER = datetime(2020, 1, 1, tzinfo=UTC)

# As Django's migrations write it for SQLite.
TABLE = """CREATE TABLE "djpyfs_fsexpirations" (
    "id" integer NOT NULL PRIMARY KEY AUTOINCREMENT, "module" varchar(382) NOT NULL,
    "filename" varchar(382) NOT NULL, "expires" bool NOT NULL, "expiration" datetime NOT NULL)"""

Row = tuple[str, str, bool, datetime]


@pytest.fixture
def database(tmp_path: Path, django_db_blocker: DjangoDbBlocker) -> Iterator[BaseDatabaseWrapper]:
    engine = {"ENGINE": "django.db.backends.sqlite3", "NAME": tmp_path / "old.sqlite3"}
    connection = ConnectionHandler({"default": {}, "old": engine})["old"]
    with django_db_blocker.unblock():
        yield connection
        connection.close()


@pytest.fixture
def table(
    database: BaseDatabaseWrapper, djfs: Callable[..., None], records: dict[str, Any]
) -> Callable[..., BaseDatabaseWrapper]:
    """Fill the table."""
    djfs(type="memory", **records)
    return lambda *rows: filled(database, *rows)


def filled(database: BaseDatabaseWrapper, *rows: Row) -> BaseDatabaseWrapper:
    with database.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute(TABLE)
        cursor.executemany(
            'INSERT INTO djpyfs_fsexpirations ("module", "filename", "expires", "expiration")'
            " VALUES (%s, %s, %s, %s)",
            [(*row[:3], str(row[3].replace(tzinfo=None))) for row in rows],
        )
        cursor.execute("COMMIT")
    return database


Table = Callable[..., BaseDatabaseWrapper]


def test_deadlines_are_taken_over_to_the_microsecond(table: Table) -> None:
    report = take_over(table(("plots", "a", True, LATER), ("usage/x", "/d/b", True, LATER)))
    assert report == TakeOver(rows=2, taken=2)
    assert get_filesystem("plots").expiration("a") == LATER
    assert get_filesystem("usage/x").expiration("d/b") == LATER


def write_before(fs: ExpiringFS, path: str, when: datetime) -> None:
    fs.writebytes(path, b"picture")
    fs.settimes(path, modified=when - timedelta(seconds=1))


def test_an_overdue_file_of_the_table_goes_with_the_next_sweep(table: Table) -> None:
    plots = get_filesystem("plots")
    write_before(plots, "a", EARLIER)
    assert take_over(table(("plots", "a", True, EARLIER))) == TakeOver(rows=1, taken=1)
    assert expire_objects().deleted == 1
    assert not plots.exists("a")


def test_a_file_that_was_written_after_its_deadline_in_the_table_stays(table: Table) -> None:
    plots = get_filesystem("plots")
    write_before(plots, "a", EARLIER)
    database = table(("plots", "a", True, EARLIER))
    take_over(database)
    assert expire_objects().deleted == 1
    plots.writebytes("a", b"another picture")
    assert take_over(database) == TakeOver(rows=1, rewritten=1)
    assert expire_objects().deleted == 0
    assert plots.readbytes("a") == b"another picture"


def test_a_file_that_is_gone_gets_no_deadline_that_has_passed(table: Table) -> None:
    assert take_over(table(("plots", "a", True, EARLIER))) == TakeOver(rows=1, gone=1)
    assert counted().tracked == 0


def test_an_overdue_file_of_the_table_keeps_what_it_was_given_here(table: Table) -> None:
    plots = get_filesystem("plots")
    for name in "ab":
        write_before(plots, name, EARLIER)
        plots.expire(name, seconds=50, expires=name == "a")
    rows = [("plots", name, True, EARLIER) for name in "ab"]
    assert take_over(table(*rows)) == TakeOver(rows=2, known=2)
    assert expire_objects().deleted == 0
    assert plots.expiration("a")


def test_while_a_backend_is_away_nothing_that_is_overdue_is_taken_over(
    table: Table, settings: Any
) -> None:
    away = {"bucket": "some-bucket", "endpoint_url": refusing_address(), **KEYS}
    settings.DJFS = {**settings.DJFS, "namespaces": {"plots": {"type": "s3fs", **away}}}
    database = table(("plots", "a", True, EARLIER))
    with pytest.raises(BackendUnavailable, match="connect"):
        take_over(database)
    assert counted().tracked == 0


def test_extreme_dates_are_clamped_to_where_deadlines_are_exact(table: Table) -> None:
    first, last = datetime(1, 1, 1, tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
    plots = get_filesystem("plots")
    write_before(plots, "first", datetime(1960, 1, 1, tzinfo=UTC))
    take_over(table(("plots", "first", True, first), ("plots", "last", True, last)))
    assert inspection.status().overdue == 1
    due = plots.expiration("last")
    assert due is not None
    assert due.year == 2255
    assert expire_objects().deleted == 1
    assert plots.expiration("first") is None


def test_it_can_be_repeated_and_keeps_newer_deadlines(table: Table) -> None:
    database = table(("plots", "a", True, LATER), ("plots", "b", True, LATER))
    take_over(database)
    plots = get_filesystem("plots")
    plots.expire("a", seconds=50)
    newer = plots.expiration("a")
    assert take_over(database) == TakeOver(rows=2, known=2)
    assert plots.expiration("a") == newer


def test_permanent_files_stay_permanent_through_an_audit(table: Table) -> None:
    plots = get_filesystem("plots")
    plots.writebytes("a", b"picture")
    database = table(("plots", "a", False, EARLIER))
    assert take_over(database) == TakeOver(rows=1, permanent=1)
    assert list(Audit(adopt=0).run("plots")) == []
    assert plots.expiration("a") is None
    assert take_over(database) == TakeOver(rows=1, known=1)


def test_a_file_that_has_got_a_deadline_is_not_made_permanent(table: Table) -> None:
    plots = get_filesystem("plots")
    plots.expire("a", seconds=50)
    assert take_over(table(("plots", "a", False, EARLIER))) == TakeOver(rows=1, known=1)
    assert plots.expiration("a")


def test_no_file_of_the_table_lives_longer_than_its_namespace_allows(
    table: Table, settings: Any
) -> None:
    settings.DJFS = {**settings.DJFS, "namespaces": {"plots": {"max_ttl": 100}}}
    take_over(table(("plots", "late", True, LATER), ("plots", "never", False, EARLIER)))
    plots = get_filesystem("plots")
    for name in "late", "never":
        due = plots.expiration(name)
        assert due is not None
        assert 50 < (due - datetime.now(UTC)).total_seconds() <= 100


@pytest.mark.parametrize(
    "name", [("../x", "a"), ("plots", "../../a"), ("plots", ""), ("", "a"), ("x" * 382, "a")]
)
def test_names_that_are_refused_are_listed_and_skipped(table: Table, name: tuple[str, str]) -> None:
    report = take_over(table((*name, True, EARLIER), ("plots", "good", True, LATER)))
    assert report.taken == 1
    [refused] = report.refused
    assert (refused.namespace, refused.path) == name
    assert refused.reason
    assert counted().tracked == 1


def test_many_rows_come_in_batches(table: Table) -> None:
    told: list[int] = []
    rows = [("plots", str(number), True, LATER) for number in range(2_500)]
    report = take_over(table(*rows), lambda report: told.append(report.taken))
    assert told == [1_000, 2_000, 2_500]
    assert report.taken == 2_500


def test_a_table_that_is_not_there_is_one_error(
    database: BaseDatabaseWrapper, djfs: Callable[..., None]
) -> None:
    djfs(type="memory")
    with pytest.raises(TableUnreadable, match="'old'"):
        take_over(database)


def test_an_expiration_that_is_not_a_date_is_one_error(table: Table) -> None:
    database = table(("plots", "a", True, LATER))
    with database.cursor() as cursor:
        cursor.execute("UPDATE djpyfs_fsexpirations SET expiration = '2199-13-01 00:00:00'")
    with pytest.raises(TableUnreadable, match="month"):
        take_over(database)


def test_naive_times_are_in_the_zone_of_the_database(
    table: Table, database: BaseDatabaseWrapper
) -> None:
    database.settings_dict["TIME_ZONE"] = "Etc/GMT-2"
    take_over(table(("plots", "a", True, LATER)))
    there = LATER.replace(tzinfo=timezone(timedelta(hours=2)))
    assert get_filesystem("plots").expiration("a") == there


def test_the_command_takes_over_any_database(
    database: BaseDatabaseWrapper, redis_server: RedisServer, tmp_path: Path
) -> None:
    filled(database, ("plots", "a", True, LATER), ("..", "a\x1b", True, LATER))
    old = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(database.settings_dict["NAME"])}
    files = {"type": "osfs", "directory_root": str(tmp_path)}
    djfs = {**files, "redis_url": redis_server.url, "key_prefix": "takeover"}
    databases = {"default": {}, "old": old}
    done = manage(djfs, "import", "--database", "old", "--format", "json", DATABASES=databases)
    assert done.returncode == 1
    assert json.loads(done.stdout)["taken"] == 1
    again = manage(djfs, "import", "--database", "old", DATABASES=databases)
    assert "1 known already" in again.stdout
    assert "\x1b" not in again.stdout
    missing = manage(djfs, "import", DATABASES=databases)
    assert (missing.returncode, len(missing.stderr.splitlines())) == (2, 1)
