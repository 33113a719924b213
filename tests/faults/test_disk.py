"""Disks in trouble, and backends that are away as a whole."""

from __future__ import annotations

import errno
import gc
import io
import json
import os
import resource
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any, cast

import pytest
from django.core.files.base import ContentFile
from fs.mode import Mode

from djpyfs import expire_objects, get_filesystem
from djpyfs.backends import close_all
from djpyfs.backends.spool import SpooledFile
from djpyfs.filesystem import ExpiringFS
from djpyfs.inspection import status, tracked_file
from djpyfs.storage import ExpiringStorage
from tests.conftest import BUCKET, KEYS
from tests.faults.conftest import Measured
from tests.faults.processes import Race, names
from tests.servers import HOST, RedisServer, free_port, installed
from tests.test_opener import Ftp

ROOT = Path(__file__).parent.parent.parent
SMALL = 200_000  # bytes that there is room for on a small disk
Place = tuple[dict[str, Any], Callable[[], object]]

SWEEP = """
import json, sys
from django.conf import settings
settings.configure(DJFS=json.loads(sys.argv[1]))
from djpyfs import expire_objects
print(json.dumps(expire_objects().as_dict()))
"""


def with_failing_calls(*faults: str) -> list[str]:
    """Return a prefix for a command that makes the kernel refuse some of its system calls.

    Each of ``faults`` is one of strace's: ``unlinkat:error=EIO:when=500``.
    """
    strace = [installed("strace"), "-f", "-qq", "-o", os.devnull]
    if subprocess.run([*strace, "true"], capture_output=True, check=False).returncode:
        pytest.skip(
            "no process may trace another one here, which strace needs: "
            "start the container with --cap-add=SYS_PTRACE, or set kernel.yama.ptrace_scope to 1"
        )
    calls = ",".join({fault.partition(":")[0] for fault in faults})
    options = [part for fault in faults for part in ("-e", f"inject={fault}")]
    return [*strace, "--seccomp-bpf", "-e", f"trace={calls}", *options]


# -- one file in trouble


ERRORS = ["EACCES", "EROFS", "EIO", "ESTALE", "EBUSY"]


