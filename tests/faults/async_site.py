"""A site under ASGI: some views ask Redis or the store, and others neither."""

from __future__ import annotations

import asyncio
import time

from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import include, path

from djpyfs import DjpyfsError, get_filesystem


async def address(request: HttpRequest) -> HttpResponse:
    try:
        return HttpResponse(await get_filesystem("plots").aget_url("a.png", 60))
    except DjpyfsError as error:
        return HttpResponse(str(error), status=503)


async def picture(request: HttpRequest) -> HttpResponse:
    try:
        async with get_filesystem("pictures").temporary_file(".png", seconds=60) as file:
            file.write(b"picture")
    except DjpyfsError as error:
        return HttpResponse(str(error), status=503)
    return HttpResponse(file.url)


async def unrelated(request: HttpRequest) -> HttpResponse:
    return HttpResponse("here")


async def unrelated_with_a_thread(request: HttpRequest) -> HttpResponse:
    await asyncio.to_thread(time.sleep, 0)
    return HttpResponse("here")


urlpatterns = [
    path("address", address),
    path("picture", picture),
    path("unrelated", unrelated),
    path("thread", unrelated_with_a_thread),
    path("f/", include("djpyfs.urls")),
]
application = get_asgi_application()
