"""A model without a table: for Django's permissions, and a place in the admin's index.

Its migration changes nothing in a database. The records are in the record store, and never pass
through this model.
"""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _


def __getattr__(name: str) -> object:
    if name == "FSExpirations":
        raise ImportError(
            "djpyfs keeps no deadlines in the database, and has no FSExpirations: use expire() and "
            "expiration() of the filesystem, and `manage.py djpyfs import` for the old table"
        )
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class _NoRows(models.Manager["ExpiringFile"]):
    """Keeps commands that walk all models, such as dumpdata, from asking for the table."""

    def get_queryset(self) -> models.QuerySet[ExpiringFile]:
        return super().get_queryset().none()


class ExpiringFile(models.Model):
    """A file with a record, as the log of the admin's actions refers to it."""

    name: models.TextField[str, str] = models.TextField(primary_key=True)

    objects = _NoRows()

    class Meta:
        managed = False
        base_manager_name = "objects"
        default_permissions = ("view", "change")
        verbose_name = _("expiring file")
        verbose_name_plural = _("deadlines and sweeps")

    def __str__(self) -> str:
        return str(self.name)
