"""The pages that people see behind signed links; templates of the project take their place."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.template import TemplateDoesNotExist
from django.template.backends.django import DjangoTemplates
from django.template.loader import get_template

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


@cache
def _own_templates() -> DjangoTemplates:
    directory = Path(__file__).with_name("templates")
    return DjangoTemplates(
        {"NAME": "djpyfs", "DIRS": [directory], "APP_DIRS": False, "OPTIONS": {}}
    )
