"""The processes that make up the service: one list, for one machine and for containers.

``COMMANDS`` maps a service's name to its argument list. No shell is involved: an item may hold
``${NAME}``, which stands for an environment variable; ``DEFAULTS`` has the values for one machine.
``commands(environ)`` fills them in, so that a process manager can start the lists as they are and
docker-compose.yml can be held against them: ``commands(service_environment)["web"]`` is the
service's ``command``.

Everything else the processes need comes from the environment directly: the settings (see
demo/settings.py), who may log in (see demo/startup.py), ``WEB_CONCURRENCY`` (Gunicorn's number of
processes), ``FLOWER_BASIC_AUTH``, ``FLOWER_UNAUTHENTICATED_API``.
"""

from __future__ import annotations

from collections.abc import Mapping
from string import Template

COMMANDS: dict[str, tuple[str, ...]] = {
    "web": (
        "gunicorn",
        "demo.wsgi",
        "--config=python:demo.startup",
        "--bind=${WEB_ADDRESS}",
        "--threads=4",
        "--no-control-socket",
        "--log-level=${LOG_LEVEL}",
    ),
    "worker": (
        "celery",
        "--app=djpyfs_tasks",
        "worker",
        "--queues=djpyfs.sweep,djpyfs.one_shot",
        "--concurrency=2",
        "--task-events",
        "--loglevel=${LOG_LEVEL}",
    ),
    "beat": (
        "celery",
        "--app=djpyfs_tasks",
        "beat",
        "--schedule=${BEAT_SCHEDULE}",
        "--loglevel=${LOG_LEVEL}",
    ),
    "flower": (
        "celery",
        "--app=djpyfs_tasks",
        "flower",
        "--address=${FLOWER_ADDRESS}",
        "--port=${FLOWER_PORT}",
        "--tasks-columns=uuid,name,state,result,received,runtime,worker",
        "--logging=${LOG_LEVEL}",
    ),
}

DEFAULTS: dict[str, str] = {
    "WEB_ADDRESS": "127.0.0.1:8000",
    "FLOWER_ADDRESS": "127.0.0.1",
    "FLOWER_PORT": "5555",
    "BEAT_SCHEDULE": "celerybeat-schedule",
    "LOG_LEVEL": "info",
}


def commands(environ: Mapping[str, str]) -> dict[str, list[str]]:
    """The argument list of every service, with the values of ``environ`` filled in."""
    values = {**DEFAULTS, **environ}
    return {
        name: [Template(argument).substitute(values) for argument in arguments]
        for name, arguments in COMMANDS.items()
    }
