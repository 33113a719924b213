# One image for web, worker, beat and Flower; docker-compose.yml has their commands and health checks.

FROM python:3.13-slim AS build
COPY pyproject.toml README.md LICENSE /src/
COPY djpyfs /src/djpyfs
COPY djpyfs_tasks /src/djpyfs_tasks
RUN python -m venv /opt/djpyfs \
    && /opt/djpyfs/bin/pip install --no-cache-dir "/src[service]"

FROM python:3.13-slim
RUN useradd --system --uid 10001 --home-dir /app djpyfs \
    && install --directory --owner=djpyfs /data
COPY --from=build /opt/djpyfs /opt/djpyfs
COPY demo /app/demo
# The root file system is read-only in docker-compose.yml; matplotlib wants a place for its cache.
ENV PATH="/opt/djpyfs/bin:$PATH" \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    MPLCONFIGDIR=/tmp/matplotlib \
    DJANGO_SETTINGS_MODULE=demo.settings
WORKDIR /app
USER djpyfs
