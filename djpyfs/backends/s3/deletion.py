"""Deleting objects in batches, and what becomes of each of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from ...names import Entry
from .. import Outcome
from .client import code_of

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client

KEYS_PER_REQUEST = 1000  # the most that DeleteObjects takes
# How servers say that they do not take DeleteObjects, or not with the checksum that boto3 sends.
BATCH_REFUSED = frozenset(
    """400 405 411 501 BadDigest InvalidArgument InvalidDigest InvalidRequest MalformedXML
    MethodNotAllowed MissingContentMD5 NotImplemented XAmzContentChecksumMismatch
    XAmzContentSHA256Mismatch""".split()
)


def settle(chunk: dict[str, Entry], refused: Mapping[str, Any], outcome: Outcome) -> None:
    if not refused.keys() <= chunk.keys():
        # Then nobody can say which ones are gone; deleting them again does no harm.
        why = f"the store refused keys that it was not asked for: {told(*refused.values())}"
        outcome.failed.extend((entry, why) for entry in chunk.values())
        return
    for key, problem in refused.items():
        entry = chunk.pop(key)
        if problem.get("Code") == "NoSuchKey":
            outcome.missing.append(entry)
        else:
            outcome.failed.append((entry, told(problem)))
    outcome.deleted.extend(chunk.values())


def delete_batch(client: S3Client, bucket: str, keys: Collection[str]) -> dict[str, Any]:
    """Delete up to 1,000 keys; return the errors of those that stayed, by key."""
    answer = client.delete_objects(
        Bucket=bucket, Delete={"Objects": [{"Key": key} for key in keys], "Quiet": True}
    )
    return {problem.get("Key", ""): problem for problem in answer.get("Errors", ())}


def told(problem: Mapping[str, Any], *others: Mapping[str, Any]) -> str:
    said = f"{problem.get('Code', 'Error')}: {problem.get('Message', '')}"
    return " ".join(said.split())[:500]


def batch_refused(error: Exception) -> bool:
    return code_of(error) in BATCH_REFUSED
