"""Deleting objects in batches, and what becomes of each of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from ...names import Entry
from .. import Lease, Outcome, reason
from .client import SharedClient, code_of, is_unanswered

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client

KEYS_PER_REQUEST = 1000  # the most that DeleteObjects takes
# How servers say that they do not take DeleteObjects, or not with the checksum that boto3 sends.
BATCH_REFUSED = frozenset(
    """400 405 411 501 BadDigest InvalidArgument InvalidDigest InvalidRequest MalformedXML
    MethodNotAllowed MissingContentMD5 NotImplemented XAmzContentChecksumMismatch
    XAmzContentSHA256Mismatch""".split()
)
# How they ask for fewer requests; to find a culprit would take more of them.
THROTTLED = frozenset(
    """429 RequestLimitExceeded SlowDown SlowDownRead SlowDownWrite Throttling ThrottlingException
    TooManyRequests""".split()
)
# How they say of a single key that it is not the key's fault.
BUSY = THROTTLED | frozenset(
    "500 503 InternalError OperationAborted RequestTimeout ServiceUnavailable".split()
)


class Deletion:
    """Deletes objects under a lease, and sorts what became of them into its ``outcome``.

    A batch that the store refuses as a whole is halved until the culprit stands alone, as long
    as the store ``answers``: an outage is nobody's fault.
    """

    def __init__(
        self, client: SharedClient, bucket: str, lease: Lease, answers: Callable[[], bool]
    ) -> None:
        self.outcome = Outcome()
        self._client = client
        self._bucket = bucket
        self._lease = lease
        self._answers = answers
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
        elif self._is_outage(error):
            self._away = reason(error)
            self.outcome.away += _each(entries, self._away)
        elif alone:
            stays = self.outcome.away if code_of(error) in BUSY else self.outcome.failed
            stays += _each(entries, reason(error))
        else:
            self._delete_in(2, entries)

    def _is_outage(self, error: Exception) -> bool:
        sent = isinstance(error, ClientError)
        return not sent or code_of(error) in THROTTLED or not self._answers()

    def _delete_in(self, parts: int, entries: Mapping[str, Entry]) -> None:
        left, size = iter(entries.items()), -(-len(entries) // parts)
        while part := dict(islice(left, size)):
            self.delete(part)

    def _settle(self, entries: Mapping[str, Entry], refused: Mapping[str, Any]) -> None:
        if not refused.keys() <= entries.keys():
            # Then nobody can say which ones are gone; deleting them again does no harm.
            why = f"the store refused keys that it was not asked for: {told(*refused.values())}"
            self.outcome.failed += _each(entries, why)
            return
        for key, problem in refused.items():
            code = problem.get("Code")
            if code == "NoSuchKey":
                self.outcome.missing.append(entries[key])
            elif code in BUSY:
                self.outcome.away.append((entries[key], told(problem)))
            else:
                self.outcome.failed.append((entries[key], told(problem)))
        self.outcome.deleted += [entry for key, entry in entries.items() if key not in refused]


def _each(entries: Mapping[str, Entry], why: str) -> list[tuple[Entry, str]]:
    return [(entry, why) for entry in entries.values()]


def delete_batch(client: S3Client, bucket: str, keys: Collection[str]) -> dict[str, Any]:
    """Delete up to 1,000 keys; return the errors of those that stayed, by key."""
    answer = client.delete_objects(
        Bucket=bucket, Delete={"Objects": [{"Key": key} for key in keys], "Quiet": True}
    )
    return {problem.get("Key", ""): problem for problem in answer.get("Errors", ())}


def told(problem: Mapping[str, Any], *others: Mapping[str, Any]) -> str:
    """Return what the store says of a key, in one line."""
    said = f"{problem.get('Code', 'Error')}: {problem.get('Message', '')}"
    return " ".join(said.split())[:500]


def batch_refused(error: Exception) -> bool:
    """Tell whether a store takes keys only one by one."""
    return code_of(error) in BATCH_REFUSED
