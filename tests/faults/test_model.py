"""The filesystem, the record stores and the sweeps against a model that is simple enough to trust.

Hypothesis makes up what writers, time, and sweeps that die or freeze do; after each step the
files and their deadlines must be those of the model. The invariants: nothing goes before its
deadline, nothing whose write or extension has returned is lost, a sweep acts on no claim that has
lapsed, and in the end nothing that is overdue stays, nor any record of it.
"""

from __future__ import annotations

import logging
import sys
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from typing import BinaryIO, ClassVar

import pytest
import redis
from django.conf import settings as django_settings
from django.test import override_settings
from django.urls import include, path
from fs import errors
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from djpyfs import backends, conf, expirations, expire_objects, get_filesystem, links
from djpyfs.addresses import DEFAULT_URL
from djpyfs.conf import LONGEST_LIFE, SECOND
from djpyfs.errors import FileBusy
from djpyfs.expirations import Backoff, Expirations, Move, claim_lease, store_for
from djpyfs.filesystem import ExpiringFS
from djpyfs.names import Entry
from djpyfs.places import records_for, records_of
from djpyfs.sweeper import SweepReport, delete_if_due
from tests.faults.conftest import FULL_TIMEOUT, Measured
from tests.faults.model import GRACE, HIDING, MAX_ATTEMPTS, Claim, Model, Record, Write, file_of
from tests.faults.processes import Actor
from tests.faults.world import (
    BEGINNING,
    TICK,
    Claimed,
    Removed,
    Sweep,
    WatchedBackend,
    World,
    world_of_memory,
    world_of_redis,
)
from tests.servers import RedisServer

urlpatterns = [path("f/", include("djpyfs.urls"))]

# Between two ticks, so that nothing ends at the moment of a look.
LEASE = 1_500_500
BACKOFF = 5 * SECOND
LONGEST_BACKOFF = 3_600 * SECOND

IN_MEMORY = "memory://"
TELLERS = 2  # processes that run the examples of the full form
STEPS = 110  # or fewer: now and then Hypothesis ends an example early

PATHS = ("a", "b", "d/a", "e/a")
TOPS = ("plain", HIDING)
# One file has two names if one namespace lies in the other.
NAMES = [Entry(ns, path) for ns in TOPS for path in PATHS] + [Entry(f"{ns}/d", "a") for ns in TOPS]
FILES = [file_of(name) for name in NAMES[: len(TOPS) * len(PATHS)]]
POLICIES = (*TOPS, "plain/d")  # each may have a default life of its own

names = st.sampled_from(NAMES)
tops = st.sampled_from(TOPS)
paths = st.sampled_from(PATHS)
lives = st.sampled_from((0, 1, 5, 20, 60))
some_bytes = st.sampled_from((b"", b"x", b"picture"))
stops = numbers = st.integers(0, 5)
moments = st.sampled_from((0, 0.001, 0.5, 1, 2, 3, 6, 11, 31, 700))
default_lives = st.sampled_from((None, 4, 30))


@dataclass(eq=False)
class Handle:
    """An open file."""

    file: BinaryIO
    write: Write
    data: bytes


@dataclass
class Followed:
    """A sweep, and what the model knows of it."""

    sweep: Sweep
    claim: Claim = field(default_factory=lambda: Claim(0))
    claimed: int = 0
    done: list[Entry] = field(default_factory=list)
    failed: list[Entry] = field(default_factory=list)
    tally: Counter[str] = field(
        default_factory=lambda: Counter(deleted=0, missing=0, retried=0, set_aside=0)
    )


