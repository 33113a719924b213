"""A page in the Django admin: what is tracked, what the sweeps did, and what was set aside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.timezone import get_current_timezone_name, localtime
from django.views.decorators.http import require_POST

from . import conf, inspection
from .charts import Bar, Chart
from .errors import ConfigurationError, InvalidName, RecordStoreError
from .expirations import State
from .inspection import Horizon, Listing, SetAside, SetAsideFile, Status, TrackedFile
from .models import ExpiringFile
from .phrases import counted, duration, moment
from .sweeper import recent_sweeps

FILES_SHOWN = 100
SET_ASIDE_SHOWN = 100
NAMES_SHOWN = 20  # where it is asked whether they are meant
NAMESPACES_SHOWN = 10
SWEEPS_SHOWN = 40
LOOKS = 200_000  # records that one search looks at: well below a second
LOOKS_FOR_NAMESPACES = 20_000
LOOKS_SET_ASIDE = 20_000
# Sweeps by which the oldest file may be late, before that is shown in red.
LATE = 3

HORIZONS = {
    "hour": (Horizon(timedelta(minutes=2), 30), "min"),
    "day": (Horizon(timedelta(hours=1), 24), "h"),
    "month": (Horizon(timedelta(days=1), 30), "d"),
}
UNITS = {"min": 60, "h": 3_600, "d": 86_400}
ACTIONS = {
    "retry": (inspection.retry, "Due again, the next sweep tries"),
    "forget": (inspection.forget, "Forgotten, what is there stays"),
}

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
        status, page = 200, _Page(_Search.of(request.GET), request.GET.get("p", "1"))
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
        """Retry or forget the files set aside that were chosen, or all that a search finds.

        Before files are forgotten a page asks whether that is meant. Leads back to the page, as
        it was searched.
        """
        if not self.has_change_permission(request):
            raise PermissionDenied
        search, action = _Search.of(request.GET), request.POST.get("action", "")
        if action and action not in ACTIONS:
            raise PermissionDenied
        names = request.POST.getlist(ACTION_CHECKBOX_NAME)
        try:
            if across := request.POST.get("select_across") == "1":
                names = [_name(file) for file in search.set_aside().files]
            if not action or not names:
                messages.warning(request, "Choose files and an action: nothing was done.")
            elif action == "forget" and "sure" not in request.POST:
                return self._asked(request, names, across)
            else:
                self._tell(request, names, _release(action, names), ACTIONS[action][1])
        except (RecordStoreError, ConfigurationError, InvalidName) as error:
            messages.error(request, str(error))
        page = reverse("admin:djpyfs_expiringfile_changelist", current_app=self.admin_site.name)
        query = request.GET.urlencode()
        return redirect(f"{page}?{query}#djpyfs-set-aside" if query else page)

    def _asked(self, request: HttpRequest, names: Sequence[str], across: bool) -> TemplateResponse:
        context = {
            "across": across,
            "title": "Are you sure?",
            "query": request.GET.urlencode(),
            "names": names,
            "shown": names[:NAMES_SHOWN],
            "more": len(names) - NAMES_SHOWN,
            "action_checkbox_name": ACTION_CHECKBOX_NAME,
        }
        return self._rendered(request, "forget", context)

    def _rendered(
        self, request: HttpRequest, template: str, context: Mapping[str, Any], status: int = 200
    ) -> TemplateResponse:
        context = {**self.admin_site.each_context(request), "opts": self.opts, **context}
        return TemplateResponse(request, f"admin/djpyfs/{template}.html", context, status=status)

    def _tell(
        self, request: HttpRequest, names: Sequence[str], released: Sequence[str], done: str
    ) -> None:
        if released:
            what = released[0] if len(released) == 1 else counted(len(released), "file")
            self.log_change(request, ExpiringFile(name=what), done)
            messages.success(request, f"{done}: {what}")
        if left := len(set(names)) - len(released):
            are = "is" if left == 1 else "are"
            messages.warning(
                request,
                f"{counted(left, 'file')} {are} not set aside any more; nothing was done to that.",
            )


def _name(file: SetAsideFile) -> str:
    return f"{file.namespace}/{file.path}"


def _release(action: str, names: Sequence[str]) -> list[str]:
    """Do what an action says to files set aside; return the names of those that were."""
    paths: dict[str, list[str]] = {}
    for name in names:
        namespace, _, path_ = name.rpartition("/")
        paths.setdefault(namespace, []).append(path_)
    release, _ = ACTIONS[action]
    done = (released for where, own in paths.items() for released in release(where, own))
    return ["/".join(released) for released in done]


class _Search(NamedTuple):
    """What somebody looks for."""

    namespace: str
    text: str

    @classmethod
    def of(cls, query: Mapping[str, str]) -> _Search:
        return cls(query.get("namespace", ""), query.get("file", ""))

    def set_aside(self) -> SetAside:
        """Return what was set aside. Raises `InvalidName`."""
        looks = LOOKS_SET_ASIDE
        return inspection.files_set_aside(self.namespace or None, looks, looks, self.text)

    def tracked(self) -> Listing:
        """Return what has a deadline. Raises `InvalidName`."""
        found = inspection.tracked_files(self.namespace or None, FILES_SHOWN, LOOKS, self.text)
        if not (self.namespace and self.text) or self.namespace.endswith("/*"):
            return found
        # A whole name is found even where the search ends before it has seen all records.
        exact = inspection.tracked_file(self.namespace, self.text)
        if exact and exact.path not in {file.path for file in found.files}:
            return Listing([exact, *found.files], found.complete)
        return found


class _Page:
    """What the page shows for a search."""

    def __init__(self, search: _Search, number: str) -> None:
        self.search = search
        self.number = number

    def _query(self, **more: str) -> str:
        """Return the search as the query of an address, or nothing."""
        query = QueryDict(mutable=True)
        given = {"namespace": self.search.namespace, "file": self.search.text, **more}
        query.update({key: value for key, value in given.items() if value})
        return query.urlencode()

    def context(self) -> dict[str, Any]:
        status = inspection.status()
        return {
            "search": self.search,
            "query": self._query(),
            "here": self._query(p=self.number if self.number != "1" else ""),
            "searched": any(self.search),
            "now": moment(datetime.now(UTC)),
            "time_zone": get_current_timezone_name(),
            "numbers": _numbers(status),
            "elsewhere": [(name, f"{count:,}") for name, count in status.elsewhere.items()],
            "namespaces": _namespaces(),
            "ahead": _charts_ahead(),
            "behind": _charts_behind(),
            "looks": f"{LOOKS:,}",
            **self._files(status),
        }

    def _files(self, status: Status) -> dict[str, Any]:
        try:
            return {**self._tracked(status), **self._set_aside()}
        except InvalidName as error:
            return {"refused": str(error)}

    def _tracked(self, status: Status) -> dict[str, Any]:
        if not any(self.search):
            return {"files": [_row(file) for file in status.next_deadlines]}
        found = self.search.tracked()
        return {"files": [_row(file) for file in found.files], "incomplete": not found.complete}

    def _set_aside(self) -> dict[str, Any]:
        found = self.search.set_aside()
        pages = Paginator(found.files, SET_ASIDE_SHOWN)
        page = pages.get_page(self.number)
        rows = [
            {"file": file, "name": _name(file), "since": moment(file.at)}
            for file in page.object_list
        ]
        return {
            "set_aside": rows,
            "set_aside_count": pages.count,
            "set_aside_text": counted(pages.count, "file"),
            "set_aside_incomplete": not found.complete,
            "pages": list(pages.get_elided_page_range(page.number)) if pages.num_pages > 1 else [],
            "page": page,
            "action_checkbox_name": ACTION_CHECKBOX_NAME,
        }


class Number(NamedTuple):
    """One of the numbers at the top; what is wrong is red, and leads to where it is listed."""

    name: str
    number: str
    remark: str
    wrong: bool = False
    anchor: str = ""


def _numbers(status: Status) -> list[Number]:
    late = status.oldest_overdue > LATE * conf.current().sweep_interval
    oldest = f"the oldest for {duration(status.oldest_overdue)}" if status.overdue else ""
    waiting = [
        ("Retried", status.retried, "a deletion has failed", True),
        ("On hold", status.held, "nothing is deleted there", False),
        ("Postponed", status.postponed, "their back-end is away", True),
    ]
    files = "djpyfs-files"
    return [
        Number("Tracked", f"{status.tracked:,}", "files with a deadline"),
        Number("Overdue", f"{status.overdue:,}", oldest or "all on time", late, files),
        *(Number(name, f"{n:,}", remark, bad, files) for name, n, remark, bad in waiting if n),
        Number("Claimed", f"{status.claimed:,}", "a sweep is at them"),
        Number(
            "Set aside",
            f"{status.set_aside:,}",
            "deletions given up",
            status.set_aside > 0,
            "djpyfs-set-aside",
        ),
    ]


def _namespaces() -> dict[str, Any]:
    sample = inspection.sample(LOOKS_FOR_NAMESPACES, NAMESPACES_SHOWN)
    rows = [
        {
            "name": name,
            "files": f"{share.files:,}",
            "overdue": f"{share.overdue:,}" if share.overdue else "",
            "set_aside": f"{share.set_aside:,}" if share.set_aside else "",
        }
        for name, share in sample.by_prefix.items()
    ]
    return {
        "rows": rows,
        "complete": sample.complete,
        "records": f"{sample.records:,}",
        "more": counted(sample.more, "more namespace") if sample.more else "",
    }


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
    deadline, late = moment(file.deadline), file.remaining < 0
    return {"file": file, "deadline": deadline, "life": _life(file), "late": late}


def _life(file: TrackedFile) -> str:
    life = f"overdue for {duration(file.remaining)}" if file.remaining < 0 else ""
    state = {State.DUE: "", State.CLAIMED: "being deleted"}.get(file.state, file.state)
    return ", ".join(filter(None, (life or duration(file.remaining), state)))


def _moment(seconds: float) -> str:
    return f"{localtime(datetime.fromtimestamp(seconds, UTC)):%d %b %H:%M:%S}"