class Disk:
    """A thousand files on a disk, due in ten namespaces, or in fewer."""

    def __init__(self, djfs: dict[str, Any]) -> None:
        self.djfs = djfs
        self.root = Path(djfs["directory_root"])

    def fill(self, namespaces: int = 10) -> None:
        for number in range(namespaces):
            fs = get_filesystem(f"n{number}")
            files = names("file", 1_000 // namespaces)
            fs.writebytes(files[0], b"picture")
            for name in files[1:]:
                (self.root / fs.namespace / name).write_bytes(b"picture")
            fs.expire_many(files, 0)

    def swept_with(self, *faults: str) -> dict[str, float]:
        """Sweep in a process some of whose system calls fail."""
        command = [*with_failing_calls(*faults), sys.executable, "-c", SWEEP, json.dumps(self.djfs)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
        assert not done.returncode, done.stderr
        return cast(dict[str, float], json.loads(done.stdout))


@pytest.fixture
def thousand(djfs: Callable[..., None], tmp_path: Path, redis_server: RedisServer) -> Disk:
    own = {"redis_url": redis_server.url, "key_prefix": f"test-{uuid.uuid4().hex}"}
    own |= {"type": "osfs", "directory_root": str(tmp_path)}
    djfs(**own)
    return Disk(own)


@pytest.mark.fault("trouble with one file of 1,000", "the others go in the first sweep, 0 missing")
def test_one_file_in_trouble_stops_no_other_and_is_not_taken_for_missing(
    thousand: Disk, full: bool, measured: Measured
) -> None:
    errors = ERRORS if full else ["ESTALE", "EROFS"]
    for error in errors:
        thousand.fill(namespaces=1)  # because strace counts the calls of each thread separately
        report = thousand.swept_with(f"unlinkat:error={error}:when=500")
        check_one_is_left(thousand, report)
    measured(f"{', '.join(errors)}: 999 gone each time, 1 to be tried again")


@pytest.mark.fault("a directory where one file of 1,000 was", "the others go in the first sweep")
def test_a_directory_where_a_file_was_stops_no_other(thousand: Disk, measured: Measured) -> None:
    thousand.fill()
    (thousand.root / "n4" / "file-00042").unlink()
    (thousand.root / "n4" / "file-00042").mkdir()
    check_one_is_left(thousand, expire_objects().as_dict())
    measured("999 gone, 1 to be tried again")


def check_one_is_left(disk: Disk, report: dict[str, float]) -> None:
    assert (report["deleted"], report["missing"]) == (999, 0)
    assert (report["retried"], report["set_aside"], report["postponed"]) == (1, 0, 0)
    [left] = list(disk.root.glob("n*/*"))
    record = tracked_file(left.parent.name, left.name)
    assert record
    assert record.state == "retried"


@pytest.mark.fault("a disk that answers nothing but ESTALE", "every file is put off")
def test_a_disk_that_is_stale_as_a_whole_costs_no_file_an_attempt(
    thousand: Disk, measured: Measured
) -> None:
    thousand.fill()
    report = thousand.swept_with("unlinkat:error=ESTALE", "fstatfs:error=ESTALE")
    assert (report["postponed"], report["failed"], report["missing"]) == (1_000, 0, 0)
    assert len(list(thousand.root.glob("n*/*"))) == 1_000
    measured("1,000 put off, 0 attempts")


@contextmanager
def mounted(directory: Path) -> Iterator[bool]:
    """Make a directory a small disk in memory, if that is permitted."""
    options = ["-t", "tmpfs", "-o", f"size={SMALL + 50_000}", "tmpfs", str(directory)]
    if subprocess.run(["mount", *options], capture_output=True, check=False).returncode:
        yield False
        return
    try:
        yield True
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


@pytest.fixture
def mounted_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "mounted"
    disk.mkdir()
    with mounted(disk) as is_one:
        if not is_one:
            pytest.skip(
                "no disk can be mounted here: run it as root, in a container with "
                "--cap-add=SYS_ADMIN --security-opt apparmor=unconfined"
            )
        yield disk


@pytest.mark.fault("a disk that has become read-only", "every file is put off")
def test_a_disk_that_is_read_only_costs_no_file_an_attempt(
    djfs: Callable[..., None], mounted_disk: Path, measured: Measured
) -> None:
    djfs(type="osfs", directory_root=mounted_disk)
    plots = get_filesystem("plots")
    for name in names("file", 10):
        plots.writebytes(name, b"picture")
        plots.expire(name, 0)
    subprocess.run(["mount", "-o", "remount,ro", str(mounted_disk)], check=True)
    report = expire_objects()
    assert (report.postponed, report.failed, report.missing) == (10, 0, 0)
    measured("10 put off, 0 attempts")


# -- a disk that is full

TOO_MUCH = bytes(1_000_000)


def write_in_pieces(fs: ExpiringFS, name: str) -> None:
    with fs.open(name, "wb") as file:
        for _ in range(1_000):
            file.write(TOO_MUCH[:1_000])


def write_unbuffered(fs: ExpiringFS, name: str) -> None:
    with fs.openbin(name, "w", buffering=0) as file:
        for _ in range(1_000):
            file.write(TOO_MUCH[:1_000])


def write_text(fs: ExpiringFS, name: str) -> None:
    with fs.open(name, "w") as file:
        file.write("x" * len(TOO_MUCH))


def save(fs: ExpiringFS, name: str) -> None:
    storage = ExpiringStorage(namespace=fs.namespace)
    assert storage.save(name, ContentFile(TOO_MUCH)) == name


WAYS: dict[str, Callable[[ExpiringFS, str], object]] = {
    "writebytes": lambda fs, name: fs.writebytes(name, TOO_MUCH),
    "upload": lambda fs, name: fs.upload(name, io.BytesIO(TOO_MUCH)),
    "copy": lambda fs, name: fs.copy("source", name, overwrite=True),
    "in pieces": write_in_pieces,
    "unbuffered": write_unbuffered,
    "text": write_text,
}


def overfill(limit: int) -> list[str]:
    """Write too much in every way; return the errors, after checking what each write left."""
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    cases = [(way, ns, "new") for ns in ("plots", "born") for way in (*WAYS, "save")]
    cases += [(way, "plots", name) for way in WAYS for name in ("lasting", "permanent")]
    cases.remove(("copy", "born", "new"))  # there is room for one source only
    return [overfill_once(*case) for case in cases]


def overfill_once(way: str, namespace: str, name: str) -> str:
    fs, told = get_filesystem(namespace), "nothing"
    fs.writebytes("lasting", b"old")
    fs.writebytes("permanent", b"old")
    fs.expire("lasting", seconds=600)
    fs.expire("permanent", expires=False)
    before = fs.expiration(name)
    try:
        (WAYS | {"save": save})[way](fs, name)
    except OSError as error:
        told = errno.errorcode[error.errno or 0]
    left = fs.readbytes(name) if fs.exists(name) else None
    assert left == (None if name == "new" else b"old"), f"{name} after {way} in {namespace}"
    assert fs.expiration(name) == before, f"{name} has a record after {way} in {namespace}"
    return told


@pytest.fixture
def small_disk(tmp_path: Path, full: bool) -> Iterator[tuple[Path, int]]:
    """A directory, and the longest file that a process may write there: 0 for what fits.

    In the full form it is a disk of its own, where mounting is permitted.
    """
    disk = tmp_path / "small"
    disk.mkdir()
    with mounted(disk) if full else nullcontext(False) as is_one:
        yield disk, 0 if is_one else SMALL


@pytest.mark.fault("disk full while writing", "the error, no record and no half file")
def test_a_write_to_a_full_disk_leaves_neither_a_record_nor_half_a_file(
    race_with: Callable[..., Race], small_disk: tuple[Path, int], measured: Measured
) -> None:
    disk, limit = small_disk
    race = race_with(directory_root=str(disk), namespaces={"born": {"default_ttl": 600}})
    race.fs.writebytes("source", bytes(SMALL + 10_000))

    told = race.start(overfill, limit).result() if limit else overfill(limit)

    assert set(told) <= {"ENOSPC", "EFBIG"}
    measured(f"{len(told)} writes, each told {' or '.join(set(told))}; nothing stayed behind")


ROOM_COMES_BACK: dict[str, Callable[[Any], object]] = {
    "w": lambda file: file.writelines([TOO_MUCH]),
    "a": lambda file: file.write(TOO_MUCH),
}


def write_while_there_is_no_room(mode: str) -> tuple[str, bool, object]:
    """Write too much to a disk that has room again before the file is closed."""
    fs = get_filesystem("plots")
    with fs.openbin("new", mode) as file:
        resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL, resource.RLIM_INFINITY))
        try:
            ROOM_COMES_BACK[mode](file)
            told = "nothing"
        except OSError as error:
            told = errno.errorcode[error.errno or 0]
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    return told, fs.exists("new"), fs.expiration("new")


