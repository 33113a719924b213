"""Deleting objects in batches, and what happens to each of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from ...names import Entry
from .. import Lease, Outcome, reason
from .client import SharedClient, code_of, is_unanswered, status_of

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client

KEYS_PER_REQUEST = 1000  # the most that DeleteObjects takes
# How servers say that they do not take DeleteObjects, or not with the checksum that boto3 sends.
BATCH_REFUSED = frozenset(
    """400 405 411 501 BadDigest InvalidArgument InvalidDigest InvalidRequest MalformedXML
    MethodNotAllowed MissingContentMD5 NotImplemented XAmzContentChecksumMismatch
    XAmzContentSHA256Mismatch""".split()
)
# How they ask for fewer requests.
THROTTLED = frozenset(
    """429 RequestLimitExceeded SlowDown SlowDownRead SlowDownWrite Throttling ThrottlingException
    TooManyRequests""".split()
)
# How they say of a single key that it is not the key's fault.
BUSY = THROTTLED | frozenset(
    "500 503 InternalError OperationAborted RequestTimeout ServiceUnavailable".split()
)
SERVICE_UNAVAILABLE = 503
REMEMBERED = 10_000  # keys


class Deletion:
    """Deletes objects under a lease, and sorts the results into its ``outcome``.

    A batch that the store refuses as a whole is halved until the culprit stands alone, as long
    as the store ``answers``: an outage is nobody's fault. One for which it asks to slow down is
    postponed instead, because more requests would make things worse; but if it does so again for
    keys that it has ``slowed`` before, one of them may be the reason.
    """

    def __init__(
        self,
        client: SharedClient,
        bucket: str,
        lease: Lease,
        answers: Callable[[], bool],
        slowed: set[str],
    ) -> None:
        self.outcome = Outcome()
        self._client = client
        self._bucket = bucket
        self._lease = lease
        self._answers = answers
        self._slowed = slowed
        self._away = ""  # why the store is asked nothing more

    def delete(self, entries: Mapping[str, Entry]) -> None:
        """Delete up to a thousand objects, given by their keys. Raises nothing."""
        if self._away:
            self.outcome.away += _each(entries, self._away)
        elif self._lease.remaining() > 0:
            try:
                refused = self._ask(entries)
            except Exception as error:  # whatever it is, the other batches must go
                self._explain(entries, error)
            else:
                self._settle(entries, refused)

    def _ask(self, keys: Collection[str]) -> Mapping[str, Any]:
        client = self._client()
        if len(keys) > 1:
            return delete_batch(client, self._bucket, keys)
        for key in keys:
            client.delete_object(Bucket=self._bucket, Key=key)
        return {}

    def _explain(self, entries: Mapping[str, Entry], error: Exception) -> None:
        alone = len(entries) == 1
        if alone and code_of(error) == "NoSuchKey":
            self.outcome.missing += entries.values()
        elif is_unanswered(error):
            self.outcome.unanswered += _each(entries, reason(error))
        elif not alone and batch_refused(error):
            self._delete_in(len(entries), entries)
        elif code_of(error) in THROTTLED:
            self._slow_down(entries, error)
        elif not isinstance(error, ClientError) or not self._answers():
            self._stop(entries, error)
        elif alone:
            stays = self.outcome.away if code_of(error) in BUSY else self.outcome.failed
            stays += _each(entries, reason(error))
        else:
            stayed = self._stayed()
            self._delete_in(2, entries)
            if status_of(error) == SERVICE_UNAVAILABLE and self._stayed() == stayed:
                self.outcome.slow_down = True  # it is over, so no file was to blame

    def _stayed(self) -> int:
        return len(self.outcome.away) + len(self.outcome.failed) + len(self.outcome.unanswered)

    def _stop(self, entries: Mapping[str, Entry], error: Exception) -> None:
        self._away = reason(error)
        self.outcome.away += _each(entries, self._away)

    def _slow_down(self, entries: Mapping[str, Entry], error: Exception) -> None:
        """Put off what the store is too busy for, or the one key that is the reason."""
        again = not self._slowed.isdisjoint(entries)
        if len(self._slowed) > REMEMBERED:
            self._slowed.clear()
        self._slowed.update(entries)
        left = self._suspects(entries) if again else entries
        if again and len(left) == 1:
            self.outcome.away += _each(left, reason(error))
            return
        self.outcome.slow_down = True
        if left:
            self._stop(left, error)

    def _suspects(self, entries: Mapping[str, Entry]) -> Mapping[str, Entry]:
        """Halve what is refused until it is one key, or both halves are refused; return that."""
        while len(entries) > 1 and self._lease.remaining() > 0:
            refused = [half for half in _halves(entries) if not self._delete_unless_slowed(half)]
            if len(refused) != 1:
                return {key: entry for half in refused for key, entry in half.items()}
            [entries] = refused
        return entries

    def _delete_unless_slowed(self, entries: Mapping[str, Entry]) -> bool:
        """Delete objects, whatever becomes of them, unless the store asks to slow down."""
        try:
            refused = self._ask(entries)
        except Exception as error:
            if code_of(error) in THROTTLED:
                return False
            self._explain(entries, error)
        else:
            self._settle(entries, refused)
        return True

    def _delete_in(self, parts: int, entries: Mapping[str, Entry]) -> None:
        left, size = iter(entries.items()), -(-len(entries) // parts)
        while part := dict(islice(left, size)):
            self.delete(part)

    def _settle(self, entries: Mapping[str, Entry], refused: Mapping[str, Any]) -> None:
        if not refused.keys() <= entries.keys():
            # Then nobody can say which ones are gone; deleting them again does no harm.
            why = problem_text(next(iter(refused.values())))
            foreign = f"the store refused keys that it was not asked for: {why}"
            self.outcome.failed += _each(entries, foreign)
            return
        for key, problem in refused.items():
            code = problem.get("Code")
            if code == "NoSuchKey":
                self.outcome.missing.append(entries[key])
            elif code in BUSY:
                self.outcome.away.append((entries[key], problem_text(problem)))
            else:
                self.outcome.failed.append((entries[key], problem_text(problem)))
        slowed = [key for key, problem in refused.items() if problem.get("Code") in THROTTLED]
        self.outcome.slow_down |= len(slowed) > 1
        self.outcome.deleted += [entry for key, entry in entries.items() if key not in refused]
        self._slowed.difference_update(entries)


def _halves(entries: Mapping[str, Entry]) -> list[dict[str, Entry]]:
    pairs, middle = list(entries.items()), len(entries) // 2
    return [dict(pairs[:middle]), dict(pairs[middle:])]


def _each(entries: Mapping[str, Entry], why: str) -> list[tuple[Entry, str]]:
    return [(entry, why) for entry in entries.values()]


def delete_batch(client: S3Client, bucket: str, keys: Collection[str]) -> dict[str, Any]:
    """Delete up to 1,000 keys; return the errors of those that stayed, by key."""
    answer = client.delete_objects(
        Bucket=bucket, Delete={"Objects": [{"Key": key} for key in keys], "Quiet": True}
    )
    return {problem.get("Key", ""): problem for problem in answer.get("Errors", ())}


def problem_text(problem: Mapping[str, Any]) -> str:
    """Return what the store says of a key, in one line."""
    said = f"{problem.get('Code', 'Error')}: {problem.get('Message', '')}"
    return " ".join(said.split())[:500]


def batch_refused(error: Exception) -> bool:
    """Return whether a store takes keys only one by one."""
    return code_of(error) in BATCH_REFUSED
