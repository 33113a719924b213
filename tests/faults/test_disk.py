"""Disks in trouble, and back-ends that are away as a whole."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from djpyfs import expire_objects, get_filesystem
from djpyfs.backends import close_all
from djpyfs.inspection import status
from tests.conftest import KEYS
from tests.servers import HOST, free_port
from tests.test_opener import Ftp

Place = tuple[dict[str, Any], Callable[[], object]]


# -- back-ends that are away as a whole


@pytest.fixture(params=["osfs", "storage", "opener", "ftp", "s3fs"])
def lost(request: pytest.FixtureRequest, settings: Any, tmp_path: Path) -> Iterator[Place]:
    """Where some files are, and what takes all of them away."""
    exports = tmp_path / "exports"
    exports.mkdir()
    places: dict[str, dict[str, Any]] = {
        "osfs": {"type": "osfs", "directory_root": exports},
        "storage": {"type": "storage"},
        "opener": {"type": "opener", "url": f"osfs://{exports}"},
        "s3fs": {
            "type": "s3fs",
            "bucket": "b",
            "endpoint_url": f"http://{HOST}:{free_port()}",
            **KEYS,
        },
    }
    if request.param == "ftp":
        ftp = Ftp(exports)
        ftp.start()
        yield {"type": "opener", "url": ftp.url}, ftp.stop
        ftp.stop()
        return
    backend = "django.core.files.storage.FileSystemStorage"
    settings.STORAGES = {"default": {"BACKEND": backend, "OPTIONS": {"location": exports}}}
    yield places[request.param], lambda: exports.rename(tmp_path / "unmounted")


@pytest.mark.filterwarnings("ignore:unclosed")  # which PyFilesystem leaves to the collector
@pytest.mark.filterwarnings("ignore:datetime.datetime.utcfromtimestamp")  # in PyFilesystem
def test_files_on_a_back_end_that_is_away_wait_and_the_others_go_at_once(
    djfs: Callable[..., None], lost: Place
) -> None:
    place, lose = lost
    djfs(type="memory", max_attempts=1, batch_size=4, namespaces={"exports": place})
    names = [f"file-{n}" for n in range(6)]
    exports, plots = get_filesystem("exports"), get_filesystem("plots")
    for name in names:
        if place["type"] != "s3fs":  # whose server was never there
            exports.writebytes(name, b"export")
        plots.writebytes(name, b"plot")
    exports.expire_many(names)
    plots.expire_many(names)
    lose()

    report = expire_objects()

    assert (report.deleted, report.postponed) == (6, 6)
    assert (report.missing, report.failed, report.set_aside) == (0, 0, 0)
    assert plots.listdir("/") == []
    assert (status().tracked, status().set_aside) == (6, 0)
    close_all()
    del exports
    gc.collect()  # while what is left unclosed is ignored
