"""What works while the record store is away, and what raises which error."""

from __future__ import annotations

import pickle
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fs import errors

from djpyfs import (
    BackendUnavailable,
    DjpyfsError,
    FileBusy,
    RecordStoreUnavailable,
    expire_objects,
    get_filesystem,
)
from djpyfs.filesystem import ExpiringFS
from tests.servers import HOST


def test_calls_that_need_no_record_go_on_while_redis_is_away(
    djfs: Callable[..., None], tmp_path: Path
) -> None:
    djfs(type="osfs", directory_root=tmp_path, url_root="/m", redis_url=f"redis://{HOST}:1")
    tmp_path.joinpath("plots").mkdir()
    tmp_path.joinpath("plots/a.png").write_bytes(b"picture")
    plots = get_filesystem("plots")
    assert plots.readbytes("a.png") == b"picture"
    assert plots.open("a.png", "rb").read() == b"picture"
    assert plots.listdir("/") == ["a.png"]
    assert plots.getinfo("a.png").name == "a.png"
    assert plots.get_url("a.png") == "/m/plots/a.png"
    assert plots.makedirs("d/e").listdir("/") == []


def test_calls_that_need_a_record_raise_an_error_of_files_and_of_the_system_while_redis_is_away(
    bucket: ExpiringFS, djfs: Callable[..., None], settings: Any
) -> None:
    bucket.writebytes("a.png", b"picture")
    djfs(**{**settings.DJFS, "redis_url": f"redis://{HOST}:1"})
    plots = get_filesystem("plots")
    calls: list[Callable[[], Any]] = [
        lambda: plots.writebytes("a.png", b""),
        lambda: plots.open("a.png", "wb"),
        lambda: plots.remove("a.png"),
        lambda: plots.move("a.png", "b.png"),
        lambda: plots.get_url("a.png"),
    ]
    for call in calls:
        with pytest.raises(errors.FSError) as raised:
            call()
        assert isinstance(raised.value, OSError)
    assert plots.readbytes("a.png") == b"picture"


@pytest.mark.parametrize("kind", [BackendUnavailable, FileBusy, RecordStoreUnavailable])
def test_the_message_of_an_error_stays_as_it_is_in_another_process(
    kind: type[errors.FSError],
) -> None:
    error = pickle.loads(pickle.dumps(kind("refused: {00}")))
    assert type(error) is kind
    assert str(error) == "refused: {00}"
    assert repr(error) == f"{kind.__name__}('refused: {{00}}')"


def test_a_redis_that_is_away_is_one_error(djfs: Callable[..., None]) -> None:
    djfs(type="memory", redis_url=f"redis://:secret@{HOST}:1/0")
    plots = get_filesystem("plots")
    calls: list[Callable[[], Any]] = [
        lambda: plots.expire("a.png", 5),
        lambda: plots.writebytes("a.png", b""),
        lambda: plots.expiration("a.png"),
        expire_objects,
    ]
    for call in calls:
        with pytest.raises(RecordStoreUnavailable, match=f"{HOST}:1/0") as raised:
            call()
        assert "secret" not in str(raised.value)
    assert not plots.exists("a.png")


def test_a_redis_that_hangs_is_one_error_within_five_seconds(djfs: Callable[..., None]) -> None:
    with socket.create_server((HOST, 0)) as silent:
        djfs(type="memory", redis_url=f"redis://{HOST}:{silent.getsockname()[1]}/0")

        def seconds() -> float:
            started = time.monotonic()
            with pytest.raises(DjpyfsError):
                get_filesystem("plots").expire("a.png", 5)
            return time.monotonic() - started

        assert any(seconds() < 5 for _ in range(3))  # a busy machine may hold up some
