"""The model without a table: nothing happens in a database."""

from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True
    operations = [
        migrations.CreateModel(
            name="ExpiringFile",
            fields=[
                ("name", models.TextField(primary_key=True, serialize=False)),
            ],
            options={
                "verbose_name": "expiring file",
                "verbose_name_plural": "deadlines and sweeps",
                "managed": False,
                "base_manager_name": "objects",
                "default_permissions": ("view", "change"),
            },
        ),
    ]
