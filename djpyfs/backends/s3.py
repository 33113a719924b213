"""Files in an S3 bucket: ``prefix/namespace/path`` is the key of an object."""

from __future__ import annotations

import io
import mimetypes
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from itertools import islice
from tempfile import SpooledTemporaryFile
from threading import Lock
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, Literal
from urllib.parse import urlsplit
from weakref import WeakSet

from boto3.s3.transfer import S3Transfer, TransferConfig
from boto3.session import Session
from botocore import xform_name
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ConnectionError, HTTPClientError
from botocore.utils import is_valid_endpoint_url, is_valid_ipv6_endpoint_url
from django.utils.http import content_disposition_header
from fs import ResourceType, errors, tools
from fs.info import Info
from fs.mode import Mode
from fs.path import basename, dirname
from fs.subfs import SubFS
from fs_s3fs import S3FS

from ..errors import ConfigurationError, InvalidLifetime, InvalidName
from ..names import Entry, check_namespace
from . import Backend, Lease, Outcome, reason
from .spool import WholeOrNot

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client

Checksums = Literal["when_required", "when_supported"]

KEYS_PER_REQUEST = 1000  # the most that DeleteObjects takes
LONGEST_URL_LIFE = 604_800  # seconds; what Signature Version 4 allows
PART_SIZE = 8 * 1024 * 1024  # bytes; a file up to this size is kept in memory and is one PUT

# Requests of a view: worth a second and a third attempt.
PATIENT: Mapping[str, Any] = {
    "connect_timeout": 3,
    "read_timeout": 30,
    "retries": {"mode": "standard", "total_max_attempts": 3},
    "max_pool_connections": 50,  # threads share the client
}
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
# How servers say that they do not take DeleteObjects, or not with the checksum that boto3 sends.
BATCH_REFUSED = frozenset(
    """400 405 411 501 BadDigest InvalidArgument InvalidDigest InvalidRequest MalformedXML
    MethodNotAllowed MissingContentMD5 NotImplemented XAmzContentChecksumMismatch
    XAmzContentSHA256Mismatch""".split()
)

BUSY = frozenset((429, 500, 502, 503, 504))  # what servers answer that are in trouble themselves


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


