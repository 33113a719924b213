"""A PyFilesystem over the objects of a bucket."""

from __future__ import annotations

import io
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from functools import partial
from hashlib import sha256
from itertools import islice
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from boto3.s3.transfer import S3Transfer, TransferConfig
from botocore import xform_name
from botocore.exceptions import BotoCoreError, ClientError
from django.utils.http import content_disposition_header
from fs import ResourceType, errors, tools
from fs.info import Info
from fs.mode import Mode
from fs.path import basename, dirname, normpath, relpath
from fs.subfs import SubFS
from fs_s3fs import S3FS
from s3transfer.manager import TransferManager

from ...errors import escaped
from ...names import type_of
from .. import UploadForm
from ..spool import SpooledFile, spool
from .client import CreatingClient, SharedClient, message, status_of, translated
from .deletion import KEYS_PER_REQUEST, batch_refused, delete_batch, problem_text
from .forms import fields_of
from .reading import BUFFER, ObjectReader

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client

# How S3 answers a write that must not replace an object, if there is one, or if another write or a
# deletion is under way; and how stores answer that have no such writes.
TAKEN, CANNOT_COMPARE = frozenset((409, 412)), frozenset((400, 501))
PART_SIZE = 8 * 1024 * 1024  # bytes; a file up to this size is one PUT
# Names for segments of other people's keys that no path can have. With lone surrogates they are
# like names on a disk that are not UTF-8: listed, reported and removable, but refused by djpyfs.
SHOWN_AS = {"": "\udc2f", ".": "\udc2e", "..": "\udc2e\udc2e"}
IN_KEYS = {shown: segment for segment, shown in SHOWN_AS.items()}
# The metadata of what a form has sent: for which key. Copies elsewhere have it too.
SENT_TO = "djpyfs-sent-to"
# What a request in XML cannot name, and a request for the key alone can.
NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class S3FileSystem(S3FS):  # type: ignore[misc]  # fs-s3fs has no types
    """A PyFilesystem over the objects below one key of a bucket.

    A directory exists if a key lies below it; no marker is needed, and only `makedir` writes
    one. Unless ``strict``, a path is taken at the caller's word: writing does not check that the
    directory is there, removing does not check that the file is, and a directory that is read as a
    file is "not found" instead of "file expected". With ``strict`` the rules of PyFilesystem are
    kept to the letter, for one or two requests more.

    Errors of boto3 come out as `fs.errors.FSError`. All instances may share one ``client``, and
    one that never repeats a request, for what must be done ``once``.
    """

    def __init__(
        self,
        bucket: str,
        root: str,
        client: SharedClient,
        once: SharedClient,
        upload_args: Mapping[str, Any] | None = None,
        strict: bool = False,
    ) -> None:
        super().__init__(bucket, root, upload_args=dict(upload_args or {}), strict=strict)
        self._shared_client = client
        self._once = once

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
        """Return whether there is a file (1 HEAD) or a directory (1 LIST more)."""
        return bool(self.isfile(path) or self.isdir(path))

    def isfile(self, path: str) -> bool:
        """Return whether there is a file: 1 HEAD."""
        try:
            return self.validatepath(path) != "/" and bool(self._head(path))
        except errors.ResourceNotFound:
            return False

    def isdir(self, path: str) -> bool:
        """Return whether any key lies below: 1 LIST of one key."""
        return self.validatepath(path) == "/" or bool(self._keys_below(path, 1))

    def isempty(self, path: str) -> bool:
        """Return whether a directory holds nothing but its marker: 1 LIST of two keys."""
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
        """Check that ``path`` exists: S3 lets nobody set the times of an object."""
        self.getinfo(path)

    def geturl(
        self,
        path: str,
        purpose: str = "download",
        lifetime: int = 3600,
        download_as: str | None = None,
    ) -> str:
        """Return a URL that works for ``lifetime`` seconds. Raises `fs.errors.NoURL`."""
        if self.validatepath(path) == "/" or purpose != "download":
            raise errors.NoURL(path, purpose)
        headers = {}
        if download_as is not None:
            disposition = content_disposition_header(as_attachment=True, filename=download_as)
            headers["Content-Disposition"] = str(disposition)
        return self.presigned(path, lifetime, headers)

    def presigned(self, path: str, lifetime: int, headers: Mapping[str, str]) -> str:
        """Return a URL that answers with ``headers``. Raises `fs.errors.NoURL`."""
        params = {"Bucket": self._bucket_name, "Key": self._path_to_key(path)}
        params |= {f"Response{name.replace('-', '')}": told for name, told in headers.items()}
        try:
            return self.client.generate_presigned_url("get_object", params, lifetime)
        except BotoCoreError as error:
            raise errors.NoURL(path, "download", message(error)) from error

    def upload_form(
        self, path: str, lifetime: int, max_bytes: int, content_type: str | None
    ) -> UploadForm:
        """Return a form by which a browser sends a file here (POST, Signature Version 4).

        Without a ``content_type`` the name decides which it has. Raises `fs.errors.NoURL`.
        """
        key = self._path_to_key(path)
        args = self._get_upload_args(key)
        fields = fields_of({**args, "ContentType": content_type or args["ContentType"]})
        fields[f"x-amz-meta-{SENT_TO}"] = _digest(key)
        conditions = [{name: value} for name, value in fields.items()]
        length = ["content-length-range", 0, max_bytes]
        try:
            form = self.client.generate_presigned_post(
                self._bucket_name, key, fields, [*conditions, length], lifetime
            )
        except BotoCoreError as error:
            raise errors.NoURL(path, "upload", message(error)) from error
        return UploadForm(form["url"], form["fields"])

    def was_uploaded(self, path: str) -> bool:
        """Return whether there is a file that a form of `upload_form` sent there: 1 HEAD."""
        try:
            sent_to = self._head(path)["Metadata"].get(SENT_TO)
        except errors.ResourceNotFound:
            return False
        return bool(sent_to == _digest(self._path_to_key(path)))

    # Reading and writing

    def openbin(
        self,
        path: str,
        mode: str = "r",
        buffering: int = -1,
        *,
        part: range | None = None,
        etag: str | None = None,
        **options: Any,
    ) -> BinaryIO:
        """Open a file; what is written is stored when it is closed, with 1 PUT up to 8 MiB.

        To read, 1 HEAD looks at it, and 1 GET fetches it while it is read, or 2 if that begins
        with less than 32 KiB: the first is for 256 KiB. If ``part`` says what will be read, 1 GET
        for that is all. What is read is one version of the file, that of the ``etag`` if there is
        one: once another has taken its place, opening and reading raise `FileReplaced`.
        """
        how = Mode(mode)
        how.validate_bin()
        self._check_file_path(path)
        if not how.writing:
            get = partial(self._get, path)
            with self._wanted(path):
                if part is None:
                    head = self._head(path)
                    reader = ObjectReader(path, get, head.get("ETag"), head["ContentLength"])
                else:
                    reader = ObjectReader(path, get, etag)
                    reader.fetch(part)
            return io.BufferedReader(reader, BUFFER)
        if how.create:
            self._check_target(path)
        if how.exclusive and self.isfile(path):
            raise errors.FileExists(path)
        store = partial(self.store_new if how.exclusive else self.store, path)
        return cast(BinaryIO, SpooledFile(how, partial(self._fetch, path, how.create), store))

    def readbytes(self, path: str) -> bytes:
        """Read a whole file: 1 GET."""
        self._check_file_path(path)
        with self._wanted(path), closing(self._get(path)["Body"]) as body:
            return body.read()  # type: ignore[no-any-return]

    def download(
        self, path: str, file: BinaryIO, chunk_size: int | None = None, **options: Any
    ) -> None:
        """Copy a file into ``file``, in chunks of bytes: 1 GET."""
        self._check_file_path(path)
        with self._wanted(path), closing(self._get(path)["Body"]) as body:
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

        Nothing is written if reading ``file`` fails.
        """
        self._check_file_path(path)
        self._check_target(path)
        with spool() as copy:
            tools.copy_file_data(file, copy, chunk_size)
            self.store(path, copy)

    def store(self, path: str, file: Any) -> None:
        """Write all of a seekable ``file``, without a look at what is there."""
        with translated(path):
            self._put(path, file, self.client)

    def store_new(self, path: str, file: Any) -> None:
        """Write all of a seekable ``file``, which must be new. Raises `fs.errors.FileExists`.

        A store that cannot do both at once is asked first: a write between the answer and the end
        of the upload is not noticed.
        """
        with translated(path):
            try:
                self._put(path, file, CreatingClient(self.client, self._once()))
            except ClientError as error:
                if status_of(error) in TAKEN:
                    raise errors.FileExists(path) from error
                if status_of(error) not in CANNOT_COMPARE:
                    raise
            else:
                return
        if self.isfile(path):
            raise errors.FileExists(path)
        self.store(path, file)

    # Making, removing, moving

    def makedir(self, path: str, permissions: Any = None, recreate: bool = False) -> SubFS[Any]:
        """Write the marker of a directory, unless there is one."""
        if self.exists(path):
            if recreate:
                return self.opendir(path)  # type: ignore[no-any-return]
            raise errors.DirectoryExists(path)
        self._check_parent(path)
        with translated(path):
            self.client.put_object(Bucket=self._bucket_name, Key=self._path_to_dir_key(path))
        return SubFS(self, path)

    def remove(self, path: str) -> None:
        """Delete a file: 1 DELETE, which does not tell whether it was there unless ``strict``.

        It is sent once, because a late one may meet a newer file. Raises `NotAnswered` if it may
        still be carried out.
        """
        self._check_file_path(path)
        if self.strict:
            with self._wanted(path):
                self._head(path)
        self._delete(path, self._path_to_key(path))

    def remove_all(self, paths: Sequence[str]) -> None:
        """Delete files: 1 DeleteObjects per thousand, each sent once as in `remove`."""
        for first in range(0, len(paths), KEYS_PER_REQUEST):
            keys = [self._path_to_key(path) for path in paths[first : first + KEYS_PER_REQUEST]]
            self._delete_all(paths[first], keys)

    def removedir(self, path: str) -> None:
        """Delete the marker of an empty directory."""
        if self.validatepath(path) == "/":
            raise errors.RemoveRootError()
        if not self.isempty(path):
            raise errors.DirectoryNotEmpty(path)
        self._delete(path, self._path_to_dir_key(path))

    def removetree(self, dir_path: str) -> None:
        """Delete everything in a directory: 1 LIST and 1 DeleteObjects per thousand."""
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

    def _path_to_key(self, path: str) -> str:
        segments = relpath(normpath(path)).split("/")
        below = "/".join(IN_KEYS.get(segment, segment) for segment in segments)
        return f"{self._prefix}/{below}" if self._prefix else below

    def _path_to_dir_key(self, path: str) -> str:
        if normpath(path) in ("/", ""):
            return f"{self._prefix}/" if self._prefix else ""
        return f"{self._path_to_key(path)}/"

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
        """Translate errors of a request that expects ``path`` to be a file."""
        try:
            with translated(path):
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
        with translated(path):
            return self.client.head_object(Bucket=self._bucket_name, Key=self._path_to_key(path))

    def _get(self, path: str, **how: Any) -> Any:
        key = self._path_to_key(path)
        return self.client.get_object(Bucket=self._bucket_name, Key=key, **how)

    def _fetch(self, path: str, may_be_missing: bool, copy: BinaryIO) -> None:
        try:
            self.download(path, copy)
        except errors.ResourceNotFound:
            if not may_be_missing:
                raise

    def _put(self, path: str, file: Any, client: Any) -> None:
        key = self._path_to_key(path)
        args = self._get_upload_args(key)
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        if size <= PART_SIZE:
            client.put_object(Bucket=self._bucket_name, Key=key, Body=file, **args)
            return
        with TransferManager(client, TransferConfig(multipart_threshold=PART_SIZE)) as transfer:
            transfer.upload(file, self._bucket_name, key, args).result()

    def _get_upload_args(self, key: str) -> dict[str, Any]:
        return {"ContentType": type_of(key) or "application/octet-stream", **self.upload_args}

    def _keys_below(self, path: str, most: int) -> list[str]:
        prefix = self._path_to_dir_key(path)
        with translated(path):
            answer = self.client.list_objects_v2(
                Bucket=self._bucket_name, Prefix=prefix, MaxKeys=most
            )
        return [item["Key"] for item in answer.get("Contents", ())]

    def _pages(self, path: str, **how: Any) -> Iterator[Any]:
        prefix = self._path_to_dir_key(path)
        with translated(path):
            pages = self.client.get_paginator("list_objects_v2")
            yield from pages.paginate(Bucket=self._bucket_name, Prefix=prefix, **how)

    def _scan(self, path: str, valid: str, namespaces: Collection[str]) -> Iterator[dict[str, Any]]:
        start, found = len(self._path_to_dir_key(path)), valid == "/"
        for page in self._pages(path, Delimiter="/"):
            for item in page.get("CommonPrefixes", ()):
                found = True
                yield _directory(_shown(item["Prefix"][start:-1]))
            for item in page.get("Contents", ()):
                found = True
                if name := item["Key"][start:]:
                    shown = f"{path}/{_shown(name)}"
                    yield self._file(shown, item["Size"], item, namespaces)
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
        if "version" in namespaces:
            raw["version"] = {"etag": answer.get("ETag")}
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
        with translated(path):
            self._once().delete_object(Bucket=self._bucket_name, Key=key)

    def _delete_all(self, path: str, keys: Sequence[str]) -> None:
        batch = dict.fromkeys(key for key in keys if not NOT_IN_XML.search(key))
        refused: Mapping[str, Any] = {}
        with translated(path):
            try:
                if batch:
                    refused = delete_batch(self._once(), self._bucket_name, batch)
            except ClientError as error:
                if not batch_refused(error):
                    raise
                batch.clear()
        for key in keys:
            if key not in batch:
                self._delete(path, key)
        if refused:
            key, problem = next(iter(refused.items()))
            raise errors.OperationFailed(
                path, msg=escaped(f"{key!r} stays: {problem_text(problem)}")
            )


def _shown(segment: str) -> str:
    return SHOWN_AS.get(segment, segment)


def _plain(value: Any) -> Any:
    return value.timestamp() if isinstance(value, datetime) else value


def _digest(key: str) -> str:
    return sha256(key.encode()).hexdigest()[:32]


def _directory(name: str) -> dict[str, Any]:
    return {
        "basic": {"name": name, "is_dir": True},
        "details": {"size": 0, "type": int(ResourceType.directory)},
    }
