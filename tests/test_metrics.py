"""Numbers for Prometheus: what is counted, by whom, and what a scrape is answered with."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
import yaml
from django.core.checks import run_checks
from django.test import Client
from django.urls import include, path
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from djpyfs import ConfigurationError, conf, expire_objects, get_filesystem
from djpyfs.conf import SECOND
from djpyfs.expirations import store_for
from djpyfs.expirations.totals import LATENESS, OUTCOMES
from djpyfs.metrics import RecordStoreCollector
from djpyfs.sweeper import delete_if_due, sweep
from tests.conftest import record_settings, records_here
from tests.servers import (
    HOST,
    PATIENCE,
    RedisServer,
    Server,
    free_port,
    installed,
    python,
    running_redis,
    running_site,
    wait_for,
)

urlpatterns = [path("metrics", include("djpyfs.metrics_urls"))]


@pytest.fixture(autouse=True)
def _included(settings: Any) -> None:
    settings.ROOT_URLCONF = __name__


@pytest.fixture(params=["memory", "redis", "redis-sharded"])
def measured(request: pytest.FixtureRequest, djfs: Callable[..., None]) -> Callable[..., None]:
    """Set ``DJFS`` with metrics on, on each record store; "bad" files cannot be deleted."""
    records = record_settings(request)

    def set_(**values: Any) -> None:
        brittle = "tests.test_sweep.BrittleBackend"
        djfs(**{"type": brittle, "metrics": True, **records, **values})

    set_()
    return set_


def overdue(*names: str, seconds: float = 0, namespace: str = "plots") -> None:
    """Make files that have been due for so many seconds."""
    files, store = get_filesystem(namespace), records_here(namespace)
    for name in names:
        files.writebytes(name, b"picture")
        member = f"{namespace}/{name}".encode()
        store.place_at(member, store.deadline(member)[0] - round(seconds * SECOND))


def numbers(**headers: str) -> dict[str, float]:
    """Scrape, and return every sample under its name with labels."""
    response = Client().get("/metrics", headers=headers)
    assert response.status_code == 200
    openmetrics = response["Content-Type"].startswith("application/openmetrics-text")
    parse = read_openmetrics if openmetrics else text_string_to_metric_families
    return {
        sample.name + "".join(f"{{{value}}}" for value in sample.labels.values()): sample.value
        for family in parse(response.content.decode())
        for sample in family.samples
    }


def deletions() -> dict[str, float]:
    found = numbers()
    return {outcome: found[f"djpyfs_deletions_total{{{outcome}}}"] for outcome in OUTCOMES}


# -- what is counted


def test_before_anything_happened_every_number_is_there_and_zero(
    measured: Callable[..., None],
) -> None:
    found = numbers()
    assert set(found.values()) == {0}
    assert {f"djpyfs_deletions_total{{{outcome}}}" for outcome in OUTCOMES} <= found.keys()
    assert {"djpyfs_lateness_seconds_count", "djpyfs_sweep_duration_seconds_sum"} <= found.keys()


def test_the_gauges_show_what_the_records_are_now(measured: Callable[..., None]) -> None:
    measured(max_attempts=1)
    overdue("bad one")
    expire_objects()
    overdue("a", "b", seconds=50)
    get_filesystem("plots").expire_many(["c", "d", "e"], 100)
    found = numbers()
    assert (found["djpyfs_files_tracked"], found["djpyfs_files_overdue"]) == (5, 2)
    assert (found["djpyfs_files_claimed"], found["djpyfs_files_set_aside"]) == (0, 1)
    assert 50 <= found["djpyfs_oldest_overdue_seconds"] < 110


def test_files_that_wait_for_a_retry_are_overdue_since_their_deadline(
    measured: Callable[..., None],
) -> None:
    away = {"type": "tests.test_sweep.AwayBackend"}
    measured(namespaces={"held": {"hold": True}, "away": away})
    for namespace, name in ("plots", "bad one"), ("held", "evidence"), ("away", "export"):
        overdue(name, namespace=namespace, seconds=500)
    expire_objects()
    found = numbers()
    states = "retried", "held", "postponed"
    assert [found[f"djpyfs_files_waiting{{{state}}}"] for state in states] == [1, 1, 1]
    assert found["djpyfs_files_overdue"] == 3
    assert 500 <= found["djpyfs_oldest_overdue_seconds"] < 560


def test_deletions_are_counted_by_outcome(measured: Callable[..., None]) -> None:
    away = {"type": "tests.test_sweep.AwayBackend"}
    measured(namespaces={"held": {"hold": True}, "away": away})
    overdue("a", "b", "bad one")
    get_filesystem("plots").expire_many(["never", "was", "there"], 0)
    overdue("evidence", namespace="held")
    overdue("export", "import", namespace="away")
    expire_objects()
    assert deletions() == {
        "deleted": 2,
        "missing": 3,
        "retried": 1,
        "set_aside": 0,
        "held": 1,
        "owned": 0,
        "postponed": 2,
    }


def test_deletions_that_were_given_up_are_counted(measured: Callable[..., None]) -> None:
    measured(max_attempts=1)
    overdue("bad one", "bad two", "c")
    expire_objects()
    assert (deletions()["set_aside"], deletions()["retried"], deletions()["deleted"]) == (2, 0, 1)


def test_every_batch_counts_as_soon_as_it_is_done(measured: Callable[..., None]) -> None:
    measured(batch_size=2)
    overdue(*"abcde")
    seen: list[float] = []
    sweep(on_batch=lambda report: seen.append(deletions()["deleted"] - report.deleted))
    assert set(seen) == {0}
    assert len(seen) >= 3


def test_one_shots_count_too(measured: Callable[..., None]) -> None:
    overdue("a", "bad one", seconds=7)
    for name in "a", "bad one":
        delete_if_due("plots", [name])
    found = numbers()
    assert (deletions()["deleted"], deletions()["retried"]) == (1, 1)
    assert 14 <= found["djpyfs_lateness_seconds_sum"] < 74
    assert found["djpyfs_sweep_duration_seconds_count"] == 0


def test_lateness_is_counted_by_its_length(measured: Callable[..., None]) -> None:
    overdue("a")
    overdue("b", "c", seconds=11)
    overdue("d", seconds=10**6)
    expire_objects()
    found = numbers()
    buckets = {
        le: found[f"djpyfs_lateness_seconds_bucket{{{le}}}"] for le in ("10.0", "30.0", "86400.0")
    }
    assert buckets == {"10.0": 1, "30.0": 3, "86400.0": 3}
    assert found["djpyfs_lateness_seconds_bucket{+Inf}"] == 4
    assert found["djpyfs_lateness_seconds_count"] == 4
    assert 10**6 + 22 <= found["djpyfs_lateness_seconds_sum"] < 10**6 + 140


def test_a_duration_that_meets_a_bound_counts_as_no_longer() -> None:
    tally = LATENESS.tally([2 * SECOND, 1 * SECOND, 5 * SECOND + 1], SECOND)
    buckets, total = LATENESS.read(tally)
    counts = dict(buckets)
    assert [counts[le] for le in ("0.5", "1.0", "2.0", "5.0", "10.0")] == [0, 1, 2, 2, 3]
    assert total == pytest.approx(8.000001)


def test_sweeps_that_did_something_are_counted_with_their_durations(
    measured: Callable[..., None],
) -> None:
    for name in "a", "b":
        overdue(name)
        report = expire_objects()
        expire_objects()  # finds nothing
    found = numbers()
    assert found["djpyfs_sweep_duration_seconds_count"] == 2
    assert report.duration < found["djpyfs_sweep_duration_seconds_sum"] < 60


SWEEP_ONCE = """
import sys, json
import django
from django.conf import settings
settings.DJFS = json.loads(sys.argv[1])
django.setup()
from djpyfs import expire_objects, get_filesystem
get_filesystem("plots").expire_many([f"{sys.argv[2]}-{n}" for n in range(100)], 0)
expire_objects()
"""


def test_the_totals_of_processes_that_are_gone_add_up(
    djfs: Callable[..., None], settings: Any, redis_server: RedisServer
) -> None:
    own = {"redis_url": redis_server.url, "key_prefix": "metrics-together", "batch_size": 30}
    djfs(type="memory", metrics=True, **own)
    sweepers = [python(SWEEP_ONCE, json.dumps(settings.DJFS), name) for name in "ab"]
    for sweeper in sweepers:
        sweeper.communicate()
        assert sweeper.returncode == 0
    assert deletions()["missing"] == numbers()["djpyfs_lateness_seconds_count"] == 200


def test_a_total_that_cannot_be_added_to_stops_no_sweep(
    djfs: Callable[..., None], redis_server: RedisServer
) -> None:
    djfs(type="memory", redis_url=redis_server.url, key_prefix="metrics-broken")
    redis_server.client().hset("metrics-broken:{00}:totals", "missing", "a word")
    get_filesystem("plots").expire("a", 0)
    assert expire_objects().missing == 1


def test_a_full_redis_keeps_no_sweep_from_its_work(djfs: Callable[..., None]) -> None:
    with running_redis() as server:
        djfs(type="tests.test_sweep.BrittleBackend", redis_url=server.url)
        overdue("a", "bad one")
        server.client().config_set("maxmemory", "1")
        report = expire_objects()
        assert (report.deleted, report.retried) == (1, 1)
        assert store_for(conf.current()).totals()["deleted"] == 1


# -- the endpoint


def test_the_endpoint_is_off_by_default(djfs: Callable[..., None]) -> None:
    djfs(type="memory")
    assert Client().get("/metrics").status_code == 404


def test_prometheus_gets_the_format_that_it_asks_for(measured: Callable[..., None]) -> None:
    overdue("a")
    expire_objects()
    accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
    assert numbers(accept=accept) == numbers(accept="text/plain;version=0.0.4") == numbers()


def test_nobody_may_cache_the_numbers_or_send_any(measured: Callable[..., None]) -> None:
    assert "no-store" in Client().get("/metrics")["Cache-Control"]
    assert Client().head("/metrics").status_code == 200
    assert Client().post("/metrics").status_code == 405


def test_while_redis_is_away_the_answer_is_503(djfs: Callable[..., None]) -> None:
    with running_redis() as server:
        djfs(type="memory", metrics=True, redis_url=server.url)
        assert Client().get("/metrics").status_code == 200
    answer = Client().get("/metrics")
    assert answer.status_code == 503
    assert str(server.port) not in answer.content.decode()


def test_a_registry_of_the_project_can_take_the_numbers_in(measured: Callable[..., None]) -> None:
    registry = CollectorRegistry(auto_describe=True)
    registry.register(RecordStoreCollector())
    get_filesystem("plots").expire("a", 100)
    assert registry.get_sample_value("djpyfs_files_tracked") == 1


def test_registering_asks_nothing_of_a_record_store_that_is_away(
    djfs: Callable[..., None],
) -> None:
    with running_redis() as server:
        djfs(type="memory", redis_url=server.url)
    CollectorRegistry(auto_describe=True).register(RecordStoreCollector())


# -- without prometheus_client


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in for an environment in which prometheus_client is not installed."""
    monkeypatch.setitem(sys.modules, "prometheus_client", None)


