"""Any PyFilesystem by its address: what works over memory, FTP and archives."""

from __future__ import annotations

import gc
import os
import sys
import tarfile
import uuid
import zipfile
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from threading import Barrier, BrokenBarrierError, Lock
from time import sleep
from typing import Any, ClassVar, cast
from unittest import TestCase

import pytest
from fs import errors
from fs.base import FS
from fs.info import Info
from fs.memoryfs import MemoryFS
from fs.opener import Opener, registry
from fs.opener.appfs import AppFSOpener

from djpyfs import BackendUnavailable, ConfigurationError, conf, expire_objects, get_filesystem
from djpyfs.audit import Audit
from djpyfs.backends import Outcome, backend_for, close_all
from djpyfs.backends.memory import MemoryBackend
from djpyfs.backends.opener import OpenerBackend
from djpyfs.backends.osfs import DiskBackend
from djpyfs.conformance import ODD_NAMES, BackendTests, FilesystemTests, WholeFileTests
from djpyfs.errors import FileBusy
from djpyfs.names import Entry
from djpyfs.places import records_of
from tests.endless import Endless
from tests.servers import HOST, Server, free_port, wait_for

SERVE = """
import resource, signal, sys
from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import FTPHandler
from pyftpdlib.servers import FTPServer
authorizer = DummyAuthorizer()
authorizer.add_user("ann", "sesame", sys.argv[2], perm="elradfmwMT")
authorizer.add_user("bob", "sesame", sys.argv[2], perm="elrafmwMT")  # who may delete nothing
FTPHandler.authorizer = authorizer
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[4]),) * 2)  # as if the disk were full then
FTPServer((sys.argv[1], int(sys.argv[3])), FTPHandler).serve_forever()
"""


class Ftp(Server):
    """An FTP server for the files in one directory."""

    def __init__(self, directory: Path, longest: int = 1 << 30) -> None:
        self.directory = directory
        port = free_port()
        command = sys.executable, "-c", SERVE, HOST, str(directory), str(port), str(longest)
        super().__init__([*command], port)

    @property
    def url(self) -> str:
        return f"ftp://ann:sesame@{HOST}:{self.port}"


@contextmanager
def serving(directory: Path, longest: int = 1 << 30) -> Iterator[Ftp]:
    server = Ftp(directory, longest)
    server.start()
    try:
        yield server
        close_all()
    finally:
        server.stop()
        gc.collect()  # while what is left unclosed is ignored


@pytest.fixture(scope="module")
def ftp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ftp]:
    server = Ftp(tmp_path_factory.mktemp("ftp"))
    server.start()
    try:
        yield server
    finally:
        close_all()  # while there is somebody to say good-bye to
        server.stop()


@pytest.mark.filterwarnings("ignore:datetime.datetime.utcfromtimestamp")  # in PyFilesystem
class TestFtp(BackendTests, WholeFileTests, TestCase):
    # PyFilesystem takes the others for something else where the server lists them.
    names = [name for name in ODD_NAMES if not set(name) & set(" ;=")]

    @pytest.fixture(autouse=True)
    def _place(self, ftp: Ftp) -> None:
        self.djfs = {"type": "opener", "url": ftp.url}


class _ForOneThread(MemoryFS):
    """Says that it is not thread-safe, and lists the threads that met in it nevertheless."""

    patience = 0.0  # s for which one waits for another

    def __init__(self) -> None:
        super().__init__()
        self._meta = {**self._meta, "thread_safe": False}
        self._meeting = Barrier(2, timeout=self.patience)

    def listdir(self, path: str) -> list[str]:
        try:
            return [f"thread {self._meeting.wait()}"]
        except BrokenBarrierError:  # nobody else came
            return super().listdir(path)


class _Careless(Opener):
    """What opens it."""

    protocols = ["careless"]

    def open_fs(self, *_: Any) -> FS:
        return _ForOneThread()


class TestOneThreadAtATime(FilesystemTests, TestCase):
    djfs = {"type": "opener", "url": "careless://"}

    def setUp(self) -> None:
        registry.install(_Careless)
        super().setUp()