class Machine(RuleBasedStateMachine):
    """Does the same to the filesystem and to the model."""

    world: ClassVar[World]
    seen: ClassVar[Counter[str]]
    has_shards: ClassVar[bool]

    def __init__(self) -> None:
        super().__init__()
        self.djfs = {**django_settings.DJFS, "key_prefix": uuid.uuid4().hex}
        backends.close_all()
        expirations.close_all()
        self.world.begin()
        self.default_lives: dict[str, int | None] = dict.fromkeys(POLICIES)
        self.configure()
        self.model = Model(self.world, self.wait)
        self.handles: list[Handle] = []
        self.frozen: list[Followed] = []
        self.moves: Iterator[Move] | None = None
        self.soon = 1  # so many shards there will be
        self.steps = 0
        self.raw = {ns: self.backend.open(ns) for ns in TOPS}

    def configure(self) -> None:
        policies = {ns: {"default_ttl": life} for ns, life in self.default_lives.items()}
        policies[HIDING]["hide_expired"] = True
        django_settings.DJFS = {**self.djfs, "namespaces": policies}
        self.fs = {name.namespace: get_filesystem(name.namespace) for name in NAMES}
        self.backend = backends.backend_for(conf.current(), TOPS[0])
        self.records = records_of(conf.current(), self.backend, make=True)

    def life(self, file: Entry) -> int:
        top = file.namespace.partition("/")[0]
        return (self.default_lives.get(file.namespace, self.default_lives[top]) or 0) * SECOND

    def wait(self, file: Entry) -> int:
        """How long until a deletion that has failed is retried."""
        wait = self.records.claim_one(file.member).wait
        longest = BACKOFF * 2 ** (self.model.records[file].attempts - 1)
        assert longest / 2 <= wait <= longest
        return wait

    def of(self, name: Entry) -> ExpiringFS:
        """The filesystem of a name, in which there is a directory for it."""
        top, _, below = file_of(name).namespace.partition("/")
        self.fs[top].makedirs(below, recreate=True)
        return self.fs[name.namespace]

    @contextmanager
    def waiting(self, *files: Entry) -> Iterator[None]:
        """What a writer does; it must neither ignore a live claim nor wait for longer."""
        claims = [self.model.records[it].claim for it in files if self.model.is_busy(it)]
        free = max((claim.until for claim in claims if claim), default=self.world.now)
        began = self.world.now
        yield
        assert free <= self.world.now <= (free + 2 * TICK if free > began else began)

    # -- what is there, and what changes by itself

    @initialize(there=st.dictionaries(names, st.none() | lives), default_life=default_lives)
    def there_are_files(self, there: dict[Entry, int | None], default_life: int | None) -> None:
        self.the_default_life_changes(HIDING, default_life)
        for name, life in there.items():
            self.write(name, b"first", False)
            self.expire(name, life)

    @rule(seconds=moments)
    def time_passes(self, seconds: float) -> None:
        self.world.pass_(seconds * SECOND)

    @rule(ns=st.sampled_from(POLICIES), life=default_lives)
    def the_default_life_changes(self, ns: str, life: int | None) -> None:
        self.default_lives[ns] = life
        self.configure()

    @rule(name=names)
    def a_file_cannot_be_deleted_or_can_be_again(self, name: Entry) -> None:
        self.world.undeletable ^= {file_of(name)}

    # -- writers

    @contextmanager
    def perhaps_refused(self, refused: bool) -> Iterator[None]:
        self.world.refuses_writes = refused
        with suppress(errors.PermissionDenied):
            yield
            assert not refused
        self.world.refuses_writes = False

    @rule(name=names, data=some_bytes, refused=st.sampled_from((False, False, True)))
    def write(self, name: Entry, data: bytes, refused: bool) -> None:
        fs, file = self.of(name), file_of(name)
        with self.waiting(file), self.perhaps_refused(refused):
            fs.writebytes(name.path, data)
        write = self.model.begin(file, self.life(file))
        if refused:
            self.model.abandon(write)
        else:
            self.model.files[file] = data
            self.model.finish(write)

    @precondition(lambda self: len(self.handles) < 3)
    @rule(name=names, appends=st.booleans())
    def open(self, name: Entry, appends: bool) -> None:
        fs, file = self.of(name), file_of(name)
        adds = appends and self.model.is_seen(file)
        with self.waiting(file):
            opened = fs.openbin(name.path, "ab" if appends else "wb")
        write = self.model.begin(file, self.life(file))
        data = self.model.files[file] if adds else b""
        self.handles.append(Handle(opened, write, data))

    @precondition(lambda self: self.handles)
    @rule(which=numbers, data=some_bytes, later=moments)
    def write_on(self, which: int, data: bytes, later: float) -> None:
        self.time_passes(later)
        handle = self.handles[which % len(self.handles)]
        handle.file.write(data)
        handle.data += data

    @precondition(lambda self: self.handles)
    @rule(which=numbers)
    def a_writer_freezes(self, which: int) -> None:
        handle = self.handles[which % len(self.handles)]
        if not handle.write.until:
            self.world.drop(handle.file._write._lease)  # type: ignore[attr-defined]
            handle.write.until = self.world.now + GRACE

    @precondition(lambda self: self.handles)
    @rule(which=numbers, later=moments, how=st.sampled_from(("ends", "ends", "fails", "discards")))
    def a_write_ends(self, which: int, later: float, how: str) -> None:
        self.time_passes(later)
        handle = self.handles.pop(which % len(self.handles))
        file, write = handle.write.file, handle.write
        self.of(NAMES[FILES.index(file)])
        if how == "discards":
            handle.file.discard()  # type: ignore[attr-defined]
        with self.waiting(*[file] * (how == "ends")), self.perhaps_refused(how == "fails"):
            handle.file.close()
        self.seen[f"writes {how}"] += 1
        if how == "ends":
            self.model.files[file] = handle.data
            self.model.finish(write)
        else:
            self.model.abandon(write)

    @rule(name=names, life=st.none() | lives)
    def expire(self, name: Entry, life: int | None) -> None:
        file = file_of(name)
        with self.waiting(file):
            self.fs[name.namespace].expire(name.path, life or 0, expires=life is not None)
        if life is None:
            self.model.keep(file)
        else:
            self.model.schedule(file, self.world.now + life * SECOND)

    @rule(ns=tops, some=st.lists(paths, unique=True), life=lives)
    def expire_many(self, ns: str, some: list[str], life: int) -> None:
        chosen = [file_of(Entry(ns, path)) for path in some]
        busy = [file for file in chosen if self.model.is_busy(file)]
        began = self.world.now
        with self.waiting(*chosen):
            self.fs[ns].expire_many(some, life)
        for file in chosen:
            due = began + life * SECOND
            if file in busy:
                due = self.records.deadline(file.member)[1]
                assert began <= due - life * SECOND <= self.world.now
            self.model.schedule(file, due)

    @rule(name=names)
    def remove(self, name: Entry) -> None:
        fs, file = self.of(name), file_of(name)
        is_there = file in self.model.files
        with self.waiting(file):
            try:
                fs.remove(name.path)
            except errors.ResourceNotFound:
                assert not is_there
        if is_there:
            self.model.remove(file)
        else:
            self.model.release(file)

    @rule(ns=tops, directory=st.sampled_from(("", "d")))
    def removetree(self, ns: str, directory: str) -> None:
        self.of(Entry(ns, "d/a"))
        top = f"{ns}/{directory}".rstrip("/")
        below = [it for it in self.model.files if f"{it.namespace}/".startswith(f"{top}/")]
        with self.waiting(*below):
            self.fs[ns].removetree(directory)
        for file in below:
            self.model.remove(file)

    @rule(
        ns=tops,
        paths=st.tuples(paths, paths),
        overwrite=st.booleans(),
        refused=st.sampled_from((False, False, True)),
    )
    def move(self, ns: str, paths: tuple[str, str], overwrite: bool, refused: bool) -> None:
        source, destination = (file_of(Entry(ns, path)) for path in paths)
        for each in paths:
            self.of(Entry(ns, each))
        goes = self.model.is_seen(source) and (overwrite or not self.model.is_seen(destination))
        moves = goes and source != destination
        with self.waiting(*[source, destination] * moves), _refusals() as refusal:
            self.world.refuses_writes = refused
            self.fs[ns].move(*paths, overwrite)
        self.world.refuses_writes = False
        assert (refusal.kind is None) == (goes and not (moves and refused))
        if moves and refused:
            self.model.fail_to_move(source, destination, self.life(destination))
        elif moves:
            self.model.move(source, destination, self.life(destination))

    @rule(ns=tops, paths=st.tuples(paths, paths), overwrite=st.booleans())
    def copy(self, ns: str, paths: tuple[str, str], overwrite: bool) -> None:
        (source, destination), model = (file_of(Entry(ns, path)) for path in paths), self.model
        if source == destination:
            return
        for each in paths:
            self.of(Entry(ns, each))
        is_hidden = model.is_hidden(source)
        with self.waiting(*[destination] * (not is_hidden)), _refusals() as refusal:
            self.fs[ns].copy(*paths, overwrite)
        if is_hidden:
            assert refusal.kind is errors.ResourceNotFound
            return
        write = model.begin(destination, self.life(destination))
        replaces = overwrite or (ns == HIDING and write.starts_new_life)
        if source in model.files and (replaces or destination not in model.files):
            assert not refusal.kind
            model.files[destination] = model.files[source]
            model.finish(write)
        else:
            assert refusal.kind
            model.abandon(write)

    @rule(ns=tops)
    def movedir(self, ns: str) -> None:
        source, destination = (file_of(Entry(ns, path)) for path in ("d/a", "e/a"))
        for each in "d/a", "e/a":
            self.of(Entry(ns, each))
        is_seen = self.model.is_seen(source)
        with self.waiting(*[source, destination] * is_seen):
            self.fs[ns].movedir("d", "e")
        if is_seen:
            self.model.move(source, destination, self.life(destination))

    # -- readers

    @rule(name=names, timeout=st.sampled_from((0, 1, 30)))
    def look(self, name: Entry, timeout: int) -> None:
        self.read(name)
        self.get_url(name, timeout)
        self.count_records()

    def read(self, name: Entry) -> None:
        fs, file = self.of(name), file_of(name)
        is_seen = self.model.is_seen(file)
        assert fs.exists(name.path) == is_seen
        directory, _, last = name.path.rpartition("/")
        assert (last in fs.listdir(directory)) == is_seen
        with _refusals() as refusal:
            assert fs.readbytes(name.path) == self.model.files[file]
        assert (refusal.kind is None) == is_seen
        deadline, known = fs.expiration(name.path), self.model.deadline(file)
        assert (round(deadline.timestamp() * SECOND) if deadline else 0) == known

    def get_url(self, name: Entry, timeout: int) -> None:
        now, deadline = self.world.now, self.model.deadline(file_of(name))
        url = self.fs[name.namespace].get_url(name.path, timeout)
        longest = LONGEST_LIFE if deadline else DEFAULT_URL
        end = now + (timeout or longest) * SECOND
        assert links.read(url.rpartition("/")[2]).end == min(end, deadline or end)

    def count_records(self) -> None:
        records, counts = self.model.records.values(), self.records.counts()
        assert counts.now == self.world.now
        assert counts.set_aside == sum(record.set_aside for record in records)
        assert counts.tracked == len(records) - counts.set_aside
        assert counts.claimed == sum(map(self.model.is_busy, self.model.records))
        overdue = sum(map(self.model.is_overdue, records))
        assert counts.overdue == overdue - counts.claimed

    # -- sweeps

    @rule(later=moments, limit=st.none() | st.integers(1, 3))
    def sweep(self, later: float, limit: int | None) -> None:
        self.time_passes(later)
        sweep = Followed(Sweep(self.world, lambda: expire_objects(limit)))
        self.go_on(sweep)
        left = sum(map(self.model.can_be_claimed, self.model.records))
        if left:
            assert sweep.claimed == limit
        if not self.model.writing:
            assert sweep.sweep.result.remaining == left

    @rule(later=moments, stops_at=stops)
    def a_sweep_dies(self, later: float, stops_at: int) -> None:
        self.time_passes(later)
        sweep = Followed(Sweep(self.world, expire_objects, stops_at))
        self.go_on(sweep)
        self.seen["sweeps died"] += sweep.sweep.has_died

    @precondition(lambda self: len(self.frozen) < 3)
    @rule(later=moments, stops_at=stops)
    def a_sweep_freezes(self, later: float, stops_at: int) -> None:
        self.time_passes(later)
        sweep = Followed(Sweep(self.world, expire_objects, stops_at, freezes=True))
        self.go_on(sweep)
        if sweep.sweep.is_frozen:
            self.frozen.append(sweep)

    @precondition(lambda self: self.frozen)
    @rule(which=numbers, later=moments)
    def a_sweep_thaws(self, which: int, later: float) -> None:
        self.time_passes(later)
        sweep = self.frozen.pop(which % len(self.frozen))
        kind = "a live" if sweep.claim.until > self.world.now else "a lapsed"
        self.seen[f"sweeps went on under {kind} claim"] += 1
        self.go_on(sweep, sweep.sweep.thaw)

    @rule(name=names)
    def one_shot(self, name: Entry) -> None:
        file = file_of(name)
        sweep = Followed(Sweep(self.world, lambda: delete_if_due(name.namespace, [name.path])))
        self.go_on(sweep)
        record = self.model.records.get(file)
        waits = record and not (sweep.claimed or record.set_aside or record.claim)
        wait = 0
        if record and waits and file not in self.model.writing:
            wait = (record.again or record.deadline) - self.world.now
            assert wait > 0, "it is due, and was not claimed"
        assert sweep.sweep.result.get(name.path, 0) == wait / SECOND

    def go_on(self, sweep: Followed, how: Callable[[], None] | None = None) -> None:
        """Let a sweep go on until it is through, or stops, and follow what it did."""
        (how or sweep.sweep.run)()
        report = sweep.sweep.result
        is_of_all = report is None or isinstance(report, SweepReport)
        for event in sweep.sweep.log:
            if isinstance(event, Claimed):
                if is_of_all or sweep.claimed:
                    self.end_what_has_lapsed()
                self.follow_claim(sweep, event)
            elif isinstance(event, Removed):
                self.follow_removal(sweep, event.entry)
            else:
                self.follow_settlement(sweep)
        sweep.sweep.log.clear()
        if report is not None and (is_of_all or sweep.claimed):
            self.end_what_has_lapsed()
        if isinstance(report, SweepReport):
            counted = {name: getattr(report, name) for name in sweep.tally}
            assert counted == sweep.tally

    def follow_claim(self, sweep: Followed, event: Claimed) -> None:
        sweep.claim, sweep.done, sweep.failed = Claim(self.world.now + LEASE), [], []
        sweep.claimed += len(event.entries)
        records, claimable = self.model.records, self.model.can_be_claimed
        suspects = [entry for entry in event.entries if records[entry].is_suspect]
        assert not suspects or len(event.entries) == 1, "what may end a sweep is not tried alone"
        for entry in event.entries:
            assert claimable(entry), f"{entry} was claimed too early, or twice"
        for entry in event.entries:
            records[entry].claim = sweep.claim

    def follow_removal(self, sweep: Followed, entry: Entry) -> None:
        record = self.model.records.get(entry)
        assert record, f"{entry} has no deadline, and was removed"
        assert record.claim is sweep.claim, f"{entry} was removed without a claim"
        assert record.claim.until > self.world.now, f"{entry} was removed under a lapsed claim"
        assert entry not in self.model.writing, f"{entry} was removed while it was written"
        if entry in self.world.undeletable:
            sweep.failed.append(entry)
            return
        sweep.done.append(entry)
        was_there = entry in self.model.files
        self.model.files.pop(entry, None)
        sweep.tally["deleted" if was_there else "missing"] += 1
        self.seen["files deleted"] += was_there

    def follow_settlement(self, sweep: Followed) -> None:
        records = self.model.records
        for entry in [entry for entry, it in records.items() if it.claim is sweep.claim]:
            if entry in sweep.done:
                del records[entry]
            elif entry in sweep.failed:
                sweep.tally["set_aside" if self.model.fail(entry) else "retried"] += 1
            else:
                self.model.unclaim(entry)

    @rule(name=names, again=st.booleans())
    def what_was_set_aside_is_released(self, name: Entry, again: bool) -> None:
        release = self.records.retry if again else self.records.forget
        file = file_of(name)
        record = self.model.records.get(file)
        was = record is not None and record.set_aside
        assert list(release([file.member])) == [file.member] * was
        if record and was:
            del self.model.records[file]
            if again:
                self.model.records[file] = Record(record.deadline)

    # -- records that move to another number of shards

    @precondition(lambda self: self.has_shards)
    @rule(shards=st.sampled_from((1, 2, 3, 5)), steps=st.integers(1, 9))
    def records_move(self, shards: int, steps: int) -> None:
        store = store_for(conf.current())
        if not self.moves:
            if not store.spread().moving:
                self.soon = shards
            self.moves = store.reshard(self.soon, Backoff(MAX_ATTEMPTS))
        for _ in range(steps):
            self.end_what_has_lapsed()
            if next(self.moves, None) is None:
                assert store.spread() == (self.soon, self.soon)
                self.moves = None
                self.seen["times that records moved"] += 1
                return

    @precondition(lambda self: self.moves)
    @rule()
    def who_moves_them_dies(self) -> None:
        self.moves = None

    def end_what_has_lapsed(self) -> None:
        """Do in all shards at once what a sweep does in one: the model knows no shards."""
        for shard in self.records.shards:
            self.records.claim(shard, 0)
        self.model.end_what_has_lapsed()

    # -- what holds after each step

    @invariant()
    def files_and_deadlines_are_those_of_the_model(self) -> None:
        _, deadlines = self.records.deadlines([file.member for file in FILES])
        for file, deadline in zip(FILES, deadlines, strict=True):
            assert deadline == self.model.deadline(file), file
            assert self.found(file) == self.model.files.get(file), file
        self.steps += 1

    def found(self, file: Entry) -> bytes | None:
        top, _, path = file.member.decode().partition("/")
        with suppress(errors.ResourceNotFound):
            return self.raw[top].readbytes(path)
        return None

    def teardown(self) -> None:
        """In the end nothing that is overdue stays, nor any record of it."""
        for followed in self.frozen:
            followed.sweep.thaw(to_die=True)
        if not sys.exc_info()[0]:
            self.let_all_end()
        for handle in self.handles:  # a step has failed, and that must be reported
            with suppress(Exception):
                handle.file.close()  # which the collector would do in another example's time

    def let_all_end(self) -> None:
        self.seen.update(stories=1, steps=self.steps)
        for _ in range(2):  # it may wait for a claim
            self.world.pass_(LEASE)
            if self.moves:
                self.records_move(self.soon, 99)
        assert not self.moves
        while self.handles:
            self.a_write_ends(0, 0, "ends")
        self.world.undeletable.clear()
        self.sweep(LEASE / SECOND, None)  # ends the claims of those that died
        set_aside = [file for file, record in self.model.records.items() if record.set_aside]
        for file in set_aside:
            self.what_was_set_aside_is_released(file, True)
        self.sweep(LONGEST_BACKOFF / SECOND, None)
        self.files_and_deadlines_are_those_of_the_model()
        assert not self.model.records
        counts = self.records.counts()
        assert (counts.tracked, counts.overdue, counts.set_aside) == (0, 0, 0)


