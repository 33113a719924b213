"""A site for gunicorn: signed links, and Django's own view of the same files.

``DJFS`` in the environment is the setting of that name, as JSON.
"""

from __future__ import annotations

import json
import os

import django
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.urls import include, path, re_path
from django.views.static import serve

from tests.settings import INSTALLED_APPS, SECRET_KEY

if not settings.configured:  # else it is the benchmark that asks, for an address
    settings.configure(
        SECRET_KEY=SECRET_KEY,
        INSTALLED_APPS=INSTALLED_APPS,
        ROOT_URLCONF=__name__,
        ALLOWED_HOSTS=["*"],
        USE_TZ=True,
        DJFS=json.loads(os.environ["DJFS"]),
    )
    django.setup()

urlpatterns = [
    path("links/", include("djpyfs.urls")),
    re_path("^static/(?P<path>.*)$", serve, {"document_root": settings.DJFS["directory_root"]}),
]
application = WSGIHandler()
