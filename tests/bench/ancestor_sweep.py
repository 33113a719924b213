"""Registers files with openedx-django-pyfs and sweeps them, in an environment of its own.

Arguments: DJFS as JSON, the path of a SQLite file, how many files. Prints the seconds that the
sweep took.
"""

from __future__ import annotations

import json
import os
import sys
from time import perf_counter

import django
from django.conf import settings
from django.core.management import call_command

djfs, database, count = sys.argv[1:]
settings.configure(
    DJFS=json.loads(djfs),
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": database}},
    INSTALLED_APPS=["djpyfs"],
    USE_TZ=True,
)
django.setup()
call_command("migrate", run_syncdb=True, verbosity=0)

from djpyfs import djpyfs  # noqa: E402  its models want the settings first

files = djpyfs.get_filesystem("plots")
for number in range(int(count)):
    name = f"{number:06}.png"
    files.writebytes(name, b"picture")
    files.expire(name, seconds=0)
os.sync()  # a file that has not reached the disk yet is unlinked sooner
started = perf_counter()
djpyfs.expire_objects()
print(perf_counter() - started)
assert files.isempty("/")
