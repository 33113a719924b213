"""The addresses of a site that serves signed links."""

from django.urls import include, path

urlpatterns = [path("f/", include("djpyfs.urls"))]
