"""The tests that every backend passes, for authors of others; `unittest` is enough to run them.

Example::

    class TestMyBackend(BackendTests, WholeFileTests, TestCase):
        djfs = {"type": "my.project.MyBackend", "bucket": "tests"}
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event
from typing import TYPE_CHECKING, Any, BinaryIO, cast
from unittest import TestCase
from uuid import uuid4

from fs import errors
from fs.base import FS
from fs.test import FSTestCases

from . import conf, expirations
from .backends import Backend, Outcome, backend_for, fresh
from .filesystem import ExpiringFS, get_filesystem
from .names import Entry
from .sweeper import expire_objects

if TYPE_CHECKING:
    _Case = TestCase
else:
    _Case = object

MODES = "w", "a", "x"
WRITERS = 20
#: A backend must not expand, decode or fold these, or take them for paths.
ODD_NAMES = (
    *("a b", " a", "a ", "$HOME", "${HOME}", "~", "~a", "%41", "a%2Fb", "a+b", "a?b=c", "a#b"),
    *("a&b", "a'b", 'a"b', "a;b", "a:b", "a*", "[a]", "{a}", "<a>", "-a", ".a", "a.", "...", "A"),
    *("ä", "a\u0308", "图", "🖼", "a" * 200),
)


class _For:
    """A lease that lasts for some seconds, however often it is asked."""

    mark: int | None = None

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def remaining(self) -> float:
        return self._seconds


class BackendCase(_Case):
    """A test case with a namespace of its own, which is empty again at its end.

    Records are in memory unless ``djfs`` says otherwise.
    """

    #: The ``DJFS`` to test: the type of the backend, and its options.
    djfs: Mapping[str, Any]

    def setUp(self) -> None:
        own = uuid4().hex
        self.namespace = f"conformance/{own}"
        records = {"redis_url": "memory://", "key_prefix": f"conformance-{own}"}
        self.enterContext(conf.replaced(lambda _: {**records, **self.djfs}))
        self.enterContext(fresh())
        self.enterContext(expirations.fresh())
        self.addCleanup(lambda: self.files().removetree("/"))
        super().setUp()

    def files(self, below: str = "") -> ExpiringFS:
        """Return the filesystem of the namespace, or of one below it."""
        return get_filesystem(self.namespace + below)

    @property
    def backend(self) -> Backend:
        """The backend."""
        return backend_for(conf.current(), self.namespace)

    @property
    def stored(self) -> FS:
        """The backend's own filesystem of the namespace, without records."""
        return self.backend.open(self.namespace)


class FilesystemTests(BackendCase, FSTestCases):
    """PyFilesystem's own tests."""

    assertRaisesRegexp = TestCase.assertRaisesRegex  # noqa: N815  # which Python 3.12 dropped

    def make_fs(self) -> FS:
        """Return the filesystem that is tested."""
        return self.files()