@pytest.mark.usefixtures("bare")
def test_without_prometheus_client_the_endpoint_names_the_cure(djfs: Callable[..., None]) -> None:
    djfs(type="memory", metrics=True)
    with pytest.raises(ConfigurationError, match=r"pip install djpyfs\[metrics\]"):
        Client().get("/metrics")


@pytest.mark.usefixtures("bare")
def test_without_prometheus_client_the_endpoint_can_be_off(djfs: Callable[..., None]) -> None:
    djfs(type="memory")
    assert Client().get("/metrics").status_code == 404


def test_the_checks_report_that_prometheus_client_is_missing(
    djfs: Callable[..., None], request: pytest.FixtureRequest
) -> None:
    djfs(type="memory", metrics=True)
    assert "djpyfs.W007" not in [message.id for message in run_checks()]
    request.getfixturevalue("bare")
    assert "djpyfs.W007" in [message.id for message in run_checks()]


# -- the files in deploy/

DEPLOY = Path(__file__).parent.parent / "deploy"
RULES = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())["groups"][0]["rules"]
DASHBOARD = json.loads((DEPLOY / "grafana" / "djpyfs.json").read_text())
QUERIES = [rule["expr"] for rule in RULES] + [
    target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]
]


def test_alerts_and_dashboard_ask_for_numbers_that_exist(measured: Callable[..., None]) -> None:
    told = {name.partition("{")[0] for name in numbers()}
    asked = {name for query in QUERIES for name in re.findall(r"\bdjpyfs_\w+", query)}
    assert asked <= told