@dataclass
class _Refusal:
    kind: type[Exception] | None = None


@contextmanager
def _refusals() -> Iterator[_Refusal]:
    refusal = _Refusal()
    try:
        yield refusal
    except errors.FSError as error:
        refusal.kind = type(error)


@contextmanager
def world_over(redis_url: str) -> Iterator[World]:
    """Settings and clocks are those of a world that keeps its records there."""
    djfs = {
        "type": f"{WatchedBackend.__module__}.{WatchedBackend.__qualname__}",
        "redis_url": redis_url,
        "lease": LEASE / SECOND,
        "grace": GRACE / SECOND,
        "max_attempts": MAX_ATTEMPTS,
        "batch_size": 2,
    }
    with ExitStack() as stack:
        stack.callback(backends.close_all)
        stack.callback(expirations.close_all)
        logging.disable()  # what fails, and is tried again
        stack.callback(logging.disable, logging.NOTSET)
        monkeypatch = stack.enter_context(pytest.MonkeyPatch.context())
        if redis_url == IN_MEMORY:
            world = world_of_memory(monkeypatch)
        else:
            client = stack.enter_context(closing(redis.Redis.from_url(redis_url)))
            world = world_of_redis(monkeypatch, client)
        stack.enter_context(override_settings(ROOT_URLCONF=__name__, DJFS=djfs))
        yield world


