"""The sweep: claim what is due, delete it, acknowledge; until nothing is due."""

from __future__ import annotations

import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from typing import Any, NamedTuple, Self
from uuid import uuid4

from django.utils.asyncio import async_unsafe

from . import conf, leases, outages, owners
from .backends import Backend, Lease, Outcome, is_away, reason
from .conf import SECOND
from .errors import BLOCKS, BackendUnavailable, InvalidName, RecordStoreError
from .expirations import Claim, NextDue, State, Verdict, store_for
from .expirations.totals import LATENESS, SWEEP_DURATION
from .gates import Gate
from .late_uploads import late_uploads
from .names import Entry, check_namespace, check_path, plain_entries
from .places import Place, place_for, places_here
from .pool import Pool
from .signals import files_expired, sweep_finished
from .threads import in_a_thread

log = logging.getLogger("djpyfs")

HOLD_PAUSE = 600 * SECOND  # after which a sweep asks again whether the hold was lifted
OWNER_PAUSE = 60 * SECOND  # after which a sweep asks again who owns a file
PAUSE = 0.01, 0.03  # s, shortest and longest, before a sweep asks again for its share


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
    #: Files that stay, because a row names them.
    owned: int = 0
    #: Files that stay for now, because their backend is away, or who owns them is not known.
    postponed: int = 0
    #: Records that are still overdue: the limit or the time budget was reached.
    remaining: int = 0
    #: Shards that could not be asked, while others were swept.
    unreachable: int = 0
    #: Age of the oldest overdue record that the sweep met, in seconds.
    lag: float = 0.0
    #: How long the sweep took, in seconds.
    duration: float = 0.0

    def as_dict(self) -> dict[str, float]:
        """Return the report as JSON can hold it, its times to the millisecond."""
        return {name: round(number, 3) for name, number in asdict(self).items()}


@async_unsafe(BLOCKS)
def expire_objects(limit: int | None = None, seconds: float | None = None) -> SweepReport:
    """Delete what is overdue, now and in this process, until nothing is left::

        report = expire_objects(seconds=50)
        print(report.deleted, report.failed, report.remaining)

    Stops earlier after ``limit`` records, or when ``seconds`` have passed. Any number of sweeps
    may run at once. Raises `RecordStoreUnavailable` if the record store is away; a file that
    cannot be deleted raises nothing: it is counted, and a later sweep tries again.
    """
    return sweep(limit, seconds)


#: For ``async def`` views: what `expire_objects` does, in a thread.
aexpire_objects = in_a_thread(expire_objects)


def sweep(
    limit: int | None = None,
    seconds: float | None = None,
    on_batch: Callable[[SweepReport], object] | None = None,
    is_over: Callable[[], bool] = lambda: False,
) -> SweepReport:
    """Do what `expire_objects` does, and call ``on_batch`` with the report after each batch.

    As soon as ``is_over`` says so, no further file is deleted.
    """
    with Sweep(limit, seconds, on_batch, is_over) as own:
        return own.run()


def delete_if_due(namespace: str, paths: Sequence[str], bounded: bool = False) -> dict[str, float]:
    """Delete those files of a namespace that the record store says are due, with one request.

    Returns the seconds until the others are due; those without a deadline, and those that a sweep
    has claimed, are left out. If it is ``bounded`` as sweeps are, by ``sweepers`` and
    ``deletions_per_second``, files beyond these are left to a sweep. Raises `InvalidName` before
    the first is deleted.
    """
    check_namespace(namespace)
    checked = [check_path(path) for path in paths]
    with Sweep() as own:
        return own.run_some(namespace, checked, bounded)


def recent_sweeps(limit: int = 20) -> list[dict[str, float]]:
    """Return the reports of the last sweeps that had something to do, newest first.

    Each is a `SweepReport` as a dict, with ``finished`` in seconds since the epoch::

        late = max((report["lag"] for report in recent_sweeps(10)), default=0)

    Raises `RecordStoreUnavailable`.
    """
    return store_for(conf.current()).sweeps(limit)


