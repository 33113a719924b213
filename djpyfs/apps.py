"""The Django application."""

from django.apps import AppConfig
from django.core.signals import setting_changed
from django.dispatch import receiver
from django.utils.translation import gettext_lazy as _

from .intact import check_intact, check_models

check_intact()  # before imports that would fail with a worse error

from . import backends, expirations  # noqa: E402


class DjpyfsConfig(AppConfig):
    """Adds the system checks, and the receivers that follow rows."""

    name = "djpyfs"
    verbose_name = _("Files that expire")

    def import_models(self) -> None:
        """Load the models, which must be those of djpyfs."""
        super().import_models()
        check_models(self.models_module)

    def ready(self) -> None:
        """Register the checks, and learn of the rows that own files."""
        from . import checks, owners  # noqa: F401

        owners.follow()


@receiver(setting_changed)
def _start_anew(*, setting: str, **_: object) -> None:
    # A test that overrides DJFS starts with empty memory and fresh connections.
    if setting == "DJFS":
        backends.close_all()
        expirations.close_all()