@pytest.fixture(params=["memory", "redis"])
def redis_url(request: pytest.FixtureRequest) -> str:
    if request.param == "memory":
        return IN_MEMORY
    server: RedisServer = request.getfixturevalue("redis_server")
    return server.local_url


def tell(redis_url: str, stories: int, derandomize: bool = False) -> Counter[str]:
    """Run so many examples of Hypothesis; return what was seen in them."""
    with world_over(redis_url) as world:
        Machine.world, Machine.seen = world, Counter()
        Machine.has_shards = redis_url != IN_MEMORY
        run_state_machine_as_test(
            Machine,
            settings=settings(
                max_examples=stories,
                stateful_step_count=STEPS,
                deadline=None,
                database=None,
                derandomize=derandomize,
                phases=[Phase.generate, Phase.shrink],
                suppress_health_check=list(HealthCheck),
            ),
        )
    return Machine.seen


def tell_side_by_side(redis_url: str, stories: int) -> Counter[str]:
    """Run so many examples in several processes together."""
    tellers = [Actor({}, tell, redis_url, stories // TELLERS) for _ in range(TELLERS)]
    try:
        return sum((teller.result(FULL_TIMEOUT) for teller in tellers), Counter())
    finally:
        for teller in tellers:
            teller.kill()


@pytest.mark.fault(
    "whatever Hypothesis thinks of, in stories of 80 steps and more", "5,000 as in the model"
)
def test_files_and_records_are_those_of_a_simple_model(
    redis_url: str, full: bool, measured: Measured
) -> None:
    if not full:
        tell(redis_url, 10, derandomize=True)
        return
    seen = tell_side_by_side(redis_url, 5_000)
    steps, stories = seen.pop("steps"), seen["stories"]
    what = (f"{number:,} {name}" for name, number in sorted(seen.items()))
    measured(f"{', '.join(what)}, {steps / stories:.1f} steps in each on average")
    assert stories >= 5_000
    assert steps >= 80 * stories


# -- where the clocks stand still


@pytest.fixture
def world(redis_url: str) -> Iterator[World]:
    with world_over(redis_url) as world:
        yield world


@pytest.fixture
def records(world: World) -> Expirations:
    """Records on whose clock no time passes by itself."""
    world.begin()
    django_settings.DJFS = {**django_settings.DJFS, "key_prefix": uuid.uuid4().hex}
    return records_for("plots")


def test_a_writer_gives_up_on_a_file_that_sweeps_never_let_go(
    records: Expirations, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    records.schedule([b"n/a"], 0)
    lease = claim_lease(records.claim_one(b"n/a").token)

    def extended_again_and_again(seconds: float) -> None:
        world.sleep(seconds)
        assert not records.extend(0, {lease: LEASE})
        assert world.now < BEGINNING + 100 * SECOND, "it waits forever"

    monkeypatch.setattr(expirations, "sleep", extended_again_and_again)
    with pytest.raises(FileBusy):
        records.schedule([b"n/a"], SECOND)
    assert world.now - BEGINNING > 2 * LEASE


def test_closing_a_file_gives_it_the_grace_again(records: Expirations, world: World) -> None:
    fs = get_filesystem("plots")
    fs.expire("a", 1)
    file = fs.openbin("a", "wb")
    world.pass_(700 * SECOND)
    assert records.claim(0, 10).members == []
    file.close()
    assert records.deadline(b"plots/a") == (world.now, world.now + GRACE)


def test_a_move_that_waits_for_its_destination_carries_the_deadline_there_was(
    records: Expirations, world: World
) -> None:
    fs = get_filesystem("plots")
    fs.writebytes("a", b"")
    fs.expire("a", 1)
    _, deadline = records.deadline(b"plots/a")
    records.schedule([b"plots/b"], 0)
    records.claim_one(b"plots/b")
    fs.move("a", "b", overwrite=True)
    assert world.now > deadline
    assert records.deadline(b"plots/b")[1] == deadline