class DeletionTests(BackendCase):
    """What a sweep relies on."""

    #: Names of files to try; leave out what the store cannot hold.
    names: Sequence[str] = ODD_NAMES

    def delete(self, *entries: Entry, seconds: float = 60) -> Outcome:
        """Delete files as a sweep does."""
        return self.backend.delete(entries, _For(seconds))

    def entries(self, *paths: str) -> Sequence[Entry]:
        """Return the entries of some paths in the namespace."""
        return [Entry(self.namespace, path) for path in paths]

    def test_files_of_many_namespaces_are_deleted_at_once_and_no_others(self) -> None:
        entries = []
        for below in "", "/d", "/e/f":
            for name in "ab":
                self.files(below).writebytes(name, b"picture")
            entries.append(Entry(self.namespace + below, "a"))
        outcome = self.delete(*entries)
        self.assertCountEqual(outcome.deleted, entries)
        self.assertCountEqual(self.files().walk.files(), ["/b", "/d/b", "/e/f/b"])

    def test_a_missing_file_counts_as_done_and_the_others_are_deleted(self) -> None:
        self.files().writebytes("a", b"")
        there, *gone = self.entries("a", "b", "none/a")
        outcome = self.delete(*gone, there)
        self.assertIn(there, outcome.deleted)
        # If the store does not say that nothing was there, it counts as deleted.
        self.assertCountEqual([*outcome.deleted, *outcome.missing], [*gone, there])
        self.assertEqual(self.files().listdir("/"), [])

    def test_a_directory_is_not_deleted_for_a_file(self) -> None:
        self.files().makedirs("d")
        self.files().writebytes("d/a", b"picture")
        self.delete(*self.entries("d"))
        self.assertEqual(self.files().readbytes("d/a"), b"picture")

    def test_nothing_is_deleted_after_the_lease(self) -> None:
        self.files().writebytes("a", b"picture")
        outcome = self.delete(*self.entries("a", "b"), seconds=0)
        self.assertEqual((outcome.deleted, outcome.missing), ([], []))
        self.assertTrue(self.files().exists("a"))

    def test_names_are_taken_as_they_are(self) -> None:
        files, (first, *others) = self.files(), self.names
        for name in self.names:
            files.writebytes(name, name.encode())
        self.assertCountEqual(files.listdir("/"), self.names)
        for name in self.names:
            self.assertEqual(files.readbytes(name), name.encode())
        outcome = self.delete(*self.entries(*others))
        self.assertCountEqual(outcome.deleted, self.entries(*others))
        self.assertEqual(files.listdir("/"), [first])

    def test_a_sweep_deletes_what_is_due_and_nothing_else(self) -> None:
        files = self.files()
        for name, seconds in ("due", 0), ("later", 3_600), ("renewed", 0):
            files.writebytes(name, b"picture")
            files.expire(name, seconds)
        files.writebytes("never", b"picture")
        files.writebytes("renewed", b"picture")
        self.assertEqual(expire_objects().deleted, 1)
        self.assertCountEqual(files.listdir("/"), ["later", "renewed", "never"])

    def test_a_size_that_is_returned_is_right(self) -> None:
        self.files().writebytes("a", b"picture")
        there, gone = self.entries("a", "b")
        self.assertIn(self.backend.size(there), (7, None))
        self.assertIn(self.backend.size(gone), (0, None))


class PlaceTests(BackendCase):
    """What tells the files of one backend from those of another."""

    def test_a_place_stays_the_same(self) -> None:
        place = self.backend.place(make=True)
        self.files().writebytes("a", b"")
        self.assertEqual(self.backend.place(), place)
        self.assertIsInstance(place, str)

    def test_another_process_finds_the_place_too(self) -> None:
        mine = self.backend
        if not mine.shared:
            self.skipTest("another process finds other files")
        with fresh():
            another = self.backend
            self.assertIsNot(another, mine)
            self.assertEqual(another.place(make=True), mine.place(make=True))
            self.files().writebytes("a", b"picture")
        self.assertEqual(self.files().readbytes("a"), b"picture")

    def test_a_namespace_is_a_directory_of_those_above_it(self) -> None:
        above, below = self.files(), self.files("/d")
        below.writebytes("a", b"from below")
        self.assertEqual(above.readbytes("d/a"), b"from below")
        self.assertEqual(above.opendir("d").readbytes("a"), b"from below")
        above.writebytes("d/a", b"from above")
        self.assertEqual(below.readbytes("a"), b"from above")

    def test_an_empty_directory_is_the_same_through_both(self) -> None:
        above, below = self.files(), self.files("/d")
        below.writebytes("a", b"")
        above.makedirs("d/e")
        below.makedir("f")
        self.assertTrue(below.isdir("e"))
        self.assertTrue(above.isdir("d/f"))
        self.assertCountEqual(above.listdir("d"), ["a", "e", "f"])
        above.removedir("d/f")
        self.assertFalse(below.exists("f"))

    def test_nothing_is_copied_onto_a_directory(self) -> None:
        files = self.files()
        files.writebytes("a", b"picture")
        files.makedir("d").writebytes("b", b"picture")
        with self.assertRaises(errors.FSError):
            files.copy("a", "d", overwrite=True)
        self.assertEqual(files.listdir("d"), ["b"])

    def test_a_part_of_a_file_is_read_as_signed_links_do(self) -> None:
        self.files().writebytes("a", b"picture")
        with self.files().openbin("a", part=range(2, 4)) as file:
            file.seek(2)
            self.assertEqual(file.read(2), b"ct")

    def test_a_url_is_a_str_or_there_is_none(self) -> None:
        self.files().writebytes("a", b"picture")
        try:
            found = self.backend.url(self.namespace, "a", self.backend.longest_url)
        except errors.NoURL:
            self.skipTest("it has no URLs of its own, so signed links take their place")
        self.assertIsInstance(found, str)


class BackendTests(FilesystemTests, DeletionTests, PlaceTests):
    """The tests that every backend has to pass."""


