"""The numbers of the record store for Prometheus, read whenever they are asked for.

Works if ``prometheus_client`` is installed (the extra ``metrics``), and is harmless if not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from django.contrib.auth.decorators import login_not_required
from django.http import Http404, HttpRequest, HttpResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from . import conf
from .conf import SECOND
from .errors import ConfigurationError, RecordStoreError
from .expirations import Counts, store_for, total
from .expirations.totals import LATENESS, OUTCOMES, SWEEP_DURATION, Histogram
from .places import records_known

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import HistogramMetricFamily, Metric


class RecordStoreCollector:
    """Reports the state of the record store to a registry of ``prometheus_client``.

    Every process that registers one reports the same numbers, because they come from the store:
    scrape one of them.
    """

    def describe(self) -> list[Metric]:
        """Return nothing, so that registering asks nothing of the record store."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Read the numbers of all shards that can be read.

        Raises `RecordStoreError` if there are none.
        """
        settings = conf.current()
        known = records_known(settings)
        yield from _gauges(total(records.counts() for records in known.records), known.problems)
        try:
            totals = store_for(settings).totals()
        except RecordStoreError:  # in part they would look as if they had been reset
            return
        yield _deletions(totals)
        yield _histogram(
            "djpyfs_lateness_seconds",
            "How long after its deadline a file was claimed for deletion",
            LATENESS,
            totals,
        )
        yield _histogram(
            "djpyfs_sweep_duration_seconds",
            "How long sweeps took that had anything to do",
            SWEEP_DURATION,
            totals,
        )


@login_not_required
@never_cache
@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """Answer a scrape of Prometheus if ``DJFS["metrics"]`` is on; otherwise 404.

    While the record store cannot be read the answer is 503, so that Prometheus takes the target for
    down. Raises `ConfigurationError` if ``prometheus_client`` is not installed.
    """
    if not conf.current().metrics:
        raise Http404('DJFS["metrics"] is off')
    registry = _registry()
    from prometheus_client.exposition import choose_encoder

    encode, content_type = choose_encoder(request.headers.get("Accept", ""))
    try:
        return HttpResponse(encode(registry), content_type)
    except RecordStoreError:
        told = "The record store cannot be read: 'manage.py djpyfs status' says why\n"
        return HttpResponse(told, "text/plain; charset=utf-8", 503)


def _registry() -> CollectorRegistry:
    try:
        from prometheus_client import CollectorRegistry
    except ImportError as error:
        raise ConfigurationError(
            'DJFS["metrics"] is on, but prometheus_client is not installed: '
            "pip install djpyfs[metrics]"
        ) from error
    registry = CollectorRegistry()
    registry.register(RecordStoreCollector())
    return registry


def _gauges(counts: Counts, problems: Sequence[Exception]) -> Iterator[Metric]:
    from prometheus_client.core import GaugeMetricFamily

    yield GaugeMetricFamily(
        "djpyfs_files_tracked", "Files that wait for their deadline or a sweep", counts.tracked
    )
    yield GaugeMetricFamily(
        "djpyfs_files_overdue", "Of those tracked: their deadline has passed", counts.overdue
    )
    yield GaugeMetricFamily(
        "djpyfs_files_claimed", "Of those tracked: a sweep has claimed them", counts.claimed
    )
    waiting = GaugeMetricFamily(
        "djpyfs_files_waiting",
        "Of those tracked: past their deadline, and waiting for another try",
        labels=["state"],
    )
    for state in "retried", "held", "postponed":
        waiting.add_metric([state], getattr(counts, state))
    yield waiting
    yield GaugeMetricFamily(
        "djpyfs_files_set_aside", "Files whose deletion djpyfs has given up", counts.set_aside
    )
    yield GaugeMetricFamily(
        "djpyfs_oldest_overdue_seconds",
        "Time since the oldest deadline that has passed",
        counts.oldest / SECOND,
    )
    yield GaugeMetricFamily(
        "djpyfs_shards_unreadable",
        "Shards of places that cannot be read: their files are in no other number",
        len(problems),
    )


def _deletions(totals: dict[str, float]) -> Metric:
    from prometheus_client.core import CounterMetricFamily

    deletions = CounterMetricFamily(
        "djpyfs_deletions", "Files that were claimed for deletion", labels=["outcome"]
    )
    for outcome in OUTCOMES:
        deletions.add_metric([outcome], totals.get(outcome, 0))
    return deletions


def _histogram(
    name: str, meaning: str, histogram: Histogram, totals: dict[str, float]
) -> HistogramMetricFamily:
    from prometheus_client.core import HistogramMetricFamily

    buckets, total = histogram.read(totals)
    return HistogramMetricFamily(name, meaning, buckets, total)