class S3FileSystem(S3FS):  # type: ignore[misc]  # fs-s3fs has no types
    """A PyFilesystem over the objects below one key of a bucket.

    A directory exists where a key lies below it; no marker is needed, and only `makedir` writes
    one. Unless ``strict``, a path is taken at the caller's word: writing does not look whether
    the directory is there, removing does not look whether the file is, and a directory that is
    read as a file is "not found" instead of "file expected". With ``strict`` the rules of
    PyFilesystem hold to the letter, for one or two requests more.

    Errors of boto3 come out as `fs.errors.FSError`. All instances may share one ``client``.
    """

    def __init__(
        self,
        bucket: str,
        root: str,
        client: SharedClient,
        upload_args: Mapping[str, Any] | None = None,
        strict: bool = False,
    ) -> None:
        super().__init__(bucket, root, upload_args=dict(upload_args or {}), strict=strict)
        self._shared_client = client

    @property
    def client(self) -> S3Client:
        """The boto3 client, the same one for all threads."""
        return self._shared_client()

    # What is there

    def getinfo(self, path: str, namespaces: Collection[str] | None = None) -> Info:
        """Describe a file (1 HEAD) or a directory (1 LIST more)."""
        valid = self.validatepath(path)
        if valid == "/":
            return Info(_directory(""))
        try:
            head = self._head(path)
        except errors.ResourceNotFound:
            if self.isdir(path):
                return Info(_directory(basename(valid)))
            raise
        return Info(self._file(valid, head["ContentLength"], head, namespaces or ()))

    def exists(self, path: str) -> bool:
        """Tell whether there is a file (1 HEAD) or a directory (1 LIST more)."""
        return bool(self.isfile(path) or self.isdir(path))

    def isfile(self, path: str) -> bool:
        """Tell whether there is a file: 1 HEAD."""
        try:
            return self.validatepath(path) != "/" and bool(self._head(path))
        except errors.ResourceNotFound:
            return False

    def isdir(self, path: str) -> bool:
        """Tell whether any key lies below: 1 LIST of one key."""
        return self.validatepath(path) == "/" or bool(self._keys_below(path, 1))

    def isempty(self, path: str) -> bool:
        """Tell whether a directory holds nothing but its marker: 1 LIST of two keys."""
        valid = self.validatepath(path)
        keys = self._keys_below(path, 2)
        if not keys and valid != "/":
            raise self._no_directory(path)
        return all(key == self._path_to_dir_key(path) for key in keys)

    def listdir(self, path: str) -> list[str]:
        """List names: 1 LIST per thousand."""
        found = self._scan(path, self.validatepath(path), ())
        return list(dict.fromkeys(raw["basic"]["name"] for raw in found))

    def scandir(
        self,
        path: str,
        namespaces: Collection[str] | None = None,
        page: tuple[int, int] | None = None,
    ) -> Iterator[Info]:
        """Describe what a directory holds, with sizes and times: 1 LIST per thousand."""
        found = self._scan(path, self.validatepath(path), namespaces or ())
        return map(Info, islice(found, *page) if page else found)

    def setinfo(self, path: str, info: Mapping[str, Any]) -> None:
        """Look whether ``path`` exists: S3 lets nobody set the times of an object."""
        self.getinfo(path)

    def geturl(
        self,
        path: str,
        purpose: str = "download",
        lifetime: int = 3600,
        download_as: str | None = None,
    ) -> str:
        """Return an address that is good for ``lifetime`` seconds. Raises `fs.errors.NoURL`."""
        if self.validatepath(path) == "/" or purpose != "download":
            raise errors.NoURL(path, purpose)
        params = {"Bucket": self._bucket_name, "Key": self._path_to_key(path)}
        if download_as is not None:
            disposition = content_disposition_header(as_attachment=True, filename=download_as)
            params["ResponseContentDisposition"] = str(disposition)
        try:
            return self.client.generate_presigned_url("get_object", params, lifetime)
        except BotoCoreError as error:
            raise errors.NoURL(path, purpose, _message(error)) from error

    # Reading and writing

    def openbin(self, path: str, mode: str = "r", buffering: int = -1, **options: Any) -> BinaryIO:
        """Open a file: 1 GET where old bytes matter, 1 PUT at close where it was written to."""
        how = Mode(mode)
        how.validate_bin()
        self._check_file_path(path)
        if how.create:
            self._check_target(path)
        if how.exclusive and self.isfile(path):
            raise errors.FileExists(path)
        spool = _spool()
        try:
            if how.appending or (how.reading and not how.truncate):
                self._fetch(path, spool, may_be_missing=how.create)
        except Exception:
            spool.close()
            raise
        return S3File(self, path, how, spool)  # type: ignore[return-value]

    def readbytes(self, path: str) -> bytes:
        """Read a whole file: 1 GET."""
        self._check_file_path(path)
        with self._wanted(path), closing(self._get(path)) as body:
            return body.read()  # type: ignore[no-any-return]

    def download(
        self, path: str, file: BinaryIO, chunk_size: int | None = None, **options: Any
    ) -> None:
        """Copy a file into ``file``, in chunks of bytes: 1 GET."""
        self._check_file_path(path)
        with self._wanted(path), closing(self._get(path)) as body:
            tools.copy_file_data(body, file, chunk_size)

    def writebytes(self, path: str, contents: bytes) -> None:
        """Write a whole file: 1 PUT up to 8 MiB, more in parts."""
        if not isinstance(contents, bytes):
            raise TypeError("contents must be bytes")
        self._check_file_path(path)
        self._check_target(path)
        self.store(path, io.BytesIO(contents))

    def upload(
        self, path: str, file: BinaryIO, chunk_size: int | None = None, **options: Any
    ) -> None:
        """Write what is left in ``file``, which stays open: 1 PUT up to 8 MiB, more in parts.

        Nothing is written where reading ``file`` fails.
        """
        self._check_file_path(path)
        self._check_target(path)
        with _spool() as spool:
            tools.copy_file_data(file, spool, chunk_size)
            self.store(path, spool)

    def store(self, path: str, file: Any) -> None:
        """Write all of a seekable ``file``, without a look at what is there."""
        key = self._path_to_key(path)
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        with _translated(path):
            if size <= PART_SIZE:
                args = self._get_upload_args(key)
                self.client.put_object(Bucket=self._bucket_name, Key=key, Body=file, **args)
            else:
                self.client.upload_fileobj(
                    file,
                    self._bucket_name,
                    key,
                    ExtraArgs=self._get_upload_args(key),
                    Config=TransferConfig(multipart_threshold=PART_SIZE),
                )

    # Making, removing, moving

    def makedir(self, path: str, permissions: Any = None, recreate: bool = False) -> SubFS[Any]:
        """Write the marker of a directory, unless there is one."""
        if self.exists(path):
            if recreate:
                return self.opendir(path)  # type: ignore[no-any-return]
            raise errors.DirectoryExists(path)
        self._check_parent(path)
        with _translated(path):
            self.client.put_object(Bucket=self._bucket_name, Key=self._path_to_dir_key(path))
        return SubFS(self, path)

    def remove(self, path: str) -> None:
        """Delete a file: 1 DELETE, which does not tell whether it was there unless ``strict``."""
        self._check_file_path(path)
        if self.strict:
            with self._wanted(path):
                self._head(path)
        self._delete(path, self._path_to_key(path))

    def removedir(self, path: str) -> None:
        """Delete the marker of an empty directory."""
        if self.validatepath(path) == "/":
            raise errors.RemoveRootError()
        if not self.isempty(path):
            raise errors.DirectoryNotEmpty(path)
        self._delete(path, self._path_to_dir_key(path))

    def removetree(self, dir_path: str) -> None:
        """Delete all that is in a directory: 1 LIST and 1 DeleteObjects per thousand."""
        found = self.validatepath(dir_path) == "/"
        for page in self._pages(dir_path):
            if keys := [item["Key"] for item in page.get("Contents", ())]:
                found = True
                self._delete_all(dir_path, keys)
        if not found:
            raise self._no_directory(dir_path)

    def copy(
        self, src_path: str, dst_path: str, overwrite: bool = False, preserve_time: bool = False
    ) -> None:
        """Copy a file of up to 5 GB within the store.

        ``preserve_time`` changes nothing: S3 lets nobody set the times of an object.
        """
        self._check_file_path(src_path)
        self._check_file_path(dst_path)
        if not overwrite and self.exists(dst_path):
            raise errors.DestinationExists(dst_path)
        self._check_target(dst_path)
        with self._wanted(src_path):
            if self._same(src_path, dst_path):  # which S3 refuses
                self._head(src_path)
            else:
                self._copy_object(src_path, dst_path)

    def move(
        self, src_path: str, dst_path: str, overwrite: bool = False, preserve_time: bool = False
    ) -> None:
        """Copy a file, then delete the first one."""
        self.copy(src_path, dst_path, overwrite, preserve_time)
        if not self._same(src_path, dst_path):
            self._delete(src_path, self._path_to_key(src_path))

    # How

    # Errors name a path as the caller wrote it; _path_to_key takes it in any spelling.

    def _check_file_path(self, path: str) -> None:
        if self.validatepath(path) == "/":
            raise errors.FileExpected(path)

    def _check_target(self, path: str) -> None:
        self._check_parent(path)
        if self.strict and self.isdir(path):
            raise errors.FileExpected(path)

    def _check_parent(self, path: str) -> None:
        if self.strict and not self.isdir(dirname(self.validatepath(path))):
            raise errors.ResourceNotFound(path)

    @contextmanager
    def _wanted(self, path: str) -> Iterator[None]:
        """Translate errors of a request that wants ``path`` to be a file."""
        try:
            with _translated(path):
                yield
        except errors.ResourceNotFound as error:
            if self.strict and self.isdir(path):
                raise errors.FileExpected(path) from error
            raise

    def _same(self, path: str, other: str) -> bool:
        return bool(self._path_to_key(path) == self._path_to_key(other))

    def _no_directory(self, path: str) -> Exception:
        kind = errors.DirectoryExpected if self.isfile(path) else errors.ResourceNotFound
        return kind(path)

    def _head(self, path: str) -> Any:
        with _translated(path):
            return self.client.head_object(Bucket=self._bucket_name, Key=self._path_to_key(path))

    def _get(self, path: str) -> Any:
        key = self._path_to_key(path)
        return self.client.get_object(Bucket=self._bucket_name, Key=key)["Body"]

    def _fetch(self, path: str, spool: Any, may_be_missing: bool) -> None:
        try:
            with self._wanted(path), closing(self._get(path)) as body:
                tools.copy_file_data(body, spool)
        except errors.ResourceNotFound:
            if not may_be_missing:
                raise

    def _get_upload_args(self, key: str) -> dict[str, Any]:
        kind, coding = mimetypes.guess_type(basename(key))
        fallback = "application/octet-stream"
        return {"ContentType": fallback if coding else kind or fallback, **self.upload_args}

    def _keys_below(self, path: str, most: int) -> list[str]:
        prefix = self._path_to_dir_key(path)
        with _translated(path):
            answer = self.client.list_objects_v2(
                Bucket=self._bucket_name, Prefix=prefix, MaxKeys=most
            )
        return [item["Key"] for item in answer.get("Contents", ())]

    def _pages(self, path: str, **how: Any) -> Iterator[Any]:
        prefix = self._path_to_dir_key(path)
        with _translated(path):
            pages = self.client.get_paginator("list_objects_v2")
            yield from pages.paginate(Bucket=self._bucket_name, Prefix=prefix, **how)

    def _scan(self, path: str, valid: str, namespaces: Collection[str]) -> Iterator[dict[str, Any]]:
        start, found = len(self._path_to_dir_key(path)), valid == "/"
        for page in self._pages(path, Delimiter="/"):
            for item in page.get("CommonPrefixes", ()):
                found = True
                if name := item["Prefix"][start:-1]:
                    yield _directory(name)
            for item in page.get("Contents", ()):
                found = True
                if name := item["Key"][start:]:
                    yield self._file(f"{path}/{name}", item["Size"], item, namespaces)
        if not found:
            raise self._no_directory(path)

    def _file(
        self, path: str, size: int, answer: Mapping[str, Any], namespaces: Collection[str]
    ) -> dict[str, Any]:
        raw: dict[str, Any] = {
            "basic": {"name": basename(path), "is_dir": False},
            "details": {
                "accessed": None,
                "modified": answer["LastModified"].timestamp(),
                "size": size,
                "type": int(ResourceType.file),
            },
        }
        if "s3" in namespaces:
            raw["s3"] = {
                xform_name(k): _plain(v) for k, v in answer.items() if k != "ResponseMetadata"
            }
        if "urls" in namespaces:
            raw["urls"] = {"download": self.geturl(path)}
        return raw

    def _copy_object(self, source: str, target: str) -> None:
        # S3 copies contents and headers, but not who may read the copy or how it is encrypted.
        args = {k: v for k, v in self.upload_args.items() if k in S3Transfer.ALLOWED_COPY_ARGS}
        self.client.copy_object(
            Bucket=self._bucket_name,
            Key=self._path_to_key(target),
            CopySource={"Bucket": self._bucket_name, "Key": self._path_to_key(source)},
            **args,
        )

    def _delete(self, path: str, key: str) -> None:
        with _translated(path):
            self.client.delete_object(Bucket=self._bucket_name, Key=key)

    def _delete_all(self, path: str, keys: Sequence[str]) -> None:
        with _translated(path):
            try:
                refused = _delete_batch(self.client, self._bucket_name, keys)
            except ClientError as error:
                if not _batch_refused(error):
                    raise
                for key in keys:
                    self._delete(path, key)
                return
        if refused:
            key, problem = next(iter(refused.items()))
            raise errors.OperationFailed(path, msg=_escaped(f"{key!r} stays: {_told(problem)}"))


