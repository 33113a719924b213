"""The service's processes, as tests start them: worker, beat and Flower, and clients of them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from celery import Celery
from celery.result import AsyncResult

from demo.services import commands
from tests.servers import HOST, PATIENCE, RedisServer, free_port, python, wait_for

CHECKOUT = Path(__file__).resolve().parent.parent
SWEEP = "djpyfs_tasks.expire_objects"
SWEEPS = "djpyfs.sweep"  # the queue


@contextlib.contextmanager
def started(
    command: list[str], environ: dict[str, str], log: Path, cwd: Path = CHECKOUT
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process of the service; kill it, with its children, at the end of the block."""
    program = Path(sys.executable).with_name(command[0])
    with (
        log.open("ab") as output,
        subprocess.Popen(
            [str(program), *command[1:]],
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": str(CHECKOUT), **environ},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process,
    ):
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


@contextlib.contextmanager
def running(
    command: list[str], environ: dict[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process of the service, which has to last as long as the block does."""
    with started(command, environ, log) as process:
        yield process
        assert process.poll() is None, f"{command} ended unasked:\n{log.read_text()}"
        if "worker" not in command:  # that takes seconds to end in peace
            process.terminate()
            process.wait(PATIENCE)


class Service:
    """What one service's processes share, and what a client sees of them."""

    def __init__(self, directory: Path, redis: RedisServer, **djfs: Any) -> None:
        self.directory = directory
        self.redis = redis
        self.djfs = {
            "type": "osfs",
            "directory_root": str(directory / "files"),
            "url_root": "/files/",
            "redis_url": redis.url,
            "sweep_interval": 1,
            **djfs,
        }
        self.flower_port = free_port()
        self.celery = Celery("client", broker=redis.url, backend=redis.url, set_as_current=False)

    def environ(self, **djfs: Any) -> dict[str, str]:
        return {
            "DJANGO_SETTINGS_MODULE": "tests.service_settings",
            "SETTINGS": json.dumps({"DJFS": {**self.djfs, **djfs}}),
            "FLOWER_ADDRESS": HOST,
            "FLOWER_PORT": str(self.flower_port),
            "FLOWER_UNAUTHENTICATED_API": "true",
            # Otherwise a worker that takes pickle would not even start if root runs the tests.
            "C_FORCE_ROOT": "1",
            "BEAT_SCHEDULE": str(self.directory / f"beat-{uuid.uuid4().hex}"),
        }

    def log(self, name: str) -> Path:
        return self.directory / f"{name}.log"

    @contextlib.contextmanager
    def process(self, name: str, **environ: str) -> Iterator[subprocess.Popen[bytes]]:
        environ = self.environ() | environ
        log = self.log(f"{name}-{uuid.uuid4().hex}" if name == "beat" else name)
        with running(commands(environ)[name], environ, log) as process:
            yield process

    @contextlib.contextmanager
    def victim(self, name: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run a process that is killed at the end of the block."""
        environ = self.environ()
        with started(commands(environ)[name], environ, self.log(name)) as process:
            yield process

    def flower(self, path: str) -> Any:
        with urlopen(f"http://{HOST}:{self.flower_port}/api/{path}", timeout=PATIENCE) as answer:
            return json.load(answer)

    def flower_shows_a_worker(self) -> bool:
        with contextlib.suppress(OSError):
            return any(self.flower("workers?status=true").values())
        return False

    def wait_for_workers(self, number: int = 1) -> None:
        """Wait until so many workers take tasks."""

        def answer() -> bool:
            # Without the limit each question takes all its time.
            answers = self.celery.control.ping(timeout=1, limit=number)
            return len(answers or ()) == number

        wait_for(answer, what="the worker")

    def sweep(self) -> AsyncResult[dict[str, float]]:
        return self.celery.send_task(SWEEP, queue=SWEEPS)

    def wait_until_idle(self) -> None:
        """Wait for the end of all sweeps, including those that Flower has yet to hear of."""
        last = self.sweep().id

        def is_idle() -> bool:
            states = {
                id_: it["state"] for id_, it in self.flower(f"tasks?taskname={SWEEP}").items()
            }
            return last in states and {*states.values()} <= {"SUCCESS", "FAILURE", "REVOKED"}

        wait_for(is_idle, what="the end of all sweeps")

    def close(self) -> None:
        self.celery.close()


def run_client(code: str, environ: dict[str, str]) -> str:
    """Run code as a web process would, to its end; return what it prints."""
    process = python(f"import django; django.setup()\n{code}", **environ)
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    return output.decode()
