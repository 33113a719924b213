"""What both views answer if they have no file to send: pages for people, and refusals.

Templates of the project take the place of the pages.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import cache, wraps
from pathlib import Path
from typing import Any, cast

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.template import TemplateDoesNotExist
from django.template.backends.django import DjangoTemplates
from django.template.loader import get_template
from fs.errors import FSError

from .backends import reason

log = logging.getLogger("djpyfs")

CHUNK = 64 * 1024  # bytes of a file that both views read at once
RETRY_AFTER = 5  # s

# No policy for what a page may load: nothing of it comes from a file, and templates of the
# project may use whatever they like.
_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def is_wanted(request: HttpRequest) -> bool:
    """Return whether somebody asks for a page; programs and images accept anything."""
    return request.get_preferred_type(["text/plain", "text/html"]) == "text/html"


def page(request: HttpRequest, of: str, status: int = 200, **context: Any) -> HttpResponse:
    """Return the page that the template ``djpyfs/<of>.html`` makes of ``context``."""
    path = f"djpyfs/{of}.html"
    try:
        template = get_template(path)
    except TemplateDoesNotExist:  # no engine of the project looks into its apps
        template = _own_templates().get_template(path)
    return HttpResponse(template.render(context, request), status=status, headers=_HEADERS)


def refusal(status: int, text: str, more: Mapping[str, str] | None = None) -> HttpResponse:
    """Return an answer in a line of plain text, with ``more`` headers."""
    headers = {**_HEADERS, **(more or {})}
    return HttpResponse(text, "text/plain; charset=utf-8", status, headers=headers)


def unavailable(what: str, error: Exception) -> HttpResponse:
    """Log what was not done because of an error, and return the answer 503."""
    foreseen = isinstance(error, FSError)
    log.warning("%s: %s", what, reason(error), exc_info=None if foreseen else error)
    return refusal(503, "Try again later\n", {"Retry-After": str(RETRY_AFTER)})


def not_logged(
    view: Callable[[HttpRequest, str], HttpResponseBase],
) -> Callable[[HttpRequest, str], HttpResponseBase]:
    """Keep refusals out of Django's log, which would show the URL: it may work again."""

    @wraps(view)
    def answer(request: HttpRequest, token: str) -> HttpResponseBase:
        response: Any = view(request, token)
        response._has_been_logged = True
        return cast(HttpResponseBase, response)

    return answer


@cache
def _own_templates() -> DjangoTemplates:
    directory = Path(__file__).with_name("templates")
    return DjangoTemplates(
        {"NAME": "djpyfs", "DIRS": [directory], "APP_DIRS": False, "OPTIONS": {}}
    )