class S3File(WholeOrNot, io.BufferedIOBase):
    """An open file: its bytes are here until it is closed, and in the store from then on.

    Closing uploads what was written, also after an error in the body of a ``with`` statement;
    where a write has failed, it does not.
    """

    def __init__(self, filesystem: S3FileSystem, path: str, mode: Mode, spool: Any) -> None:
        self._filesystem = filesystem
        self._path = path
        self._how = mode
        self._spool = spool
        self.mode: str = mode.to_platform_bin()
        if not mode.appending:
            spool.seek(0)

    def __repr__(self) -> str:
        return f"<S3File {self._path!r} {self.mode!r}>"

    def close(self) -> None:
        """Upload the file if it was open for writing. A second call does nothing."""
        if self.closed:
            return
        try:
            if self._how.writing and not self._broken:
                self._filesystem.store(self._path, self._spool)
        finally:
            self._spool.close()
            super().close()

    def readable(self) -> bool:
        return bool(self._how.reading)

    def writable(self) -> bool:
        return bool(self._how.writing)

    def seekable(self) -> bool:
        return True

    def fileno(self) -> int:
        return int(self._spool.fileno())

    def read(self, size: int | None = -1) -> bytes:
        return bytes(self._readable().read(-1 if size is None else size))

    read1 = read

    def readline(self, size: int | None = -1) -> bytes:
        return bytes(self._readable().readline(-1 if size is None else size))

    def write(self, data: Any) -> int:
        spool = self._writable()
        if self._how.appending:
            spool.seek(0, io.SEEK_END)
        with self._broken_by_error():
            return int(spool.write(data))

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._spool.seek(offset, whence)
        return self.tell()

    def tell(self) -> int:
        return int(self._spool.tell())

    def truncate(self, size: int | None = None) -> int:
        spool, position = self._writable(), self.tell()
        size = position if size is None else size
        with self._broken_by_error():
            end = spool.seek(0, io.SEEK_END)
            if size > end:
                spool.seek(size - 1)
                spool.write(b"\0")
            else:
                spool.truncate(size)
            spool.seek(position)
        return size

    def _readable(self) -> Any:
        if not self._how.reading:
            raise io.UnsupportedOperation("not open for reading")
        return self._spool

    def _writable(self) -> Any:
        if not self._how.writing:
            raise io.UnsupportedOperation("not open for writing")
        return self._spool


