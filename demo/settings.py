"""Settings of the example site. Everything that differs between places comes from the environment.

The defaults are for one machine: loopback addresses, a local Redis, files on disk.
The database is for the admin's users, and for the site's own list of uploads. Deadlines are in
the record store.
"""

from __future__ import annotations

import os
from typing import Any

from django.core.management.utils import get_random_secret_key

SECRET_KEY = os.environ.get("DJANGO_SECRET_KEY") or get_random_secret_key()
DEBUG = os.environ.get("DJANGO_DEBUG", "") == "1"
ALLOWED_HOSTS = os.environ.get("DJANGO_ALLOWED_HOSTS", "127.0.0.1,localhost,[::1]").split(",")
# Behind a proxy that speaks TLS the site does not see it, and would refuse its own forms.
CSRF_TRUSTED_ORIGINS = os.environ.get("DJANGO_TRUSTED_ORIGINS", "http://127.0.0.1:8000").split(",")

ROOT_URLCONF = "demo.urls"
WSGI_APPLICATION = "demo.wsgi.application"
DATABASES: dict[str, Any] = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("DJANGO_DATABASE", "demo.sqlite3"),
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = [
    "whitenoise.runserver_nostatic",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "djpyfs",
    "djpyfs_tasks",
    "demo",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
USE_TZ = True
TIME_ZONE = "UTC"
STATIC_URL = "/static/"
WHITENOISE_USE_FINDERS = (
    True  # no collectstatic: the few static files are served from where they are
)

# To standard error, where containers have their log: without this Django keeps errors to itself
# unless DEBUG is on.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["console"], "level": "WARNING"},
    "loggers": {"django": {"handlers": [], "level": "INFO"}},
}

# People see this address: the page links to it.
FLOWER_URL = os.environ.get("FLOWER_URL", "http://127.0.0.1:5555")

PICTURES_URL = "/pictures/"  # where the site serves the pictures that are on disk
_PLACE = {
    key: os.environ.get(f"DJFS_{key.upper()}")
    for key in ("directory_root", "bucket", "prefix", "region", "endpoint_url", "addressing_style")
}
DJFS: dict[str, Any] = {
    "type": os.environ.get("DJFS_TYPE", "osfs"),
    "directory_root": "demo-files",
    "url_root": PICTURES_URL,
    **{key: value for key, value in _PLACE.items() if value},
    # From the pages of this site browsers send files to the bucket itself.
    **({"upload_origins": CSRF_TRUSTED_ORIGINS} if os.environ.get("DJFS_TYPE") == "s3fs" else {}),
    "redis_url": os.environ.get("DJFS_REDIS_URL", "redis://127.0.0.1:6379/0"),
    "sweep_interval": float(os.environ.get("DJFS_SWEEP_INTERVAL", "60")),
    # In case the site dies between writing a file and giving it its deadline.
    "default_ttl": 600,
    # What a file has left when its row is deleted: short enough to watch.
    "grace": 10,
    # Pictures have addresses of the disk or of S3. Uploads may be anything, so they go out through
    # the view that keeps browsers from running them, wherever they are kept.
    "namespaces": {"uploads": {"signed_urls": True}},
    "one_shot": os.environ.get("DJFS_ONE_SHOT", "") == "1",
    "metrics": os.environ.get("DJFS_METRICS", "") == "1",
}
