"""Files in an S3 bucket: ``prefix/namespace/path`` is the key of an object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from django.core.checks import CheckMessage

from ...conf import flag
from ...errors import BackendUnavailable, InvalidLifetime
from ...names import RESERVED, Entry
from .. import Backend, Lease, Outcome, UploadForm, place_id, reason
from .bucket import S3Bucket
from .client import HASTY, ONCE, PATIENT, SharedClient, code_of
from .deletion import KEYS_PER_REQUEST, Deletion
from .filesystem import S3FileSystem
from .forms import check_limits
from .options import (
    bucket_name,
    check_address,
    check_credentials,
    check_region,
    noncurrent_days,
    prefix,
    store_at,
    upload_args,
    upload_origins,
)

SHORT_URL_LIFE = 60  # s within which a download must begin
LONGEST_URL_LIFE = 604_800  # s; what Signature Version 4 allows


class S3Backend(Backend):
    """Keeps files in one bucket of S3 or of a store that speaks its protocol.

    Without ``aws_access_key_id`` and ``aws_secret_access_key``, boto3's chain of credentials
    applies (environment, shared files, role of the machine).
    """

    options: ClassVar[frozenset[str]] = frozenset(
        """bucket prefix region endpoint_url addressing_style upload_args strict redirect
        noncurrent_days upload_origins
        aws_access_key_id aws_secret_access_key aws_session_token""".split()
    )
    longest_url: ClassVar[int] = LONGEST_URL_LIFE
    takes_uploads: ClassVar[bool] = True
    leaves_parts: ClassVar[bool] = False
    reads_parts: ClassVar[bool] = True
    throttles: ClassVar[bool] = True
    files_per_request: ClassVar[int] = KEYS_PER_REQUEST
    deletions_at_once: ClassVar[int] = 8  # fewer than the connections that the client keeps

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self._bucket = bucket_name(options)
        self._endpoint_url = options.get("endpoint_url")
        self.prefix = prefix(options)
        self._upload_args = upload_args(options)
        self._strict = flag("strict", options.get("strict", False))
        self._redirect = flag("redirect", options.get("redirect", False))
        self._noncurrent_days = noncurrent_days(options)
        self._upload_origins = upload_origins(options)
        check_credentials(options)
        check_region(options)
        check_address(options)
        self._for_files = SharedClient(options, PATIENT)
        self._once = SharedClient(options, ONCE)
        self._for_sweeps = SharedClient(options, HASTY)
        self._slowed: set[str] = set()  # keys for which the store has asked to slow down

    def make_filesystem(self, namespace: str) -> S3FileSystem:
        """Return the files below ``prefix/namespace``, without a request."""
        root = self._key(namespace)
        clients = self._for_files, self._once
        return S3FileSystem(self._bucket, root, *clients, self._upload_args, self._strict)

    def remove_all(self, namespace: str, paths: Sequence[str]) -> None:
        """Remove files: 1 request per thousand."""
        self.make_filesystem(namespace).remove_all(paths)

    def url(
        self, namespace: str, path: str, lifetime: int | None, download_as: str | None = None
    ) -> str:
        """Return a presigned URL (Signature Version 4) that works for 1 to 604,800 seconds.

        Raises `InvalidLifetime`, and `fs.errors.NoURL` if there are no credentials to sign with.
        """
        if lifetime is None or not 1 <= lifetime <= LONGEST_URL_LIFE:
            raise InvalidLifetime(
                f"a URL on S3 works for 1 to {LONGEST_URL_LIFE} seconds, not {lifetime!r}"
            )
        return self.make_filesystem(namespace).geturl(path, "download", lifetime, download_as)

    def redirect(
        self, namespace: str, path: str, lifetime: int, headers: Mapping[str, str]
    ) -> str | None:
        """Return a presigned URL for a minute, if the option ``redirect`` is on."""
        if not self._redirect:
            return None
        files, life = self.make_filesystem(namespace), min(max(lifetime, 1), SHORT_URL_LIFE)
        return files.presigned(path, life, headers)

    def upload_form(
        self,
        namespace: str,
        path: str,
        lifetime: int,
        max_bytes: int,
        content_types: Sequence[str],
    ) -> UploadForm:
        """Return a form with a policy that binds the key, the length and one type."""
        check_limits(path, max_bytes, content_types)
        content_type = next(iter(content_types), None)
        return self.make_filesystem(namespace).upload_form(path, lifetime, max_bytes, content_type)

    def was_uploaded(self, entry: Entry) -> bool:
        """Return whether there is a file that a form of `upload_form` sent there: 1 HEAD."""
        return self.make_filesystem(entry.namespace).was_uploaded(entry.path)

    def delete(self, entries: Sequence[Entry], lease: Lease) -> Outcome:
        """Delete files of any number of namespaces: 1 request per thousand.

        S3 does not tell a deleted file from a missing one: both count as deleted.
        """
        deletion = Deletion(self._for_sweeps, self._bucket, lease, self.answers, self._slowed)
        for start in range(0, len(entries), KEYS_PER_REQUEST):
            chunk = entries[start : start + KEYS_PER_REQUEST]
            deletion.delete({self._key(*entry): entry for entry in chunk})
        return deletion.outcome

    def answers(self) -> bool:
        """Return whether files can be deleted: 1 DELETE of a key that no file can have."""
        try:
            self._for_sweeps().delete_object(Bucket=self._bucket, Key=self._key(RESERVED, "probe"))
        except Exception as error:  # whatever it is, a file would meet it too
            return code_of(error) == "NoSuchKey"
        return True

    def bucket(self) -> S3Bucket:
        """Return the bucket, which may hold more than the files of this backend."""
        return S3Bucket(
            self._bucket,
            self._endpoint_url,
            self._for_files,
            self._noncurrent_days,
            self._upload_origins,
        )

    def place(self, make: bool = False) -> str:
        """Return the identity of the store, the bucket and the prefix, without a request."""
        try:
            # The endpoint may also come from the environment, or from a file of AWS.
            store = store_at(self._for_files().meta.endpoint_url)
        except Exception as error:  # boto3 finds no region, say
            raise BackendUnavailable(reason(error)) from error
        return place_id(store, self._bucket, self.prefix)

    def roots(self) -> Sequence[str]:
        """Return the URL of the bucket, with the prefix."""
        return [f"{self.bucket().address}/{self.prefix}"]

    def deploy_checks(self) -> list[CheckMessage]:
        """Report a missing bucket, missing rights, and old versions that stay."""
        return list(self.bucket().checks(self.make_filesystem(RESERVED)))

    def close(self) -> None:
        """Close the connections."""
        super().close()
        for client in self._for_files, self._once, self._for_sweeps:
            client.close()

    def _key(self, *parts: str) -> str:
        return "/".join((self.prefix, *parts) if self.prefix else parts)