class S3Bucket:
    """The bucket as a whole, and its lifecycle configuration."""

    def __init__(self, name: str, endpoint_url: str | None, client: SharedClient) -> None:
        self.address = f"{(endpoint_url or 's3:').rstrip('/')}/{name}"
        self._name = name
        self._client = client

    def lifecycle(self) -> dict[str, Any]:
        """Return its rules: 1 GET."""
        with _translated(self._name):
            try:
                answer = self._client().get_bucket_lifecycle_configuration(Bucket=self._name)
            except ClientError as error:
                if _code(error) == "NoSuchLifecycleConfiguration":
                    return {"Rules": []}
                raise
        return {key: value for key, value in answer.items() if key != "ResponseMetadata"}

    def set_lifecycle(self, configuration: Mapping[str, Any]) -> None:
        """Replace its rules: 1 PUT, or 1 DELETE where none is left."""
        others: dict[str, Any] = dict(configuration)
        rules = others.pop("Rules")
        with _translated(self._name):
            if rules:
                self._client().put_bucket_lifecycle_configuration(
                    Bucket=self._name, LifecycleConfiguration={"Rules": rules}, **others
                )
            else:
                self._client().delete_bucket_lifecycle(Bucket=self._name)


class S3Backend(Backend):
    """Keeps files in one bucket of S3 or of a store that speaks its protocol.

    Without ``aws_access_key_id`` and ``aws_secret_access_key`` boto3's chain of credentials
    holds (environment, shared files, role of the machine).
    """

    options: ClassVar[frozenset[str]] = frozenset(
        """bucket prefix region endpoint_url addressing_style upload_args strict
        aws_access_key_id aws_secret_access_key aws_session_token""".split()
    )
    longest_url: ClassVar[int] = LONGEST_URL_LIFE
    longest_deletion: ClassVar[float] = LONGEST_DELETION
    files_per_request: ClassVar[int] = KEYS_PER_REQUEST

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self._bucket = _bucket(options)
        self._endpoint_url = options.get("endpoint_url")
        self.prefix = _prefix(options)
        self._upload_args = _upload_args(options)
        self._strict = _strict(options)
        _check_credentials(options)
        _check_address(options)
        self._for_files = SharedClient(options, PATIENT)
        self._for_sweeps = SharedClient(options, HASTY)

    def make_filesystem(self, namespace: str) -> S3FileSystem:
        """Return the files below ``prefix/namespace``, without a request."""
        root = self._key(namespace)
        return S3FileSystem(self._bucket, root, self._for_files, self._upload_args, self._strict)

    def url(
        self, namespace: str, path: str, lifetime: int | None, download_as: str | None = None
    ) -> str:
        """Return a presigned address (Signature Version 4), good for 1 to 604,800 seconds.

        Raises `InvalidLifetime`, and `fs.errors.NoURL` where there are no credentials to sign
        with.
        """
        if lifetime is None or not 1 <= lifetime <= LONGEST_URL_LIFE:
            raise InvalidLifetime(
                f"an address on S3 lives for 1 to {LONGEST_URL_LIFE} seconds, not {lifetime!r}"
            )
        return self.make_filesystem(namespace).geturl(path, "download", lifetime, download_as)

    def delete(self, entries: Sequence[Entry], lease: Lease) -> Outcome:
        """Delete files of any number of namespaces: 1 request per thousand.

        S3 does not tell a deleted file from one that was not there: both count as deleted.
        """
        outcome = Outcome()
        for start in range(0, len(entries), KEYS_PER_REQUEST):
            if lease.remaining() < LONGEST_DELETION:
                break
            chunk = entries[start : start + KEYS_PER_REQUEST]
            self._delete_chunk({self._key(*entry): entry for entry in chunk}, lease, outcome)
        return outcome

    def bucket(self) -> S3Bucket:
        """Return the bucket, which may hold more than the files of this back-end."""
        return S3Bucket(self._bucket, self._endpoint_url, self._for_files)

    def roots(self) -> Sequence[str]:
        """Return the address of the bucket, with the prefix."""
        return [f"{self.bucket().address}/{self.prefix}"]

    def close(self) -> None:
        """Close the connections."""
        super().close()
        self._for_files.close()
        self._for_sweeps.close()

    def _key(self, *parts: str) -> str:
        return "/".join((self.prefix, *parts) if self.prefix else parts)

    def _delete_chunk(self, chunk: dict[str, Entry], lease: Lease, outcome: Outcome) -> None:
        try:
            refused = _delete_batch(self._for_sweeps(), self._bucket, chunk)
        except Exception as error:  # whatever it is, the other batches must go
            if _batch_refused(error):
                self._delete_singly(chunk, lease, outcome)
            else:  # which says nothing of a single file
                outcome.away.extend((entry, reason(error)) for entry in chunk.values())
        else:
            _settle(chunk, refused, outcome)

    def _delete_singly(self, chunk: dict[str, Entry], lease: Lease, outcome: Outcome) -> None:
        client = self._for_sweeps()
        for key, entry in chunk.items():
            if lease.remaining() < LONGEST_DELETION:
                break
            try:
                client.delete_object(Bucket=self._bucket, Key=key)
            except Exception as error:  # whatever it is, the other files must go
                if _code(error) == "NoSuchKey":
                    outcome.missing.append(entry)
                elif _is_away(error):
                    outcome.away.append((entry, reason(error)))
                else:
                    outcome.failed.append((entry, reason(error)))
            else:
                outcome.deleted.append(entry)


