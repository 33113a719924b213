"""The names that code written for openedx-django-pyfs imports: ``from djpyfs import djpyfs``."""

from .filesystem import get_filesystem
from .sweeper import expire_objects

__all__ = ["expire_objects", "get_filesystem"]
