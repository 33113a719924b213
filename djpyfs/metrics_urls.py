"""The address that Prometheus scrapes: ``path("metrics", include("djpyfs.metrics_urls"))``."""

from django.urls import path

from .metrics import metrics

urlpatterns = [path("", metrics, name="djpyfs-metrics")]
