"""Processes that save rows with files, and are killed while they do; what is left afterwards.

It runs in a process of its own, with a database of its own: ``python -c`` with what to do as JSON.
The processes are its children, because a fork costs less than a start.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import django
from django.conf import settings
from django.core.files.base import ContentFile
from django.core.management.color import no_style
from django.db import Error, connection, transaction

SAVERS = 4  # at a time
SHARED = 20  # rows that all of them replace the files of
LIVES = 0.2, 1.5  # s, of a process that is killed


class Saver:
    """Saves rows with files in every way that Django knows, until somebody ends it."""

    def __init__(self, counted: int) -> None:
        from tests.rows.models import Document

        self._rows, self._counted, self._own = Document, counted, list[int]()

    def work(self) -> NoReturn:
        acts = {
            self.create: 25,
            self.replace: 15,
            self.replace_shared: 10,
            self.nest: 5,
            self.create_many: 5,
            self.name_by_hand: 5,
            self.delete: 5,
            self.roll_back: 10,
            self.roll_back_a_replacement: 5,
            self.fail: 15,
        }
        while True:
            [act] = random.choices(list(acts), list(acts.values()))
            with suppress(
                Error
            ):  # a lock that came too late, for instance: then nothing is committed
                act()

    def _file(self) -> ContentFile[bytes]:
        os.write(self._counted, b".")
        return ContentFile(b"content", f"{uuid.uuid4().hex}.txt")

    def create(self) -> None:
        with transaction.atomic():
            row = self._rows.objects.create(file=self._file())
        self._own.append(row.pk)

    def replace(self) -> None:
        if self._own:
            row = self._rows.objects.get(pk=random.choice(self._own))
            row.file = self._file()
            row.save()

    def replace_shared(self) -> None:
        with transaction.atomic():
            row = self._rows.objects.get(pk=random.randint(1, SHARED))
            row.file = self._file()
            row.save()

    def nest(self) -> None:
        with transaction.atomic():
            self._own.append(self._rows.objects.create(file=self._file()).pk)
            with suppress(ZeroDivisionError), transaction.atomic():
                self._rows.objects.create(file=self._file())
                raise ZeroDivisionError

    def create_many(self) -> None:
        self._rows.objects.bulk_create([self._rows(file=self._file()) for _ in range(3)])

    def name_by_hand(self) -> None:
        from djpyfs import get_filesystem

        os.write(self._counted, b".")
        with get_filesystem("documents").temporary_file(".txt", seconds=2) as file:
            file.write(b"content")
        row = self._rows()
        row.file.name = file.name
        row.save()

    def delete(self) -> None:
        if self._own:
            self._rows.objects.filter(pk=self._own.pop()).delete()

    def roll_back(self) -> None:
        with transaction.atomic():
            self._rows.objects.create(file=self._file())
            transaction.set_rollback(True)

    def roll_back_a_replacement(self) -> None:
        with transaction.atomic():
            self.replace()
            self.delete()
            transaction.set_rollback(True)

    def fail(self) -> None:
        self._rows.objects.create(title="taken", file=self._file())


def sweep() -> NoReturn:
    from djpyfs import expire_objects

    while True:
        expire_objects()
        time.sleep(0.05)


def forked(work: Any, *arguments: Any) -> int:
    """Run something that does not end in a child; return its id."""
    connection.close()
    if child := os.fork():
        return child
    try:
        work(*arguments)
    except BaseException as error:
        print(f"{error!r}", file=sys.stderr)
    finally:
        os._exit(1)


def killed(child: int) -> None:
    """Kill a child, which must not have ended by itself."""
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), f"a process ended by itself: {status}"


def run(saves: int, kills: int, count: Path) -> dict[str, int]:
    """Kill so many processes, and go on until so many files have been saved."""
    counted = os.open(count, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    sweeper, done = forked(sweep), 0
    ends: dict[int, float] = {}
    while done < kills or count.stat().st_size < saves:
        while len(ends) < SAVERS:
            ends[forked(Saver(counted).work)] = time.monotonic() + random.uniform(*LIVES)
        time.sleep(0.01)
        for child in [child for child, end in ends.items() if end < time.monotonic()]:
            if done < kills:  # the children after these live on
                del ends[child]
                killed(child)
                done += 1
    for child in [*ends, sweeper]:
        killed(child)
    return {"saves": count.stat().st_size, "kills": done + len(ends)}


def main(told: str) -> None:
    own = json.loads(told)
    settings.configure(
        SECRET_KEY="for tests only",
        INSTALLED_APPS=["djpyfs", "tests.rows"],
        DJFS=own["djfs"],
        DATABASES={"default": own["database"]},
        USE_TZ=True,
    )
    django.setup()
    from djpyfs import conf, expire_objects, get_filesystem
    from djpyfs.expirations import store_for
    from djpyfs.inspection import status
    from tests.rows.models import DOCUMENTS, Document, Letter, Page, Picture, Upload

    DOCUMENTS.until_committed = own["life"]
    with connection.schema_editor() as editor:
        for model in (Document, Letter, Page, Picture, Upload):
            editor.create_model(model)
    Document.objects.create(title="taken", pk=SHARED + 1)
    Document.objects.bulk_create(Document(pk=number) for number in range(1, SHARED + 1))
    with connection.cursor() as cursor:
        for statement in connection.ops.sequence_reset_sql(no_style(), [Document]):
            cursor.execute(statement)
    done = run(own["saves"], own["kills"], Path(own["count"]))
    end = time.monotonic() + own["life"] + 60
    while status().tracked and time.monotonic() < end:
        expire_objects()
        time.sleep(0.1)
    files = {path.lstrip("/") for path in get_filesystem("documents").walk.files()}
    named = {str(row.file) for row in Document.objects.all() if row.file}
    with connection.schema_editor() as editor:
        editor.delete_model(Document)
    print(
        json.dumps(
            {
                **done,
                "owned": store_for(conf.current()).totals()["owned"],
                "rows": len(named),
                "orphans": len(files - named),
                "lost": len(named - files),
                "records": status().tracked + status().set_aside,
            }
        )
    )