def _settle(chunk: dict[str, Entry], refused: Mapping[str, Any], outcome: Outcome) -> None:
    if not refused.keys() <= chunk.keys():
        # Then nobody can say which ones are gone; deleting them again does no harm.
        told = f"the store refused keys that it was not asked for: {_told(*refused.values())}"
        outcome.failed.extend((entry, told) for entry in chunk.values())
        return
    for key, problem in refused.items():
        entry = chunk.pop(key)
        if problem.get("Code") == "NoSuchKey":
            outcome.missing.append(entry)
        else:
            outcome.failed.append((entry, _told(problem)))
    outcome.deleted.extend(chunk.values())


def _delete_batch(client: S3Client, bucket: str, keys: Collection[str]) -> dict[str, Any]:
    """Delete up to 1,000 keys; return the errors of those that stayed, by key."""
    answer = client.delete_objects(
        Bucket=bucket, Delete={"Objects": [{"Key": key} for key in keys], "Quiet": True}
    )
    return {problem.get("Key", ""): problem for problem in answer.get("Errors", ())}


def _told(problem: Mapping[str, Any], *others: Mapping[str, Any]) -> str:
    said = f"{problem.get('Code', 'Error')}: {problem.get('Message', '')}"
    return " ".join(said.split())[:500]


def _code(error: Exception) -> str:
    return error.response["Error"].get("Code", "") if isinstance(error, ClientError) else ""


