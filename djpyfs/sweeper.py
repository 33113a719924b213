"""The sweep: claim what is due, delete it, acknowledge; until nothing is due."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from itertools import chain

from . import conf, outages
from .backends import Lease, Outcome, backend_at, is_away, reason, usable_lease
from .conf import SECOND, Placement
from .errors import ConfigurationError, InvalidName, RecordStoreError
from .expirations import Backoff, Claim, ExpirationStore, store_for
from .expirations.totals import LATENESS, SWEEP_DURATION
from .names import Entry, check_namespace, check_path
from .signals import files_expired, sweep_finished

log = logging.getLogger("djpyfs")

HOLD_PAUSE = 600 * SECOND  # after which a sweep asks again whether the hold was lifted

# A machine that sleeps stops CLOCK_MONOTONIC, but not the lease.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


@dataclass(frozen=True)
class SweepReport:
    """What a sweep did."""

    #: Files that were deleted.
    deleted: int = 0
    #: Files that were gone already.
    missing: int = 0
    #: Deletions that failed: those that will be tried again and those that were given up.
    failed: int = 0
    retried: int = 0
    set_aside: int = 0
    #: Files that stay, because their namespace is on hold.
    held: int = 0
    #: Files that stay for now, because their back-end is away as a whole.
    postponed: int = 0
    #: Records that are still overdue: the limit or the time budget was reached.
    remaining: int = 0
    #: Age of the oldest overdue record that the sweep met, in seconds.
    lag: float = 0.0
    #: How long the sweep took, in seconds.
    duration: float = 0.0

    def as_dict(self) -> dict[str, float]:
        """Return the report as JSON can hold it."""
        return asdict(self)


def expire_objects(limit: int | None = None, seconds: float | None = None) -> SweepReport:
    """Delete what is overdue, now and in this process, until nothing is.

    Stops earlier after ``limit`` records, or when ``seconds`` have passed. Any number of sweeps
    may run at once. Raises `RecordStoreUnavailable` where the record store is away; a file that
    cannot be deleted raises nothing: it is counted, and tried again by a later sweep.
    """
    return sweep(limit, seconds)


def sweep(
    limit: int | None = None,
    seconds: float | None = None,
    on_batch: Callable[[SweepReport], object] | None = None,
) -> SweepReport:
    """Do what `expire_objects` does, and call ``on_batch`` with the report after each batch."""
    for name, bound in ("limit", limit), ("seconds", seconds):
        if bound is not None and bound <= 0:
            raise ValueError(f"{name} is {bound!r}: give it a number above 0, or None for no bound")
    return _Sweep(limit, seconds, on_batch).run()


def delete_if_due(namespace: str, path: str) -> float:
    """Delete one file, if the record store says that it is due.

    Returns the seconds until it is due; 0 where it was deleted, where it has no deadline, and
    where a sweep is at it. Raises `InvalidName`.
    """
    entry = Entry(check_namespace(namespace), check_path(path))
    return _Sweep(limit=1).run_one(entry)


def recent_sweeps(limit: int = 20) -> list[dict[str, float]]:
    """Return the reports of the last sweeps that had something to do, newest first.

    Each is a `SweepReport` as a dict, with ``finished`` in seconds since the epoch.
    """
    return store_for(conf.current()).sweeps(limit)


class _HeldLease:
    """The part of a lease in which this process may still delete.

    It counts from before the claim was sent, by a clock of its own, and stops early: whoever
    was frozen for too long must not act on a claim that has lapsed.
    """

    def __init__(self, lease: int) -> None:
        self._end = time.clock_gettime(_CLOCK) + usable_lease(lease)

    def remaining(self) -> float:
        return self._end - time.clock_gettime(_CLOCK)


@dataclass
class _Batch:
    """What became of the members of one claim."""

    deleted: list[Entry] = field(default_factory=list)
    missing: list[Entry] = field(default_factory=list)
    done: list[bytes] = field(default_factory=list)  # their records, and those of missing files
    failures: list[tuple[bytes, str]] = field(default_factory=list)
    broken: list[tuple[bytes, str]] = field(default_factory=list)  # records of no file at all
    put_off: dict[int, list[bytes]] = field(default_factory=dict)  # by how long, in µs
    held: int = 0  # of those put off
    postponed: int = 0  # of those put off

    def tally(self) -> dict[str, int]:
        tally = {
            "deleted": len(self.deleted),
            "missing": len(self.missing),
            "held": self.held,
            "postponed": self.postponed,
        }
        return {outcome: count for outcome, count in tally.items() if count}


class _Sweep:
    """One run over all shards, with what it has counted so far."""

    def __init__(
        self,
        limit: int | None = None,
        seconds: float | None = None,
        on_batch: Callable[[SweepReport], object] | None = None,
    ) -> None:
        self._settings = conf.current()
        self._store: ExpirationStore = store_for(self._settings)
        self._backoff = Backoff(self._settings.max_attempts)
        self._started = time.monotonic()
        self._limit = limit
        self._seconds = seconds
        self._on_batch = on_batch
        self._claimed = 0
        self._deleted = self._missing = self._retried = self._set_aside = 0
        self._held = self._postponed = self._remaining = 0
        self._patience = outages.Patience()
        self._late = 0.0

    def run(self) -> SweepReport:
        for shard in self._store.shards:
            lease = self._new_lease()
            self._drain(shard, self._store.claim(shard, *self._wanted()), lease)
        report = self._report()
        if self._claimed:
            self._note(report)
            sweep_finished.send_robust(sweep, report=report)
        return report

    def run_one(self, entry: Entry) -> float:
        lease = self._new_lease()
        claim = self._store.claim_one(entry.member, self._settings.lease)
        if not claim.token:
            return claim.wait / SECOND
        shard = self._store.shard_of(entry.member)
        late = max(0, claim.token - self._settings.lease - claim.deadline)
        self._drain(shard, Claim(claim.token, [entry.member], [late], 0), lease)
        return 0.0

    def _drain(self, shard: int, claim: Claim | None, lease: Lease) -> None:
        while claim and claim.members:
            self._claimed += len(claim.members)
            self._late = max(self._late, *claim.late)
            batch = self._delete(claim.members, lease)
            lease = self._new_lease()
            settled = self._store.settle(
                shard,
                claim.token,
                batch.done if len(batch.done) < len(claim.members) else None,
                batch.failures,
                self._backoff,
                batch.broken,
                batch.put_off,
                self._wanted(),
                {**batch.tally(), **LATENESS.tally(claim.late, SECOND)},
            )
            _tell_of(batch.deleted)
            self._retried += settled.retried
            self._set_aside += settled.set_aside
            claim = settled.claim
            if self._on_batch:
                self._on_batch(self._report())
        self._remaining += claim.overdue if claim else 0

    def _new_lease(self) -> Lease:
        return _HeldLease(self._settings.lease)

    def _wanted(self) -> tuple[int, int]:
        """Return how many members to claim next, and for how long. A claim of none counts."""
        size = self._settings.batch_size
        if self._limit is not None:
            size = min(size, self._limit - self._claimed)
        if self._seconds is not None and self._elapsed() >= self._seconds:
            size = 0
        return size, self._settings.lease

    def _delete(self, members: Sequence[bytes], lease: Lease) -> _Batch:
        batch = _Batch()
        groups = self._by_placement(members, batch)
        for placement in sorted(groups, key=outages.is_known):  # what may take long comes last
            self._delete_at(placement, groups[placement], lease, batch)
        for member, why in chain(batch.failures, batch.broken):
            name = member.replace(b"\0", b"/").decode(errors="replace")
            log.warning("%a was not deleted: %s", name, why)
        self._deleted += len(batch.deleted)
        self._missing += len(batch.missing)
        self._held += batch.held
        self._postponed += batch.postponed
        return batch

    def _by_placement(
        self, members: Sequence[bytes], batch: _Batch
    ) -> Mapping[Placement, dict[Entry, bytes]]:
        """Group what may be deleted; what may not goes into ``batch``."""
        groups: dict[Placement, dict[Entry, bytes]] = {}
        policy_for = cache(self._settings.policy_for)
        for member in members:
            try:
                entry = Entry.of_member(member)
            except InvalidName as error:
                batch.broken.append((member, reason(error)))
                continue
            policy = policy_for(entry.namespace)
            if policy.hold:
                batch.held += 1
                batch.put_off.setdefault(HOLD_PAUSE, []).append(member)
            else:
                groups.setdefault(policy.placement, {})[entry] = member
        return groups

    def _delete_at(
        self, placement: Placement, entries: Mapping[Entry, bytes], lease: Lease, batch: _Batch
    ) -> None:
        outcome = self._attempt(placement, list(entries), lease)
        batch.deleted += outcome.deleted
        batch.missing += outcome.missing
        batch.done += [entries[entry] for entry in chain(outcome.deleted, outcome.missing)]
        batch.failures += [(entries[entry], why) for entry, why in outcome.failed]
        if outcome.away:
            stay = [entries[entry] for entry, _ in outcome.away]
            batch.put_off.setdefault(outages.pause(placement), []).extend(stay)
            batch.postponed += len(stay)
        if outcome.deleted or outcome.missing or outcome.failed:
            outages.is_over(placement)
            self._patience.regain(placement)

    def _attempt(self, placement: Placement, entries: list[Entry], lease: Lease) -> Outcome:
        if why := self._patience.lost(placement):
            return Outcome(away=[(entry, why) for entry in entries])
        started = time.monotonic()
        outcome = self._outcome(placement, entries, lease)
        if outcome.away:
            _, why = outcome.away[0]
            self._patience.lose(placement, why, time.monotonic() - started)
        return outcome

    def _outcome(self, placement: Placement, entries: list[Entry], lease: Lease) -> Outcome:
        try:
            return backend_at(self._settings, placement).delete(entries, lease)
        except Exception as error:  # one back-end's trouble must not stop the others
            told = [(entry, reason(error)) for entry in entries]
            if is_away(error) or isinstance(error, ConfigurationError):
                return Outcome(away=told)
            log.exception("back-end %r failed as a whole", placement.type)
            return Outcome(failed=told)

    def _report(self) -> SweepReport:
        return SweepReport(
            deleted=self._deleted,
            missing=self._missing,
            failed=self._retried + self._set_aside,
            retried=self._retried,
            set_aside=self._set_aside,
            held=self._held,
            postponed=self._postponed,
            remaining=self._remaining,
            lag=self._late / SECOND,
            duration=self._elapsed(),
        )

    def _elapsed(self) -> float:
        return time.monotonic() - self._started

    def _note(self, report: SweepReport) -> None:
        try:
            self._store.record_sweep(report.as_dict(), SWEEP_DURATION.tally([report.duration]))
        except RecordStoreError as error:  # a full Redis must not keep a sweep from its work
            log.warning("the sweep's report was not kept: %s", error)


def _tell_of(deleted: Sequence[Entry]) -> None:
    if not files_expired.has_listeners():
        return
    namespaces: dict[str, list[str]] = {}
    for entry in deleted:
        namespaces.setdefault(entry.namespace, []).append(entry.path)
    for namespace, paths in namespaces.items():
        files_expired.send_robust(sweep, namespace=namespace, paths=paths)
