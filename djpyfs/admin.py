"""A page in the Django admin: what is tracked, what the sweeps did, and what was set aside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.timezone import localtime
from django.views.decorators.http import require_POST

from . import inspection
from .charts import Bar, Chart
from .errors import ConfigurationError, InvalidName, RecordStoreError
from .expirations import State
from .inspection import Horizon, Listing, Status, TrackedFile
from .models import ExpiringFile
from .phrases import duration
from .sweeper import recent_sweeps

FILES_SHOWN = 100
SET_ASIDE_SHOWN = 100
SWEEPS_SHOWN = 40
LOOKS = 200_000  # records that one search looks at: well below a second

HORIZONS = {
    "hour": (Horizon(timedelta(minutes=2), 30), "min"),
    "day": (Horizon(timedelta(hours=1), 24), "h"),
    "month": (Horizon(timedelta(days=1), 30), "d"),
}
UNITS = {"min": 60, "h": 3_600, "d": 86_400}
RETRIED, FORGOTTEN = "Due again, the next sweep tries", "Forgotten, what is there stays"

if TYPE_CHECKING:
    _ModelAdmin = admin.ModelAdmin[ExpiringFile]
else:
    _ModelAdmin = admin.ModelAdmin


@admin.register(ExpiringFile)
class ExpiringFileAdmin(_ModelAdmin):
    """The page. "View" shows it, "change" also allows to retry and to forget."""

    def get_urls(self) -> list[URLPattern]:
        """Return the page, under the name that the index links to, and what its buttons call."""
        view = self.admin_site.admin_view
        return [
            path("", view(self.changelist_view), name="djpyfs_expiringfile_changelist"),
            path(
                "release/",
                view(require_POST(self.release_view)),
                name="djpyfs_expiringfile_release",
            ),
        ]

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Nobody adds a file here."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody deletes a file here."""
        return False

    def changelist_view(
        self, request: HttpRequest, extra_context: Mapping[str, Any] | None = None
    ) -> HttpResponse:
        """Show the page; where the record store is away, say so with status 503."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        status, page = 200, _Page(request.GET)
        try:
            shown = page.context()
        except (RecordStoreError, ConfigurationError) as error:
            status, shown = 503, {"away": str(error)}
        context = {
            "title": "Deadlines and sweeps",
            "may_change": self.has_change_permission(request),
            **shown,
            **(extra_context or {}),
        }
        return self._rendered(request, "page", context, status)

    def release_view(self, request: HttpRequest) -> HttpResponse:
        """Retry or forget one file that was set aside, or retry all of them.

        Before a file is forgotten a page asks whether that is meant.
        """
        if not self.has_change_permission(request):
            raise PermissionDenied
        if _is_to_be_confirmed(request.POST):
            asked = {name: request.POST[name] for name in ("namespace", "path")}
            return self._rendered(request, "forget", {"title": "Are you sure?", **asked})
        try:
            released, done = _release(request.POST)
        except (RecordStoreError, ConfigurationError, InvalidName) as error:
            messages.error(request, str(error))
        else:
            self._tell(request, released, done)
        page = reverse("admin:djpyfs_expiringfile_changelist", current_app=self.admin_site.name)
        return redirect(page)

    def _rendered(
        self, request: HttpRequest, template: str, context: Mapping[str, Any], status: int = 200
    ) -> HttpResponse:
        context = {**self.admin_site.each_context(request), "opts": self.opts, **context}
        return TemplateResponse(request, f"admin/djpyfs/{template}.html", context, status=status)

    def _tell(self, request: HttpRequest, released: Sequence[str], done: str) -> None:
        if not released:
            messages.warning(request, "This is not set aside any more; nothing was done.")
            return
        what = released[0] if len(released) == 1 else f"{len(released):,} files"
        self.log_change(request, ExpiringFile(name=what), done)
        messages.success(request, f"{done}: {what}")


def _is_to_be_confirmed(chosen: Mapping[str, str]) -> bool:
    names = chosen.get("namespace") and chosen.get("path")
    return bool(names) and chosen.get("action") == "forget" and "sure" not in chosen


def _release(chosen: Mapping[str, str]) -> tuple[list[str], str]:
    """Do what a button says; return what it was done to, and what that means."""
    namespace, name = chosen.get("namespace", ""), chosen.get("path", "")
    named = {"namespace", "path"} <= chosen.keys()
    if named and chosen.get("action") == "forget":
        released, done = inspection.forget(namespace, [name]), FORGOTTEN
    elif named and chosen.get("action") == "retry":
        released, done = inspection.retry(namespace, [name]), RETRIED
    elif chosen.get("action") == "retry-all":
        released, done = inspection.retry(), RETRIED
    else:
        raise PermissionDenied
    return ["/".join(names) for names in released], done


class _Page:
    """What the page shows for a search."""

    def __init__(self, search: Mapping[str, str]) -> None:
        self.namespace = search.get("namespace", "")
        self.text = search.get("file", "")

    def context(self) -> dict[str, Any]:
        status = inspection.status()
        return {
            "page": self,
            "numbers": _numbers(status),
            "ahead": _charts_ahead(),
            "behind": _charts_behind(),
            "set_aside": inspection.files_set_aside(limit=SET_ASIDE_SHOWN).files,
            "set_aside_count": f"{status.set_aside:,}",
            "set_aside_more": status.set_aside > SET_ASIDE_SHOWN,
            **self._files(status),
        }

    def _files(self, status: Status) -> dict[str, Any]:
        if not self.namespace and not self.text:
            return {"files": [_row(file) for file in status.next_deadlines]}
        try:
            found = self._search()
        except InvalidName as error:
            return {"searched": True, "refused": str(error), "files": []}
        return {
            "searched": True,
            "files": [_row(file) for file in found.files],
            "incomplete": not found.complete,
            "looks": f"{LOOKS:,}",
        }

    def _search(self) -> Listing:
        found = inspection.tracked_files(self.namespace or None, FILES_SHOWN, LOOKS, self.text)
        if not (self.namespace and self.text) or self.namespace.endswith("/*"):
            return found
        # A whole name is found even where the search ends before it has seen all records.
        exact = inspection.tracked_file(self.namespace, self.text)
        if exact and exact.path not in {file.path for file in found.files}:
            return Listing([exact, *found.files], found.complete)
        return found


def _numbers(status: Status) -> list[tuple[str, str, str]]:
    oldest = (
        f"the oldest for {duration(status.oldest_overdue)}" if status.overdue else "all on time"
    )
    return [
        ("Tracked", f"{status.tracked:,}", "files with a deadline"),
        ("Overdue", f"{status.overdue:,}", oldest),
        ("Claimed", f"{status.claimed:,}", "a sweep is at them"),
        ("Set aside", f"{status.set_aside:,}", "deletions given up"),
    ]


def _charts_ahead() -> list[Chart]:
    counts = inspection.deadlines_ahead(*(horizon for horizon, _ in HORIZONS.values()))
    return [
        _chart_ahead(name, *HORIZONS[name], counted)
        for name, counted in zip(HORIZONS, counts, strict=True)
    ]


def _chart_ahead(name: str, horizon: Horizon, unit: str, counts: Sequence[int]) -> Chart:
    width = round(horizon.part.total_seconds() / UNITS[unit])
    bars = [
        Bar(f"in {part * width} to {(part + 1) * width} {unit}: {count:,} files", count)
        for part, count in enumerate(counts)
    ]
    return Chart(
        f"Deadlines in the next {name}",
        f"{sum(counts):,} files, at the most {max(counts):,} within {width} {unit}",
        bars,
        ("now", f"in {width * horizon.parts} {unit}"),
    )


def _charts_behind() -> list[Chart]:
    sweeps = recent_sweeps(SWEEPS_SHOWN)[::-1]
    if not sweeps:
        return []
    ends = (_moment(sweeps[0]["finished"]), _moment(sweeps[-1]["finished"]))
    return [_deletions(sweeps, ends), _lateness(sweeps, ends)]


def _deletions(sweeps: Sequence[Mapping[str, float]], ends: tuple[str, str]) -> Chart:
    bars = [
        Bar(
            f"{_moment(sweep['finished'])}: {sweep['deleted']:,} deleted, "
            f"{sweep['failed']:,} failed",
            sweep["deleted"],
            sweep["failed"],
        )
        for sweep in sweeps
    ]
    deleted, failed = sum(bar.value for bar in bars), sum(bar.alarm for bar in bars)
    return Chart(
        "Deletions of the last sweeps",
        f"{deleted:,} files deleted, {failed:,} deletions failed",
        bars,
        ends,
    )


def _lateness(sweeps: Sequence[Mapping[str, float]], ends: tuple[str, str]) -> Chart:
    bars = [
        Bar(f"{_moment(sweep['finished'])}: {sweep['lag']:,.1f} s late", sweep["lag"])
        for sweep in sweeps
    ]
    worst = max(bar.value for bar in bars)
    return Chart(
        "Lateness of the last sweeps, in seconds",
        f"the oldest file of a sweep was {worst:,.1f} s late at the most",
        bars,
        ends,
    )


def _row(file: TrackedFile) -> dict[str, Any]:
    return {"file": file, "life": _life(file), "late": file.remaining < 0}


def _life(file: TrackedFile) -> str:
    life = f"overdue for {duration(file.remaining)}" if file.remaining < 0 else ""
    state = {State.DUE: "", State.CLAIMED: "being deleted"}.get(file.state, file.state)
    return ", ".join(filter(None, (life or duration(file.remaining), state)))


def _moment(seconds: float) -> str:
    return f"{localtime(datetime.fromtimestamp(seconds, UTC)):%d %b %H:%M:%S}"
