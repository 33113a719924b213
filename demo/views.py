"""The page, and the small JSON endpoints that it talks to."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import ensure_csrf_cookie
from django.views.decorators.http import require_GET, require_POST
from django.views.static import serve
from fs.errors import ResourceNotFound

from demo.forms import OrderForm, ParametersForm
from demo.plots import PLOTS
from demo.plots import render as render_plot
from djpyfs import get_filesystem
from djpyfs.errors import RecordStoreError
from djpyfs.sweeper import recent_sweeps

NAMESPACE = "plots"
SWEEPS_SHOWN = 6
LIVES_OFFERED = ((5, "5 s"), (15, "15 s"), (60, "1 min"), (300, "5 min"), (600, "10 min"))
View = Callable[[HttpRequest], JsonResponse]


def unavailable_is_503(view: View) -> View:
    """Let a view answer 503 where the record store is away."""

    @wraps(view)
    def answer(request: HttpRequest) -> JsonResponse:
        try:
            return view(request)
        except RecordStoreError as error:
            return JsonResponse({"status": "unavailable", "reason": str(error)}, status=503)

    return answer


@require_GET
@ensure_csrf_cookie
def page(request: HttpRequest) -> HttpResponse:
    """The page itself; everything that changes on it comes from `state` and `draw`."""
    context = {
        "order": OrderForm(initial={"seconds": 15}),
        "parameter_forms": [ParametersForm(key) for key in PLOTS],
        "lives": LIVES_OFFERED,
        "flower_url": settings.FLOWER_URL,
        "sweep_interval": settings.DJFS["sweep_interval"],
    }
    response = render(request, "demo/page.html", context)
    # The pictures may come from an object store, at whatever address that has.
    response["Content-Security-Policy"] = "default-src 'self'; img-src *"
    return response


@require_POST
@unavailable_is_503
def draw(request: HttpRequest) -> JsonResponse:
    """Draw what the form asks for, store it, and give it its deadline.

    Answers 201 with the picture, or 400 with one error for each field that is wrong.
    """
    order = OrderForm(request.POST)
    chosen = request.POST.get("plot")
    parameters = ParametersForm(chosen, request.POST) if chosen in PLOTS else None
    errors = {name: str(found[0]) for name, found in order.errors.items()}
    if parameters:
        errors |= parameters.errors_by_field()
    if errors or parameters is None:
        return JsonResponse({"errors": errors}, status=400)
    seconds = order.cleaned_data["seconds"]
    png = render_plot(parameters.plot, parameters.cleaned_data)
    card = _keep(f"{parameters.key}-{seconds}s-{secrets.token_hex(4)}.png", png, seconds)
    return JsonResponse({"now": time.time(), **card}, status=201)


@require_GET
@never_cache
@unavailable_is_503
def state(request: HttpRequest) -> JsonResponse:
    """The pictures that exist now, the last sweeps, and the server's clock."""
    now = time.time()  # before the listing: what is drawn from now on may be missing from it
    return JsonResponse({"now": now, "plots": _alive(), "sweeps": recent_sweeps(SWEEPS_SHOWN)})


@require_GET
@never_cache
@unavailable_is_503
def healthz(request: HttpRequest) -> JsonResponse:
    """200 when the site and the record store answer, else 503."""
    recent_sweeps(1)
    return JsonResponse({"status": "ok"})


@require_GET
def picture(request: HttpRequest, path: str) -> HttpResponseBase:
    """A picture that is kept on disk.

    WhiteNoise cannot serve these, because it lists its files once, when the site starts. A busy
    site leaves them to its web server; on S3 the browser goes to the store itself.
    """
    response = serve(request, path, document_root=settings.DJFS["directory_root"])
    response["Cache-Control"] = "no-store"  # a copy in the browser would outlive the file
    return response


def _keep(name: str, png: bytes, seconds: int) -> dict[str, Any]:
    fs = get_filesystem(NAMESPACE)
    with fs.open(name, "wb") as file:
        file.write(png)
    fs.expire(name, seconds=seconds)
    return _card(name)


def _alive() -> list[dict[str, Any]]:
    cards = (_card(name) for name in get_filesystem(NAMESPACE).listdir("/"))
    return [card for card in cards if card]


def _card(name: str) -> dict[str, Any]:
    """What the page shows of a picture; nothing where that has just gone."""
    fs = get_filesystem(NAMESPACE)
    deadline = fs.expiration(name)
    if deadline is None:
        return {}
    key, life, _ = name.split("-")
    return {
        "name": name,
        "title": PLOTS[key].title,
        "url": _url(name),
        "deadline": deadline.timestamp(),
        "life": int(life.removesuffix("s")),
    }


def _url(name: str) -> str | None:
    """The address of a picture; none in its last second on S3, and until the sweep has come."""
    with suppress(ResourceNotFound):
        return get_filesystem(NAMESPACE).get_url(name)
    return None
