"""Addresses of the example site."""

from __future__ import annotations

from django.conf import settings
from django.urls import include, path

from demo import views

urlpatterns = [
    path("", views.page, name="page"),
    path("plots", views.draw, name="draw"),
    path("state", views.state, name="state"),
    path("healthz", views.healthz, name="healthz"),
    path("metrics", include("djpyfs.metrics_urls")),
    path(f"{settings.PICTURES_URL.strip('/')}/<path:path>", views.picture, name="picture"),
]
