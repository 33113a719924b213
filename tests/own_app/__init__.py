"""A plain Django project that has a Celery app of its own."""

from .celery import app

__all__ = ["app"]
