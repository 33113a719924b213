"""What Gunicorn does before it starts its processes: the tables, and who may log in."""

from __future__ import annotations

import logging
import os
from io import StringIO

import django
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import connections


def on_starting(server: object) -> None:
    """Bring the database up to date, and create the one user that the environment names."""
    django.setup()
    call_command("migrate", verbosity=0)
    if password := os.environ.get("DJANGO_ADMIN_PASSWORD"):
        _admit(os.environ.get("DJANGO_ADMIN_USER", "admin"), password)
    if "upload_origins" in settings.DJFS:
        _let_browsers_in()
    connections.close_all()  # a process that is forked must open its own


def _let_browsers_in() -> None:
    """Tell the bucket from which pages browsers may send files to it."""
    try:
        call_command("djpyfs", "cors", "--apply", stdout=StringIO())
    except CommandError as error:  # it may not be there yet; `check --deploy` says so too
        logging.getLogger("demo").warning("no CORS rule was set: %s", error)


def _admit(name: str, password: str) -> None:
    from django.contrib.auth.models import Permission, User  # not before Django is set up

    user, _ = User.objects.get_or_create(username=name)
    user.is_staff = True
    if not user.check_password(password):  # a new one ends the sessions
        user.set_password(password)
    user.save()
    user.user_permissions.set(Permission.objects.filter(content_type__app_label="djpyfs"))