def _status(error: Exception) -> int:
    if not isinstance(error, ClientError):
        return 0
    return error.response["ResponseMetadata"].get("HTTPStatusCode", 0)


def _batch_refused(error: Exception) -> bool:
    return _code(error) in BATCH_REFUSED


def _is_away(error: Exception) -> bool:
    return not isinstance(error, ClientError) or _status(error) in BUSY


def _stay_in_region(context: dict[str, Any], **_: Any) -> None:
    # boto3 presigns for the global endpoint, which redirects until a new bucket is known there.
    context["use_global_endpoint"] = False


@contextmanager
def _translated(path: str) -> Iterator[None]:
    """Turn errors of boto3 into those of PyFilesystem."""
    try:
        yield
    except (BotoCoreError, ClientError) as error:
        raise _translation(path, error) from error


def _translation(path: str, error: Exception) -> Exception:
    if isinstance(error, ConnectionError | HTTPClientError):
        return errors.RemoteConnectionError(path, exc=error, msg=_message(error))
    status = _status(error)
    if status == 404 and _code(error) != "NoSuchBucket":
        return errors.ResourceNotFound(path)
    kind = errors.PermissionDenied if status == 403 else errors.OperationFailed
    return kind(path, exc=error, msg=_message(error))


def _message(error: Exception) -> str:
    return _escaped(reason(error))