@dataclass
class _Batch:
    """What happened to the members of one claim."""

    deleted: list[Entry] = field(default_factory=list)
    missing: int = 0
    held: int = 0
    owned: list[bytes] = field(default_factory=list)
    postponed: int = 0
    verdict: Verdict = field(default_factory=Verdict)

    def put_off(self, delay: int, state: State, members: Sequence[bytes]) -> None:
        self.verdict.put_off.setdefault((delay, state), []).extend(members)

    def tally(self) -> dict[str, int]:
        tally = {
            "deleted": len(self.deleted),
            "missing": self.missing,
            "held": self.held,
            "owned": len(self.owned),
            "postponed": self.postponed,
        }
        return {outcome: count for outcome, count in tally.items() if count}


NO_CLAIM = Claim(0, 0)


class _Asked(NamedTuple):
    """What was known when a claim was asked for."""

    limit: int
    at: float  # by the clock of leases
    mark: int | None


class _Turn(NamedTuple):
    """The lease of a claim, which ends with the sweep if that is told to end."""

    lease: leases.HeldLease
    is_over: Callable[[], bool]
    mark: int | None

    def remaining(self) -> float:
        return 0.0 if self.is_over() else self.lease.remaining()


class _Flight:
    """A claim on its way: its parts wait for deletion, are being deleted, or are done."""

    def __init__(self, claim: Claim, turn: _Turn) -> None:
        self.claim = claim
        self.turn = turn
        self.batch = _Batch()
        self.entries: list[Entry] = []
        self.awaiting: list[Entry] = []
        self.outcome = Outcome()
        self.has_begun = False
        self.parts_left = 0


class _Part(NamedTuple):
    """Files that are deleted together."""

    flight: _Flight
    place: Place
    entries: Sequence[Entry]


class _Ended(NamedTuple):
    """What happened to a part, and how long that took."""

    flight: _Flight
    outcome: Outcome
    seconds: float


