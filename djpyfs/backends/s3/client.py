"""The boto3 client, and what the errors that it raises mean."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit
from weakref import WeakSet
from xml.etree import ElementTree

from boto3.session import Session
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    HTTPClientError,
    SSLError,
)
from fs import errors

from ...errors import NotAnswered, escaped
from .. import reason

if TYPE_CHECKING:
    from botocore.model import OperationModel
    from types_boto3_s3.client import S3Client

Checksums = Literal["when_required", "when_supported"]

# Requests of a view: worth a second and a third attempt.
PATIENT: Mapping[str, Any] = {
    "connect_timeout": 3,
    "read_timeout": 30,
    "retries": {"mode": "standard", "total_max_attempts": 3},
    "max_pool_connections": 50,  # threads share the client
}
# Requests that must not be repeated automatically: the first attempt may have been carried out, or
# may still be, and another writer may have come in between.
ONCE: Mapping[str, Any] = {**PATIENT, "retries": {"mode": "standard", "total_max_attempts": 1}}
# Requests of a sweep: the record store retries what failed, and makes others wait for what was
# not answered. So a sweep need not hang for long.
HASTY: Mapping[str, Any] = {
    **ONCE,
    "read_timeout": 10,
    "parameter_validation": False,  # the keys are checked already; again would cost 2 ms per batch
}
# How proxies say that the store has not answered them.
UNANSWERED = frozenset((502, 504))
# botocore takes any page for success. So how an answer begins, if it has a body ...
ANSWERS = {
    "DeleteObject": ("Error",),  # success is 204 without a body
    "DeleteObjects": ("Error", "DeleteResult"),
    "CopyObject": ("Error", "CopyObjectResult"),
    "CompleteMultipartUpload": ("Error", "CompleteMultipartUploadResult"),
}
NO_CONTENT = 204
# ... and what its headers say otherwise.
HEADERS = {
    "HeadObject": ("last-modified", "content-length"),
    "GetObject": ("last-modified",),
    "PutObject": ("etag",),
}
REDIRECTS = frozenset((301, 302, 307, 308))  # S3 sends some too, with the id of the request


class StrangeAnswer(HTTPClientError):
    """Something that is not the store has answered, such as a proxy with a page."""

    fmt = "what came with status {status} is no answer to {operation}"


class Redirected(ConnectionError):
    """Something in front of the store redirects, where botocore would ask for ever."""

    fmt = "'endpoint_url' redirects to {location!r}: name that address"


class CreatingClient:
    """A boto3 client that writes only if there is no object yet; otherwise S3 answers 412 or 409.

    Requests that make an object visible go through ``once``: if an answer is lost, a second attempt
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
    """One boto3 client for all threads, made when it is first needed.

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
        # Its own session: boto3's default one is not safe for several threads.
        session = Session(
            aws_access_key_id=given.get("aws_access_key_id"),
            aws_secret_access_key=given.get("aws_secret_access_key"),
            aws_session_token=given.get("aws_session_token"),
            region_name=given.get("region"),
        )
        client = session.client("s3", endpoint_url=endpoint_url, config=config)
        client.meta.events.register_first("before-endpoint-resolution.s3", _stay_in_region)
        client.meta.events.register_first("before-parse.*", _check_redirect)
        for operation in ANSWERS:
            # With the star it comes before botocore's own check, which takes odd pages for a 500.
            client.meta.events.register_first(f"before-parse.*.{operation}", _check_answer)
        for operation in HEADERS:
            client.meta.events.register_first(f"before-parse.*.{operation}", _check_header)
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


def _check_redirect(response_dict: dict[str, Any], **_: Any) -> None:
    headers = response_dict["headers"]
    if response_dict["status_code"] in REDIRECTS and "x-amz-request-id" not in headers:
        target = urlsplit(headers.get("location", ""))
        raise Redirected(location=f"{target.scheme}://{target.netloc}")


def _check_answer(operation_model: OperationModel, response_dict: dict[str, Any], **_: Any) -> None:
    operation, status = operation_model.name, response_dict["status_code"]
    if operation == "DeleteObject" and status == NO_CONTENT:
        return
    if status < 300 and _first_tag(response_dict["body"]) not in ANSWERS[operation]:
        raise StrangeAnswer(status=status, operation=operation)


def _check_header(operation_model: OperationModel, response_dict: dict[str, Any], **_: Any) -> None:
    operation, status = operation_model.name, response_dict["status_code"]
    if status < 300 and any(name not in response_dict["headers"] for name in HEADERS[operation]):
        raise StrangeAnswer(status=status, operation=operation)


def _first_tag(body: bytes) -> str:
    document = body.strip()
    if not document:
        return ""
    try:
        tag = ElementTree.fromstring(document).tag  # noqa: S314  botocore would parse it as well
    except ElementTree.ParseError:
        return "no XML"
    return tag.rpartition("}")[2]


def code_of(error: Exception) -> str:
    """Return the code with which the store refuses, or the status if there is none; or ""."""
    if not isinstance(error, ClientError):
        return ""
    return error.response["Error"].get("Code") or str(status_of(error))


def status_of(error: Exception) -> int:
    """Return the HTTP status of an answer of the store; 0 if there was none."""
    if not isinstance(error, ClientError):
        return 0
    return error.response["ResponseMetadata"].get("HTTPStatusCode", 0)


def is_unanswered(error: Exception) -> bool:
    """Return whether a request that ended in ``error`` may still be carried out."""
    if isinstance(error, ClientError):
        return status_of(error) in UNANSWERED
    # boto3's other errors come before anything is sent; of errors from elsewhere nobody knows.
    return isinstance(error, HTTPClientError | SSLError) or not isinstance(error, BotoCoreError)


@contextmanager
def translated(path: str) -> Iterator[None]:
    """Turn errors of boto3 into those of PyFilesystem."""
    try:
        yield
    except (BotoCoreError, ClientError) as error:
        raise _translation(path, error) from error


def _translation(path: str, error: Exception) -> Exception:
    if is_unanswered(error):
        return NotAnswered(path, exc=error, msg=message(error))
    if isinstance(error, ConnectionError):
        return errors.RemoteConnectionError(path, exc=error, msg=message(error))
    status = status_of(error)
    if status == 404 and code_of(error) != "NoSuchBucket":
        return errors.ResourceNotFound(path)
    kind = errors.PermissionDenied if status == 403 else errors.OperationFailed
    return kind(path, exc=error, msg=message(error))


def message(error: Exception) -> str:
    """Return what an error says, for an error of PyFilesystem."""
    return escaped(reason(error))
