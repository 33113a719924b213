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
from django.utils.formats import date_format, number_format
from django.utils.timezone import get_current_timezone_name, localtime
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from django.views.decorators.http import require_POST

from . import conf, inspection
from .charts import Bar, Chart
from .errors import ConfigurationError, InvalidName, RecordStoreError
from .expirations import State
from .inspection import Horizon, Listing, SetAside, SetAsideFile, Status, TrackedFile
from .models import ExpiringFile
from .phrases import duration, moment
from .sweeper import recent_sweeps

FILES_SHOWN = 100
SET_ASIDE_SHOWN = 100
NAMES_SHOWN = 20  # on the page that asks for confirmation
NAMESPACES_SHOWN = 10
SWEEPS_SHOWN = 40
LOOKS = 200_000  # records that one search looks at: well below a second
LOOKS_FOR_NAMESPACES = 20_000
LOOKS_SET_ASIDE = 20_000
# How many sweeps late the oldest file may be before the page shows that in red.
LATE = 3

HORIZONS = [
    (gettext_lazy("Deadlines in the next hour"), Horizon(timedelta(minutes=2), 30), "min"),
    (gettext_lazy("Deadlines in the next day"), Horizon(timedelta(hours=1), 24), "h"),
    (gettext_lazy("Deadlines in the next month"), Horizon(timedelta(days=1), 30), "d"),
]
UNITS = {"min": 60, "h": 3_600, "d": 86_400}
ACTIONS = {
    "retry": (inspection.retry, gettext_lazy("Due again for the next sweep")),
    "forget": (inspection.forget, gettext_lazy("Forgotten; the files stay")),
}
# What the page says of a file's state, beside its remaining life.
STATES = {
    State.CLAIMED: gettext_lazy("being deleted"),
    State.RETRIED: gettext_lazy("retried"),
    State.HELD: gettext_lazy("held"),
    State.POSTPONED: gettext_lazy("postponed"),
    State.SET_ASIDE: gettext_lazy("set aside"),
}

if TYPE_CHECKING:
    _ModelAdmin = admin.ModelAdmin[ExpiringFile]
else:
    _ModelAdmin = admin.ModelAdmin


