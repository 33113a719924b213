"""The boto3 client, and what the errors that it raises mean."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakSet

from boto3.session import Session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ConnectionError, HTTPClientError
from fs import errors

from .. import reason

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client

Checksums = Literal["when_required", "when_supported"]

# Requests of a view: worth a second and a third attempt.
PATIENT: Mapping[str, Any] = {
    "connect_timeout": 3,
    "read_timeout": 30,
    "retries": {"mode": "standard", "total_max_attempts": 3},
    "max_pool_connections": 50,  # threads share the client
}
# What must not be repeated on its own: the first attempt may have been carried out, or may still
# be, when another writer has been there in between.
ONCE: Mapping[str, Any] = {**PATIENT, "retries": {"mode": "standard", "total_max_attempts": 1}}
# Requests of a sweep: none may reach the store after its lease has ended, when the files may
# have been written anew. So there is one attempt, without the pauses and the second 13 s of a
# retry: what failed is the record store's to try again, under a new lease. A request is begun
# only while the lease covers the longest that it can take.
CONNECT_SECONDS, ANSWER_SECONDS = 3, 10
LONGEST_DELETION = CONNECT_SECONDS + ANSWER_SECONDS
HASTY: Mapping[str, Any] = {
    "connect_timeout": CONNECT_SECONDS,
    "read_timeout": ANSWER_SECONDS,
    "retries": {"mode": "standard", "total_max_attempts": 1},
    "parameter_validation": False,  # the keys were checked; once more would cost 2 ms per batch
}

BUSY = frozenset((429, 500, 502, 503, 504))  # what servers answer that are in trouble themselves


class CreatingClient:
    """A boto3 client that writes only where there is no object yet; else S3 answers 412 or 409.

    What makes an object show goes through ``once``: where an answer is lost, a second attempt
    would find the object of the first, and take it for somebody else's.
    """

    def __init__(self, client: S3Client, once: S3Client) -> None:
        self._client = client
        self._once = once

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def put_object(self, **how: Any) -> Any:
        return self._once.put_object(**how, IfNoneMatch="*")

    def complete_multipart_upload(self, **how: Any) -> Any:
        return self._once.complete_multipart_upload(**how, IfNoneMatch="*")


class SharedClient:
    """One boto3 client for all threads, made when it is first called for.

    Making it takes time, and may ask the machine's metadata service for credentials.
    """

    def __init__(self, options: Mapping[str, Any], manners: Mapping[str, Any]) -> None:
        self._options = options
        self._manners = manners
        self._forget()
        _clients.add(self)

    def _forget(self) -> None:
        self._lock = Lock()
        self._client: S3Client | None = None

    def __call__(self) -> S3Client:
        with self._lock:
            if self._client is None:
                self._client = self._connect()
            return self._client

    def _connect(self) -> S3Client:
        given = {key: value or None for key, value in self._options.items()}
        endpoint_url = given.get("endpoint_url")
        # Left to itself, boto3 adds checksums that many stores other than Amazon's refuse.
        checksums: Checksums = "when_required" if endpoint_url else "when_supported"
        config = Config(
            signature_version="s3v4",
            s3={
                "addressing_style": given.get("addressing_style") or "auto",
                "us_east_1_regional_endpoint": "regional",
            },
            request_checksum_calculation=checksums,
            response_checksum_validation=checksums,
            **self._manners,
        )
        # A session of our own: boto3's default one is not for several threads.
        session = Session(
            aws_access_key_id=given.get("aws_access_key_id"),
            aws_secret_access_key=given.get("aws_secret_access_key"),
            aws_session_token=given.get("aws_session_token"),
            region_name=given.get("region"),
        )
        client = session.client("s3", endpoint_url=endpoint_url, config=config)
        client.meta.events.register_first("before-endpoint-resolution.s3", _stay_in_region)
        return client

    def close(self) -> None:
        """Close its connections; the next call makes a new client."""
        with self._lock:
            if self._client is not None:
                self._client.close()
            self._client = None


# A child of fork() must not write to the connections of its parent, whoever holds the client.
_clients: WeakSet[SharedClient] = WeakSet()


def _forget_all() -> None:
    for client in _clients:
        client._forget()


os.register_at_fork(after_in_child=_forget_all)


def _stay_in_region(context: dict[str, Any], **_: Any) -> None:
    # boto3 presigns for the global endpoint, which redirects until a new bucket is known there.
    context["use_global_endpoint"] = False


def code_of(error: Exception) -> str:
    return error.response["Error"].get("Code", "") if isinstance(error, ClientError) else ""


def status_of(error: Exception) -> int:
    if not isinstance(error, ClientError):
        return 0
    return error.response["ResponseMetadata"].get("HTTPStatusCode", 0)


def is_away(error: Exception) -> bool:
    return not isinstance(error, ClientError) or status_of(error) in BUSY


@contextmanager
def translated(path: str) -> Iterator[None]:
    """Turn errors of boto3 into those of PyFilesystem."""
    try:
        yield
    except (BotoCoreError, ClientError) as error:
        raise _translation(path, error) from error


def _translation(path: str, error: Exception) -> Exception:
    if isinstance(error, ConnectionError | HTTPClientError):
        return errors.RemoteConnectionError(path, exc=error, msg=message(error))
    status = status_of(error)
    if status == 404 and code_of(error) != "NoSuchBucket":
        return errors.ResourceNotFound(path)
    kind = errors.PermissionDenied if status == 403 else errors.OperationFailed
    return kind(path, exc=error, msg=message(error))


def message(error: Exception) -> str:
    return escaped(reason(error))


def escaped(message: str) -> str:
    # PyFilesystem calls `format` on the messages of its errors.
    return message.replace("{", "{{").replace("}", "}}")
