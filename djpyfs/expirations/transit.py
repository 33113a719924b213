"""Records that move to another number of shards, while writers and sweeps go on.

Meanwhile a record stays in the shard that it must leave (`Layout.left_by`) until somebody takes it
out: the process that moves all, or a writer or reader that asks for it. No call makes a record in
the wrong shard, so there are fewer and fewer of them.

A record moves in three steps, each one script in one shard:

1. It departs: a copy stays behind, in transit.
2. It arrives in its new shard, which notes that it has.
3. It is delivered: the old shard forgets the copy.

Anybody who finds a record in transit goes on with it, so nothing is lost if its mover dies, and a
second arrival changes nothing. What is claimed stays where it is until the claim ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

from ..errors import ConfigurationError
from . import SCANNED, Busy, Expirations, Move
from .layout import Layout, Relaid
from .scripts import Call, Command, Scripts

MOVED = 500  # members that one script takes out of a shard: some milliseconds
# To find all members, scan these keys: the others only add to what is known of them.
SCANS = dict.fromkeys("due retries suspects claimed".split(), ("zscan", "zcard"))
SCANS |= dict.fromkeys("failed writing owners revocations".split(), ("hscan", "hlen"))
SCANS["permanent"] = "sscan", "scard"
LEAVES_LAPSED = -1  # in place of the end of a claim that is over


class Held(NamedTuple):
    """A member that a claim keeps in the shard that it must leave, and what is known of it."""

    now: int
    busy: Busy
    token: int
    deadline: int
    permanent: bool
    revocation: str


@dataclass
class Departed:
    """What became of members that were asked to leave a shard."""

    held: dict[bytes, Held] = field(default_factory=dict)
    lapsed: list[bytes] = field(default_factory=list)  # under claims that had lapsed
    parcels: dict[bytes, bytes] = field(default_factory=dict)  # what is known of those in transit


class Moves:
    """How the records of one place move."""

    def __init__(self, scripts: Scripts, place: str, keys: Mapping[int, Sequence[bytes]]) -> None:
        self._scripts = scripts
        self._place = place
        self._keys = keys

    def bring_home(
        self, layout: Layout, members: Sequence[bytes], over: int = LEAVES_LAPSED
    ) -> Departed:
        """Move members to their new shards; return what became of them.

        Raises `Relaid` if another layout counts.
        """
        whole = Departed()
        leaving: dict[int, list[bytes]] = {}
        for member in members:
            shard = layout.left_by(member)
            if shard != layout.shard_of(member):
                leaving.setdefault(shard, []).append(member)
        for shard, own in leaving.items():
            departed = self.depart(layout, shard, own, over)
            whole.held |= departed.held
            whole.lapsed += departed.lapsed
            if departed.parcels:
                self.arrive(layout, departed.parcels)
                self.deliver(layout, shard, list(departed.parcels))
        return whole

    def depart(
        self, layout: Layout, shard: int, members: Sequence[bytes], over: int = LEAVES_LAPSED
    ) -> Departed:
        """Put members in transit from a shard, except those that are claimed."""
        departed = Departed()
        names = "returned", "revocations", "transit"
        slices = _slices(members)
        replies = self._run(
            [self._call(layout, "depart", shard, names, (over, *some)) for some in slices]
        )
        for some, (now, *found) in zip(slices, replies, strict=True):
            for member, (has_left, *known) in zip(some, found, strict=True):
                if has_left:
                    lapsed, parcel = known
                    departed.lapsed += [member] * lapsed
                    if parcel:
                        departed.parcels[member] = parcel
                else:
                    left, ends, token, deadline, kept, revocation = known
                    departed.held[member] = Held(
                        now,
                        Busy(left, ends),
                        int(token),
                        deadline,
                        bool(kept),
                        revocation.decode(),
                    )
        return departed

    def arrive(self, layout: Layout, parcels: Mapping[bytes, bytes]) -> None:
        """Take members in transit into their new shards."""
        self._run(
            [
                self._call(
                    layout,
                    "arrive",
                    shard,
                    ("revocations", "arrived"),
                    list(chain(*((member, parcels[member]) for member in some))),
                )
                for shard, own in layout.by_shard(parcels).items()
                for some in _slices(own)
            ]
        )

    def deliver(self, layout: Layout, shard: int, members: Sequence[bytes]) -> None:
        """Make a shard forget members that have arrived in another one."""
        names = "returned", "transit"
        self._run([self._call(layout, "deliver", shard, names, some) for some in _slices(members)])

    # -- all of them

    def empty(self, layout: Layout, shard: int, end_lapsed: Callable[[], object]) -> Iterator[Move]:
        """Move all that must leave a shard, and make sure that it has; yield each step.

        Between two steps others may do anything, and the caller may stop.
        """

        def leaving(members: Iterable[bytes]) -> list[bytes]:
            return [member for member in members if layout.shard_of(member) != shard]

        for name, (scan, _) in SCANS.items():
            cursor = -1
            while cursor:
                key = self._key(shard, name)
                look = Command(shard, scan, (key, max(cursor, 0), None, SCANNED))
                [(cursor, page)] = self._scripts.send([look])
                members = dict(page) if scan == "zscan" else dict.fromkeys(page)
                yield from self._moved(layout, shard, leaving(members), len(members))
        # What was claimed meanwhile may have been missed.
        while True:
            end_lapsed()
            claimed, returned, in_transit = self._run(
                [self._call(layout, "left_behind", shard, ("returned", "transit"), ())]
            )[0]
            self.deliver(layout, shard, [it for it in returned if layout.shard_of(it) == shard])
            left = leaving(dict.fromkeys(chain(claimed, returned, in_transit)))
            if not left:
                return
            yield from self._moved(layout, shard, left, 0)

    def _moved(
        self, layout: Layout, shard: int, members: Sequence[bytes], looked: int
    ) -> Iterator[Move]:
        moved = waiting = 0
        for some in _slices(members):
            departed = self.depart(layout, shard, some)
            waiting += len(departed.held)
            if parcels := departed.parcels:
                yield Move()
                self.arrive(layout, parcels)
                yield Move()
                self.deliver(layout, shard, list(parcels))
                moved += len(parcels)
        if looked or moved or waiting:
            yield Move(looked, moved, waiting)

    def count(self, layout: Layout) -> int:
        """Return how many entries `empty` looks at in all shards."""
        return sum(
            self._scripts.send(
                [
                    Command(shard, count, (self._key(shard, name),))
                    for shard in range(layout.old)
                    for name, (_, count) in SCANS.items()
                ]
            )
        )

    def tidy_calls(self, layout: Layout, shards: Iterable[int]) -> list[Call]:
        """Return how to forget what was noted while records moved."""
        names = "returned", "transit", "arrived"
        return [
            Call("tidy", shard, [self._key(shard, name) for name in names], (), layout)
            for shard in shards
        ]

    def _key(self, shard: int, name: str) -> bytes:
        return self._scripts.key(shard, self._place, name)

    def _call(
        self,
        layout: Layout,
        verb: str,
        shard: int,
        names: Sequence[str],
        arguments: Sequence[Any],
    ) -> Call:
        keys = [*self._keys[shard], *(self._key(shard, name) for name in names)]
        return Call(verb, shard, keys, arguments, layout)

    def _run(self, calls: Sequence[Call]) -> list[Any]:
        return self._scripts.run_all(calls)


Records = Callable[[], Mapping[str, tuple[Moves, Expirations]]]


def reshard(scripts: Scripts, shards: int, records: Records) -> Iterator[Move]:
    """Spread the ``records`` of all places over so many ``shards``; yield each step.

    It may stop after any step; a call with the same number goes on, and any number of processes may
    do so at once.
    """
    while True:
        try:
            layout = _begin(scripts, shards, records)
            if layout.moving:
                yield from _move(layout, records)
                _gather_totals(scripts, layout)
                # The first shard last: a process that takes this up asks it how far this has come.
                ended = Layout(layout.epoch + 1, layout.new, layout.new)
                scripts.lay(ended, reversed(layout.shards))
                _tidy(scripts, ended, layout.shards, records)
            return
        except Relaid:  # somebody else has ended it, or a shard has lost it in a failover
            yield Move()


def _begin(scripts: Scripts, shards: int, records: Records) -> Layout:
    layout = scripts.newest_layout()
    if layout.moving and layout.new != shards:
        raise ConfigurationError(
            f"the records are on their way from {layout.old} to {layout.new} shards: let "
            f"'manage.py djpyfs reshard {layout.new}' finish first"
        )
    if not layout.moving:
        scripts.lay(layout, layout.shards)
        _tidy(scripts, layout, layout.shards, records)
        if layout.new == shards:
            return layout
        layout = Layout(layout.epoch + 1, layout.new, shards)
    scripts.lay(layout, layout.shards)
    return layout


def _move(layout: Layout, records: Records) -> Iterator[Move]:
    found, moved = records(), set[str]()
    yield Move(total=sum(moves.count(layout) for moves, _ in found.values()))
    while places := found.keys() - moved:
        for place in places:
            moves, own = found[place]
            for shard in range(layout.old):
                yield from moves.empty(layout, shard, partial(own.claim, shard, 0))
        moved |= places
        found = records()  # one whose keys came and went may have been missed


def _gather_totals(scripts: Scripts, layout: Layout) -> None:
    """Add the totals of shards that will not exist any more to those of the first."""
    keys = {shard: scripts.key(shard, "totals") for shard in layout.shards[layout.new :]}
    totals = scripts.send([Command(shard, "hgetall", (key,)) for shard, key in keys.items()])
    scripts.run_all([Call("tidy", shard, [key], (), layout) for shard, key in keys.items()])
    first = scripts.key(0, "totals")
    told = [it for own in totals for it in chain(*own.items())]
    if told:
        scripts.run_all([Call("tally", 0, [first], told, layout)])


def _tidy(scripts: Scripts, layout: Layout, shards: Iterable[int], records: Records) -> None:
    calls = [call for moves, _ in records().values() for call in moves.tidy_calls(layout, shards)]
    scripts.run_all(calls)


def _slices(members: Sequence[bytes]) -> list[Sequence[bytes]]:
    return [members[first : first + MOVED] for first in range(0, len(members), MOVED)]