@admin.register(ExpiringFile)
class ExpiringFileAdmin(_ModelAdmin):
    """The page. "View" shows it; "change" also allows retrying and forgetting."""

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
        """Show the page; if the record store is away, say so with status 503."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        status, page = 200, _Page(_Search.of(request.GET), request.GET.get("p", "1"))
        try:
            shown = page.context()
        except (RecordStoreError, ConfigurationError) as error:
            status, shown = 503, {"away": str(error)}
        context = {
            "title": _("Deadlines and sweeps"),
            "may_change": self.has_change_permission(request),
            **shown,
            **(extra_context or {}),
        }
        return self._rendered(request, "page", context, status)

    def release_view(self, request: HttpRequest) -> HttpResponse:
        """Retry or forget the files set aside that were chosen, or all that a search finds.

        Before files are forgotten a page asks for confirmation. Redirects to the page with the same
        search.
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
                messages.warning(request, _("Choose files and an action: nothing was done."))
            elif action == "forget" and "sure" not in request.POST:
                return self._asked(request, names, across)
            else:
                self._tell(request, names, _release(action, names), str(ACTIONS[action][1]))
        except (RecordStoreError, ConfigurationError, InvalidName) as error:
            messages.error(request, str(error))
        page = reverse("admin:djpyfs_expiringfile_changelist", current_app=self.admin_site.name)
        query = request.GET.urlencode()
        return redirect(f"{page}?{query}#djpyfs-set-aside" if query else page)

    def _asked(self, request: HttpRequest, names: Sequence[str], across: bool) -> TemplateResponse:
        context = {
            "across": across,
            "title": _("Are you sure?"),
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
            what = released[0] if len(released) == 1 else _files(len(released))
            self.log_change(request, ExpiringFile(name=what), done)
            messages.success(request, f"{done}: {what}")
        if left := len(set(names)) - len(released):
            told = ngettext(
                "%(count)s file is not set aside any more; nothing was done to it.",
                "%(count)s files are not set aside any more; nothing was done to them.",
                left,
            )
            messages.warning(request, told % {"count": _number(left)})


def _name(file: SetAsideFile) -> str:
    return f"{file.namespace}/{file.path}"


def _release(action: str, names: Sequence[str]) -> list[str]:
    """Do what an action says to files set aside; return the names of those that were."""
    release, _ = ACTIONS[action]
    parted = [(namespace, path_) for namespace, _, path_ in (it.rpartition("/") for it in names)]
    return ["/".join(released) for released in release(names=parted)]


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
        one_file = self.namespace and self.text and not self.namespace.endswith("/*")
        if not one_file or found.unreadable:
            return found
        # A whole name is found even if the search ends before it has seen all records.
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
        """Return the search as the query of a URL, or nothing."""
        query = QueryDict(mutable=True)
        given = {"namespace": self.search.namespace, "file": self.search.text, **more}
        query.update({key: value for key, value in given.items() if value})
        return query.urlencode()

    def context(self) -> dict[str, Any]:
        status = inspection.status()
        unreadable = dict.fromkeys(status.unreadable)
        behind: list[Chart] | None
        try:
            behind = _charts_behind()
        except RecordStoreError as error:  # only one shard keeps the reports of sweeps
            behind, unreadable = None, unreadable | {str(error): None}
        return {
            "unreadable": list(unreadable),
            "search": self.search,
            "query": self._query(),
            "here": self._query(p=self.number if self.number != "1" else ""),
            "searched": any(self.search),
            "now": moment(datetime.now(UTC)),
            "time_zone": get_current_timezone_name(),
            "numbers": _numbers(status),
            "elsewhere": [(name, _number(count)) for name, count in status.elsewhere.items()],
            "namespaces": _namespaces(),
            "ahead": _charts_ahead(),
            "behind": behind,
            "looks": _number(LOOKS),
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
            "set_aside_text": _files(pages.count),
            "set_aside_incomplete": not found.complete,
            "pages": list(pages.get_elided_page_range(page.number)) if pages.num_pages > 1 else [],
            "page": page,
            "action_checkbox_name": ACTION_CHECKBOX_NAME,
        }


class Number(NamedTuple):
    """One of the numbers at the top; a problem is red, and links to the list of its files."""

    name: str
    number: str
    remark: str
    wrong: bool = False
    anchor: str = ""


def _numbers(status: Status) -> list[Number]:
    late = status.oldest_overdue > LATE * conf.current().sweep_interval
    since = {"duration": duration(status.oldest_overdue)}
    oldest = _("the oldest for %(duration)s") % since if status.overdue else _("all on time")
    waiting = [
        (_("Retried"), status.retried, _("a deletion has failed"), True),
        (_("On hold"), status.held, _("nothing is deleted there"), False),
        (
            _("Postponed"),
            status.postponed,
            _("their backend is away, or who owns them is not known"),
            True,
        ),
    ]
    files = "djpyfs-files"
    return [
        Number(_("Tracked"), _number(status.tracked), _("files with a deadline")),
        Number(_("Overdue"), _number(status.overdue), oldest, late, files),
        *(Number(name, _number(n), remark, bad, files) for name, n, remark, bad in waiting if n),
        Number(_("Claimed"), _number(status.claimed), _("by a sweep")),
        Number(
            _("Set aside"),
            _number(status.set_aside),
            _("deletions given up"),
            status.set_aside > 0,
            "djpyfs-set-aside",
        ),
    ]


def _namespaces() -> dict[str, Any]:
    sample = inspection.sample(LOOKS_FOR_NAMESPACES, NAMESPACES_SHOWN)
    rows = [
        {
            "name": name,
            "files": _number(share.files),
            "overdue": _number(share.overdue),
            "set_aside": _number(share.set_aside) if share.set_aside else "",
        }
        for name, share in sample.by_prefix.items()
    ]
    more = ngettext("%(count)s more namespace", "%(count)s more namespaces", sample.more)
    return {
        "rows": rows,
        "complete": sample.complete,
        "records": _number(sample.records),
        "more": more % {"count": _number(sample.more)} if sample.more else "",
    }


def _charts_ahead() -> list[Chart]:
    counts = inspection.deadlines_ahead(*(horizon for _title, horizon, _unit in HORIZONS))
    return [
        _chart_ahead(str(title), horizon, unit, counted)
        for (title, horizon, unit), counted in zip(HORIZONS, counts, strict=True)
    ]


def _chart_ahead(title: str, horizon: Horizon, unit: str, counts: Sequence[int]) -> Chart:
    width = round(horizon.part.total_seconds() / UNITS[unit])
    when = _("in %(start)s to %(end)s %(unit)s: %(files)s")
    bars = [
        Bar(
            when
            % {
                "start": part * width,
                "end": (part + 1) * width,
                "unit": unit,
                "files": _files(count),
            },
            count,
        )
        for part, count in enumerate(counts)
    ]
    summary = _("%(files)s, no more than %(most)s within %(width)s %(unit)s") % {
        "files": _files(sum(counts)),
        "most": _number(max(counts)),
        "width": width,
        "unit": unit,
    }
    last = _("in %(time)s %(unit)s") % {"time": width * horizon.parts, "unit": unit}
    return Chart(title, summary, bars, (_("now"), last))


def _charts_behind() -> list[Chart]:
    sweeps = recent_sweeps(SWEEPS_SHOWN)[::-1]
    if not sweeps:
        return []
    ends = (_moment(sweeps[0]["finished"]), _moment(sweeps[-1]["finished"]))
    return [_deletions(sweeps, ends), _lateness(sweeps, ends)]


def _deletions(sweeps: Sequence[Mapping[str, float]], ends: tuple[str, str]) -> Chart:
    bars = [
        Bar(
            f"{_moment(sweep['finished'])}: {_outcome(sweep['deleted'], sweep['failed'])}",
            sweep["deleted"],
            sweep["failed"],
        )
        for sweep in sweeps
    ]
    outcome = _outcome(sum(bar.value for bar in bars), sum(bar.alarm for bar in bars))
    return Chart(_("Deletions of the last sweeps"), outcome, bars, ends)


def _outcome(deleted: float, failed: float) -> str:
    parts = [
        (ngettext("%(count)s file deleted", "%(count)s files deleted", int(deleted)), deleted),
        (ngettext("%(count)s deletion failed", "%(count)s deletions failed", int(failed)), failed),
    ]
    return ", ".join(text % {"count": _number(count)} for text, count in parts)


def _lateness(sweeps: Sequence[Mapping[str, float]], ends: tuple[str, str]) -> Chart:
    late = _("%(seconds)s s late")
    bars = [
        Bar(
            f"{_moment(sweep['finished'])}: {late % {'seconds': _number(sweep['lag'], 1)}}",
            sweep["lag"],
        )
        for sweep in sweeps
    ]
    worst = {"seconds": _number(max(bar.value for bar in bars), 1)}
    summary = _("the oldest file of a sweep was no more than %(seconds)s s late") % worst
    return Chart(_("Lateness of the last sweeps, in seconds"), summary, bars, ends)


def _row(file: TrackedFile) -> dict[str, Any]:
    deadline, late = moment(file.deadline), file.remaining < 0
    return {"file": file, "deadline": deadline, "life": _life(file), "late": late}


def _life(file: TrackedFile) -> str:
    life = duration(file.remaining)
    if file.remaining < 0:
        life = _("overdue for %(duration)s") % {"duration": life}
    state = STATES.get(file.state)
    return f"{life}, {state}" if state else life


def _moment(seconds: float) -> str:
    return date_format(localtime(datetime.fromtimestamp(seconds, UTC)), "d M H:i:s")


def _number(number: float, decimals: int = 0) -> str:
    return number_format(number, decimals, force_grouping=True)


def _files(count: int) -> str:
    return ngettext("%(count)s file", "%(count)s files", count) % {"count": _number(count)}
