"""Files that belong to rows: what happens to them with the rows."""

from __future__ import annotations

import gc
import io
import sqlite3
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from threading import Event
from typing import Any
from unittest import result, suite

import fs.move
import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.core import serializers
from django.core.checks import run_checks
from django.core.checks.registry import registry
from django.core.files.base import ContentFile
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import call_command
from django.db import IntegrityError, connection, connections, models, transaction
from django.db.migrations.state import ProjectState
from django.db.models.query import QuerySet
from django.db.utils import ConnectionHandler
from django.forms import modelform_factory
from django.test import Client, TestCase, override_settings
from django.urls import path
from PIL import Image
from pytest_django import DjangoDbBlocker

from djpyfs import InvalidLifetime, expire_objects, get_filesystem
from djpyfs.audit import Audit
from djpyfs.conf import SECOND
from djpyfs.errors import RecordStoreError
from djpyfs.signals import files_expired
from djpyfs.storage import ExpiringStorage
from djpyfs.sweeper import SweepReport
from djpyfs.testing import advance, expire_now, isolated
from tests.conftest import BUCKET, KEYS, counted, records_here
from tests.faults.proxy import Proxy
from tests.rows.models import (
    COVER,
    DOCUMENTS,
    NONE,
    PICTURES,
    SCANS,
    Document,
    Draft,
    Letter,
    Page,
    Picture,
    Upload,
)
from tests.servers import PATIENCE, RedisServer, python, running_redis, wait_for
from tests.test_admin import SITE
from tests.test_uploads import send

ROWS: list[type[models.Model]] = [
    Page,
    Letter,
    Document,
    Picture,
    Upload,
]  # in the order of their deletion
AT_ALL = 10_000  # s, after which everything is over