def test_a_filesystem_that_is_not_thread_safe_is_used_by_one_thread_at_a_time(
    djfs: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_ForOneThread, "patience", 0.5)
    registry.install(_Careless)
    djfs(type="opener", url="careless://another")
    plots = get_filesystem("plots")
    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(plots.listdir, "//")) == [[], []]


def archive(path: Path, **files: bytes) -> Path:
    """Put files into ``plots`` of a new archive, a zip or a tar by its name."""
    names = {name: path.with_name(name) for name in files}
    for name, file in names.items():
        file.write_bytes(files[name])
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as zipped:
            for name, file in names.items():
                zipped.write(file, f"plots/{name}")
    else:
        with tarfile.open(path, "w") as tarred:
            for name, file in names.items():
                tarred.add(file, f"plots/{name}")
    return path


with_a_secret = pytest.mark.parametrize(
    "url",
    [
        "ftp://me:{}@127.0.0.1/a",
        "ftp://me:x@{}@127.0.0.1/a",
        "ftp://127.0.0.1/a?key={}",
        "ftp://127.0.0.1/a?me=b@c&key={}",
    ],
)


@with_a_secret
def test_the_root_is_shown_without_secrets(url: str) -> None:
    [root] = OpenerBackend({"url": url.format("sesame")}).roots()
    assert "sesame" not in root


def test_expired_files_are_deleted_over_ftp(djfs: Callable[..., None], ftp: Ftp) -> None:
    djfs(type="opener", url=ftp.url)
    plots = get_filesystem(f"plots/{uuid.uuid4().hex}")
    for name in "ab":
        plots.writebytes(name, b"picture")
        plots.expire(name, 0 if name == "a" else 100)
    assert expire_objects().deleted == 1
    assert plots.listdir("/") == ["b"]


def test_a_directory_of_an_ftp_server_may_be_the_root(djfs: Callable[..., None], ftp: Ftp) -> None:
    (ftp.directory / "some/files").mkdir(parents=True)
    djfs(type="opener", url=f"{ftp.url}/some/files")
    get_filesystem("plots").writebytes("a", b"picture")
    assert (ftp.directory / "some/files/plots/a").read_bytes() == b"picture"


