"""The URLs of signed links: ``path("links/", include("djpyfs.urls"))``."""

from django.urls import path

from .receiving import receive
from .views import serve

app_name = "djpyfs"
urlpatterns = [
    # As paths, so that the views answer for forged tokens that hold slashes too.
    path("upload/<path:token>", receive, name="upload"),
    path("<path:token>", serve, name="file"),
]