def test_the_dashboard_shows_every_family_of_numbers(measured: Callable[..., None]) -> None:
    families = text_string_to_metric_families(Client().get("/metrics").content.decode())
    shown = " ".join(target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"])
    assert [family.name for family in families if family.name not in shown] == []


def test_alerts_name_outcomes_that_exist() -> None:
    named = re.findall(r'outcome[!=~]+"([^"]+)"', " ".join(QUERIES))
    assert named
    assert {outcome for names in named for outcome in names.split("|")} <= set(OUTCOMES)


def _is_ready(port: int) -> bool:
    try:
        urlopen(f"http://{HOST}:{port}/-/ready", timeout=PATIENCE).close()
    except HTTPError as error:  # it listens before it has read what it keeps
        error.close()
        return False
    except OSError:
        return False
    return True


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[int]:
    """A Prometheus with the rules of deploy/ that scrapes this process; its port."""
    with running_site() as port:
        config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "3s", "evaluation_interval": "200ms"}
        config["scrape_configs"][0]["static_configs"] = [{"targets": [f"{HOST}:{port}"]}]
        config["rule_files"] = [str(DEPLOY / "prometheus" / "alerts.yml")]
        (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
        own = free_port()
        arguments = [
            f"--config.file={tmp_path / 'prometheus.yml'}",
            f"--storage.tsdb.path={tmp_path / 'data'}",
            f"--web.listen-address={HOST}:{own}",
        ]
        server = Server([installed("prometheus"), *arguments], own)
        server.start()
        try:
            wait_for(lambda: _is_ready(own), what="Prometheus")
            yield own
        finally:
            server.stop()


def test_prometheus_itself_scrapes_takes_every_query_and_raises_an_alert(
    djfs: Callable[..., None], settings: Any, prometheus: int
) -> None:
    settings.ALLOWED_HOSTS = [HOST]
    djfs(type="tests.test_sweep.BrittleBackend", metrics=True, max_attempts=1)
    overdue("bad one")
    expire_objects()

    def ask(what: str, **query: str) -> Any:
        address = f"http://{HOST}:{prometheus}/api/v1/{what}?{urlencode(query)}"
        with urlopen(address, timeout=PATIENCE) as answer:
            return json.load(answer)["data"]

    def alerts() -> set[tuple[str, str]]:
        return {(it["labels"]["alertname"], it["state"]) for it in ask("alerts")["alerts"]}

    wait_for(lambda: ("DjpyfsFilesSetAside", "firing") in alerts(), what="the alert")
    wait_for(lambda: "DjpyfsDown" not in {name for name, _ in alerts()}, what="a good scrape")
    for query in QUERIES:
        ask("query", query=query.replace("$__rate_interval", "1m"))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_every_alert_says_how_severe_it_is_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("warning", "critical")
    assert rule["annotations"]["summary"]
    assert rule["annotations"]["description"]


def test_no_two_panels_of_the_dashboard_overlap() -> None:
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in DASHBOARD["panels"])
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