@pytest.mark.parametrize("mode", ROOM_COMES_BACK)
def test_half_a_file_goes_even_if_there_is_room_again_at_the_end(
    race_with: Callable[..., Race], tmp_path: Path, mode: str
) -> None:
    race = race_with(directory_root=str(tmp_path), default_ttl=600)
    assert race.start(write_while_there_is_no_room, mode).result() == ("EFBIG", False, None)


def test_a_file_stays_as_it_was_if_appending_to_it_fails(
    race_with: Callable[..., Race], tmp_path: Path
) -> None:
    race = race_with(directory_root=str(tmp_path), default_ttl=600)
    (tmp_path / "plots").mkdir(exist_ok=True)
    (tmp_path / "plots" / "new").touch()
    assert race.start(write_while_there_is_no_room, "a").result() == ("EFBIG", True, None)


def spool_too_much() -> tuple[str, bool, object]:
    """Write more than there is room for on the way to where the file is kept."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL, SMALL))
    fs = get_filesystem("plots")
    told = fill_up(fs.open("new", "wb"))
    return told, fs.exists("new"), fs.expiration("new")


def spool_too_much_for_a_storage() -> tuple[str, bool, object]:
    resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL, SMALL))
    stored: list[object] = []
    told = fill_up(SpooledFile(Mode("wb"), lambda copy: None, stored.append))
    return told, bool(stored), None


def truncate_too_far() -> tuple[str, bool, object]:
    resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL, SMALL))
    fs = get_filesystem("plots")
    told = fill_up(fs.open("new", "wb"), lambda file: file.truncate(20 * len(TOO_MUCH)))
    return told, fs.exists("new"), fs.expiration("new")


def write_often(file: Any) -> None:
    for _ in range(20):
        file.write(TOO_MUCH)


def fill_up(opened: Any, write: Callable[[Any], object] = write_often) -> str:
    try:
        with closing(opened) as file:  # which, unlike its own block, reports no error to it
            write(file)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "nothing"


@pytest.mark.parametrize("job", [spool_too_much, spool_too_much_for_a_storage, truncate_too_far])
def test_a_file_that_could_not_be_spooled_is_not_stored_in_part(
    race_with: Callable[..., Race], s3_endpoint: str, job: Callable[[], object]
) -> None:
    race = race_with(type="s3fs", bucket=BUCKET, endpoint_url=s3_endpoint, default_ttl=600, **KEYS)
    assert race.start(job).result() == ("EFBIG", False, None)


def test_an_upload_whose_source_fails_leaves_no_half_file(disk: ExpiringFS) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell():
                raise ValueError("the source is broken")
            return super().read(1_000)

    with pytest.raises(ValueError, match="broken"):
        disk.upload("new", Broken(TOO_MUCH))
    assert not disk.exists("new")


# -- backends that are away as a whole


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
@pytest.mark.fault("a whole backend away", "its files wait, the others go in the first sweep")
def test_files_on_a_backend_that_is_away_wait_and_the_others_go_at_once(
    djfs: Callable[..., None], lost: Place, measured: Measured
) -> None:
    place, lose = lost
    djfs(type="memory", max_attempts=1, batch_size=4, namespaces={"exports": place})
    names = [f"file-{n}" for n in range(6)]
    exports, plots = get_filesystem("exports"), get_filesystem("plots")
    for name in names:
        if place["type"] != "s3fs":  # whose server was never there
            exports.writebytes(name, b"export")
        plots.writebytes(name, b"plot")
    exports.expire_many(names, 0)
    plots.expire_many(names, 0)
    lose()

    report = expire_objects()

    assert report.deleted == 6
    # If the place itself is missing, nobody even claims what is in it.
    assert report.postponed + sum(status().elsewhere.values()) == 6
    assert (report.missing, report.failed, report.set_aside) == (0, 0, 0)
    assert plots.listdir("/") == []
    assert (status().tracked, status().set_aside) == (6, 0)
    measured(f"{place['type']}: 6 put off without an attempt, the 6 others gone")
    close_all()
    del exports
    gc.collect()  # while what is left unclosed is ignored