class Sweep:
    """One run over all places and shards, with what it has counted so far.

    Its signals are sent at the end of its ``with`` block, whether that raises or not.
    """

    def __init__(
        self,
        limit: int | None = None,
        seconds: float | None = None,
        on_batch: Callable[[SweepReport], object] | None = None,
        is_over: Callable[[], bool] = lambda: False,
        on_backlog: Callable[[int], str] | None = None,
        is_helper: bool = False,
    ) -> None:
        _check_bound("limit", limit, int, "whole number")
        _check_bound("seconds", seconds, (int, float), "number")
        self._settings = conf.current()
        self._store = store_for(self._settings)
        self._started = time.monotonic()
        self._limit = limit
        self._seconds = seconds
        self._on_batch = on_batch
        self._is_over = is_over
        self._on_backlog = on_backlog
        self._is_helper = is_helper
        #: Of which sweep this is a part: all with the same name are reported as one.
        self.name = uuid4().hex
        #: Whether it goes on with one of that name.
        self.goes_on = False
        #: What all parts of it have done so far.
        self.whole: Mapping[str, float] = {}
        self._gates: dict[str, Gate] = {}
        self._claimed = self._landed = self._reported = 0
        self._done: Counter[str] = Counter()  # by the names in the report
        self._patience = outages.Patience()
        self._faulty: set[Backend] = set()
        self._lag = 0.0
        self._deleted_batches: list[Sequence[Entry]] = []
        self._finished: SweepReport | None = None

    def run(self) -> SweepReport:
        here = places_here(self._settings)
        here = [*here, *late_uploads(self._settings, here)]
        places = {place.records.place: place for place in here}
        waiting, problems = self._store.waiting([place.records for place in places.values()])
        troubles = list(problems)
        if self._on_backlog:
            self.name = self._on_backlog(self._useful(places, waiting))
            self._started = time.monotonic()  # from here on it has its time
        for it in sorted(waiting, key=lambda it: self._order(places[it.records.place], it)):
            try:
                self._drain(places[it.records.place], it.shard, it.overdue)
            except RecordStoreError as error:  # the other shards must not wait for it
                troubles.append(error)
        self._leave()
        for trouble in troubles:
            log.error("a shard cannot be swept: %s", trouble)
        self._done["unreachable"] = len(troubles)
        report = self._report()
        if self._claimed:
            self._finished = report
        if troubles and len(troubles) >= sum(len(it.records.shards) for it in places.values()):
            raise troubles[0]
        if self._claimed or self.goes_on:
            self._note(report)
        return report

    @property
    def was_of_use(self) -> bool:
        """Whether it has done something, or had to wait for its share of the rate."""
        return self._claimed > 0 or self._time_is_up()

    def _order(self, place: Place, it: NextDue) -> tuple[bool, bool, bool, float]:
        """Put what may take long last, in random order, so that nothing always waits.

        A disk does not wait for a server that may hang, nor does a server for a disk's backlog.
        """
        is_backlog = it.overdue > self._settings.batch_size
        is_remote = place.backend.late > 0
        is_away = outages.is_known(it.records.place)
        return is_away, is_backlog, is_remote, (is_remote or is_backlog) and random.random()

    def _useful(self, places: Mapping[str, Place], waiting: Sequence[NextDue]) -> int:
        """Return how many sweepers can be of use for what is waiting."""
        overdue: Counter[str] = Counter()
        for it in waiting:
            overdue[it.records.place] += it.overdue
        return sum(self._gate(places[name]).useful(count) for name, count in overdue.items())

    def _gate(self, place: Place) -> Gate:
        name = place.records.place
        if name not in self._gates:
            self._gates[name] = Gate(self._settings, place)
        return self._gates[name]

    def _leave(self) -> None:
        for gate in self._gates.values():
            try:
                gate.leave()
            except RecordStoreError as error:  # the seat is free again when its lease is over
                log.info("a seat was not given up: %s", error)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Send the signals, which may take long: nothing is claimed, and no file waits for it."""
        for deleted in self._deleted_batches:
            _send_expired(deleted)
        if self._finished:
            sweep_finished.send_robust(sweep, report=self._finished)

    def run_some(self, namespace: str, paths: Sequence[str], bounded: bool) -> dict[str, float]:
        """Delete those of a namespace's files that are due; return how long the others wait."""
        self._limit = 0  # beside these
        try:
            place = place_for(self._settings, namespace)
        except BackendUnavailable as error:
            log.warning("%d files wait for the next sweep: %s", len(paths), error)
            return {}
        if bounded:
            paths = paths[: self._gate(place).share(len(paths), len(paths))]
        shards: dict[int, dict[bytes, Entry]] = {}
        for entry in (Entry(namespace, path) for path in paths):
            shards.setdefault(place.records.shard_of(entry.member), {})[entry.member] = entry
        waits: dict[str, float] = {}
        for shard, own in shards.items():
            asked = self._ask(place, 0)
            answers = list(zip(own, place.records.claim_these(shard, list(own)), strict=True))
            if claimed := [(member, it) for member, it in answers if it.token]:
                members, lags = [member for member, _ in claimed], [it.lag for _, it in claimed]
                awaiting = [member for member, it in claimed if it.awaiting]
                claim = Claim(shard, claimed[0][1].token, members, lags, 0, awaiting)
                self._sweep(place, asked, claim)
            waits |= {own[member].path: it.wait / SECOND for member, it in answers if it.wait}
        self._leave()
        return waits

    def _drain(self, place: Place, shard: int, overdue: int) -> None:
        goes_on = True
        while goes_on:
            asked = self._ask(place, self._wait_for_share(place, overdue))
            claim = place.records.claim(shard, asked.limit)
            overdue = self._sweep(place, asked, claim)
            goes_on = asked.limit > 0 and overdue > 0
        self._done["remaining"] += overdue

    def _ask(self, place: Place, limit: int) -> _Asked:
        return _Asked(limit, leases.now(), place.backend.mark())

    def _sweep(self, place: Place, asked: _Asked, claim: Claim) -> int:
        """Delete what was claimed, and what can be claimed then; return what is left after that.

        While one batch is being deleted the next is claimed, and the last one settled.
        """
        aloft: list[_Flight] = []
        with Pool(self._delete, place.backend.deletions_at_once) as pool:
            try:
                shard, overdue = claim.shard, claim.overdue
                while claim.members or aloft:
                    if claim.members:
                        aloft.append(self._take_off(place, asked, claim))
                        for entries in place.backend.parts(aloft[-1].entries) or [[]]:
                            pool.put(_Part(aloft[-1], place, entries))
                            aloft[-1].parts_left += 1
                    self._report_progress()  # which may take long as well
                    landed, share = self._await(pool, aloft, place, overdue)
                    asked, claim = self._ask(place, share), NO_CLAIM
                    limit = share if share or not aloft else None
                    if landed:
                        claim = self._settle(place, landed, limit, alone=not aloft)
                    else:
                        claim = place.records.claim(shard, share, alone=False)
                    if limit is not None:
                        overdue = claim.overdue
            finally:
                for flight in aloft:  # after an error
                    flight.turn.lease.lost()
                    leases.drop(flight.turn.lease)
        self._report_progress()
        place.backend.tidy()
        return overdue

    def _take_off(self, place: Place, asked: _Asked, claim: Claim) -> _Flight:
        longest, late = self._settings.lease / SECOND, place.backend.late
        held = leases.of_claim(place.records, claim.shard, claim.token, asked.at, late, longest)
        leases.keep(held)
        self._claimed += len(claim.members)
        self._lag = max(self._lag, *claim.lags)
        # A helper finishes what it has claimed: the sweep that it helps may be over by then.
        ends = self._is_over if self._is_helper else self._has_ended
        flight = _Flight(claim, _Turn(held, ends, asked.mark))
        flight.entries = self._deletable(claim.members, flight.batch)
        if claim.awaiting:
            doubtful = set(claim.awaiting)
            flight.awaiting = [it for it in flight.entries if it.member in doubtful]
            flight.entries = [it for it in flight.entries if it.member not in doubtful]
        return flight

    def _await(
        self,
        pool: Pool[_Part, _Ended],
        aloft: list[_Flight],
        place: Place,
        overdue: int,
    ) -> tuple[_Flight | None, int]:
        """Wait until a flight has landed, or more may follow; return it, and how many may."""
        while not (overdue and aloft[-1].has_begun and (share := self._share(place, overdue))):
            news = pool.news()
            news.flight.has_begun = True
            if isinstance(news, _Ended):
                self._note_outcome(place, news)
                if not news.flight.parts_left:
                    aloft.remove(news.flight)
                    waiting = sum(not flight.has_begun for flight in aloft)
                    # What has landed leaves room for one that waits.
                    return news.flight, self._share(place, overdue) if waiting <= 1 else 0
        return None, share

    def _settle(self, place: Place, landed: _Flight, limit: int | None, alone: bool) -> Claim:
        """Report the outcome of a claim to the record store, and claim again with a ``limit``."""
        claim, batch = landed.claim, landed.batch
        if landed.awaiting:
            self._delete_unowned(place, landed)
        self._judge(place, landed)
        leases.drop(landed.turn.lease)
        batch.verdict.tally = {**batch.tally(), **LATENESS.tally(claim.lags, SECOND)}
        if files_expired.has_listeners():
            self._deleted_batches.append(batch.deleted)
        settled = place.records.settle(claim, batch.verdict, limit, alone)
        self._done.update(retried=settled.retried, set_aside=settled.set_aside)
        for member in batch.owned:
            place.records.take_up(member)
        return settled.claim or NO_CLAIM

    def _report_progress(self) -> None:
        if self._on_batch and self._landed > self._reported:
            self._reported = self._landed
            self._on_batch(self._report())

    def _wait_for_share(self, place: Place, overdue: int) -> int:
        """Return what `_share` does, as soon as there is something; no claim waits meanwhile."""
        while not (share := self._share(place, overdue)):
            if self._is_helper or not self._wanted() or self._gate(place).closed:
                break
            time.sleep(random.uniform(*PAUSE))
        return share

    def _share(self, place: Place, overdue: int) -> int:
        """Return how many of the overdue members to claim next. A claim of none counts."""
        wanted = self._wanted()
        return self._gate(place).share(wanted, overdue) if wanted else 0

    def _wanted(self) -> int:
        """Return how many members could be claimed next."""
        size = self._settings.batch_size
        if self._limit is not None:
            size = max(0, min(size, self._limit - self._claimed))
        return 0 if self._has_ended() else size

    def _has_ended(self) -> bool:
        """Return whether no other deletion is to begin."""
        return self._time_is_up() or self._is_over()

    def _time_is_up(self) -> bool:
        return self._seconds is not None and self._elapsed() >= self._seconds

    def _deletable(self, members: Sequence[bytes], batch: _Batch) -> list[Entry]:
        """Return what may be deleted; what may not goes into ``batch``."""
        entries = plain_entries(members) or list(self._readable(members, batch))
        namespaces = {entry.namespace for entry in entries}
        on_hold = {name for name in namespaces if self._settings.policy_for(name).hold}
        if on_hold:
            held = [entry.member for entry in entries if entry.namespace in on_hold]
            batch.held += len(held)
            batch.put_off(HOLD_PAUSE, State.HELD, held)
            return [entry for entry in entries if entry.namespace not in on_hold]
        return entries

    def _readable(self, members: Sequence[bytes], batch: _Batch) -> Iterator[Entry]:
        for member in members:
            try:
                yield Entry.of_member(member)
            except InvalidName as error:
                batch.verdict.broken.append((member, reason(error)))

    def _delete_unowned(self, place: Place, flight: _Flight) -> None:
        """Delete what waits for an owner and has none: last, because a database may be slow.

        It happens in the thread that sweeps: a test may have a transaction open there.
        """
        answer, batch = owners.ask(flight.awaiting), flight.batch
        if answer.unknown:
            why = next(iter(answer.unknown.values()))
            log.warning(
                "files that wait until it is known who owns them: %d (%s)", len(answer.unknown), why
            )
        batch.owned = _members(answer.owned)
        batch.postponed += len(answer.unknown)
        batch.put_off(OWNER_PAUSE, State.POSTPONED, [*batch.owned, *_members(answer.unknown)])
        known = answer.owned | answer.unknown.keys()
        free = [entry for entry in flight.awaiting if entry not in known]
        flight.entries += free
        flight.parts_left += 1
        self._note_outcome(place, self._delete(_Part(flight, place, free)))

    def _note_outcome(self, place: Place, ended: _Ended) -> None:
        flight, outcome, seconds = ended
        flight.parts_left -= 1
        flight.outcome.add(outcome)
        name, gate = place.records.place, self._gate(place)
        if undone := [*outcome.away, *outcome.unanswered]:
            self._patience.lose(name, undone[0][1], seconds)
        # Asked once, it may have been a moment's trouble.
        if outcome.slow_down and not gate.closed and (outcome.deleted or self._patience.lost(name)):
            log.warning("a backend asks for fewer requests: deletions slow down")
            gate.slow_down()

    def _judge(self, place: Place, flight: _Flight) -> None:
        """Sort the results of a claim into its verdict, and count them."""
        batch, outcome, verdict = flight.batch, flight.outcome, flight.batch.verdict
        batch.deleted, batch.missing = outcome.deleted, len(outcome.missing)
        gone = {*outcome.deleted, *outcome.missing}
        verdict.all_done = len(gone) == len(flight.claim.members)
        verdict.done += flight.claim.members if verdict.all_done else _members(gone)
        verdict.failures += [(entry.member, why) for entry, why in outcome.failed]
        unanswered = [entry for entry, _ in outcome.unanswered]
        if unanswered and not place.backend.answers():
            verdict.excused += _members(unanswered)
            batch.postponed += len(unanswered)
        else:
            self._done["retried"] += len(unanswered)
        if outcome.away:
            away = [entry for entry, _ in outcome.away]
            batch.put_off(outages.pause(place.records.place), State.POSTPONED, _members(away))
            batch.postponed += len(away)
        if not verdict.all_done:
            tried = {entry for entry, _ in [*outcome.failed, *outcome.away, *outcome.unanswered]}
            # The lease was over before it was the turn of the others.
            if left := [it for it in flight.entries if it not in gone and it not in tried]:
                batch.put_off(0, State.DUE, _members(left))
        if gone or outcome.failed:
            outages.end(place.records.place)
            self._patience.regain(place.records.place)
        for member, why in chain(verdict.failures, verdict.broken):
            log.warning("%a was not deleted: %s", member.decode(errors="replace"), why)
        self._landed += len(flight.claim.members)
        self._done.update(batch.tally())

    def _delete(self, part: _Part) -> _Ended:
        """Delete a part; threads call it, and it changes nothing but files."""
        entries, started = list(part.entries), time.monotonic()
        if why := self._patience.lost(part.place.records.place):
            outcome = Outcome(away=[(entry, why) for entry in entries])
        else:
            outcome = self._outcome(part.place.backend, entries, part.flight.turn)
        return _Ended(part.flight, outcome, time.monotonic() - started)

    def _outcome(self, backend: Backend, entries: list[Entry], lease: Lease) -> Outcome:
        try:
            return backend.delete(entries, lease) if entries else Outcome()
        except Exception as error:  # one backend's trouble must not stop the others
            why = reason(error)
            if is_away(error) and (isinstance(error, BackendUnavailable) or not backend.answers()):
                return Outcome(away=[(entry, why) for entry in entries])
            if backend not in self._faulty:
                log.exception("%s failed as a whole", type(backend).__name__)
                self._faulty.add(backend)
        if len(entries) == 1:
            return Outcome(failed=[(entries[0], why)])
        return self._split(backend, entries, lease, why)

    def _split(self, backend: Backend, entries: list[Entry], lease: Lease, why: str) -> Outcome:
        """Find the file that makes its whole batch fail.

        If the lease is too short for that, they are tried one by one once it has lapsed.
        """
        middle, outcome = len(entries) // 2, Outcome()
        for half in entries[:middle], entries[middle:]:
            if lease.remaining() > 0:
                outcome.add(self._outcome(backend, half, lease))
            else:
                outcome.unanswered += [(entry, why) for entry in half]
        return outcome

    def _report(self) -> SweepReport:
        return SweepReport(
            **self._done,
            failed=self._done["retried"] + self._done["set_aside"],
            lag=self._lag / SECOND,
            duration=self._elapsed(),
        )

    def _elapsed(self) -> float:
        return time.monotonic() - self._started

    def _note(self, report: SweepReport) -> None:
        try:
            tally = SWEEP_DURATION.tally([report.duration])
            self.whole = self._store.record_sweep(self.name, report.as_dict(), tally)
        except RecordStoreError as error:  # a full Redis must not keep a sweep from its work
            log.warning("the sweep's report was not kept: %s", error)


def _check_bound(name: str, bound: object, kinds: Any, what: str) -> None:
    is_one = isinstance(bound, kinds) and not isinstance(bound, bool) and bound > 0
    if not (bound is None or is_one):
        raise ValueError(f"{name} is {bound!r}: give it a {what} above 0, or None for no bound")


def _members(entries: Iterable[Entry]) -> list[bytes]:
    return [entry.member for entry in entries]


def _send_expired(deleted: Sequence[Entry]) -> None:
    namespaces: dict[str, list[str]] = {}
    for entry in deleted:
        namespaces.setdefault(entry.namespace, []).append(entry.path)
    for namespace, paths in namespaces.items():
        files_expired.send_robust(sweep, namespace=namespace, paths=paths)
