"""docker-compose.yml, held against its specification, .env.example and the one list of commands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from demo.services import COMMANDS, commands

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
ONCE = {"certificate"}  # ends when it is done

# Where the processes listen and write in a container.
IN_CONTAINERS = {
    "WEB_ADDRESS": "0.0.0.0:8000",
    "FLOWER_ADDRESS": "0.0.0.0",
    "BEAT_SCHEDULE": "/tmp/celerybeat-schedule",
}


def filled_in(value: str) -> str:
    """``value`` with Compose's ``${NAME:-default}``; what has no default becomes "secret"."""
    return re.sub(r"\$\{\w+:(?:-([^}]*)|\?[^}]*)\}", lambda match: match[1] or "secret", value)


def test_the_file_conforms_to_the_compose_specification() -> None:
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    result = subprocess.run(
        [*check, str(ROOT / "docker-compose.yml")], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_a_container_runs_the_command_of_the_one_list(name: str) -> None:
    assert SERVICES[name]["command"] == commands(IN_CONTAINERS)[name]


def test_redis_keeps_its_records_through_restarts_and_evicts_none() -> None:
    command = SERVICES["redis"]["command"]
    options = dict(pairwise(command))
    assert options["--appendonly"] == "yes"
    assert options["--maxmemory-policy"] == "noeviction"
    assert "redis-data:/data" in SERVICES["redis"]["volumes"]


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_published_to_this_machine_alone(name: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))


@pytest.mark.parametrize("name", [name for name in SERVICES if name not in ONCE])
def test_every_service_is_watched_and_started_again(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"]
    assert SERVICES[name]["restart"] == "unless-stopped"


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_waits_until_those_it_needs_are_healthy(name: str) -> None:
    needs = SERVICES[name].get("depends_on", {})
    ready = {name: "completed_successfully" if name in ONCE else "healthy" for name in SERVICES}
    for needed, need in needs.items():
        assert need == {"condition": f"service_{ready[needed]}"}


def test_redis_alone_has_its_key_and_its_clients_have_the_certificate() -> None:
    def who_has(volume: str) -> set[str]:
        mounts = {name: own.get("volumes", []) for name, own in SERVICES.items()}
        return {name for name, own in mounts.items() if any(m.startswith(volume) for m in own)}

    assert who_has("redis-key:") == {"certificate", "redis"}
    assert who_has("redis-certificate:") == {"certificate", "redis", *COMMANDS}
    for name in COMMANDS:
        assert SERVICES[name]["environment"]["DJFS_REDIS_URL"].startswith("rediss://")
        assert "redis-certificate:/certificate:ro" in SERVICES[name]["volumes"]


def test_flower_asks_for_a_password_that_has_no_default() -> None:
    basic_auth = SERVICES["flower"]["environment"]["FLOWER_BASIC_AUTH"]
    assert re.search(r":\$\{FLOWER_PASSWORD:\?", basic_auth)
    assert "FLOWER_UNAUTHENTICATED_API" not in SERVICES["flower"]["environment"]


@pytest.mark.parametrize("name", ["web", "worker"])
def test_every_service_that_opens_the_database_has_its_volume(name: str) -> None:
    directory = Path(SERVICES[name]["environment"]["DJANGO_DATABASE"]).parent
    assert f"site-data:{directory}" in SERVICES[name]["volumes"]
    assert f"--owner=djpyfs {directory}\n" in (ROOT / "Dockerfile").read_text()


def test_the_password_of_the_admin_has_no_default_and_only_the_site_knows_it() -> None:
    knows = [name for name in SERVICES if "ADMIN_PASSWORD" in str(SERVICES[name])]
    assert knows == ["web"]
    password = SERVICES["web"]["environment"]["DJANGO_ADMIN_PASSWORD"]
    assert re.match(r"\$\{ADMIN_PASSWORD:\?", password)


@pytest.fixture
def example() -> str:
    return (ROOT / ".env.example").read_text()


def test_the_example_of_the_settings_names_exactly_what_the_file_takes(example: str) -> None:
    assert set(re.findall(r"^#?(\w+)=", example, re.M)) == set(re.findall(r"\$\{(\w+)", TEXT))


def test_the_example_shows_the_defaults_and_no_secret(example: str) -> None:
    shown = dict(re.findall(r"^#(\w+)=(.+)$", example, re.M))
    assert shown == dict(re.findall(r"\$\{(\w+):-([^}]*)\}", TEXT))
    assert set(re.findall(r"^(\w+)=$", example, re.M)) == set(re.findall(r"\$\{(\w+):\?", TEXT))


def test_the_site_takes_the_settings_that_its_container_has() -> None:
    variables = SERVICES["web"]["environment"]
    environment = {name: filled_in(str(value)) for name, value in variables.items()}
    open_one = "import django; django.setup(); import djpyfs; djpyfs.get_filesystem('plots')"
    result = subprocess.run(
        [sys.executable, "-c", open_one],
        env={"PATH": os.environ["PATH"], "DJANGO_SETTINGS_MODULE": "demo.settings", **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr


def test_the_health_check_reaches_the_site_whatever_its_public_host_is() -> None:
    allowed = SERVICES["web"]["environment"]["DJANGO_ALLOWED_HOSTS"]
    [called] = re.findall(r"http://([^:/]+):", SERVICES["web"]["healthcheck"]["test"][-1])
    assert called in re.sub(r"\$\{[^}]*\}", "example.org", allowed).split(",")


def test_prometheus_reads_its_rules_and_finds_a_site_that_answers() -> None:
    config = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())
    assert "./deploy/prometheus:/etc/prometheus:ro" in SERVICES["prometheus"]["volumes"]
    assert all((ROOT / "deploy" / "prometheus" / rules).is_file() for rules in config["rule_files"])
    [scrape] = config["scrape_configs"]
    [target] = scrape["static_configs"][0]["targets"]
    host, _, port = target.partition(":")
    assert SERVICES[host]["command"] == commands(IN_CONTAINERS)["web"]
    assert IN_CONTAINERS["WEB_ADDRESS"].endswith(f":{port}")
    environment = SERVICES[host]["environment"]
    assert environment["DJFS_METRICS"] == "1"
    assert host in filled_in(environment["DJANGO_ALLOWED_HOSTS"]).split(",")