class _BrokenSource(io.BytesIO):
    """Fails after a little."""

    def read(self, size: int | None = -1) -> bytes:
        if self.tell():
            raise ValueError("the source is broken")
        return super().read(4)


class _SlowSource(io.BytesIO):
    """Waits in the middle, until it is told to go on."""

    def __init__(self) -> None:
        super().__init__(b"first second")
        self.is_waiting, self.go_on = Event(), Event()

    def read(self, size: int | None = -1) -> bytes:
        if self.tell() and not self.go_on.is_set():
            self.is_waiting.set()
            self.go_on.wait(60)
        return super().read(6)


class WholeFileTests(BackendCase):
    """A file appears as a whole when it is closed: for backends that promise that."""

    def begun(self, name: str, mode: str) -> Any:
        """Return a file in which something was written, still open."""
        file: Any = self.stored.openbin(name, mode)
        file.write(b"half")
        return file

    def test_a_new_file_is_not_there_before_it_is_closed(self) -> None:
        for name in MODES:
            with self.subTest(mode=name):
                with self.begun(name, name):
                    self.assertNotIn(name, self.stored.listdir("/"))
                    self.assertFalse(self.stored.exists(name))
                self.assertEqual(self.stored.readbytes(name), b"half")

    def test_the_old_contents_are_there_until_a_file_is_closed(self) -> None:
        for mode in "w", "a", "r+":
            with self.subTest(mode=mode):
                self.stored.writebytes("a", b"the old contents")
                with self.begun("a", mode):
                    self.assertEqual(self.stored.readbytes("a"), b"the old contents")
                self.assertIn(b"half", self.stored.readbytes("a"))

    def test_a_discarded_file_leaves_the_old_contents(self) -> None:
        self.stored.writebytes("a", b"the old contents")
        for mode in "w", "a", "r+":
            with self.subTest(mode=mode):
                with self.begun("a", mode) as file:
                    file.discard()
                self.assertEqual(self.stored.readbytes("a"), b"the old contents")

    def test_a_new_file_that_is_discarded_leaves_nothing(self) -> None:
        for mode in MODES:
            with self.subTest(mode=mode):
                with self.begun("a", mode) as file:
                    file.discard()
                self.assertEqual(self.stored.listdir("/"), [])

    def test_an_upload_whose_source_fails_leaves_the_old_contents(self) -> None:
        self.stored.writebytes("a", b"the old contents")
        for name in "a", "b":
            with self.assertRaisesRegex(ValueError, "broken"):
                self.stored.upload(name, _BrokenSource(b"half and more"))
        self.assertEqual(self.stored.readbytes("a"), b"the old contents")
        self.assertEqual(self.stored.listdir("/"), ["a"])

    def test_a_file_that_somebody_else_created_first_is_not_stored(self) -> None:
        file = self.begun("a", "x")
        self.stored.writebytes("a", b"theirs")
        with self.assertRaises(errors.FileExists):
            file.close()
        self.assertEqual(self.stored.readbytes("a"), b"theirs")
        self.assertEqual(self.stored.listdir("/"), ["a"])
        with self.assertRaises(errors.FileExists):
            self.stored.openbin("a", "x")

    def test_of_many_exclusive_writers_one_wins(self) -> None:
        start = Barrier(WRITERS)

        def write(number: int) -> bool:
            file = self.stored.openbin("a", "x")
            file.write(b"%d" % number)
            start.wait(60)
            try:
                file.close()
            except errors.FileExists:
                return False
            return True

        with ThreadPoolExecutor(WRITERS) as threads:
            won = [n for n, result in enumerate(threads.map(write, range(WRITERS))) if result]
        self.assertEqual(len(won), 1)
        self.assertEqual(self.stored.readbytes("a"), b"%d" % won[0])
        self.assertEqual(self.stored.listdir("/"), ["a"])

    def test_nobody_sees_half_an_upload_or_waits_for_it(self) -> None:
        self.stored.writebytes("a", b"the old contents")
        source = _SlowSource()
        with ThreadPoolExecutor(1) as threads:
            upload = threads.submit(self.stored.upload, "a", cast(BinaryIO, source))
            self.assertTrue(source.is_waiting.wait(60))
            self.assertEqual(self.stored.readbytes("a"), b"the old contents")
            source.go_on.set()
            upload.result(60)
        self.assertEqual(self.stored.readbytes("a"), b"first second")
