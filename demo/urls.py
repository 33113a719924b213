"""Addresses of the example site."""

from __future__ import annotations

from django.conf import settings
from django.contrib import admin
from django.urls import include, path

from demo import views

urlpatterns = [
    path("", views.page, name="page"),
    path("plots", views.draw, name="draw"),
    path("uploads/begin", views.begin_upload, name="begin-upload"),
    path("uploads/end", views.end_upload, name="end-upload"),
    path("uploads/<int:pk>/one-time-link", views.one_time_link, name="one-time-link"),
    path("uploads/<int:pk>/revoke-links", views.revoke_links, name="revoke-links"),
    path("uploads/<int:pk>/delete-row", views.delete_row, name="delete-row"),
    path("state", views.state, name="state"),
    path("healthz", views.healthz, name="healthz"),
    path("metrics", include("djpyfs.metrics_urls")),
    path(f"{settings.PICTURES_URL.strip('/')}/plots/<path:path>", views.picture, name="picture"),
    path("files/", include("djpyfs.urls")),
    path("admin/", admin.site.urls),
]
