"""What people see, in another language."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from gettext import GNUTranslations
from pathlib import Path
from typing import Any

from django.test import Client
from django.urls import include, path

from djpyfs import get_filesystem
from tests.pythons import ROOT
from tests.servers import installed

urlpatterns = [path("f/", include("djpyfs.urls"))]

GERMAN = Path("locale/de/LC_MESSAGES/django.po")


def test_a_page_behind_a_link_is_in_the_language_of_the_visitor(
    djfs: Callable[..., None], settings: Any
) -> None:
    settings.ROOT_URLCONF = __name__
    settings.MIDDLEWARE = ["django.middleware.locale.LocaleMiddleware"]
    djfs(type="memory")
    files = get_filesystem("plots")
    files.writebytes("a.png", b"picture")
    url = files.get_url("a.png", max_downloads=1, confirm=True)
    visitor = Client(headers={"Accept": "text/html", "Accept-Language": "de"})
    for address, text in (url, "Herunterladen"), ("/f/x", "Dieser Link funktioniert nicht"):
        page = visitor.get(address).content.decode()
        assert text in page
        assert '<html lang="de">' in page


def compiled(file: Path) -> dict[str, str]:
    with file.open("rb") as opened:
        catalog = GNUTranslations(opened)._catalog  # type: ignore[attr-defined]
    return {text: translated for text, translated in catalog.items() if text}  # no header


def test_the_translation_is_complete_and_compiled(tmp_path: Path) -> None:
    installed("xgettext")
    sources = shutil.copytree(ROOT / "djpyfs", tmp_path / "djpyfs")
    # Without -P the directory's own djpyfs.py would take the place of the package.
    collect = [sys.executable, "-P", "-m", "django", "makemessages", "--locale=de"]
    subprocess.run(collect, cwd=sources, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    check = [installed("msgfmt"), "--check", "--statistics", "--output-file=new.mo", str(GERMAN)]
    found = subprocess.run(check, cwd=sources, check=True, capture_output=True, text=True)
    assert "untranslated" not in found.stderr
    assert "fuzzy" not in found.stderr
    assert compiled(sources / "new.mo") == compiled(ROOT / "djpyfs" / GERMAN.with_suffix(".mo"))
