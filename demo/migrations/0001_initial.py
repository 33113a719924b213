"""The table of uploads."""

from django.db import migrations, models

import djpyfs.storage


class Migration(migrations.Migration):
    initial = True
    operations = [
        migrations.CreateModel(
            name="Upload",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "file",
                    models.FileField(
                        max_length=255,
                        storage=djpyfs.storage.ExpiringStorage("uploads"),
                        upload_to="",
                    ),
                ),
                (
                    "seconds",
                    models.PositiveSmallIntegerField(
                        choices=[
                            (5, "5 s"),
                            (10, "10 s"),
                            (30, "30 s"),
                            (60, "1 min"),
                            (300, "5 min"),
                        ],
                        default=30,
                        verbose_name="time to live",
                    ),
                ),
            ],
        ),
    ]