def _escaped(message: str) -> str:
    # PyFilesystem calls `format` on the messages of its errors.
    return message.replace("{", "{{").replace("}", "}}")


def _spool() -> SpooledTemporaryFile[bytes]:
    return SpooledTemporaryFile(max_size=PART_SIZE)


def _plain(value: Any) -> Any:
    return value.timestamp() if isinstance(value, datetime) else value


def _directory(name: str) -> dict[str, Any]:
    return {
        "basic": {"name": name, "is_dir": True},
        "details": {"type": int(ResourceType.directory)},
    }


def _bucket(options: Mapping[str, Any]) -> str:
    bucket = options.get("bucket")
    if not isinstance(bucket, str) or not bucket:
        raise ConfigurationError("DJFS['bucket'] is missing: type 's3fs' needs the bucket's name")
    return bucket


def _prefix(options: Mapping[str, Any]) -> str:
    prefix = options.get("prefix") or ""
    try:
        return prefix and check_namespace(prefix.strip("/"))
    except (AttributeError, InvalidName) as error:
        raise ConfigurationError(
            f"DJFS['prefix'] is {prefix!r}: use names joined by '/', such as 'media/plots'"
        ) from error


def _upload_args(options: Mapping[str, Any]) -> Mapping[str, Any]:
    args = options.get("upload_args") or {}
    known = ", ".join(S3Transfer.ALLOWED_UPLOAD_ARGS)
    if not isinstance(args, Mapping):
        raise ConfigurationError(
            f"DJFS['upload_args'] is a {type(args).__name__}: give it a dict with some of {known}"
        )
    if unknown := set(args) - set(S3Transfer.ALLOWED_UPLOAD_ARGS):
        raise ConfigurationError(
            f"DJFS['upload_args'] has {sorted(map(str, unknown))}: give it some of {known}"
        )
    return args


def _strict(options: Mapping[str, Any]) -> bool:
    strict = options.get("strict", False)
    if not isinstance(strict, bool):
        raise ConfigurationError(f"DJFS['strict'] is {strict!r}: use True or False")
    return strict


def _check_credentials(options: Mapping[str, Any]) -> None:
    for name in ("region", "aws_access_key_id", "aws_secret_access_key", "aws_session_token"):
        if not isinstance(options.get(name) or "", str):  # nor is it shown: it is a secret
            raise ConfigurationError(f"DJFS[{name!r}] is no str: put it in quotes")
    names = ("aws_access_key_id", "aws_secret_access_key")
    missing = [name for name in names if not options.get(name)]
    if len(missing) == 1 or (missing and options.get("aws_session_token")):
        raise ConfigurationError(
            f"DJFS[{missing[0]!r}] is missing: set it too, or none of them for boto3's own chain"
        )


def _check_address(options: Mapping[str, Any]) -> None:
    style = options.get("addressing_style") or "auto"
    if style not in ("auto", "path", "virtual"):
        raise ConfigurationError(
            f"DJFS['addressing_style'] is {style!r}: use 'auto', 'path' or 'virtual'"
        )
    endpoint = options.get("endpoint_url") or "https://s3.amazonaws.com"
    if not _is_address(str(endpoint)):
        # It is not shown, for errors of boto3 would show it too, password and all.
        raise ConfigurationError(
            "DJFS['endpoint_url'] must be http:// or https:// with a host, such as "
            "'https://store:8333', and hold no user name: "
            "use 'aws_access_key_id' and 'aws_secret_access_key'"
        )


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:  # such as half an IPv6 address
        return False
    if parts.scheme not in ("http", "https") or parts.username:
        return False
    return is_valid_endpoint_url(url) or is_valid_ipv6_endpoint_url(url)
