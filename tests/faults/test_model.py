"""The filesystem, the record stores and the sweeps against a model that is simple enough to trust.

Hypothesis thinks up what writers, sweeps that die or freeze, and time do; after each step the
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
from djpyfs.conf import LONGEST_LIFE, SECOND
from djpyfs.errors import FileBusy
from djpyfs.expirations import ExpirationStore, State, store_for
from djpyfs.filesystem import DEFAULT_URL, ExpiringFS
from djpyfs.names import Entry
from djpyfs.sweeper import SweepReport, delete_if_due
from tests.faults.conftest import FULL_TIMEOUT, Measured
from tests.faults.model import GRACE, HIDING, Claim, Contents, Model, Record, Write
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

# Lengths between two ticks, so that nothing ends just when somebody looks.
LEASE = 2_000_500
MAX_ATTEMPTS = 3
BACKOFF = 5 * SECOND
LONGEST_BACKOFF = 3_600 * SECOND

IN_MEMORY = "memory://"
TELLERS = 2  # processes that tell the stories of the full form
STEPS = 110  # at the most: now and then Hypothesis ends a story early

NAMESPACES = ("plain", HIDING)
ENTRIES = [Entry(ns, path) for ns in NAMESPACES for path in ("a", "b", "d/a", "e/a")]

namespaces = st.sampled_from(NAMESPACES)
entries = st.sampled_from(ENTRIES)
paths = st.sampled_from([entry.path for entry in ENTRIES if entry.namespace == HIDING])
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
    contents: Contents
    position: int
    touched: int


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

    def __init__(self) -> None:
        super().__init__()
        self.djfs = {**django_settings.DJFS, "key_prefix": uuid.uuid4().hex}
        backends.close_all()
        expirations.close_all()
        self.world.begin()
        self.default_lives: dict[str, int | None] = dict.fromkeys(NAMESPACES)
        self.configure()
        self.model = Model(self.world)
        self.handles: list[Handle] = []
        self.frozen: list[Followed] = []
        self.steps = 0
        self.raw = {ns: backends.backend_for(conf.current(), ns).open(ns) for ns in NAMESPACES}

    def configure(self) -> None:
        policies = {ns: {"default_ttl": life} for ns, life in self.default_lives.items()}
        policies[HIDING]["hide_expired"] = True
        django_settings.DJFS = {**self.djfs, "namespaces": policies}
        self.fs = {ns: get_filesystem(ns) for ns in NAMESPACES}
        self.store = store_for(conf.current())

    def ttl(self, entry: Entry) -> int | None:
        life = self.default_lives[entry.namespace]
        return None if life is None else round(life * SECOND)

    def of(self, entry: Entry) -> ExpiringFS:
        """The filesystem of a file, in which there is a directory for it."""
        fs = self.fs[entry.namespace]
        fs.makedirs(entry.path.rpartition("/")[0], recreate=True)
        return fs

    @contextmanager
    def waiting(self, *entries: Entry) -> Iterator[None]:
        """What a writer does; it must not pass by a live claim, nor wait for longer."""
        claims = [self.model.records[e].claim for e in entries if self.model.is_busy(e)]
        free = max((claim.until for claim in claims if claim), default=self.world.now)
        began = self.world.now
        yield
        assert free <= self.world.now <= (free + 2 * TICK if free > began else began)

    # -- what is there, and what changes by itself

    @initialize(there=st.dictionaries(entries, st.none() | lives), default_life=default_lives)
    def there_are_files(self, there: dict[Entry, int | None], default_life: int | None) -> None:
        self.the_default_life_changes(HIDING, default_life)
        for entry, life in there.items():
            self.write(entry, b"first", False)
            self.expire(entry, life)

    @rule(seconds=moments)
    def time_passes(self, seconds: float) -> None:
        self.world.pass_(seconds * SECOND)

    @rule(ns=namespaces, life=default_lives)
    def the_default_life_changes(self, ns: str, life: int | None) -> None:
        self.default_lives[ns] = life
        self.configure()

    @rule(entry=entries)
    def a_file_cannot_be_deleted_or_can_be_again(self, entry: Entry) -> None:
        self.world.undeletable ^= {entry}

    # -- writers

    @rule(entry=entries, data=some_bytes, refused=st.sampled_from((False, False, True)))
    def write(self, entry: Entry, data: bytes, refused: bool) -> None:
        fs, self.world.refuses_writes = self.of(entry), refused
        with self.waiting(entry):
            try:
                fs.writebytes(entry.path, data)
            except errors.PermissionDenied:
                assert refused
        self.world.refuses_writes = False
        write = self.model.begin(entry, self.ttl(entry))
        if refused:
            self.model.undo(write)
        else:
            self.model.fill(entry, data)
            self.model.finish(write)

    @precondition(lambda self: len(self.handles) < 3)
    @rule(entry=entries, appends=st.booleans())
    def open(self, entry: Entry, appends: bool) -> None:
        fs, anew = self.of(entry), not appends or self.model.is_hidden(entry)
        with self.waiting(entry):
            file = fs.openbin(entry.path, "ab" if appends else "wb")
        write = self.model.begin(entry, self.ttl(entry))
        contents = self.model.files.setdefault(entry, Contents())
        if anew:
            contents.data = b""
        self.handles.append(Handle(file, write, contents, len(contents.data), self.world.now))

    @precondition(lambda self: self.handles)
    @rule(which=numbers, data=some_bytes, later=moments, closes=st.booleans())
    def write_on(self, which: int, data: bytes, later: float, closes: bool) -> None:
        self.time_passes(later)
        handle = self.handles[which % len(self.handles)]
        with self.renewing(handle, 0.5):
            handle.file.write(data)
        handle.contents.put(handle.position, data)
        handle.position += len(data)
        if closes:
            self.close(handle)

    def close(self, handle: Handle) -> None:
        self.handles.remove(handle)
        with self.renewing(handle, 0.1):
            handle.file.close()
        self.model.finish(handle.write)

    @contextmanager
    def renewing(self, handle: Handle, part_of_grace: float) -> Iterator[None]:
        renews = self.world.now - handle.touched > GRACE * part_of_grace
        finishes = handle.write.default_ttl is not None or handle.write.began_anew
        touches = renews or (part_of_grace == 0.1 and finishes)
        with self.waiting(*[handle.write.entry] * touches):
            yield
        if renews:
            self.model.renew(handle.write)
            handle.touched = self.world.now

    @rule(entry=entries, life=st.none() | lives)
    def expire(self, entry: Entry, life: int | None) -> None:
        with self.waiting(entry):
            self.fs[entry.namespace].expire(entry.path, life or 0, expires=life is not None)
        self.model.records.pop(entry, None)
        if life is not None:
            self.model.records[entry] = Record(self.world.now + life * SECOND)

    @rule(ns=namespaces, some=st.lists(paths, unique=True), life=lives)
    def expire_many(self, ns: str, some: list[str], life: int) -> None:
        chosen = [Entry(ns, path) for path in some]
        busy = [entry for entry in chosen if self.model.is_busy(entry)]
        began = self.world.now
        with self.waiting(*chosen):
            self.fs[ns].expire_many(some, life)
        for entry in chosen:
            due = self.due_of(entry) if entry in busy else began + life * SECOND
            assert began <= due - life * SECOND <= self.world.now
            self.model.records[entry] = Record(due)

    def due_of(self, entry: Entry) -> int:
        record = self.store.record(entry.member)
        assert record
        assert record.state is State.DUE
        return record.deadline

    @rule(entry=entries)
    def remove(self, entry: Entry) -> None:
        fs, is_there = self.of(entry), entry in self.model.files
        with self.waiting(entry):
            try:
                fs.remove(entry.path)
            except errors.ResourceNotFound:
                assert not is_there
        if is_there:
            del self.model.files[entry]
            self.model.records.pop(entry, None)
        elif entry in self.model.records:
            self.model.records[entry] = Record(self.model.deadline(entry))

    @rule(ns=namespaces, directory=st.sampled_from(("/", "d")))
    def removetree(self, ns: str, directory: str) -> None:
        self.of(Entry(ns, "d/a"))
        below = [
            entry
            for entry in self.model.files
            if entry.namespace == ns and (directory == "/" or entry.path.startswith(directory))
        ]
        with self.waiting(*below):
            self.fs[ns].removetree(directory)
        for entry in below:
            del self.model.files[entry]
            self.model.records.pop(entry, None)

    @rule(
        source=entries,
        path=paths,
        overwrite=st.booleans(),
        refused=st.sampled_from((False, False, True)),
    )
    def move(self, source: Entry, path: str, overwrite: bool, refused: bool) -> None:
        destination, model = Entry(source.namespace, path), self.model
        fs, goes = self.of(source), model.is_seen(source)
        self.of(destination)
        goes = goes and (overwrite or not model.is_seen(destination))
        waits = goes and source != destination
        began, self.world.refuses_writes = self.world.now, refused
        with self.waiting(*[source, destination] * waits):
            try:
                fs.move(source.path, path, overwrite)
            except errors.PermissionDenied:
                assert refused
                assert waits
            except (errors.ResourceNotFound, errors.DestinationExists):
                assert not goes
            else:
                assert goes
                assert not (refused and waits)
        self.world.refuses_writes = False
        if waits and refused:
            model.fail_to_move(source, destination)
        elif waits:
            model.move(source, destination)
        if waits:
            self.look_at_deadlines(began, source, destination)

    def look_at_deadlines(self, began: int, *moved: Entry) -> None:
        """A deadline that has passed may have been carried before a wait for the other name."""
        for entry in moved:
            record = self.model.records.get(entry)
            if record and record.due == self.world.now > began:
                record.due = self.due_of(entry)
                assert began <= record.due <= self.world.now

    @rule(source=entries, path=paths, overwrite=st.booleans())
    def copy(self, source: Entry, path: str, overwrite: bool) -> None:
        destination, model = Entry(source.namespace, path), self.model
        if source == destination:
            return
        fs, is_hidden = self.of(source), model.is_hidden(source)
        self.of(destination)
        with self.waiting(*[destination] * (not is_hidden)), _refusals() as refusal:
            fs.copy(source.path, path, overwrite)
        if is_hidden:
            assert refusal.kind is errors.ResourceNotFound
            return
        write = model.begin(destination, self.ttl(destination))
        replaces = overwrite or (destination.namespace == HIDING and write.began_anew)
        if source in model.files and (replaces or destination not in model.files):
            assert not refusal.kind
            model.fill(destination, model.files[source].data)
            model.finish(write)
        else:
            assert refusal.kind
            model.undo(write)

    @rule(ns=namespaces)
    def movedir(self, ns: str) -> None:
        source, destination, model = Entry(ns, "d/a"), Entry(ns, "e/a"), self.model
        fs, is_seen = self.of(source), model.is_seen(source)
        self.of(destination)
        began = self.world.now
        with self.waiting(*[source, destination] * is_seen):
            fs.movedir("d", "e")
        if is_seen:
            model.move(source, destination)
            self.look_at_deadlines(began, source, destination)

    # -- readers

    @rule(entry=entries, timeout=st.sampled_from((0, 1, 30)))
    def look(self, entry: Entry, timeout: int) -> None:
        self.read(entry)
        self.get_url(entry, timeout)
        self.count_records()

    def read(self, entry: Entry) -> None:
        fs, is_seen = self.of(entry), self.model.is_seen(entry)
        assert fs.exists(entry.path) == is_seen
        assert (
            entry.path.rpartition("/")[2] in fs.listdir(entry.path.rpartition("/")[0])
        ) == is_seen
        with _refusals() as refusal:
            assert fs.readbytes(entry.path) == self.model.files[entry].data
        assert (refusal.kind is None) == is_seen
        deadline, known = fs.expiration(entry.path), self.model.deadline(entry)
        assert (round(deadline.timestamp() * SECOND) if deadline else 0) == known

    def get_url(self, entry: Entry, timeout: int) -> None:
        now, deadline = self.world.now, self.model.deadline(entry)
        with _refusals() as refusal:
            url = self.fs[entry.namespace].get_url(entry.path, timeout)
            longest = LONGEST_LIFE if deadline else DEFAULT_URL
            end = now + (timeout or longest) * SECOND
            assert links.read(url.rpartition("/")[2]).end == min(end, deadline or end)
        assert (refusal.kind is not None) == (0 < deadline < now + SECOND)

    def count_records(self) -> None:
        records, counts = self.model.records.values(), self.store.counts()
        assert counts.now == self.world.now
        assert counts.set_aside == sum(record.set_aside for record in records)
        assert counts.tracked == len(records) - counts.set_aside
        assert counts.overdue == len(self.model.overdue())
        assert counts.claimed == sum(map(self.model.is_busy, self.model.records))

    # -- sweeps

    @rule(later=moments, limit=st.none() | st.integers(1, 3))
    def sweep(self, later: float, limit: int | None) -> None:
        self.time_passes(later)
        before = len(self.model.overdue())
        sweep = Followed(Sweep(self.world, lambda: expire_objects(limit)))
        self.go_on(sweep)
        assert sweep.claimed == min(before, limit or before)
        assert sweep.sweep.result.remaining == len(self.model.overdue())

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

    @rule(entry=entries)
    def one_shot(self, entry: Entry) -> None:
        record = self.model.records.get(entry)
        waits = record and not record.claim and not record.set_aside
        wait = max(0, record.due - self.world.now) if record and waits else 0
        is_due = record is not None and self.model.can_be_claimed(record)
        sweep = Followed(Sweep(self.world, lambda: delete_if_due(*entry)))
        self.go_on(sweep)
        assert sweep.sweep.result == wait / SECOND
        assert sweep.claimed == is_due

    def go_on(self, sweep: Followed, how: Callable[[], None] | None = None) -> None:
        """Let a sweep go on until it is through, or stops, and follow what it did."""
        (how or sweep.sweep.run)()
        for event in sweep.sweep.log:
            if isinstance(event, Claimed):
                self.follow_claim(sweep, event)
            elif isinstance(event, Removed):
                self.follow_removal(sweep, event.entry)
            else:
                self.follow_settlement(sweep)
        sweep.sweep.log.clear()
        report = sweep.sweep.result
        if isinstance(report, SweepReport):
            counted = {name: getattr(report, name) for name in sweep.tally}
            assert counted == sweep.tally

    def follow_claim(self, sweep: Followed, event: Claimed) -> None:
        sweep.claim, sweep.done, sweep.failed = Claim(self.world.now + LEASE), [], []
        sweep.claimed += len(event.entries)
        for entry in event.entries:
            record = self.model.records[entry]
            assert self.model.can_be_claimed(record), f"{entry} was claimed too early, or twice"
            record.claim = sweep.claim

    def follow_removal(self, sweep: Followed, entry: Entry) -> None:
        record = self.model.records.get(entry)
        assert record, f"{entry} has no deadline, and was removed"
        assert record.claim is sweep.claim, f"{entry} was removed without a claim"
        assert record.claim.until > self.world.now, f"{entry} was removed under a lapsed claim"
        if entry in self.world.undeletable:
            sweep.failed.append(entry)
            return
        sweep.done.append(entry)
        was_there = self.model.files.pop(entry, None)
        sweep.tally["deleted" if was_there else "missing"] += 1
        self.seen["files deleted"] += was_there is not None

    def follow_settlement(self, sweep: Followed) -> None:
        records = self.model.records
        ours = {e for e in (*sweep.done, *sweep.failed) if self.holds(sweep, e)}
        for entry in ours.intersection(sweep.done):
            del records[entry]
        for entry in ours.intersection(sweep.failed):
            self.follow_failure(sweep, entry, records[entry])

    def holds(self, sweep: Followed, entry: Entry) -> bool:
        record = self.model.records.get(entry)
        return record is not None and record.claim is sweep.claim

    def follow_failure(self, sweep: Followed, entry: Entry, record: Record) -> None:
        record.claim = None
        record.put_off = True
        record.failures += 1
        if record.failures == MAX_ATTEMPTS:
            self.model.records[entry] = Record(0, set_aside=True)
            sweep.tally["set_aside"] += 1
            return
        record.due, wait = self.due_of(entry), BACKOFF * 2 ** (record.failures - 1)
        assert wait / 2 <= record.due - self.world.now <= wait
        sweep.tally["retried"] += 1

    @rule(entry=entries, again=st.booleans())
    def what_was_set_aside_is_released(self, entry: Entry, again: bool) -> None:
        release = self.store.retry if again else self.store.forget
        record = self.model.records.get(entry)
        was = record is not None and record.set_aside
        assert list(release([entry.member])) == [entry.member] * was
        if was:
            del self.model.records[entry]
            if again:
                self.model.records[entry] = Record(self.world.now)

    # -- what holds after each step

    @invariant()
    def files_and_deadlines_are_those_of_the_model(self) -> None:
        _, deadlines = self.store.deadlines([entry.member for entry in ENTRIES])
        for entry, deadline in zip(ENTRIES, deadlines, strict=True):
            assert deadline == self.model.deadline(entry), entry
            contents = self.model.files.get(entry)
            assert self.found(entry) == (contents.data if contents else None), entry
        self.steps += 1

    def found(self, entry: Entry) -> bytes | None:
        with suppress(errors.ResourceNotFound):
            return self.raw[entry.namespace].readbytes(entry.path)
        return None

    def teardown(self) -> None:
        """In the end nothing that is overdue stays, nor any record of it."""
        for followed in self.frozen:
            followed.sweep.thaw(to_die=True)
        if not sys.exc_info()[0]:
            self.let_all_end()
        for handle in self.handles:  # a step has failed, and that is what is to be told
            with suppress(Exception):
                handle.file.close()  # which the collector would do in another example's time

    def let_all_end(self) -> None:
        self.seen.update(stories=1, steps=self.steps)
        for handle in list(self.handles):
            self.close(handle)
        self.world.undeletable.clear()
        self.store.retry([entry.member for entry, r in self.model.records.items() if r.set_aside])
        for record in self.model.records.values():
            record.set_aside = False
        self.world.pass_(LONGEST_BACKOFF + LEASE)
        self.sweep(0, None)
        self.files_and_deadlines_are_those_of_the_model()
        assert not self.model.records
        counts = self.store.counts()
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
            djfs["shards"] = 2
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
    """Let Hypothesis tell so many stories; return what was seen in them."""
    with world_over(redis_url) as world:
        Machine.world, Machine.seen = world, Counter()
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
    """Let several processes tell so many stories together."""
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
        tell(redis_url, 25, derandomize=True)
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
def store(world: World) -> ExpirationStore:
    """A record store on whose clock no time passes by itself."""
    world.begin()
    django_settings.DJFS = {**django_settings.DJFS, "key_prefix": uuid.uuid4().hex}
    return store_for(conf.current())


def test_claims_of_the_same_moment_are_told_apart(store: ExpirationStore) -> None:
    members = [b"n\0%d" % number for number in range(20)]
    store.schedule(members, 0)
    tokens = [store.claim_one(member, LEASE).token for member in members]
    for shard in store.shards:
        own = [t for m, t in zip(members, tokens, strict=True) if store.shard_of(m) == shard]
        assert len(set(own)) == len(own) > 1


def test_a_writer_gives_up_on_a_file_that_sweeps_never_let_go(
    store: ExpirationStore, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.schedule([b"n\0a"], 0)
    store.claim_one(b"n\0a", LEASE)

    def claimed_again_and_again(seconds: float) -> None:
        world.sleep(seconds)
        store.claim_one(b"n\0a", LEASE)
        assert world.now < BEGINNING + 100 * SECOND, "it waits for ever"

    monkeypatch.setattr(expirations, "sleep", claimed_again_and_again)
    with pytest.raises(FileBusy):
        store.schedule([b"n\0a"], SECOND)
    assert world.now - BEGINNING > 2 * LEASE


def test_closing_a_file_leaves_it_the_grace_again(store: ExpirationStore, world: World) -> None:
    fs = get_filesystem("plots")
    fs.expire("a", 1)
    file = fs.openbin("a", "wb")
    world.pass_(GRACE / 5)  # too soon for a write to renew the deadline
    file.close()
    _, deadline = store.deadline(Entry("plots", "a").member)
    assert deadline == world.now + GRACE


def test_a_move_that_waits_for_its_destination_carries_the_deadline_there_was(
    store: ExpirationStore, world: World
) -> None:
    members = [b"n\0%d" % number for number in range(20)]
    source = next(m for m in members if store.shard_of(m) == store.shards[0])
    destination = next(m for m in reversed(members) if store.shard_of(m) == store.shards[-1])
    deadline = store.schedule([source], SECOND)
    store.schedule([destination], 0)
    store.claim_one(destination, LEASE)
    assert store.carry(source, destination, GRACE).had == deadline
    assert world.now > deadline


def test_a_write_renews_its_deadline_also_where_a_sweep_has_failed_at_that_very_moment(
    store: ExpirationStore, world: World
) -> None:
    entry = Entry("plots", "a")
    world.undeletable.add(entry)
    deadline = store.touch(entry.member, GRACE, SECOND).deadline
    world.pass_(deadline - world.now)
    expire_objects()
    assert world.now == deadline
    for _ in range(2):
        deadline = store.touch(entry.member, GRACE, SECOND, deadline).deadline
        assert store.deadline(entry.member)[1] == deadline == world.now + SECOND
