"""The page, and the small JSON endpoints that it talks to."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from importlib.metadata import metadata
from os.path import splitext
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core import signing
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.text import slugify
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import ensure_csrf_cookie
from django.views.decorators.http import require_GET, require_POST
from django.views.static import serve
from fs.errors import FSError

from demo.forms import MOST, MOST_BYTES, OrderForm, ParametersForm, UploadForm, errors_by_field
from demo.models import LIVES_OFFERED, UPLOADS, Upload
from demo.plots import PLOTS
from demo.plots import render as render_plot
from djpyfs import get_filesystem
from djpyfs.errors import DjpyfsError, RecordStoreError
from djpyfs.sweeper import recent_sweeps

PICTURES = "plots"  # the namespace
HEALTH = "healthz"  # a file that is never there
TROUBLE = (DjpyfsError, FSError)
SWEEPS_SHOWN = 6
TIME_TO_SEND = 600  # seconds
ROW_VIEWS = "one-time-link", "revoke-links", "delete-row"
NO_ERRORS: Mapping[str, str] = {}
Card = dict[str, Any]
View = Callable[..., HttpResponse]
log = logging.getLogger("demo")
_is_suffix = re.compile(r"\.[a-z0-9]{1,8}", re.ASCII | re.IGNORECASE).fullmatch
# The addresses of documentation and source, from the metadata of the distribution.
PROJECT_URLS = dict(it.split(", ", 1) for it in metadata("djpyfs").get_all("Project-URL") or [])


def unavailable_is_503(view: View) -> View:
    """Let a view answer 503 if the record store or the place of the files is away."""

    @wraps(view)
    def answer(request: HttpRequest, **names: Any) -> HttpResponse:
        try:
            return view(request, **names)
        except TROUBLE as error:  # which names addresses that strangers must not see
            log.error("%s answers 503: %s", request.path, error)
            away = "records" if isinstance(error, RecordStoreError) else "files"
            return JsonResponse({"status": "unavailable", "away": away}, status=503)

    return answer


@require_GET
@ensure_csrf_cookie
def page(request: HttpRequest) -> HttpResponse:
    """The page itself; everything that changes on it comes from the views below."""
    return _page(request)


def _page(
    request: HttpRequest, errors: Mapping[str, str] = NO_ERRORS, status: int = 200
) -> HttpResponse:
    context = {
        "errors": errors,
        "order": OrderForm(initial={"seconds": 10}),
        "upload": UploadForm(),
        "most": MOST,
        "on_s3": settings.DJFS["type"] == "s3fs",
        "ways": PROJECT_URLS,
        "parameter_forms": [ParametersForm(key) for key in PLOTS],
        "lives": LIVES_OFFERED,
        "flower_url": settings.FLOWER_URL,
        "sweep_interval": settings.DJFS["sweep_interval"],
        "grace": settings.DJFS["grace"],
    }
    response = render(request, "demo/page.html", context, status=status)
    # Pictures come from an object store, and uploads go there, whatever its address is.
    response["Content-Security-Policy"] = "default-src 'self'; img-src *; connect-src *"
    return response


@require_POST
@unavailable_is_503
def draw(request: HttpRequest) -> HttpResponse:
    """Draw what the form asks for, store it, and give it its deadline.

    Answers 201 with the picture, or 400 with one error for each field that is wrong. A browser
    without JavaScript is led to the picture, or gets the page with the errors.
    """
    order = OrderForm(request.POST)
    chosen = request.POST.get("plot")
    parameters = ParametersForm(chosen, request.POST) if chosen in PLOTS else None
    errors = errors_by_field(order, *filter(None, [parameters]))
    wants_page = request.get_preferred_type(["application/json", "text/html"]) == "text/html"
    if errors or parameters is None:
        if wants_page:
            return _page(request, errors, status=400)
        return JsonResponse({"errors": errors}, status=400)
    seconds = order.cleaned_data["seconds"]
    png = render_plot(parameters.plot, parameters.cleaned_data)
    prefix = f"{parameters.key}-{seconds}s-"
    with get_filesystem(PICTURES).temporary_file(".png", prefix=prefix, seconds=seconds) as file:
        file.write(png)
    if wants_page:
        return redirect(file.url)
    return _answer(_picture_cards([file.name]))


@require_POST
@unavailable_is_503
def begin_upload(request: HttpRequest) -> JsonResponse:
    """Tell the browser where to send a file; answers as `draw` does.

    What does not come within a few minutes leaves nothing behind.
    """
    form = UploadForm(request.POST)
    if not form.is_valid():
        return JsonResponse({"errors": errors_by_field(form)}, status=400)
    title, seconds = form.cleaned_data["file"], form.cleaned_data["seconds"]
    stem, suffix = splitext(title)
    target = get_filesystem(UPLOADS).get_upload_url(
        suffix if _is_suffix(suffix) else "",
        prefix=f"{slugify(stem)[:60] or 'file'}-",
        seconds=TIME_TO_SEND,
        max_bytes=MOST_BYTES,
    )
    # With it a visitor can end this upload and nobody else's.
    receipt = signing.dumps([target.path, title, seconds], salt=UPLOADS)
    return JsonResponse({**target._asdict(), "receipt": receipt}, status=201)


@require_POST
@unavailable_is_503
def end_upload(request: HttpRequest) -> JsonResponse:
    """Give a file that has come its row and its life."""
    try:
        path, title, seconds = signing.loads(
            request.POST.get("receipt", ""), salt=UPLOADS, max_age=TIME_TO_SEND
        )
    except signing.BadSignature:
        return JsonResponse({"status": "no receipt"}, status=400)
    files = get_filesystem(UPLOADS)
    if not files.isfile(path):
        return JsonResponse({"status": "nothing has come"}, status=409)
    kept = Upload.objects.filter(file=path).first()
    if kept is None:
        files.expire(path, seconds)  # first: what is called after that has the last word
        kept, _ = Upload.objects.get_or_create(
            file=path, defaults={"title": title, "seconds": seconds}
        )
    return _answer(_upload_cards([kept]))


@require_POST
@unavailable_is_503
def one_time_link(request: HttpRequest, pk: int) -> JsonResponse:
    """Return a link to an upload that works once, for the first who uses it."""
    kept = get_object_or_404(Upload, pk=pk)
    url = get_filesystem(UPLOADS).get_url(kept.name, max_downloads=1)
    return JsonResponse({"url": url}, status=201)


@require_POST
@unavailable_is_503
def revoke_links(request: HttpRequest, pk: int) -> JsonResponse:
    """Revoke every link to an upload that was given out; answers with a new one."""
    kept = get_object_or_404(Upload, pk=pk)
    get_filesystem(UPLOADS).revoke_urls(kept.name)
    return _answer(_upload_cards([kept]))


@require_POST
@unavailable_is_503
def delete_row(request: HttpRequest, pk: int) -> JsonResponse:
    """Delete the row of an upload and nothing else: the file goes by itself."""
    kept = get_object_or_404(Upload, pk=pk)
    kept.delete()
    return _answer(_let_go([kept.name]), status=200)


@require_GET
@never_cache
@unavailable_is_503
def state(request: HttpRequest) -> JsonResponse:
    """The files that exist now, the last sweeps, and the server's clock."""
    now = time.time()  # before the listings: what is made from now on may be missing from them
    rows = list(Upload.objects.all())
    no_row = set(get_filesystem(UPLOADS).listdir("/")).difference(row.name for row in rows)
    return JsonResponse(
        {
            "now": now,
            "plots": _picture_cards(get_filesystem(PICTURES).listdir("/")),
            "uploads": [*_upload_cards(rows), *_let_go(no_row)],
            "sweeps": recent_sweeps(SWEEPS_SHOWN),
        }
    )


