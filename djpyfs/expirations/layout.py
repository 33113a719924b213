"""The number of shards that the records of a store are spread over, kept in the store itself."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from zlib import crc32

FORMAT = 6  # of the records; code that does not know it must leave them alone


class Relaid(Exception):
    """The layout is not the one that a call was made by: the call has changed nothing."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The number of shards or, while records move, the one they had and the one they will have.

    Each change gets an ``epoch``; the latest one counts.
    """

    epoch: int
    old: int
    new: int
    #: How it is written down in each shard.
    form: str = field(init=False)
    moving: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "form", f"{FORMAT} {self.epoch} {self.old} {self.new}")
        object.__setattr__(self, "moving", self.old != self.new)

    @classmethod
    def read(cls, form: str) -> Layout | None:
        """Return the layout that is written down, or None if it has another form."""
        version, _, numbers = form.partition(" ")
        return cls(*map(int, numbers.split())) if version == str(FORMAT) else None

    @property
    def shards(self) -> range:
        """The shards in which there may be records."""
        return range(max(self.old, self.new))

    def shard_of(self, member: bytes) -> int:
        """Return the shard in which a member's record is or, while records move, will be."""
        return crc32(member) % self.new if self.new > 1 else 0

    def left_by(self, member: bytes) -> int:
        """Return the shard in which a member's record was before records began to move."""
        return crc32(member) % self.old if self.moving else self.shard_of(member)

    def by_shard(self, members: Iterable[bytes]) -> dict[int, list[bytes]]:
        """Group members by the shards that hold their records."""
        groups: dict[int, list[bytes]] = {}
        for member in members:
            groups.setdefault(self.shard_of(member), []).append(member)
        return groups
