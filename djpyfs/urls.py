"""The address of signed links: ``path("links/", include("djpyfs.urls"))``."""

from django.urls import path

from .views import serve

app_name = "djpyfs"
urlpatterns = [
    # As a path, so that the view answers for forged tokens that hold slashes too.
    path("<path:token>", serve, name="file"),
]
