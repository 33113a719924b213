"""What the site keeps in its database: which files have been uploaded. The files are in djpyfs."""

from __future__ import annotations

from collections.abc import Sequence

from django.db import models, transaction
from django.dispatch import receiver

from djpyfs.signals import files_expired
from djpyfs.storage import ExpiringStorage

UPLOADS = "uploads"  # the namespace
LIVES_OFFERED = ((5, "5 s"), (10, "10 s"), (30, "30 s"), (60, "1 min"), (300, "5 min"))


class Upload(models.Model):
    """An uploaded file. The row goes with its file, and the file ``grace`` after its row."""

    title: models.CharField[str, str] = models.CharField(max_length=255, default="")
    file = models.FileField(storage=ExpiringStorage(UPLOADS, clean_up=True), max_length=255)
    seconds: models.PositiveSmallIntegerField[int, int] = models.PositiveSmallIntegerField(
        "time to live", choices=LIVES_OFFERED, default=30
    )

    def __str__(self) -> str:
        return self.name

    @property
    def name(self) -> str:
        """The name of the file in its namespace."""
        return str(self.file.name)


@receiver(files_expired)
def _drop_rows(*, namespace: str, paths: Sequence[str], **_: object) -> None:
    """Called by the worker that has deleted the files."""
    if namespace == UPLOADS:
        with transaction.atomic():
            # Clear the name first: there is no file left that a row could let go of.
            Upload.objects.filter(file__in=paths).update(file="")
            Upload.objects.filter(file="").delete()
