"""The Django application."""

from django.apps import AppConfig
from django.core.signals import setting_changed
from django.dispatch import receiver
from django.utils.translation import gettext_lazy as _

from .intact import check_intact

check_intact()  # before the imports that would fail in a worse way

from . import backends, expirations  # noqa: E402


class DjpyfsConfig(AppConfig):
    """Adds the system checks."""

    name = "djpyfs"
    verbose_name = _("Files that expire")

    def ready(self) -> None:
        """Register the checks."""
        from . import checks  # noqa: F401


@receiver(setting_changed)
def _start_anew(*, setting: str, **_: object) -> None:
    # A test that overrides DJFS starts with empty memory and fresh connections.
    if setting == "DJFS":
        backends.close_all()
        expirations.close_all()
