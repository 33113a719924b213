"""A file goes after its row."""

from __future__ import annotations

from django.db import migrations, models

import djpyfs.storage


class Migration(migrations.Migration):
    dependencies = [("demo", "0002_upload_title")]

    operations = [
        migrations.AlterField(
            "upload",
            "file",
            models.FileField(
                max_length=255,
                storage=djpyfs.storage.ExpiringStorage("uploads", clean_up=True),
                upload_to="",
            ),
        ),
    ]
