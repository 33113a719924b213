"""The page in the Django admin: who may see it, what it shows, and what its buttons do."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator
from html import unescape
from typing import Any
from xml.etree import ElementTree

import pytest
from django.contrib import admin
from django.core.checks.registry import registry
from django.core.files.base import ContentFile
from django.core.management import call_command
from django.db import connections, transaction
from django.db.utils import ConnectionHandler
from django.test import Client, override_settings
from django.urls import include, path
from pytest_django import DjangoDbBlocker

from djpyfs import expire_objects, get_filesystem, inspection
from djpyfs.charts import Bar, Chart
from djpyfs.filesystem import ExpiringFS
from djpyfs.models import ExpiringFile
from tests.conftest import counted, records_here
from tests.servers import RedisServer, running_redis, scripts_run, wait_for

PAGE = "/admin/djpyfs/expiringfile/"
RELEASE = f"{PAGE}release/"
APPS = "admin auth contenttypes messages sessions staticfiles"
BAD = {"_selected_action": "plots/bad"}
FORGET = {**BAD, "action": "forget", "sure": "Yes"}

BROKEN = [b"no slash", b"plots/../x", b"plots/", b"/x", b"\xff\xfe/x", b"a/b\0c"]

OPTIONS = {
    "context_processors": [
        "django.template.context_processors.request",
        "django.contrib.auth.context_processors.auth",
        "django.contrib.messages.context_processors.messages",
    ]
}
SITE: dict[str, Any] = {
    "INSTALLED_APPS": [
        *(f"django.contrib.{app}" for app in APPS.split()),
        "djpyfs",
        "djpyfs_tasks",
        "demo",
    ],
    "MIDDLEWARE": [
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ],
    "TEMPLATES": [
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "APP_DIRS": True,
            "OPTIONS": OPTIONS,
        }
    ],
    "STATIC_URL": "/static/",
}


@pytest.fixture(scope="module", autouse=True)
def _site(
    django_db_blocker: DjangoDbBlocker, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """A site with an admin and a database; the other tests do without."""
    file = tmp_path_factory.mktemp("admin") / "site.sqlite3"
    engine = {"ENGINE": "django.db.backends.sqlite3", "NAME": file}
    before, checks = connections["default"], set(registry.registered_checks)
    with django_db_blocker.unblock(), override_settings(**SITE):
        connections["default"] = ConnectionHandler({"default": engine})["default"]
        call_command("migrate", verbosity=0)
        with override_settings(ROOT_URLCONF=(path("admin/", admin.site.urls),)):
            yield
        connections["default"].close()
        connections["default"] = before
    registry.registered_checks = checks  # those of apps that are gone again would fail


@pytest.fixture(autouse=True)
def _rolled_back(_site: None) -> Iterator[None]:
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


@pytest.fixture
def plots(djfs: Callable[..., None], records: dict[str, Any]) -> ExpiringFS:
    """A filesystem in which names that begin with ``bad`` cannot be removed."""
    djfs(type="tests.test_sweep.BrittleBackend", max_attempts=1, **records)
    return get_filesystem("plots")


@pytest.fixture
def given_up(plots: ExpiringFS) -> None:
    """The file ``bad`` and another one are set aside."""
    fill(plots, "bad", "bad <b>too")
    expire_objects()


def fill(filesystem: ExpiringFS, *names: str, seconds: float = 0) -> None:
    for name in names:
        filesystem.writebytes(name, b"picture")
    filesystem.expire_many(names, seconds)


def logged_in(*permissions: str, staff: bool = True, **options: Any) -> Client:
    from django.contrib.auth.models import Permission, User  # there is an app for them by now

    user = User.objects.create_user("someone", is_staff=staff)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client(**options)
    client.force_login(user)
    return client


@pytest.fixture
def viewer() -> Client:
    return logged_in("view_expiringfile")


@pytest.fixture
def changer() -> Client:
    return logged_in("change_expiringfile")


def shown(client: Client, **search: str) -> str:
    answer = client.get(PAGE, search)
    assert answer.status_code == 200
    return answer.content.decode()


def form(page: str) -> dict[str, list[str]]:
    """What the form of a page would send if all of its boxes were checked."""
    [body] = re.findall(rf'<form[^>]*action="{RELEASE}[^"]*">(.*?)</form>', page, re.DOTALL)
    sent: dict[str, list[str]] = {}
    for tag in re.findall(r"<input[^>]*>", body):
        pair = re.search(r'name="(\w+)" value="(.*?)"', tag)
        if pair and 'type="submit"' not in tag:
            sent.setdefault(pair[1], []).append(unescape(pair[2]))
    return sent


def number(page: str, name: str) -> str:
    [found] = re.findall(rf"<dt>{name}</dt><dd><strong>(?:<a [^>]*>)?(.*?)<", page)
    return str(found)


def said(page: str) -> str:
    """What the last message says."""
    [*_, found] = re.findall(r'<li class="(?:success|warning|error)">(.*?)</li>', page)
    return str(found)


def waiting() -> tuple[int, int]:
    """How many records are overdue, and how many are set aside."""
    counts = counted()
    return counts.overdue, counts.set_aside


@pytest.mark.usefixtures("given_up")
class TestWhoMay:
    def test_strangers_are_asked_to_log_in(self) -> None:
        for client in Client(), logged_in("change_expiringfile", staff=False):
            assert client.get(PAGE).status_code == 302
            assert client.post(RELEASE, FORGET).status_code == 302
        assert waiting() == (0, 2)

    def test_staff_without_permission_see_neither_the_page_nor_its_link(self) -> None:
        client = logged_in()
        assert client.get(PAGE).status_code == 403
        assert PAGE not in client.get("/admin/").content.decode()

    def test_a_user_who_may_only_view_has_a_link_and_no_buttons(self, viewer: Client) -> None:
        assert PAGE in viewer.get("/admin/").content.decode()
        assert RELEASE not in shown(viewer)
        assert viewer.post(RELEASE, FORGET).status_code == 403
        assert waiting() == (0, 2)

    def test_nothing_changes_by_get_or_without_a_token(self) -> None:
        client = logged_in("change_expiringfile", enforce_csrf_checks=True)
        assert client.get(RELEASE, FORGET).status_code == 405
        assert client.post(RELEASE, FORGET).status_code == 403
        assert waiting() == (0, 2)

    def test_the_forms_of_the_page_carry_a_token(self) -> None:
        client = logged_in("change_expiringfile", enforce_csrf_checks=True)
        sent = {**form(shown(client)), **BAD, "action": "retry"}
        assert client.post(RELEASE, sent).status_code == 302
        assert waiting() == (1, 1)


@pytest.mark.usefixtures("given_up")
class TestFilesSetAside:
    def test_files_set_aside_are_listed_with_the_reason_and_no_name_is_taken_for_html(
        self, viewer: Client
    ) -> None:
        page = shown(viewer)
        assert "read-only" in page
        assert "bad &lt;b&gt;too" in page
        assert "<b>too" not in page

    @pytest.mark.parametrize(
        ("action", "overdue", "says"), [("retry", 1, "Due again"), ("forget", 0, "Forgotten")]
    )
    def test_a_file_set_aside_is_retried_or_forgotten(
        self, changer: Client, plots: ExpiringFS, action: str, overdue: int, says: str
    ) -> None:
        from django.contrib.admin.models import LogEntry

        answer = changer.post(RELEASE, {**FORGET, "action": action}, follow=True)
        assert waiting() == (overdue, 1)
        assert plots.exists("bad")
        assert said(answer.content.decode()).startswith(says)
        [entry] = LogEntry.objects.all()
        assert (entry.object_id, entry.user.get_username()) == ("plots/bad", "someone")

    def test_nothing_is_forgotten_before_somebody_has_confirmed_it(self) -> None:
        client = logged_in("change_expiringfile", enforce_csrf_checks=True)
        sent = {**form(shown(client)), "_selected_action": ["plots/bad <b>too"]}
        page = client.post(RELEASE, {**sent, "action": "forget"}).content.decode()
        assert "<b>too" not in page
        assert waiting() == (0, 2)
        page = client.post(RELEASE, {**form(page), "sure": "Yes"}, follow=True).content.decode()
        assert "<b>too" not in page
        assert waiting() == (0, 1)
        assert said(page).startswith("Forgotten")

    def test_several_files_set_aside_are_retried_at_once(self, changer: Client) -> None:
        answer = changer.post(RELEASE, {**form(shown(changer)), "action": "retry"}, follow=True)
        assert waiting() == (2, 0)
        assert said(answer.content.decode()).endswith("2 files")

    @pytest.mark.parametrize("sent", [{"action": "retry"}, BAD], ids=["no file", "no action"])
    def test_nothing_is_done_that_was_not_chosen(
        self, changer: Client, sent: dict[str, str]
    ) -> None:
        answer = changer.post(RELEASE, sent, follow=True)
        assert "nothing was done" in said(answer.content.decode())
        assert waiting() == (0, 2)

    def test_an_action_leads_back_to_what_was_searched(self, changer: Client) -> None:
        page = shown(changer, namespace="plots", file="bad", p="3")
        [address] = re.findall(rf'action="({RELEASE}[^"]*)"', page)
        assert unescape(address) == f"{RELEASE}?namespace=plots&file=bad&p=3"
        for sent in {**BAD, "action": "retry"}, {**FORGET}, {}:
            back = changer.post(unescape(address), sent)["Location"]
            assert back == f"{PAGE}?namespace=plots&file=bad&p=3#djpyfs-set-aside"

    def test_a_search_narrows_the_files_set_aside_down(self, viewer: Client) -> None:
        assert shown(viewer, file="too").count('data-label="Since"') == 1
        assert "No file that was set aside" in shown(viewer, namespace="memos")

    def test_an_action_takes_all_that_a_search_finds_on_every_page(
        self, changer: Client, plots: ExpiringFS, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("djpyfs.admin.SET_ASIDE_SHOWN", 2)
        fill(plots, *(f"bad {n}" for n in range(5)))
        fill(get_filesystem("memos"), "bad")
        expire_objects()
        pages = [form(shown(changer, p=str(p)))["_selected_action"] for p in range(1, 5)]
        names = [name for page in pages for name in page]
        assert len(names) == len(set(names)) == 8
        sent = {"action": "forget", "select_across": "1", "_selected_action": pages[0]}
        asked = changer.post(f"{RELEASE}?namespace=plots", sent).content.decode()
        assert "these 7 files" in asked
        changer.post(f"{RELEASE}?namespace=plots", {**form(asked), "sure": "Yes"})
        assert waiting() == (0, 1)

    def test_a_second_click_does_nothing_and_says_so(self, changer: Client) -> None:
        for _ in range(2):
            answer = changer.post(RELEASE, FORGET)
        assert "nothing was done" in said(changer.get(answer["Location"]).content.decode())
        assert waiting() == (0, 1)

    @pytest.mark.parametrize("member", BROKEN)
    def test_a_broken_record_is_shown_and_can_be_forgotten(
        self, changer: Client, member: bytes
    ) -> None:
        records_here().schedule([member], 0)
        while expire_objects().set_aside:
            pass
        assert waiting() == (0, 3)
        names = form(shown(changer))["_selected_action"]
        [name] = [name for name in names if not name.startswith("plots/bad")]
        sent = {"_selected_action": name, "action": "forget", "sure": "Yes"}
        answer = changer.post(RELEASE, sent, follow=True)
        assert said(answer.content.decode()).startswith("Forgotten")
        assert waiting() == (0, 2)

    def test_a_search_for_an_impossible_name_is_an_error_message(self, changer: Client) -> None:
        chosen = {"_selected_action": "../x/a", "action": "retry"}
        assert "../x" in said(changer.post(RELEASE, chosen, follow=True).content.decode())

    def test_an_unknown_action_is_refused(self, changer: Client) -> None:
        assert changer.post(RELEASE, {**BAD, "action": "drop"}).status_code == 403
        assert waiting() == (0, 2)


@pytest.mark.usefixtures("given_up")
def test_an_admin_site_of_your_own_links_to_nothing_of_the_default_one() -> None:
    from django.contrib.auth.models import User  # there are apps for them by now

    from djpyfs.admin import ExpiringFileAdmin

    ops = admin.AdminSite(name="ops")
    ops.register(ExpiringFile, ExpiringFileAdmin)
    urls = (path("admin/", admin.site.urls), path("ops/", ops.urls))
    client = Client()
    client.force_login(User.objects.create_superuser("someone"))
    with override_settings(ROOT_URLCONF=urls):
        pages = [client.get(PAGE.replace("admin", "ops")).content.decode()]
        for data in {**BAD, "action": "forget"}, FORGET, {"action": "retry", "select_across": "1"}:
            answer = client.post(RELEASE.replace("admin", "ops"), data, follow=True)
            pages.append(answer.content.decode())
    assert waiting() == (1, 0)
    for page in pages:
        leads_to = re.findall(r'(?:href|action)="(/.*?)"', page)
        assert PAGE.replace("admin", "ops") in leads_to
        assert not [address for address in leads_to if address.startswith("/admin/")]


def test_the_page_counts_records_by_state(viewer: Client, plots: ExpiringFS) -> None:
    fill(plots, "bad")
    expire_objects()
    fill(plots, *(f"later {n}" for n in range(1_000)), seconds=5_000)
    fill(plots, "late")
    page = shown(viewer)
    assert number(page, "Tracked") == "1,001"
    assert [number(page, name) for name in ("Overdue", "Claimed", "Set aside")] == ["1", "0", "1"]
    assert "overdue for" in page
    assert wrong(page) == {"Set aside"}


def wrong(page: str) -> set[str]:
    """The numbers that are shown in red and lead somewhere on the page."""
    red = r'<div class="djpyfs-wrong"><dt>(.*?)</dt><dd><strong><a href="#(.*?)">'
    found = re.findall(red, page)
    assert page.count("djpyfs-wrong") == len(found)
    assert all(f'id="{anchor}"' in page for _, anchor in found)
    return {name for name, _ in found}


def test_a_problem_is_red_and_links_to_its_list(viewer: Client, djfs: Callable[..., None]) -> None:
    away = {"type": "tests.test_sweep.AwayBackend"}
    namespaces = {"held": {"hold": True}, "away": away}
    djfs(type="tests.test_sweep.BrittleBackend", namespaces=namespaces, sweep_interval=0.1)
    assert wrong(shown(viewer)) == set()
    for namespace in "plots", "held", "away":
        fill(get_filesystem(namespace), "bad")
    expire_objects()
    wait_for(lambda: inspection.status().oldest_overdue > 0.4)
    page = shown(viewer)
    assert wrong(page) == {"Overdue", "Retried", "Postponed"}
    assert number(page, "On hold") == "1"
    assert [state in page for state in ("retried", "held", "postponed")] == [True] * 3


def test_namespaces_are_listed_with_counts(viewer: Client, plots: ExpiringFS) -> None:
    fill(plots, "bad")
    expire_objects()
    fill(plots, "late")
    fill(get_filesystem("usage/block"), "a", seconds=100)
    rows = re.findall(r'<th scope="row" data-label="Namespace">.*?</tr>', shown(viewer), re.S)
    texts = [" ".join(re.sub("<.*?>", " ", row).split()) for row in rows]
    assert texts == ["plots 2 1 1", "usage/* 1 0 0"]
    assert 'href="?namespace=plots#djpyfs-set-aside">1</a>' in rows[0]


def test_the_page_names_its_time_zone(viewer: Client, plots: ExpiringFS, settings: Any) -> None:
    fill(plots, "bad")
    expire_objects()
    for zone, short in ("Europe/Berlin", "CE"), ("UTC", "UTC"):
        settings.TIME_ZONE = zone
        page = shown(viewer)
        assert f"all times are in {zone}" in page
        [since] = re.findall(r'data-label="Since">(.*?)<', page)
        assert since.split()[-1].startswith(short)


def test_the_page_is_in_the_language_of_the_site(
    viewer: Client, plots: ExpiringFS, settings: Any
) -> None:
    settings.LANGUAGE_CODE = "de"
    fill(plots, "bad")
    expire_objects()
    fill(plots, *(f"later {n}" for n in range(1_000)), seconds=300)
    fill(plots, "late")
    page = shown(viewer)
    assert "<title>Fristen und Aufräumläufe" in page
    assert [number(page, name) for name in ("Erfasst", "Überfällig")] == ["1.001", "1"]
    assert "in 4 bis 6 min: 1.000 Dateien" in page
    assert "überfällig seit" in page
    assert "1 Datei ließ sich nicht löschen" in page
    assert "Namespace" not in page


def test_coming_deadlines_are_drawn_where_they_fall(viewer: Client, plots: ExpiringFS) -> None:
    fill(plots, "a", "b", seconds=300)
    fill(plots, "c", seconds=5 * 3_600)
    fill(plots, "d", seconds=40 * 86_400)
    page = shown(viewer)
    assert "in 4 to 6 min: 2 files" in page
    assert "in 4 to 5 h: 1 file" in page
    assert "in 0 to 1 d: 3 files" in page
    assert "Deadlines in the next month: 3 files" in page


def test_every_chart_is_well_formed_and_says_what_it_shows(
    viewer: Client, plots: ExpiringFS
) -> None:
    fill(plots, "a", "b", "bad")
    expire_objects()
    charts = re.findall(r'<svg class="djpyfs.*?</svg>', shown(viewer), re.DOTALL)
    assert len(charts) == 5
    labels = [ElementTree.fromstring(chart).attrib["aria-label"] for chart in charts]
    assert "Deletions of the last sweeps: 2 files deleted, 1 deletion failed" in labels
    assert 'class="djpyfs-alarm"' in "".join(charts)


def test_a_site_without_files_has_a_page(viewer: Client, plots: ExpiringFS) -> None:
    page = shown(viewer)
    assert "Nothing has a deadline" in page
    assert "No sweep has had anything to do" in page


@pytest.mark.parametrize("values", [[], [0], [1], [0.03], [1_000_000, 1], [3, 7, 19, 20, 21, 99.5]])
def test_bars_stay_inside_their_chart(values: list[float]) -> None:
    bars = [Bar(str(value), value, value / 2) for value in values]
    drawn = ElementTree.fromstring(Chart("a <title>", 'and "more"', bars, ("now", "then")).svg())
    _, _, width, height = map(float, drawn.attrib["viewBox"].split())
    for rectangle in drawn.iter("rect"):
        x, y, wide, tall = (float(rectangle.attrib[key]) for key in ("x", "y", "width", "height"))
        assert 0 <= x < x + wide <= width
        assert 0 <= y < y + tall <= height


@pytest.fixture
def several(plots: ExpiringFS) -> None:
    fill(plots, "sine.png", "cosine.png", "100%*.txt", seconds=119)
    fill(get_filesystem("usage/block"), "sine.svg", "bad", seconds=119)


@pytest.mark.usefixtures("several")
@pytest.mark.parametrize(
    ("search", "found"),
    [
        ({"namespace": "plots"}, ["sine.png", "cosine.png", "100%*.txt"]),
        ({"namespace": "usage/*"}, ["sine.svg", "bad"]),
        ({"file": "sine"}, ["sine.png", "cosine.png", "sine.svg"]),
        ({"file": "plots"}, []),
        ({"file": "%*."}, ["100%*.txt"]),
        ({"namespace": "plots", "file": "sine"}, ["sine.png", "cosine.png"]),
        ({"namespace": "usage/*", "file": "sine"}, ["sine.svg"]),
        ({"namespace": "plots", "file": "sine.svg"}, []),
    ],
    ids=str,
)
def test_files_are_found_by_namespace_and_part_of_their_name(
    viewer: Client, search: dict[str, str], found: list[str]
) -> None:
    page = shown(viewer, **search)
    assert set(re.findall(r'<th scope="row" data-label="File">(.*?)</th>', page)) == set(found)
    assert len(re.findall(r"\b1 min \d+ s", page)) == len(found)
    assert "There may be more" not in page


def test_a_search_that_ends_early_says_so_and_still_finds_a_whole_name(
    viewer: Client, plots: ExpiringFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("djpyfs.admin.FILES_SHOWN", 2)
    fill(plots, *(f"{n}.png" for n in range(9)), seconds=100)
    fill(plots, "9.png", seconds=200)
    page = shown(viewer, namespace="plots", file="png")
    assert page.count('data-label="File"') == 2
    assert "There may be more" in page
    assert ">9.png</th>" in shown(viewer, namespace="plots", file="9.png")


def test_a_name_that_no_file_could_have_is_shown(viewer: Client, plots: ExpiringFS) -> None:
    assert "leads out" in shown(viewer, namespace="plots", file="../x")
    assert "has the segment" in shown(viewer, namespace="../x")


def test_one_file_is_shown_with_its_state(plots: ExpiringFS) -> None:
    fill(plots, "bad")
    expire_objects()
    fill(plots, "a", seconds=100)
    found = [inspection.tracked_file("plots", name) for name in ("bad", "a", "never")]
    assert [file and str(file.state) for file in found] == ["set aside", "due", None]


@pytest.fixture
def away(djfs: Callable[..., None]) -> None:
    with running_redis() as server:
        djfs(type="memory", redis_url=server.url)


@pytest.mark.usefixtures("away")
def test_the_page_says_that_the_record_store_is_away(changer: Client) -> None:
    answer = changer.get(PAGE)
    assert answer.status_code == 503
    assert "is away" in answer.content.decode()
    answer = changer.post(RELEASE, {**BAD, "action": "retry"}, follow=True)
    assert "is away" in said(answer.content.decode())


@pytest.mark.parametrize("name", ["due", "sweeps"])
def test_the_page_shows_the_other_shards_if_one_cannot_be_read(
    changer: Client, djfs: Callable[..., None], redis_server: RedisServer, name: str
) -> None:
    prefix = f"unreadable-{uuid.uuid4().hex}"
    djfs(type="memory", redis_url=redis_server.url, key_prefix=prefix, shards=4)
    names = [f"{number}.png" for number in range(16)]
    get_filesystem("plots").expire_many(names, 600)
    lost = {n for n in names if records_here().shard_of(f"plots/{n}".encode()) == 2}
    of_due = f"{prefix}:{{02}}:{records_here().place}:due"
    key = of_due if name == "due" else f"{prefix}:{{00}}:{name}"
    with redis_server.client() as client:
        client.set(key, "of the wrong type")
    page = shown(changer)
    assert f"its key {key}" in page
    left = set(names) - lost if name == "due" else set(names)
    assert number(page, "Tracked") == str(len(left))
    assert f"its key {key}" in shown(changer, namespace="plots", file=min(lost))


def test_the_page_takes_few_round_trips_however_many_files_there_are(
    viewer: Client, djfs: Callable[..., None], own_redis: RedisServer
) -> None:
    djfs(type="memory", redis_url=own_redis.url)
    get_filesystem("plots").expire_many([f"{n}.png" for n in range(5_000)], seconds=100)
    shown(viewer)
    before = own_redis.commands()
    shown(viewer)
    assert own_redis.commands() - before < 120  # 84 of them count the bars


def test_all_that_a_search_finds_takes_few_scripts_however_many_namespaces_there_are(
    changer: Client, djfs: Callable[..., None], own_redis: RedisServer
) -> None:
    djfs(type="tests.test_sweep.BrittleBackend", max_attempts=1, redis_url=own_redis.url)
    records_here().schedule([b"user-%d/bad" % n for n in range(300)], 0)
    expire_objects()
    assert waiting() == (0, 300)
    before = scripts_run(own_redis)
    changer.post(RELEASE, {"action": "retry", "select_across": "1"})
    assert scripts_run(own_redis) - before < 30
    assert waiting() == (300, 0)


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server


def test_the_model_needs_no_table(capsys: pytest.CaptureFixture[str]) -> None:
    call_command("dumpdata", "djpyfs", "--all")
    assert capsys.readouterr().out.strip() == "[]"


def test_the_page_shows_no_secret(
    viewer: Client, djfs: Callable[..., None], redis_server: RedisServer
) -> None:
    s3 = {"type": "s3fs", "bucket": "b", "endpoint_url": "http://127.0.0.1:1"}
    keys = {"aws_access_key_id": "sesame", "aws_secret_access_key": "sesame"}
    for port in redis_server.port, 1:
        djfs(**s3, **keys, redis_url=f"redis://:sesame@127.0.0.1:{port}/0?socket_timeout=2")
        answer = viewer.get(PAGE, {"namespace": "plots"})
        assert "sesame" not in answer.content.decode() + str(answer.headers)


@pytest.mark.parametrize("language", ["en", "de"])
def test_makemigrations_has_nothing_to_write(settings: Any, language: str) -> None:
    settings.LANGUAGE_CODE = language
    call_command("makemigrations", "djpyfs", "--check", "--dry-run", verbosity=0)


@pytest.mark.parametrize("hold", [False, True])
def test_rows_of_other_models_are_shown_even_if_their_files_have_expired(
    djfs: Callable[..., None], settings: Any, records: dict[str, Any], hold: bool
) -> None:
    from demo.models import Upload

    djfs(type="memory", namespaces={"uploads": {"hold": hold}}, **records)
    site = admin.AdminSite()
    site.register(Upload, list_display=["seconds", "file"])
    settings.ROOT_URLCONF = (path("admin/", site.urls), path("f/", include("djpyfs.urls")))
    row = Upload.objects.create(file=ContentFile(b"content", "a.txt"))
    get_filesystem("uploads").expire(row.name, 0)
    client = logged_in("view_upload", "change_upload")
    if hold:
        assert expire_objects().deleted == 0
    for page in "", f"{row.pk}/change/":
        answer = client.get(f"/admin/demo/upload/{page}")
        assert answer.status_code == 200
        [url] = re.findall(r'href="(/f/.*?)"', answer.content.decode())
        assert client.get(url).status_code == 404


def test_a_site_that_asks_everybody_to_log_in_asks_nobody_who_has_a_link(
    djfs: Callable[..., None],
) -> None:
    djfs(type="memory")
    login = "django.contrib.auth.middleware.LoginRequiredMiddleware"
    files, metrics = include("djpyfs.urls"), include("djpyfs.metrics_urls")
    with override_settings(
        MIDDLEWARE=[*SITE["MIDDLEWARE"], login],
        ROOT_URLCONF=(path("f/", files), path("metrics", metrics)),
    ):
        target = get_filesystem("plots").get_upload_url(seconds=60, max_bytes=9)
        assert Client().put(target.url, b"picture").status_code == 201
        assert Client().get(get_filesystem("plots").get_url(target.path)).status_code == 200
        assert Client().get("/metrics").status_code == 404  # because they are off
