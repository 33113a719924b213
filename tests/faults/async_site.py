"""A site under ASGI: one view asks for an address, and others have nothing to do with files."""

from __future__ import annotations

import asyncio
import time

from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import include, path

from djpyfs import RecordStoreUnavailable, get_filesystem


async def address(request: HttpRequest) -> HttpResponse:
    try:
        return HttpResponse(await get_filesystem("plots").aget_url("a.png", 60))
    except RecordStoreUnavailable as error:
        return HttpResponse(str(error), status=503)


async def unrelated(request: HttpRequest) -> HttpResponse:
    return HttpResponse("here")


async def unrelated_with_a_thread(request: HttpRequest) -> HttpResponse:
    await asyncio.to_thread(time.sleep, 0)
    return HttpResponse("here")


urlpatterns = [
    path("address", address),
    path("unrelated", unrelated),
    path("thread", unrelated_with_a_thread),
    path("f/", include("djpyfs.urls")),
]
application = get_asgi_application()
