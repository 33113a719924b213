"""Finds out whether openedx-django-pyfs, which owns the same directory, has replaced files.

Neither pip nor uv keeps two distributions from owning one file: the one installed last overwrites
it, and uninstalling either removes it. Whatever calls this must be a file that openedx-django-pyfs
does not have, and that runs when a site or a worker starts.
"""

from __future__ import annotations

from django.core.exceptions import ImproperlyConfigured

import djpyfs


def check_intact() -> None:
    """Raise `ImproperlyConfigured` if files of djpyfs have been replaced or removed."""
    if not hasattr(djpyfs, "get_filesystem"):
        raise ImproperlyConfigured(
            "openedx-django-pyfs, which owns the same directory, has replaced files of djpyfs or "
            "taken them away: no file would ever be deleted. Install djpyfs once more, after it: "
            "pip install --force-reinstall --no-deps djpyfs"
        )
