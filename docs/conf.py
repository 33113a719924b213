"""How Sphinx builds these pages: `make docs`."""

from __future__ import annotations

from importlib.metadata import version as version_of

import django
from django.conf import settings

# The API is read from the code, which Django must be ready for.
settings.configure(INSTALLED_APPS=["djpyfs", "djpyfs_tasks"])
django.setup()

project = "djpyfs"
author = "djpyfs contributors"
copyright = author
version = release = version_of("djpyfs")

extensions = ["myst_parser", "sphinx.ext.autodoc"]
default_role = "code"  # what stands in `single quotes` in a docstring
autodoc_typehints = "none"
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3  # so that a page can link to a heading of another one

html_theme = "furo"
html_title = f"djpyfs {release}"
html_copy_source = False
html_show_copyright = False
html_theme_options = {"top_of_page_buttons": []}