@pytest.mark.filterwarnings("ignore:unclosed")  # which PyFilesystem leaves to the collector
def test_a_broken_connection_is_opened_again(
    djfs: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("djpyfs.backends.opened.CONNECTION_LIFE", 0)
    with serving(tmp_path) as server:
        djfs(type="opener", url=server.url)
        plots = get_filesystem("plots")
        plots.writebytes("a", b"picture")
        server.stop()
        server.start()
        assert plots.readbytes("a") == b"picture"


@pytest.mark.filterwarnings("ignore:unclosed")  # which PyFilesystem leaves to the collector
def test_a_lost_connection_fails_one_call_and_no_more(
    djfs: Callable[..., None], tmp_path: Path
) -> None:
    with serving(tmp_path) as server:
        djfs(type="opener", url=server.url)
        plots = get_filesystem("plots")
        plots.writebytes("a", b"picture")
        server.stop()
        server.start()
        with pytest.raises(errors.RemoteConnectionError):
            plots.readbytes("a")
        assert plots.readbytes("a") == b"picture"


def test_a_file_that_the_server_does_not_let_go_of_keeps_its_deadline(
    djfs: Callable[..., None], ftp: Ftp
) -> None:
    djfs(type="opener", url=ftp.url.replace("ann", "bob"))
    plots = get_filesystem(f"plots/{uuid.uuid4().hex}")
    plots.writebytes("a", b"picture")
    plots.expire("a", 0)
    report = expire_objects()
    assert (report.failed, report.missing) == (1, 0)
    with pytest.raises(errors.PermissionDenied):
        plots.remove("a")
    assert plots.expiration("a")


@pytest.mark.filterwarnings("ignore:unclosed")  # which PyFilesystem leaves to the collector
def test_a_server_that_refuses_the_login_is_away(djfs: Callable[..., None], ftp: Ftp) -> None:
    djfs(type="opener", url=ftp.url.replace("ann", "eve"))
    with pytest.raises(errors.CreateFailed):
        get_filesystem("plots")
    backend = backend_for(conf.current(), "plots")
    records_of(conf.current(), backend, make=True).schedule([b"plots/a"], 0)
    report = expire_objects()
    assert (report.postponed, report.failed) == (1, 0)
    gc.collect()


@pytest.mark.filterwarnings("ignore:unclosed")  # which ftplib leaves to the collector
def test_an_upload_that_breaks_off_leaves_a_deadline_and_no_wrong_answers(
    djfs: Callable[..., None], tmp_path: Path
) -> None:
    with serving(tmp_path, longest=1 << 20) as server:
        djfs(type="opener", url=server.url, default_ttl=0.1, grace=1)
        plots = get_filesystem("plots")
        of_another_thread = cast(OpenerBackend, backend_for(conf.current(), "plots")).filesystem()
        with pytest.raises(errors.FSError):
            plots.writebytes("too long", bytes(32 << 20))  # more than waits on the way
        with pytest.raises(errors.RemoteConnectionError):
            of_another_thread.listdir("/")
        assert [plots.exists("nothing"), plots.exists("too long")] == [False, True]
        wait_for(lambda: expire_objects().deleted == 1)


def test_an_unreachable_server_is_an_error_without_its_password(djfs: Callable[..., None]) -> None:
    djfs(type="opener", url=f"ftp://ann:sesame@{HOST}:{free_port()}")
    with pytest.raises(errors.CreateFailed) as raised:
        get_filesystem("plots")
    assert "sesame" not in str(raised.value)


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_an_archive_is_read_and_never_written(
    djfs: Callable[..., None], tmp_path: Path, kind: str
) -> None:
    path = archive(tmp_path / f"old.{kind}", a=b"picture")
    before = path.read_bytes()
    djfs(type="opener", url=f"{kind}://{path}", max_attempts=1)
    plots = get_filesystem("plots")
    assert plots.listdir("/") == ["a"]
    assert plots.readbytes("a") == b"picture"
    with pytest.raises(errors.ResourceReadOnly):
        plots.writebytes("b", b"")
    with pytest.raises(errors.CreateFailed, match="read only"):
        get_filesystem("others")
    plots.expire("a", 0)
    assert expire_objects().set_aside == 1
    assert path.read_bytes() == before


def test_an_archive_that_is_not_there_is_not_made(
    djfs: Callable[..., None], tmp_path: Path
) -> None:
    djfs(type="opener", url=f"zip://{tmp_path}/old.zip")
    with pytest.raises(errors.CreateFailed):
        get_filesystem("plots")
    assert list(tmp_path.iterdir()) == []


class _Troubled(MemoryFS):
    """A filesystem behind a network; it raises what it was told to at some of its files."""

    troubles: ClassVar[dict[str, Exception]] = {}
    is_away = False

    def __init__(self) -> None:
        super().__init__()
        self._meta = {**self._meta, "network": True}

    def remove(self, path: str) -> None:
        if error := self.troubles.get(path.rpartition("/")[2]):
            raise error
        super().remove(path)

    def getinfo(self, path: str, namespaces: Collection[str] | None = None) -> Info:
        if self.is_away:
            raise TimeoutError("no answer")
        return super().getinfo(path, namespaces)

    def close(self) -> None:
        """Stay open, as a server does when a connection to it is closed."""


class _ToTrouble(Opener):
    """What opens it, each time the same one."""

    protocols = ["troubled"]
    files = _Troubled()
    opened = 0

    def open_fs(self, *_: Any) -> FS:
        type(self).opened += 1
        return self.files


def outcome_of(*names: str) -> Outcome:
    """The outcome of deleting files behind a network as one batch."""
    registry.install(_ToTrouble)
    backend = OpenerBackend.at({"url": "troubled://"})
    files = backend.open("plots")
    for name in names:
        files.writebytes(name, b"picture")
    return backend.delete([Entry("plots", name) for name in names], Endless())


@pytest.mark.parametrize(
    ("error", "left"),
    [
        (TimeoutError("no answer"), "unanswered"),
        (errors.RemoteConnectionError("lost connection"), "unanswered"),
        (ConnectionRefusedError("nobody there"), "failed"),
        (PermissionError("never"), "failed"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value,
)
def test_one_file_in_trouble_postpones_no_other(
    monkeypatch: pytest.MonkeyPatch, error: Exception, left: str
) -> None:
    monkeypatch.setattr(_Troubled, "troubles", {"bad": error})
    outcome = outcome_of("a", "bad", "b")
    assert [entry.path for entry in outcome.deleted] == ["a", "b"]
    assert [entry.path for entry, _ in getattr(outcome, left)] == ["bad"]
    assert not outcome.away


def test_a_time_out_that_a_library_wraps_is_still_a_time_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    error = RuntimeError("the library's own")
    error.__cause__ = TimeoutError("no answer")
    monkeypatch.setattr(_Troubled, "troubles", {"bad": error})
    assert [entry.path for entry, _ in outcome_of("a", "bad").unanswered] == ["bad"]


def test_a_server_that_stops_answering_postpones_what_it_was_not_asked_to_delete(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_Troubled, "troubles", {"b": TimeoutError("no answer")})
    registry.install(_ToTrouble)
    backend = OpenerBackend.at({"url": "troubled://"})
    for name in "abc":
        backend.open("plots").writebytes(name, b"picture")
    monkeypatch.setattr(_Troubled, "is_away", True)
    outcome = backend.delete([Entry("plots", name) for name in "abc"], Endless())
    assert [entry.path for entry in outcome.deleted] == ["a"]
    assert [entry.path for entry, _ in outcome.unanswered] == ["b"]
    assert [entry.path for entry, _ in outcome.away] == ["c"]


@pytest.mark.parametrize(
    ("error", "is_busy"),
    [(ConnectionRefusedError("nobody there"), False), (TimeoutError("no answer"), True)],
    ids=["refused", "not answered"],
)
def test_a_removal_keeps_others_from_the_file_only_if_its_request_was_sent(
    djfs: Callable[..., None], monkeypatch: pytest.MonkeyPatch, error: Exception, is_busy: bool
) -> None:
    registry.install(_ToTrouble)
    djfs(type="opener", url="troubled://")
    plots = get_filesystem("plots")
    plots.writebytes("a", b"picture")
    monkeypatch.setattr(_Troubled, "troubles", {"a": error})
    with pytest.raises(type(error)):
        plots.remove("a")
    with pytest.raises(FileBusy) if is_busy else nullcontext():
        plots.expire("a", 60)


def test_after_an_answer_that_did_not_come_another_connection_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    error = errors.OperationFailed("bad")  # which alone would be an answer
    error.__cause__ = TimeoutError("no answer")
    monkeypatch.setattr(_Troubled, "troubles", {"bad": error})
    monkeypatch.setattr(_ToTrouble, "opened", 0)
    outcome_of("bad", "a")
    assert _ToTrouble.opened == 2


class _OneByOne(MemoryFS):
    """A connection to files behind a network, which deletes together with another one alone."""

    files = MemoryFS()
    meeting: Barrier

    def __init__(self) -> None:
        super().__init__()
        self._meta = {**self._meta, "network": True}
        self._one_by_one = Lock()
        self.root = self.files.root

    def remove(self, path: str) -> None:
        with self._one_by_one:
            self.meeting.wait(timeout=20)
        super().remove(path)


class _ToOneByOne(Opener):
    """What opens such a connection."""

    protocols = ["onebyone"]

    def open_fs(self, *_: Any) -> FS:
        return _OneByOne()


def test_files_behind_a_network_are_deleted_in_parallel_by_separate_connections(
    djfs: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.install(_ToOneByOne)
    monkeypatch.setattr(_OneByOne, "meeting", Barrier(2), raising=False)
    djfs(type="opener", url="onebyone://")
    plots = get_filesystem("plots")
    for name in "ab":
        plots.writebytes(name, b"picture")
    plots.expire_many(["a", "b"], 0)
    assert expire_objects().deleted == 2


class _Frozen(_Troubled):
    """A connection to a server that takes its time, or lets its clients wait in vain."""

    at_remove: ClassVar[Callable[[], object]]

    def remove(self, path: str) -> None:
        type(self).at_remove()
        super().remove(path)


class _ToFrozen(Opener):
    """What opens such a connection, unless it waits in vain."""

    protocols = ["frozen"]
    files = _Frozen()
    is_frozen = False
    tries = 0

    def open_fs(self, *_: Any) -> FS:
        if self.is_frozen:
            type(self).tries += 1
            sleep(0.2)
            raise TimeoutError("no answer")
        return self.files


@pytest.fixture
def frozen(djfs: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A namespace on such a server, beside ``disk``, each with files that are due."""
    registry.install(_ToFrozen)
    monkeypatch.setattr(_ToFrozen, "tries", 0)
    monkeypatch.setattr(_Frozen, "at_remove", staticmethod(lambda: None), raising=False)
    disk = {"type": "osfs", "directory_root": str(tmp_path)}
    djfs(type="opener", url="frozen://", namespaces={"disk": disk})
    name = f"plots/{uuid.uuid4().hex}"
    for namespace in name, "disk":
        files = get_filesystem(namespace)
        for number in range(24):
            files.writebytes(f"{number}", b"picture")
        files.expire_many([f"{number}" for number in range(24)], 0)
    return name


def test_a_server_that_lets_all_wait_is_waited_for_once_and_not_for_each_file(
    frozen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def freeze() -> None:
        monkeypatch.setattr(_ToFrozen, "is_frozen", True)
        sleep(0.2)
        raise TimeoutError("no answer")

    monkeypatch.setattr(_Frozen, "at_remove", staticmethod(freeze))
    report = expire_objects()
    assert (report.deleted, report.postponed, report.failed) == (24, 24, 0)
    assert _ToFrozen.tries <= OpenerBackend.deletions_at_once


def test_files_on_disk_go_before_those_behind_a_network(
    frozen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[int] = []
    disk = get_filesystem("disk")
    look = staticmethod(lambda: left.append(len(disk.listdir("/"))))
    monkeypatch.setattr(_Frozen, "at_remove", look)
    assert expire_objects().deleted == 48
    assert set(left) == {0}


def test_no_deletion_begins_after_the_seconds_of_a_sweep(
    frozen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Frozen, "at_remove", staticmethod(lambda: sleep(0.6)))
    report = expire_objects(seconds=0.5)
    assert report.deleted + report.remaining == 48
    assert report.deleted <= 24 + OpenerBackend.deletions_at_once
    monkeypatch.setattr(_Frozen, "at_remove", staticmethod(lambda: None))
    assert expire_objects().deleted == report.remaining


@pytest.mark.parametrize("protocol", AppFSOpener.protocols[:1])
def test_the_directory_of_an_application_is_on_disk(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, protocol: str
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    backend = OpenerBackend.at({"url": f"{protocol}://plots:ann"})
    backend.open("plots").writebytes("a", b"picture")
    assert list(tmp_path.rglob("plots/a"))
    assert isinstance(backend, DiskBackend)


def test_a_sweep_makes_no_directory_over_ftp(djfs: Callable[..., None], ftp: Ftp) -> None:
    djfs(type="opener", url=ftp.url)
    backend = OpenerBackend.at({"url": ftp.url})
    name = uuid.uuid4().hex
    outcome = backend.delete([Entry(f"{name}/x", "a")], Endless())
    assert len(outcome.missing) == 1
    assert not (ftp.directory / name).exists()
    backend.close()


def test_an_audit_makes_no_directory_over_ftp(djfs: Callable[..., None], ftp: Ftp) -> None:
    djfs(type="opener", url=ftp.url)
    name = uuid.uuid4().hex
    assert list(Audit().run(f"{name}/unheard of")) == []
    assert not (ftp.directory / name).exists()


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("ftp://ann:old@host/files", "ftp://ann:new@host/files", True),
        ("ftp://ann:old@host/files", "ftp://bob:old@host/files", False),
        ("ftp://ann:old@host/files", "ftp://ann:old@host/others", False),
        ("ftp://ann:old@host/files", "ftp://ann:old@other/files", False),
        ("ftp://ann:old@host/files", "ftp://ann:old@host/files/", True),
        ("ftp://ann:old@host/env=a", "ftp://ann:old@host/env=b", False),
        ("ftp://ann:old@host/a#1", "ftp://ann:old@host/a#2", False),
        ("ftp://ann:old@host/a@b/c", "ftp://ann:old@host/d@b/c", False),
        ("ftp://ann:old@host/files", "ftp://ann:old@host//./files", True),
        ("zip://a.zip", f"zip://{os.getcwd()}/a.zip", True),
        ("zip://a=1.zip", "zip://a=2.zip", False),
        ("zip://a.zip", "zip://b.zip", False),
        ("mem://", "mem://", False),
        ("temp://", "temp://", False),
    ],
)
def test_the_place_of_files_is_shown_without_their_password(
    one: str, other: str, same: bool
) -> None:
    places = [OpenerBackend.at({"url": url}).place() for url in (one, other)]
    assert (places[0] == places[1]) is same


def test_a_directory_by_its_address_is_the_place_that_it_is_as_a_disk(tmp_path: Path) -> None:
    by_address = OpenerBackend.at({"url": f"osfs://{tmp_path}"})
    with pytest.raises(BackendUnavailable):
        by_address.place()
    by_address.open("plots").writebytes("a", b"picture")
    assert by_address.place() == DiskBackend({"directory_root": tmp_path}).place()


def test_a_sweep_follows_no_link_out_of_a_directory_by_its_address(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/a").write_bytes(b"precious")
    backend = OpenerBackend.at({"url": f"osfs://{tmp_path}/files"})
    backend.open("plots").writebytes("mine", b"picture")
    (tmp_path / "files/plots/directory").symlink_to(tmp_path / "outside")
    (tmp_path / "files/plots/file").symlink_to(tmp_path / "outside/a")
    entries = [Entry("plots/directory", "a"), Entry("plots", "file")]
    outcome = backend.delete(entries, Endless())
    assert [entry for entry, _ in outcome.failed] == entries[:1]
    assert outcome.deleted == entries[1:]
    assert (tmp_path / "outside/a").read_bytes() == b"precious"


def test_a_temporary_directory_goes_when_it_is_closed_but_not_with_a_child() -> None:
    backend = OpenerBackend.at({"url": "temp://"})
    files = backend.open("plots")
    files.writebytes("a", b"picture")
    [root] = backend.roots()
    child = os.fork()
    if not child:
        backend.close()
        os._exit(0)
    os.waitpid(child, 0)
    assert files.readbytes("a") == b"picture"
    backend.close()
    assert not Path(root).exists()


def test_memory_is_another_place_in_a_child_of_this_process(djfs: Callable[..., None]) -> None:
    djfs(type="memory")
    backend = backend_for(conf.current(), "plots")
    here = backend.place()
    assert backend.place() == here
    child = os.fork()
    if not child:
        os._exit(backend.place() == here)
    assert os.waitpid(child, 0)[1] == 0


@pytest.fixture
def hasty_threads() -> Iterator[None]:
    """Make threads take turns as often as they can, so that no race is won by luck."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("hasty_threads")
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_threads_read_one_archive_at_the_same_time(
    djfs: Callable[..., None], tmp_path: Path, kind: str
) -> None:
    contents = {name: name.encode() * 30_000 for name in "abcdefgh"}
    djfs(type="opener", url=f"{kind}://{archive(tmp_path / f'old.{kind}', **contents)}")
    plots = get_filesystem("plots")

    def read(name: str) -> bytes:
        with plots.openbin(name) as file:
            return b"".join(iter(lambda: file.read(1_000), b""))

    with ThreadPoolExecutor(8) as threads:
        names = [*contents] * 30
        for name, found in zip(names, threads.map(read, names), strict=True):
            assert found == contents[name]


def test_memory_is_shared_in_a_process_and_new_after_a_fork(
    djfs: Callable[..., None],
) -> None:
    djfs(type="opener", url="mem://")
    get_filesystem("plots").writebytes("a", b"picture")
    assert get_filesystem("plots").readbytes("a") == b"picture"
    assert get_filesystem("others").listdir("/") == []
    child = os.fork()
    if not child:
        os._exit(get_filesystem("plots").listdir("/") != [])
    assert os.waitpid(child, 0)[1] == 0
    assert get_filesystem("plots").exists("a")


def test_a_child_does_not_close_what_it_has_inherited(djfs: Callable[..., None]) -> None:
    djfs(type="opener", url="temp://")  # which clears its directory away when it is closed
    get_filesystem("plots").writebytes("a", b"picture")
    child = os.fork()
    if not child:
        gc.collect()  # what nobody holds any more closes itself
        os._exit(0)
    os.waitpid(child, 0)
    assert get_filesystem("plots").exists("a")


class SelfClosing(MemoryBackend):
    """Closes itself when nobody holds it any more, as those of other people may."""

    closed: ClassVar[Path]

    def __del__(self) -> None:
        self.closed.touch()


def test_a_child_does_not_close_a_backend_of_its_parent(
    djfs: Callable[..., None], tmp_path: Path
) -> None:
    SelfClosing.closed = tmp_path / "closed"
    djfs(type=f"{__name__}.{SelfClosing.__name__}")
    backend_for(conf.current(), "plots")
    child = os.fork()
    if not child:
        gc.collect()
        os._exit(0)
    os.waitpid(child, 0)
    assert not SelfClosing.closed.exists()


def test_a_filesystem_from_before_a_fork_has_a_connection_of_its_own_in_the_child(
    djfs: Callable[..., None], ftp: Ftp
) -> None:
    djfs(type="opener", url=ftp.url)
    plots = get_filesystem(uuid.uuid4().hex)
    plots.writebytes("a", b"picture")

    def use(name: str) -> None:
        for _ in range(20):
            plots.writebytes(name, name.encode())
            assert plots.readbytes(name) == name.encode()

    child = os.fork()
    if not child:
        with suppress(Exception):
            use("child's")
            os._exit(0)
        os._exit(1)
    use("parent's")
    assert os.waitpid(child, 0)[1] == 0


def test_a_child_leaves_the_connection_of_its_parent_alone(
    djfs: Callable[..., None], ftp: Ftp
) -> None:
    djfs(type="opener", url=ftp.url)
    name = uuid.uuid4().hex
    # Without records, which would hold on to the backend as well.
    backend_for(conf.current(), "plots").open("plots").writebytes(name, b"picture")
    child = os.fork()
    if not child:
        gc.collect()  # what nobody holds any more says good-bye
        os._exit(get_filesystem("plots").readbytes(name) != b"picture")
    assert os.waitpid(child, 0)[1] == 0
    assert backend_for(conf.current(), "plots").open("plots").readbytes(name) == b"picture"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ({}, r"DJFS\['url'\] is of type NoneType"),
        ({"url": 5}, "is of type int"),
        ({"url": "ann:sesame@host"}, "names no protocol"),
        ({"url": "ftpx://ann:sesame@host"}, "'ftpx://'.*use one of.*ftp.*zip"),
        ({"url": "mem://", "urls": "mem://"}, "did you mean 'url'"),
    ],
    ids=str,
)
def test_a_wrong_url_is_reported_without_its_password(
    djfs: Callable[..., None], url: dict[str, Any], message: str
) -> None:
    djfs(type="opener", **url)
    with pytest.raises(ConfigurationError, match=message) as raised:
        get_filesystem("plots")
    assert "sesame" not in str(raised.value)


def test_there_is_no_url_without_the_view_of_djpyfs(
    djfs: Callable[..., None], settings: Any
) -> None:
    settings.ROOT_URLCONF = None
    djfs(type="opener", url="mem://")
    with pytest.raises(errors.NoURL, match=r"include djpyfs\.urls"):
        get_filesystem("plots").get_url("a")
