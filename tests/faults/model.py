"""What files and deadlines must be: a model that is simple enough to trust."""

from __future__ import annotations

from dataclasses import dataclass, field

from djpyfs.expirations import Touch
from djpyfs.filesystem import UNFINISHED
from djpyfs.names import Entry
from tests.faults.world import World

GRACE = 10_000_300  # between two ticks, so that nothing ends just when somebody looks
HIDING = "hiding"  # a namespace that hides what has expired


@dataclass(eq=False)
class Claim:
    """A sweep's right to delete; no two are equal."""

    until: int


@dataclass
class Record:
    """What is known of when a file goes."""

    due: int
    put_off: bool = False  # it is overdue, although it waits
    failures: int = 0
    claim: Claim | None = None
    set_aside: bool = False


@dataclass(eq=False)
class Contents:
    """What is in a file, which may be moved or removed while it is open."""

    data: bytes = b""

    def put(self, position: int, data: bytes) -> None:
        before = self.data[:position].ljust(position, b"\0") if data else self.data[:position]
        self.data = before + data + self.data[position + len(data) :]


@dataclass
class Write:
    """A write that has begun."""

    entry: Entry
    default_ttl: int | None  # None too where the deadline is another's
    before: int
    began_anew: bool
    registered: int


@dataclass
class Model:
    """The files of all namespaces, and when they go."""

    world: World
    files: dict[Entry, Contents] = field(default_factory=dict)
    records: dict[Entry, Record] = field(default_factory=dict)

    @property
    def now(self) -> int:
        return self.world.now

    def is_busy(self, entry: Entry) -> bool:
        record = self.records.get(entry)
        return bool(record and record.claim and record.claim.until > self.now)

    def can_be_claimed(self, record: Record) -> bool:
        if record.claim:
            return record.claim.until <= self.now
        return not record.set_aside and record.due <= self.now

    def overdue(self) -> list[Entry]:
        return [entry for entry, record in self.records.items() if self.can_be_claimed(record)]

    def deadline(self, entry: Entry) -> int:
        """The deadline, or 0; of what cannot be deleted it is only known that it has passed."""
        record = self.records.get(entry)
        if not record:
            return 0
        if record.claim or record.set_aside:
            return self.now
        return min(record.due, self.now) if record.put_off else record.due

    def is_hidden(self, entry: Entry) -> bool:
        return entry.namespace == HIDING and 0 < self.deadline(entry) <= self.now

    def is_seen(self, entry: Entry) -> bool:
        return entry in self.files and not self.is_hidden(entry)

    def begin(self, entry: Entry, default_ttl: int | None) -> Write:
        touch = self.touch(entry, default_ttl)
        anew = 0 < touch.before <= self.now
        registered = 0 if touch.unfinished else touch.deadline
        own_ttl = default_ttl if touch.by_default else None
        return Write(entry, own_ttl, touch.before, anew, registered)

    def touch(
        self,
        entry: Entry,
        default_ttl: int | None,
        registered: int = 0,
        unfinished: int = UNFINISHED,
    ) -> Touch:
        """What is overdue begins a new life, but for what this write itself has registered.

        Without a default life that is when the write has finished; until then it is put off.
        """
        before = self.deadline(entry)
        own = before != 0 and before == registered
        if own and before <= self.now:
            self.records[entry] = Record(before)
        elif 0 < before <= self.now:
            del self.records[entry]
            if unfinished and default_ttl is None:
                self.records[entry] = Record(self.now + unfinished, put_off=True)
                return Touch(self.now + unfinished, before, unfinished=True)
        record = self.records.get(entry)
        by_default = default_ttl is not None and (own or (not record and registered <= self.now))
        if by_default:
            self.records[entry] = Record(self.now + (default_ttl or 0))
        elif record:
            record.due = max(record.due, self.now + GRACE)
        return Touch(self.deadline(entry), before, by_default)

    def renew(self, write: Write, unfinished: int = UNFINISHED) -> None:
        touch = self.touch(write.entry, write.default_ttl, write.registered, unfinished)
        if not touch.by_default:  # somebody has set another deadline, or none, since
            write.default_ttl = None
        write.registered = 0 if touch.unfinished else touch.deadline

    def finish(self, write: Write) -> None:
        if write.default_ttl is not None:
            self.renew(write)
        elif write.began_anew:
            self.renew(write, unfinished=0)

    def undo(self, write: Write) -> None:
        self.records.pop(write.entry, None)
        if write.before:
            self.records[write.entry] = Record(write.before)

    def fill(self, entry: Entry, data: bytes) -> None:
        self.files.setdefault(entry, Contents()).data = data

    def carry(self, source: Entry, destination: Entry) -> int:
        """Both names have the deadline while a file moves; without one there must be room.

        Returns the deadline that the destination had.
        """
        carried, replaced = self.deadline(source), self.deadline(destination)
        if carried:
            self.records |= {source: Record(carried), destination: Record(carried)}
        elif replaced:
            self.files.pop(destination, None)
            del self.records[destination]
        return replaced

    def move(self, source: Entry, destination: Entry) -> None:
        self.carry(source, destination)
        self.records.pop(source, None)
        self.files[destination] = self.files.pop(source)

    def fail_to_move(self, source: Entry, destination: Entry) -> None:
        replaced = self.carry(source, destination)
        self.records.pop(destination, None)
        if replaced:
            self.records[destination] = Record(replaced)