@pytest.fixture(scope="module", autouse=True)
def _site(
    django_db_blocker: DjangoDbBlocker, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """A site with two databases, in which what is committed stays."""
    here, before = tmp_path_factory.mktemp("rows"), connections.settings
    engine = "django.db.backends.sqlite3"
    options = {"init_command": "PRAGMA synchronous = OFF"}
    own = {
        alias: {"ENGINE": engine, "NAME": here / alias, "OPTIONS": options}
        for alias in ("default", "other")
    }
    dummy, own_apps = connections["default"], [*SITE["INSTALLED_APPS"], "tests.rows"]
    checks = set(registry.registered_checks)
    with django_db_blocker.unblock(), override_settings(**{**SITE, "INSTALLED_APPS": own_apps}):
        connections.settings = ConnectionHandler(own).settings
        del connections["default"]
        call_command("migrate", run_syncdb=True, verbosity=0)
        with connections["other"].schema_editor() as editor:
            for model in reversed(ROWS):
                editor.create_model(model)
        yield
        for alias in own:
            connections[alias].close()
            del connections[alias]
        connections.settings, connections["default"] = before, dummy
    registry.registered_checks = checks  # those of apps that are gone again would fail


@pytest.fixture(autouse=True)
def _no_rows(_site: None) -> Iterator[None]:
    with isolated():
        yield
    for alias in connections:
        for model in ROWS:
            QuerySet(model, using=alias)._raw_delete(alias)


def later(seconds: float = AT_ALL) -> SweepReport:
    """Let time pass, and sweep."""
    advance(seconds)
    return expire_objects()


def content(name: str = "a.pdf") -> ContentFile[bytes]:
    return ContentFile(b"content", name)


def saved(name: str = "a.pdf", **fields: Any) -> Document:
    return Document.objects.create(file=content(name), **fields)


def left(name: str, storage: ExpiringStorage = DOCUMENTS) -> float | None:
    """How many seconds a file has left; None: it is permanent."""
    member = f"{storage.namespace}/{name}".encode()
    now, deadline = records_here(storage.namespace).deadline(member)
    return (deadline - now) / SECOND if deadline else None


def some(seconds: float) -> Any:
    return pytest.approx(seconds, abs=40)


GRACE = 60


# -- until a row has been committed


def test_a_namespace_that_hides_what_has_expired_shows_what_a_row_may_own() -> None:
    with isolated(hide_expired=True):
        Document.objects.bulk_create([Document(file=content("a"))])
        advance(AT_ALL)
        assert DOCUMENTS.open("a").read() == b"content"
        assert expire_objects().owned == 1
        assert DOCUMENTS.exists("a")


def test_a_file_that_cannot_be_opened_because_redis_is_lost_meanwhile_stays_as_it_was(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    proxy = Proxy(redis_server.port)
    own = {"type": "osfs", "directory_root": tmp_path, "key_prefix": uuid.uuid4().hex}
    with isolated(**own, redis_url=proxy.url):
        _open_while_replies_are_lost(proxy)
    proxy.stop()


def _open_while_replies_are_lost(proxy: Proxy) -> None:
    failed, opened = 0, False
    while not opened:
        name = DOCUMENTS.save(f"{failed}.pdf", content())
        proxy.passing, proxy.cuts = failed, 100  # one more reply arrives each time
        try:
            with suppress(ZeroDivisionError), DOCUMENTS.open(name, "wb"):
                opened, proxy.cuts = True, 0
                _ = 1 / 0
        except RecordStoreError:
            failed += 1
        proxy.cuts = 0
        gc.collect()
        assert DOCUMENTS.open(name).read() == b"content"
    assert failed


def test_a_file_is_permanent_once_its_row_has_been_committed() -> None:
    with transaction.atomic():
        document = saved()
        assert left("a.pdf") == some(100)
    assert left("a.pdf") is None
    assert later().deleted == 0
    assert document.file.read() == b"content"


def test_a_file_whose_row_was_rolled_back_goes_by_itself() -> None:
    with transaction.atomic():
        saved()
        transaction.set_rollback(True)
    assert left("a.pdf") == some(100)
    assert later().deleted == 1
    assert not DOCUMENTS.exists("a.pdf")


def test_a_file_whose_insert_failed_in_autocommit_goes_by_itself() -> None:
    saved("a.pdf", title="taken")
    with pytest.raises(IntegrityError):
        saved("b.pdf", title="taken")
    assert later().deleted == 1
    assert DOCUMENTS.exists("a.pdf")
    assert not DOCUMENTS.exists("b.pdf")


def test_a_file_that_was_saved_without_its_row_goes_by_itself() -> None:
    Document().file.save("a.pdf", content(), save=False)
    assert later().deleted == 1


def test_a_file_of_an_inner_block_goes_where_that_is_rolled_back_and_the_outer_is_not() -> None:
    with transaction.atomic():
        saved("a.pdf")
        with transaction.atomic():
            saved("b.pdf")
            transaction.set_rollback(True)
        with transaction.atomic():
            saved("c.pdf")
        assert [left(name) for name in ("a.pdf", "b.pdf", "c.pdf")] == [some(100)] * 3
    assert [left(name) for name in ("a.pdf", "b.pdf", "c.pdf")] == [None, some(100), None]
    assert later().deleted == 1


def test_a_file_of_a_savepoint_made_by_hand_goes_where_that_is_rolled_back() -> None:
    replaced = saved("a")
    with transaction.atomic():
        kept = saved("b")
        savepoint = str(connection.savepoint())
        saved("c")
        replace(replaced, "d")
        kept.delete()
        transaction.savepoint_rollback(savepoint)
        savepoint = str(connection.savepoint())
        saved("e")
        transaction.savepoint_commit(savepoint)
    assert left("e") is None
    assert later().deleted == 2
    assert [DOCUMENTS.exists(name) for name in "abcde"] == [True, True, False, False, True]
    assert [left(name) for name in "ab"] == [None, None]


def test_a_file_that_is_saved_and_let_go_of_in_one_transaction_goes() -> None:
    with transaction.atomic():
        document = saved("a")
        replace(document, "b")
        saved("c").delete()
    assert left("b") is None
    assert later().deleted == 2


def test_a_row_saved_without_signals_keeps_its_file_when_the_sweep_asks_for_it() -> None:
    Document.objects.bulk_create([Document(file=content(n)) for n in ("a", "b")])
    document = Document.objects.create()
    name = DOCUMENTS.save("c", content())
    Document.objects.filter(pk=document.pk).update(file=name)
    lost = DOCUMENTS.save("d", content())
    report = later()
    assert (report.deleted, report.owned) == (1, 3)
    assert [left(name) for name in ("a", "b", name)] == [None] * 3
    assert not DOCUMENTS.exists(lost)
    assert later().owned == 0


def test_a_file_lives_as_long_as_the_storage_says_from_when_its_row_was_committed() -> None:
    with transaction.atomic():
        picture = Picture.objects.create(image=png())
        assert left("a.png", PICTURES) == some(100)
    assert left("a.png", PICTURES) == some(1_000)
    assert (picture.image.width, picture.image.height) == (3, 2)
    Picture.objects.bulk_create([Picture(image=png("b.png"))])
    assert later(500).owned == 1
    assert left("b.png", PICTURES) == some(500)
    assert later().deleted == 2  # though rows name them


def test_a_file_lives_as_long_as_its_namespace_says() -> None:
    with isolated(namespaces={"documents": {"default_ttl": 1_000, "max_ttl": 2_000}}):
        saved()
        assert left("a.pdf") == some(1_000)


def test_a_deadline_set_by_hand_before_the_row_was_committed_stays() -> None:
    with transaction.atomic():
        for name in "abc":
            saved(name)
        DOCUMENTS.expire("a", 500)
        DOCUMENTS.keep("b")
        transaction.on_commit(lambda: DOCUMENTS.expire("c", 500))
    assert [left(name) for name in "abc"] == [some(500), None, some(500)]
    deadline = DOCUMENTS.expiration("a")
    assert deadline
    assert deadline.tzinfo
    assert DOCUMENTS.expiration("b") is None
    Document.objects.get(file="a").save()
    assert left("a") == some(500)
    assert later().deleted == 2


def test_links_to_a_file_work_while_it_is_not_known_whether_another_row_owns_it(
    settings: Any,
) -> None:
    settings.ROOT_URLCONF = "tests.test_uploads"
    shared, rolled_back = saved("a"), saved("b")
    files, client = get_filesystem(DOCUMENTS.namespace), Client()
    Document.objects.create(file="a")
    before = files.get_urls(["a", "b"])
    shared.delete()
    with transaction.atomic():
        rolled_back.delete()
        transaction.set_rollback(True)
    meanwhile = files.get_urls(["a", "b"], timeout=9 * AT_ALL)
    advance(1_000)
    assert [client.get(url).status_code for url in before.values()] == [200, 200]
    report = later()
    assert (report.owned, report.deleted) == (2, 0)
    assert [client.get(url).status_code for url in meanwhile.values()] == [200, 200]


def test_a_link_to_a_file_that_no_row_owns_any_more_ends_when_it_is_deleted(settings: Any) -> None:
    settings.ROOT_URLCONF = "tests.test_uploads"
    document = saved("a")
    url = get_filesystem(DOCUMENTS.namespace).get_url("a", timeout=9 * AT_ALL)
    document.delete()
    assert later().deleted == 1
    assert Client().get(url).status_code == 404


def test_a_file_kept_by_hand_stays_even_if_its_row_was_rolled_back() -> None:
    with transaction.atomic():
        saved()
        DOCUMENTS.keep("a.pdf")
        transaction.set_rollback(True)
    later()
    assert DOCUMENTS.exists("a.pdf")


@pytest.mark.parametrize("spelled", ["./scans/a", "scans//a", "x/../scans/a", "scans\\a"])
def test_a_row_that_names_its_file_in_another_form_keeps_it(spelled: str) -> None:
    name = DOCUMENTS.save("scans/a", content())
    first, document = Document.objects.create(file=name), Document.objects.create(file=spelled)
    first.delete()
    assert later().owned == 1
    assert Document.objects.get().file.name == document.file.name == name
    assert document.file.read() == b"content"


def test_rows_saved_without_signals_may_name_their_files_with_a_leading_dot() -> None:
    names = [DOCUMENTS.save(name, content()) for name in ("a", "b")]
    Document.objects.bulk_create([Document(file=f"./{names[0]}")])
    Document.objects.filter(pk=Document.objects.create().pk).update(file=f"./{names[1]}")
    report = later()
    assert (report.deleted, report.owned) == (0, 2)


@pytest.mark.parametrize("commits", [True, False])
def test_a_name_that_is_put_into_a_row_by_hand_counts_as_one_that_is_saved(commits: bool) -> None:
    get_filesystem("documents").writebytes("a", b"content")
    DOCUMENTS.expire("a", 10)
    with transaction.atomic():
        document = Document()
        document.file.name = "a"
        document.save()
        assert left("a") == some(100)
        assert later(50).deleted == 0  # a transaction that takes its time
        transaction.set_rollback(not commits)
    assert left("a") == (None if commits else some(50))
    assert later().deleted == (not commits)


def test_a_file_that_is_written_through_its_storage_stays_with_its_row_and_goes_without() -> None:
    saved("a")
    for name in "ab":
        with DOCUMENTS.open(name, "w") as file:
            file.write("new")
    assert (left("a"), left("b")) == (None, some(100))
    Document.objects.bulk_create([Document(file="b")])
    with DOCUMENTS.open("c", "w") as file:
        file.write("new")
    report = later()
    assert (report.owned, report.deleted) == (1, 1)


def test_files_of_rows_whose_records_are_lost_outlive_an_audit_that_adopts_them() -> None:
    saved("a")
    with isolated():
        files = get_filesystem("documents")
        for name in "ab":
            files.writebytes(name, b"content")
        assert len(list(Audit(adopt=100).run("documents"))) == 2
        report = later()
        assert (report.owned, report.deleted) == (1, 1)
        assert list(Audit(adopt=100).run("documents")) == []


def test_a_file_that_a_row_names_outlives_expire_now() -> None:
    Document.objects.bulk_create([Document(file=content("a"))])
    Picture.objects.bulk_create([Picture(image=png("b.png"))])
    DOCUMENTS.save("c", content())
    report = expire_now()
    assert (report.owned, report.deleted) == (2, 1)
    assert (left("a"), left("b.png", PICTURES)) == (None, some(1_000))
    Picture.objects.get().delete()
    assert expire_now().deleted == 1


def test_the_models_of_a_migration_keep_the_files_that_they_name() -> None:
    old: Any = ProjectState.from_apps(apps).apps.get_model("rows", "Document")
    old.objects.create(file=content("a"))
    assert later().owned == 1
    assert left("a") is None


def test_a_row_that_existed_already_leaves_the_file_of_the_loser_to_expire() -> None:
    saved("a", title="taken")
    for defaults in {"file": content("b")}, {"file": content("c")}:
        Document.objects.get_or_create(title="taken", defaults=defaults)
    with pytest.raises(IntegrityError), transaction.atomic():
        saved("d", title="taken")
    Document.objects.update_or_create(title="taken", defaults={"file": content("e")})
    assert later().deleted == 2
    assert get_filesystem("documents").listdir("/") == ["e"]


def test_transactions_that_are_ended_by_hand_count_as_others() -> None:
    connections["default"].ensure_connection()
    transaction.set_autocommit(False)
    try:
        document = saved("a")
        transaction.commit()
        document.delete()
        saved("b")
        transaction.rollback()
    finally:
        transaction.set_autocommit(True)
    report = later()
    assert (report.owned, report.deleted) == (1, 1)
    assert left("a") is None


def test_a_row_that_goes_after_its_file_leaves_no_record() -> None:
    document = saved()
    DOCUMENTS.expire("a.pdf", 10)

    def delete_row(**_: object) -> None:
        document.delete()

    files_expired.connect(delete_row)
    try:
        assert later(10).deleted == 1
    finally:
        files_expired.disconnect(delete_row)
    assert not Document.objects.exists()
    assert later(GRACE).missing == 1
    assert counted().tracked == 0


def test_a_row_that_is_saved_again_changes_nothing() -> None:
    saved()
    DOCUMENTS.expire("a.pdf", 500)
    for document in (
        Document.objects.get(),
        Document.objects.only("title").get(),
        Document.objects.defer("file").get(),
    ):
        document.title = "another"
        document.save()
        document.save(update_fields=["title"])
    assert left("a.pdf") == some(500)


def test_a_file_that_no_field_can_name_goes_unless_it_is_kept_by_hand() -> None:
    storage = ExpiringStorage("elsewhere", until_committed=100)
    for name in "ab":
        storage.save(name, content())
    storage.keep("a")
    assert later().deleted == 1
    assert storage.exists("a")


def test_every_database_is_asked() -> None:
    with transaction.atomic(using="other"):
        Document.objects.using("other").create(file=content("a"))
        with transaction.atomic():
            pass
        assert left("a") == some(100)
    assert left("a") is None
    Document.objects.using("other").bulk_create([Document(file=content("b"))])
    saved("c")
    assert later().owned == 1
    assert left("b") is None


class MigratedElsewhere:
    """Tables in a database are not made by Django's migrations."""

    def allow_migrate(self, db: str, app_label: str, **hints: object) -> bool:
        return db != "other"


def test_a_database_in_which_nothing_is_migrated_is_asked(settings: Any) -> None:
    settings.DATABASE_ROUTERS = [MigratedElsewhere()]
    Document.objects.using("other").bulk_create([Document(file=content("a"))])
    report = later()
    assert (report.owned, report.deleted) == (1, 0)


def test_a_database_without_the_table_has_no_such_rows() -> None:
    with connections["other"].cursor() as cursor:
        cursor.execute("ALTER TABLE rows_picture RENAME TO hidden")
    try:
        PICTURES.save("a", content())
        assert later().deleted == 1
    finally:
        with connections["other"].cursor() as cursor:
            cursor.execute("ALTER TABLE hidden RENAME TO rows_picture")


def test_files_stay_while_no_database_has_the_table_under_the_name_that_the_worker_knows() -> None:
    with transaction.atomic():
        Document.objects.bulk_create([Document(file=content("a"))])
    rename = "ALTER TABLE {} RENAME TO {}".format
    for alias in "default", "other":
        with connections[alias].cursor() as cursor:
            cursor.execute(rename("rows_document", "renamed"))
    try:
        report = later()
        assert (report.deleted, report.postponed) == (0, 1)
    finally:
        for alias in "default", "other":
            with connections[alias].cursor() as cursor:
                cursor.execute(rename("renamed", "rows_document"))
    report = later()
    assert (report.deleted, report.owned) == (0, 1)


def test_a_sweep_within_a_transaction_deletes_nothing_that_a_row_may_own() -> None:
    kept, deleted = saved("a"), saved("b")
    DOCUMENTS.save("c", content())
    with transaction.atomic():
        deleted.delete()
        report = later()
        assert (report.deleted, report.postponed) == (0, 2)
        transaction.set_rollback(True)
    kept.delete()
    report = later()
    assert (report.deleted, report.owned) == (2, 1)
    assert DOCUMENTS.exists("b")


def test_a_database_that_keeps_a_sweep_waiting_is_asked_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other, asked = connections["other"], list[str]()
    other.close()
    monkeypatch.setitem(other.settings_dict, "OPTIONS", {"timeout": 1.2})
    for name in "ab":
        DOCUMENTS.save(name, content())

    def count(execute: Any, sql: str, *how: Any) -> Any:
        asked.append(sql)
        return execute(sql, *how)

    with closing(sqlite3.connect(other.settings_dict["NAME"])) as locking:
        locking.execute("BEGIN EXCLUSIVE")
        with other.execute_wrapper(count):
            assert later().postponed == 2
    assert len(asked) == 2  # for rows, and for the table; though several models may name them
    assert later().deleted == 2


@pytest.mark.parametrize(("routers", "deleted"), [([MigratedElsewhere()], 1), ([], 0)])
def test_a_table_of_another_kind_names_no_files_where_the_model_is_not_migrated(
    settings: Any, routers: list[object], deleted: int
) -> None:
    settings.DATABASE_ROUTERS = routers  # without one a migration may be under way
    rename = "ALTER TABLE rows_picture RENAME COLUMN {} TO {}".format
    with connections["other"].cursor() as cursor:
        cursor.execute(rename("image", "something"))
    try:
        PICTURES.save("a", content())
        assert later().deleted == deleted
    finally:
        with connections["other"].cursor() as cursor:
            cursor.execute(rename("something", "image"))


@pytest.fixture
def an_empty_alias() -> Iterator[None]:
    connections.settings["empty"] = ConnectionHandler({"default": {}}).settings["default"]
    yield
    del connections.settings["empty"]


def test_an_alias_without_a_database_is_not_asked(an_empty_alias: None) -> None:
    saved().delete()
    assert later().deleted == 1


def test_a_file_stays_for_as_long_as_a_database_cannot_be_asked(
    tmp_path: Path,
) -> None:
    DOCUMENTS.save("a", content())
    get_filesystem("plots").writebytes("a", b"")
    get_filesystem("plots").expire("a", 0)
    other = connections["other"]
    other.close()
    before = other.settings_dict["NAME"]
    other.settings_dict["NAME"] = tmp_path / "none" / "at all"
    report = later()
    other.settings_dict["NAME"] = before
    assert (report.deleted, report.postponed) == (1, 1)
    assert later().deleted == 1


def test_a_file_stays_if_the_query_for_its_row_fails() -> None:
    def rename(column: str, to: str) -> None:
        with connections["other"].cursor() as cursor:
            cursor.execute(f"ALTER TABLE rows_picture RENAME COLUMN {column} TO {to}")

    PICTURES.save("a", content())
    rename("image", "hidden")  # as where a migration is still to come
    try:
        assert later().postponed == 1
    finally:
        rename("hidden", "image")
    assert later().deleted == 1


def test_a_sweep_that_knows_no_field_for_a_file_leaves_it(settings: Any) -> None:
    DOCUMENTS.save("a", content())
    with override_settings(INSTALLED_APPS=["djpyfs"]):
        report = later()
    assert (report.deleted, report.postponed) == (0, 1)
    assert later().deleted == 1


def test_a_sweep_within_a_transaction_decides_nothing_that_may_be_rolled_back() -> None:
    with transaction.atomic():
        saved()
        assert later().postponed == 1
        transaction.set_rollback(True)
    assert later().deleted == 1


def test_it_works_in_a_test_case() -> None:
    class Case(TestCase):
        databases = {"default"}

        def test(self) -> None:
            saved("a.pdf")
            assert left("a.pdf") == some(100)
            with self.captureOnCommitCallbacks(execute=True):
                document = saved("b.pdf")
            assert left("b.pdf") is None
            with self.captureOnCommitCallbacks(execute=True):
                document.delete()
            assert left("b.pdf") == some(GRACE)

    told = result.TestResult()
    suite.TestSuite([Case("test")]).run(told)
    assert told.testsRun == 1
    assert told.wasSuccessful(), told.errors + told.failures


def test_fixtures_are_rows_like_others() -> None:
    get_filesystem("documents").writebytes("a", b"content")
    DOCUMENTS.expire("a", 10)
    [loaded] = serializers.deserialize(
        "json", '[{"model": "rows.document", "pk": 1, "fields": {"file": "a"}}]'
    )
    loaded.save()
    assert left("a") is None


def test_a_subclass_has_files_in_both_tables_and_a_proxy_those_of_its_model() -> None:
    letter = Letter.objects.create(file=content("a"), appendix=content("b"))
    draft = Draft.objects.create(file=content("c"))
    assert [left(name) for name in "abc"] == [None] * 3
    draft.delete()
    letter.delete()
    assert [left(name) for name in "abc"] == [some(GRACE)] * 3
    assert later().deleted == 3


def test_forms_and_the_admin_keep_the_files_that_they_have_saved() -> None:
    form: Any = modelform_factory(Document, fields=["title", "file"])
    filled = form({"title": "one"}, {"file": upload("a.pdf")})
    document = filled.save()
    assert left("a.pdf") is None
    form({"title": "one", "file-clear": "on"}, instance=document).save()
    assert left("a.pdf") == some(GRACE)
    client = Client()
    users: Any = get_user_model().objects
    client.force_login(users.create_superuser(uuid.uuid4().hex))
    site = admin.AdminSite()
    site.register(Document)
    with override_settings(ROOT_URLCONF=(path("admin/", site.urls),)):
        client.post("/admin/rows/document/add/", {"title": "two", "file": upload("b.pdf")})
        assert left("b.pdf") is None
        added = Document.objects.get(title="two")
        client.post(f"/admin/rows/document/{added.pk}/delete/", {"post": "yes"})
        assert left("b.pdf") == some(GRACE)


# -- what rows have let go of


def test_a_file_whose_row_was_deleted_goes_after_the_grace() -> None:
    saved().delete()
    assert left("a.pdf") == some(GRACE)
    assert later(30).deleted == 0
    assert later().deleted == 1


def test_a_file_that_was_replaced_or_emptied_goes_after_the_grace() -> None:
    document = saved("a")
    document.file = content("b")
    document.save()
    assert (left("a"), left("b")) == (some(GRACE), None)
    document.file = ""
    document.save()
    assert left("b") == some(GRACE)
    assert later().deleted == 2


def test_rows_that_go_with_another_let_go_of_their_files() -> None:
    document = saved()
    Page.objects.create(document=document, scan=content("b"))
    Document.objects.all().delete()
    assert later().deleted == 2


def test_a_file_that_a_rolled_back_transaction_let_go_of_stays() -> None:
    document = saved("a")
    for act in lambda: replace(document, "b"), document.delete:
        with transaction.atomic():
            act()
            transaction.set_rollback(True)
        assert later().owned == 1
        assert left("a") is None
    assert DOCUMENTS.exists("a")
    assert not DOCUMENTS.exists("b")


def test_a_file_that_was_let_go_of_before_the_process_died_goes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    document = saved("a")
    # The process dies between the commit and what should follow it.
    monkeypatch.setattr(transaction, "on_commit", lambda *_, **__: None)
    replace(document, "b")
    report = later()
    assert (report.deleted, report.owned) == (1, 1)
    assert left("b") is None


def test_a_file_that_another_row_names_stays_whatever_field_and_namespace_it_is_named_by() -> None:
    scan = DOCUMENTS.save("scans/a", content())
    document = Document.objects.create(file=scan)
    page = Page.objects.create(document=saved("other"), scan="a")
    document.delete()
    assert left(scan) == some(GRACE)
    assert later().owned == 1
    assert left(scan) is None
    page.delete()
    assert later().deleted == 1


def test_a_file_that_stays_for_another_row_keeps_its_deadline() -> None:
    with isolated(namespaces={"documents": {"default_ttl": 1_000, "max_ttl": 2_000}}):
        document = saved("a")
        Document.objects.create(file="a")
        document.delete()
        assert left("a") == some(GRACE)
        assert later(100).owned == 1
        assert left("a") == some(900)
        Document.objects.get().delete()
        assert left("a") == some(GRACE)
        assert later().deleted == 1


def test_a_file_that_a_storage_without_until_committed_gave_a_life_goes_with_its_row() -> None:
    with isolated(namespaces={"documents/scans": {"default_ttl": 1_000}}):
        page = Page.objects.create(document=saved("other"), scan=content("a"))
        assert left("a", SCANS) == some(1_000)
        page.delete()
        assert left("a", SCANS) == some(GRACE)
        assert later().deleted == 1


LAST_WORDS: dict[str, tuple[Callable[[str], object], float | None]] = {
    "keep": (DOCUMENTS.keep, None),
    "expire": (lambda name: DOCUMENTS.expire(name, 1_000), 1_000),
    "never": (lambda name: get_filesystem("documents").expire(name, expires=False), None),
    "in the filesystem": (lambda name: get_filesystem("documents").expire(name, 1_000), 1_000),
}
LET_GO: dict[str, Callable[[Document], object]] = {
    "deleted": lambda document: document.delete(),
    "replaced": lambda document: replace(document, "b"),
    "emptied": lambda document: empty(document),
}


@pytest.mark.parametrize("let_go", LET_GO.values(), ids=LET_GO)
@pytest.mark.parametrize(("say", "expected"), LAST_WORDS.values(), ids=LAST_WORDS)
def test_a_deadline_set_by_hand_stays_when_the_row_lets_go_of_the_file(
    say: Callable[[str], object], expected: float | None, let_go: Callable[[Document], object]
) -> None:
    document = saved("a")
    say("a")
    let_go(document)
    assert left("a") == (expected and some(expected))
    assert later(500).deleted == 0
    assert DOCUMENTS.exists("a")


def test_a_file_kept_by_hand_stays_whenever_that_was() -> None:
    DOCUMENTS.save("a", content())
    DOCUMENTS.keep("a")
    Document.objects.create(file="a").delete()
    with transaction.atomic():
        document = saved("b")
        DOCUMENTS.keep("b")
    with transaction.atomic():
        document.delete()
    with transaction.atomic():
        saved("c").delete()
        DOCUMENTS.keep("c")
    assert later().deleted == 0
    assert [left(name) for name in "abc"] == [None] * 3


def test_a_file_that_is_moved_is_its_rows_or_kept_as_before() -> None:
    files, others = get_filesystem("documents"), get_filesystem("documents/others")
    for name in "abc":
        saved(name)
    DOCUMENTS.keep("b")
    for name in "ab":
        files.move(name, f"others/{name}")
    fs.move.move_file(files, "c", others, "c")
    for name in "abc":
        document = Document.objects.get(file=name)
        document.file.name = f"others/{name}"
        document.save()
        assert left(f"others/{name}") is None
        document.delete()
    assert [left(f"others/{name}") for name in "abc"] == [some(GRACE), None, some(GRACE)]


def test_a_file_that_is_moved_before_a_row_names_it_still_waits_for_one() -> None:
    files, others = get_filesystem("documents"), get_filesystem("documents/others")
    for name in "abc":
        DOCUMENTS.save(name, content())
    saved("d").delete()
    for name in "abd":
        files.move(name, f"others/{name}")
    fs.move.move_file(files, "c", others, "c")
    Document.objects.bulk_create([Document(file=f"others/{name}") for name in "acd"])
    report = later()
    assert (report.owned, report.deleted) == (3, 1)
    assert sorted(others.listdir("/")) == ["a", "c", "d"]


def test_a_file_that_a_row_takes_up_again_stays() -> None:
    document = saved("a")
    replace(document, "b")
    again = Document(file="a")
    with transaction.atomic():
        again.save()
        assert later(90).deleted == 0
    assert left("a") is None
    with transaction.atomic():
        replace(again, "c")
        again.file = "a"
        again.save()
    assert left("a") is None
    assert later().deleted == 1
    assert DOCUMENTS.exists("a")


def test_a_file_of_a_transaction_that_takes_its_time_is_not_let_go_of_by_another() -> None:
    first = saved("a")
    with transaction.atomic(using="other"):
        DOCUMENTS.expire("a", 1_000)
        Document(file="a").save(using="other")
        first.delete()
        assert later(90).deleted == 0
    assert left("a") is None


def test_the_row_in_the_database_decides_what_is_let_go_of_and_not_an_old_copy_of_it() -> None:
    document = saved("a")
    for last in "b", "c":
        replace(Document.objects.get(), last)
        document.file = content(f"{last}2")
        document.save()
    assert [left(name) for name in ("a", "b", "b2", "c")] == [some(GRACE)] * 4
    old, new = Document.objects.get(), Document.objects.get()
    replace(new, "d")
    old.delete()
    assert left("d") == some(GRACE)
    deferred = Document.objects.create(file=content("e"))
    Document.objects.defer("file").get(pk=deferred.pk).delete()
    assert left("e") == some(GRACE)
    assert later().deleted == 7


@pytest.fixture
def on_postgres(postgres: dict[str, Any]) -> Iterator[str]:
    """The alias of a third database, in which rows are locked one by one."""
    own = ConnectionHandler({"default": {}, "postgres": postgres}).settings
    connections.settings["postgres"] = own["postgres"]
    with connections["postgres"].schema_editor() as editor:
        editor.create_model(Document)
    yield "postgres"
    with connections["postgres"].schema_editor() as editor:
        editor.delete_model(Document)
    connections["postgres"].close()
    del connections["postgres"], connections.settings["postgres"]


def test_two_who_replace_a_file_at_the_same_time_leave_only_the_last(on_postgres: str) -> None:
    rows = Document.objects.using(on_postgres)
    rows.create(file=content("a"))

    def replace_by_b() -> None:
        with transaction.atomic(on_postgres):
            replace(rows.get(), "b")
        connections[on_postgres].close()

    with ThreadPoolExecutor(1) as thread:
        with transaction.atomic(on_postgres):
            replace(rows.get(), "c")
            other = thread.submit(replace_by_b)
            # For this transaction, and not with the server's own work for a table, say.
            waiting = (
                "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'"
            )
            with connections[on_postgres].cursor() as cursor:
                wait_for(lambda: cursor.execute(waiting) and cursor.fetchone() == (1,))
        other.result()
    let_go = pytest.approx(GRACE, abs=30)  # and not what a new file has before its row is committed
    assert [left(name) for name in "abc"] == [let_go, None, let_go]


def test_a_sweep_does_not_wait_for_a_table_that_is_locked(on_postgres: str) -> None:
    saved().delete()
    locked, go_on = Event(), Event()

    def lock_table() -> None:
        with transaction.atomic(on_postgres):
            with connections[on_postgres].cursor() as cursor:
                cursor.execute("LOCK TABLE rows_document")
            locked.set()
            go_on.wait(PATIENCE)
        connections[on_postgres].close()

    with ThreadPoolExecutor(1) as thread:
        locking = thread.submit(lock_table)
        assert locked.wait(PATIENCE)
        report = later()
        assert not locking.done()
        go_on.set()
    assert (report.postponed, report.deleted) == (1, 0)
    assert later().deleted == 1


def test_the_default_file_stays_before_there_is_a_row() -> None:
    ExpiringStorage("documents/scans", until_committed=100).save(NONE, content())
    report = later()
    assert (report.owned, report.deleted) == (1, 0)


def test_the_default_files_of_rows_without_their_own_stay() -> None:
    for name in NONE, COVER:
        get_filesystem("documents").makedirs("scans", recreate=True).writebytes(name, b"")
    page = Page.objects.create(document=saved())
    Page.objects.get(pk=page.pk).delete()
    later()
    assert [DOCUMENTS.exists(f"scans/{name}") for name in (NONE, COVER)] == [True, True]


def test_a_file_that_is_deleted_by_hand_leaves_no_record() -> None:
    document = saved()
    document.file.delete()
    assert later().deleted == 0
    assert left("a.pdf") is None
    assert document.file.name is None


def test_a_storage_that_overwrites_keeps_the_file_of_its_row() -> None:
    storage = ExpiringStorage("documents", until_committed=100, allow_overwrite=True)
    document = saved("a")
    for commits in True, False:
        with transaction.atomic():
            document.file = storage.save("a", ContentFile(b"new"))
            document.save()
            transaction.set_rollback(not commits)
        later()
        assert DOCUMENTS.open("a").read() == b"new"


# -- where it cannot work


@pytest.mark.parametrize(
    ("own", "is_reported"),
    [({}, False), ({"max_ttl": 1}, True), ({"max_ttl": 1, "clamp": True}, False)],
    ids=["fits", "too long", "clamped"],
)
def test_a_lifetime_of_a_storage_that_its_namespace_refuses_is_reported(
    own: dict[str, Any], is_reported: bool
) -> None:
    with isolated(**own):
        assert ("djpyfs.E010" in [message.id for message in run_checks()]) == is_reported


def test_a_record_store_that_is_away_when_a_row_is_committed_breaks_no_page(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with running_redis() as server, isolated(redis_url=server.url), transaction.atomic():
        document = saved()
        server.stop()
    assert Document.objects.get() == document
    assert "on_commit" in caplog.text


WITHOUT_THE_APP = """
import django
from django.conf import settings
settings.configure(DJFS={"type": "memory", "redis_url": "memory://"}, INSTALLED_APPS=["tests.rows"])
django.setup()
from django.core.exceptions import ImproperlyConfigured
from django.core.files.base import ContentFile
from tests.rows.models import DOCUMENTS
try:
    DOCUMENTS.save("a", ContentFile(b"content"))
except ImproperlyConfigured as error:
    assert "'djpyfs' in INSTALLED_APPS" in str(error)
print("some" if DOCUMENTS.exists("a") else "none")
"""


@pytest.mark.parametrize("option", ["default_ttl", "until_committed"])
@pytest.mark.parametrize("wrong", [0, -1, "soon", True])
def test_a_bad_lifetime_is_refused_at_once(option: str, wrong: Any) -> None:
    options: dict[str, Any] = {option: wrong}
    with pytest.raises(InvalidLifetime, match=f"{option} is {wrong!r}"):
        ExpiringStorage("documents", **options)


def test_without_the_app_nothing_is_stored() -> None:
    assert python(WITHOUT_THE_APP).communicate(timeout=PATIENCE)[0] == b"none\n"


def test_the_default_storage_of_a_site_follows_rows_as_well(settings: Any) -> None:
    settings.STORAGES = {
        "default": {
            "BACKEND": "djpyfs.storage.ExpiringStorage",
            "OPTIONS": {"namespace": "uploads", "until_committed": 100, "clean_up": True},
        }
    }
    with override_settings(INSTALLED_APPS=settings.INSTALLED_APPS):  # as at the start
        uploaded = Upload.objects.create(file=content())
        storage = ExpiringStorage("uploads")
        assert left("a.pdf", storage) is None
        uploaded.delete()
        assert left("a.pdf", storage) == some(GRACE)


def png(name: str = "a.png") -> ContentFile[bytes]:
    picture = io.BytesIO()
    Image.new("RGB", (3, 2)).save(picture, "PNG")
    return ContentFile(picture.getvalue(), name)


def upload(name: str) -> SimpleUploadedFile:
    return SimpleUploadedFile(name, b"content")


def replace(document: Document, name: str) -> None:
    document.file = content(name)
    document.save()


def empty(document: Document) -> None:
    document.file = ""
    document.save()


@pytest.mark.parametrize("row_first", [False, True], ids=["file-first", "row-first"])
def test_an_upload_from_a_browser_belongs_to_the_row_that_names_it_or_goes(
    settings: Any, row_first: bool
) -> None:
    settings.ROOT_URLCONF = "tests.test_uploads"
    files = get_filesystem(DOCUMENTS.namespace)
    named, given_up = (files.get_upload_url(".pdf", seconds=50, max_bytes=9) for _ in range(2))
    send(given_up, b"no row")
    if row_first:
        Document.objects.create(file=named.path)
    assert send(named, b"a row") == 201
    if not row_first:
        Document.objects.create(file=named.path)
    assert left(named.path) is None
    later()
    assert files.listdir("/") == [named.path]


def test_an_upload_stays_with_a_row_that_was_saved_without_signals(settings: Any) -> None:
    settings.ROOT_URLCONF = "tests.test_uploads"
    files = get_filesystem(DOCUMENTS.namespace)
    targets = [files.get_upload_url(".pdf", seconds=50, max_bytes=9) for _ in range(3)]
    for target in targets:
        send(target, b"content")
    Document.objects.bulk_create([Document(file=targets[0].path)])
    Document.objects.filter(pk=Document.objects.create().pk).update(file=targets[1].path)
    report = later()
    assert (report.owned, report.deleted) == (2, 1)
    assert not files.exists(targets[2].path)


def test_an_upload_that_arrives_late_stays_with_the_row_that_names_it(s3_endpoint: str) -> None:
    own = {"bucket": BUCKET, "prefix": uuid.uuid4().hex, "endpoint_url": s3_endpoint, **KEYS}
    with isolated(type="s3fs", **own):
        files = get_filesystem(DOCUMENTS.namespace)
        named, unnamed = (files.get_upload_url(seconds=50, max_bytes=9) for _ in range(2))
        later(100)
        send(named, b"late")
        send(unnamed, b"late")
        Document.objects.create(file=named.path)
        later()
        later(0)
        assert files.listdir("/") == [named.path]
