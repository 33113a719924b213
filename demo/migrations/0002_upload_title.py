"""The name that an upload had where it came from."""

from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("demo", "0001_initial")]

    operations = [
        migrations.AddField("upload", "title", models.CharField(default="", max_length=255)),
    ]
