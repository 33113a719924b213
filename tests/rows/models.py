"""Rows that own files, in the ways that Django knows."""

from __future__ import annotations

from django.db import models

from djpyfs.storage import ExpiringStorage

DOCUMENTS = ExpiringStorage("documents", until_committed=100, clean_up=True)
PICTURES = ExpiringStorage("pictures", default_ttl=1_000, until_committed=100)
SCANS = ExpiringStorage("documents/scans", clean_up=True)
NONE, COVER = "none.pdf", "cover.pdf"  # the files of a page without its own


class Document(models.Model):
    """A row with a file, that can be empty."""

    title: models.CharField[str, str] = models.CharField(max_length=20, unique=True, null=True)  # noqa: DJ001
    file = models.FileField(storage=DOCUMENTS, blank=True)

    class Meta:
        app_label = "rows"

    def __str__(self) -> str:
        return str(self.file)


class Letter(Document):
    """A row in two tables, with a file in each."""

    appendix = models.FileField(storage=DOCUMENTS, blank=True)

    class Meta:
        app_label = "rows"


class Draft(Document):
    """The same rows under another name."""

    class Meta:
        app_label = "rows"
        proxy = True


class Page(models.Model):
    """A row that goes with another one; its file is named from another namespace."""

    document: models.ForeignKey[Document, Document] = models.ForeignKey(Document, models.CASCADE)
    scan = models.FileField(storage=SCANS, default=NONE)
    cover = models.FileField(storage=SCANS, db_default=f"./{COVER}")

    class Meta:
        app_label = "rows"

    def __str__(self) -> str:
        return str(self.scan)


class Picture(models.Model):
    """A row whose file lives for some time only."""

    image = models.ImageField(storage=PICTURES)

    class Meta:
        app_label = "rows"

    def __str__(self) -> str:
        return str(self.image)


class Upload(models.Model):
    """A row with a file in the default storage."""

    file = models.FileField()

    class Meta:
        app_label = "rows"

    def __str__(self) -> str:
        return str(self.file)
