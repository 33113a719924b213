"""What files and deadlines must be: a model that is simple enough to trust."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from djpyfs.names import Entry
from tests.faults.world import World

GRACE = 9_000_300  # between two ticks, so that nothing ends at the moment of a look
HIDING = "hiding"  # a namespace that hides what has expired
MAX_ATTEMPTS = 3


def file_of(name: Entry) -> Entry:
    """The one file that a name in any namespace means."""
    return Entry.of_member(name.member)


@dataclass(eq=False)
class Claim:
    """A sweep's right to delete; no two are equal."""

    until: int


@dataclass
class Record:
    """What is known of when a file goes."""

    deadline: int
    again: int = 0  # when its deletion is tried again
    attempts: int = 0
    is_suspect: bool = False  # it may have killed a sweep
    claim: Claim | None = None
    set_aside: bool = False


@dataclass(eq=False)
class Write:
    """A write that has begun."""

    file: Entry
    life: int
    before: int
    starts_new_life: bool
    was_permanent: bool = False
    until: int = 0  # when it is over, if its process stands still


@dataclass
class Writes:
    """All that go on to one file."""

    going_on: list[Write] = field(default_factory=list)
    own_the_record: bool = False


@dataclass
class Model:
    """The files of all namespaces, and when they go."""

    world: World
    #: How long until a deletion is retried, which chance decides.
    wait: Callable[[Entry], int]
    files: dict[Entry, bytes] = field(default_factory=dict)
    records: dict[Entry, Record] = field(default_factory=dict)
    writing: dict[Entry, Writes] = field(default_factory=dict)
    permanent: set[Entry] = field(default_factory=set)

    @property
    def now(self) -> int:
        return self.world.now

    # -- what is known

    def deadline(self, file: Entry) -> int:
        return self.records[file].deadline if file in self.records else 0

    def is_busy(self, file: Entry) -> bool:
        record = self.records.get(file)
        return bool(record and record.claim and record.claim.until > self.now)

    def is_overdue(self, record: Record) -> bool:
        return not record.set_aside and (bool(record.again) or record.deadline <= self.now)

    def can_be_claimed(self, file: Entry) -> bool:
        record = self.records[file]
        is_free = not (record.claim or record.set_aside or file in self.writing)
        return is_free and (record.again or record.deadline) <= self.now

    def is_hidden(self, file: Entry) -> bool:
        return file.namespace.startswith(HIDING) and 0 < self.deadline(file) <= self.now

    def is_seen(self, file: Entry) -> bool:
        return file in self.files and not self.is_hidden(file)

    # -- writers

    def set_deadline(self, file: Entry, deadline: int) -> None:
        self.permanent.discard(file)
        self.records[file] = Record(deadline)

    def schedule(self, file: Entry, deadline: int) -> None:
        self.confirm(file)
        self.set_deadline(file, deadline)

    def keep(self, file: Entry) -> None:
        self.confirm(file)
        self.permanent.add(file)
        self.records.pop(file, None)

    def confirm(self, file: Entry) -> None:
        if file in self.writing:
            self.writing[file].own_the_record = False

    def begin(self, file: Entry, life: int) -> Write:
        self.unclaim(file)
        writes = self.writing.setdefault(file, Writes())
        before = 0 if writes.own_the_record else self.deadline(file)
        write = Write(file, life, before, 0 < before <= self.now, file in self.permanent)
        writes.going_on.append(write)
        if life and not (self.deadline(file) or file in self.permanent):
            self.set_deadline(file, self.now + life)
            writes.own_the_record = True
        return write

    def finish(self, write: Write) -> None:
        file, own, unbroken = write.file, self.owns_record(write), self.end(write)
        self.unclaim(file)
        self.confirm(file)
        deadline = self.deadline(file)
        is_permanent = file in self.permanent or (write.was_permanent and not unbroken)
        if write.starts_new_life and deadline == write.before:
            del self.records[file]
            deadline = 0
        if write.life and (own or not (deadline or is_permanent)):
            self.set_deadline(file, self.now + write.life)
        elif deadline:
            self.set_deadline(file, max(deadline, self.now + GRACE))
        elif write.before and not (unbroken or write.starts_new_life or is_permanent):
            self.set_deadline(file, max(write.before, self.now + GRACE))

    def abandon(self, write: Write) -> None:
        own = self.owns_record(write)
        if self.end(write) and own and write.file not in self.writing:
            del self.records[write.file]

    def owns_record(self, write: Write) -> bool:
        return write.file in self.writing and self.writing[write.file].own_the_record

    def end(self, write: Write) -> bool:
        """End a write; return whether it still went on."""
        writes = self.writing.get(write.file, Writes())
        if write not in writes.going_on:
            return False
        writes.going_on.remove(write)
        if not writes.going_on:
            del self.writing[write.file]
        return True

    def release(self, file: Entry) -> None:
        """End a reservation after which everything is as it was."""
        if file in self.records:
            before = self.records[file]
            self.records[file] = record = Record(before.deadline, attempts=before.attempts)
            record.again = self.now if record.attempts else 0

    def remove(self, file: Entry) -> None:
        self.confirm(file)
        self.files.pop(file, None)
        self.records.pop(file, None)
        self.permanent.discard(file)

    def deadline_of_moved(self, source: Entry, life: int) -> int:
        if life and not (self.deadline(source) or source in self.permanent):
            return self.now + life
        return self.deadline(source)

    def move(self, source: Entry, destination: Entry, life: int) -> None:
        deadline, is_permanent = self.deadline_of_moved(source, life), source in self.permanent
        if deadline == self.deadline(destination):
            self.release(destination)
        elif deadline:
            self.schedule(destination, deadline)
        else:
            del self.records[destination]
        if is_permanent:
            self.keep(destination)
        self.files[destination] = self.files[source]
        self.remove(source)

    def fail_to_move(self, source: Entry, destination: Entry, life: int) -> None:
        replaced = self.deadline(destination)
        if replaced and not self.deadline_of_moved(source, life):
            self.files.pop(destination, None)  # nothing permanent lies under a deadline
        self.release(source)
        if replaced:
            self.schedule(destination, replaced)

    # -- sweeps

    def unclaim(self, file: Entry) -> None:
        """End a claim that has lapsed, without counting an attempt."""
        record = self.records.get(file)
        if record and record.claim:
            record.claim, record.is_suspect = None, False
            record.again = self.now if record.attempts else 0

    def fail(self, file: Entry, waits: bool = True, is_suspect: bool = False) -> bool:
        """Count an attempt; return whether it was the last."""
        record = self.records[file]
        record.claim, record.is_suspect = None, is_suspect
        record.attempts += 1
        if record.attempts < MAX_ATTEMPTS:
            record.again = self.now + (self.wait(file) if waits else 0)
            return False
        self.records[file] = Record(record.deadline, set_aside=True)
        return True

    def end_what_has_lapsed(self) -> None:
        """End claims that have lapsed, as failed attempts, and writes."""
        claims = [record.claim for record in self.records.values() if record.claim]
        for claim in {id(claim): claim for claim in claims if claim.until <= self.now}.values():
            members = [file for file, record in self.records.items() if record.claim is claim]
            for file in members:
                self.fail(file, waits=len(members) == 1, is_suspect=True)
        for writes in list(self.writing.values()):
            for write in list(writes.going_on):
                if 0 < write.until <= self.now:
                    self.end(write)
