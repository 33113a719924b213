"""The Django application."""

from django.apps import AppConfig


class DjpyfsTasksConfig(AppConfig):
    """Sends one-shots for deadlines that this process sets, and has workers keep time."""

    name = "djpyfs_tasks"
    verbose_name = "Files that expire: tasks"

    def ready(self) -> None:
        """Listen to the filesystems, and register the check."""
        from . import checks, one_shots, timekeeper  # noqa: F401

        one_shots.listen()
        timekeeper.listen()