@require_GET
@never_cache
@unavailable_is_503
def healthz(request: HttpRequest) -> JsonResponse:
    """200 when the site, the record store and the place of the files answer, else 503."""
    pictures = get_filesystem(PICTURES)
    pictures.expiration(HEALTH)
    pictures.exists(HEALTH)
    return JsonResponse({"status": "ok"})


@require_GET
def picture(request: HttpRequest, path: str) -> HttpResponseBase:
    """A picture that is kept on disk.

    WhiteNoise cannot serve these, because it lists its files once, when the site starts. A busy
    site leaves them to its web server; on S3 the browser goes to the store itself.
    """
    directory = Path(settings.DJFS["directory_root"], PICTURES)  # which holds no uploads
    response = serve(request, path, document_root=str(directory))
    response["Cache-Control"] = "no-store"  # a copy in the browser would outlive the file
    return response


def _answer(cards: Sequence[Card], status: int = 201) -> JsonResponse:
    """Answer with one file, or with none if it has just gone."""
    return JsonResponse({"now": time.time(), **(cards[0] if cards else {})}, status=status)


def _picture_cards(names: Iterable[str]) -> list[Card]:
    cards = []
    for name in names:
        key, life, _ = name.split("-")
        seconds = int(life.removesuffix("s"))
        cards.append({"name": name, "title": PLOTS[key].title, "life": seconds})
    return _linked(PICTURES, cards)


def _upload_cards(rows: Iterable[Upload]) -> list[Card]:
    cards = []
    for row in rows:
        ways = {view.replace("-", "_"): reverse(view, args=[row.pk]) for view in ROW_VIEWS}
        cards.append({"name": row.name, "title": row.title, "life": row.seconds, **ways})
    return _linked(UPLOADS, cards)


def _let_go(names: Iterable[str]) -> list[Card]:
    """What the page gets about files that have no row, or none yet: it only counts them down."""
    return _counted_down(UPLOADS, [{"name": name} for name in names])


def _linked(namespace: str, cards: Sequence[Card]) -> list[Card]:
    urls = get_filesystem(namespace).get_urls(card["name"] for card in cards)
    return _counted_down(namespace, [{**card, "url": urls[card["name"]]} for card in cards])


def _counted_down(namespace: str, cards: Iterable[Card]) -> list[Card]:
    """Add the deadlines; nothing is shown of a file that has just gone."""
    files = get_filesystem(namespace)
    deadlines = ((card, files.expiration(card["name"])) for card in cards)
    return [{**card, "deadline": end.timestamp()} for card, end in deadlines if end]
