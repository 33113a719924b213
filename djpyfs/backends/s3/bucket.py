"""A bucket as a whole: what it deletes by itself, what it keeps, and whether it can be used."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from botocore.exceptions import ClientError
from django.core.checks import CheckMessage, Error, Warning
from fs import errors

from .client import SharedClient, code_of, translated
from .filesystem import S3FileSystem

PROBE = "probe"


class S3Bucket:
    """The bucket that files are in, which may hold more than those."""

    def __init__(
        self,
        name: str,
        endpoint_url: str | None,
        client: SharedClient,
        noncurrent_days: int | None,
        upload_origins: Sequence[str],
    ) -> None:
        self.address = f"{(endpoint_url or 's3:').rstrip('/')}/{name}"
        self.noncurrent_days = noncurrent_days
        self.upload_origins = upload_origins
        self._name = name
        self._client = client

    def lifecycle(self) -> dict[str, Any]:
        """Return its rules: 1 GET."""
        with translated(self._name):
            try:
                answer = self._client().get_bucket_lifecycle_configuration(Bucket=self._name)
            except ClientError as error:
                if code_of(error) == "NoSuchLifecycleConfiguration":
                    return {"Rules": []}
                raise
        return {key: value for key, value in answer.items() if key != "ResponseMetadata"}

    def set_lifecycle(self, configuration: Mapping[str, Any]) -> None:
        """Replace its rules: 1 PUT, or 1 DELETE if none is left."""
        others: dict[str, Any] = dict(configuration)
        rules = others.pop("Rules")
        with translated(self._name):
            if rules:
                self._client().put_bucket_lifecycle_configuration(
                    Bucket=self._name, LifecycleConfiguration={"Rules": rules}, **others
                )
            else:
                self._client().delete_bucket_lifecycle(Bucket=self._name)

    def cors(self) -> list[Mapping[str, Any]]:
        """Return its CORS rules: 1 GET."""
        with translated(self._name):
            try:
                answer = self._client().get_bucket_cors(Bucket=self._name)
            except ClientError as error:
                if code_of(error) == "NoSuchCORSConfiguration":
                    return []
                raise
        return [dict(rule) for rule in answer.get("CORSRules", ())]

    def set_cors(self, rules: Sequence[Mapping[str, Any]]) -> None:
        """Replace its CORS rules: 1 PUT, or 1 DELETE if none is left."""
        all_: Any = list(rules)
        with translated(self._name):
            if all_:
                configuration: Any = {"CORSRules": all_}
                self._client().put_bucket_cors(Bucket=self._name, CORSConfiguration=configuration)
            else:
                self._client().delete_bucket_cors(Bucket=self._name)

    def keeps_versions(self) -> bool:
        """Return whether deleted objects stay as old versions: 1 GET."""
        with translated(self._name):
            answer = self._client().get_bucket_versioning(Bucket=self._name)
        return answer.get("Status") == "Enabled"

    def checks(self, files: S3FileSystem) -> Iterator[CheckMessage]:
        """Report what is wrong with it, by trying to write one of ``files``."""
        trials: Mapping[str, Callable[[], object]] = {
            "s3:ListBucket": lambda: files.isdir(PROBE),
            "s3:PutObject": lambda: files.writebytes(PROBE, b""),
            "s3:GetObject": lambda: files.readbytes(PROBE),
            "s3:DeleteObject": lambda: files.remove(PROBE),
        }
        refused: dict[str, Exception] = {}
        for right, trial in trials.items():
            try:
                trial()
            except errors.ResourceNotFound:
                pass  # it could not be written; without the right to read, the error is another
            except errors.PermissionDenied as error:
                refused[right] = error
            except errors.FSError as error:
                hint = "Correct DJFS['bucket'], 'region', 'endpoint_url' and the credentials."
                yield self._unusable(f"cannot be used: {error}", hint)
                return
        if refused:
            hint = "Correct the credentials, or give them the rights that Files on S3 lists."
            why = "; ".join(map(str, refused.values()))
            yield self._unusable(f"refuses {', '.join(refused)}: {why}", hint)
        yield from self._versions()

    def _unusable(self, why: str, hint: str) -> CheckMessage:
        told = f"the bucket {self._name!r} {why}"
        return Error(told, hint=hint, obj="settings.DJFS", id="djpyfs.E008")

    def _versions(self) -> Iterator[CheckMessage]:
        try:
            why = "keeps deleted files as old versions" if self.keeps_versions() else ""
        except errors.PermissionDenied:
            why = "does not say whether it keeps old versions"
        except errors.FSError:  # the store has none
            return
        if why and self.noncurrent_days is None:
            yield Warning(
                f"the bucket {self._name!r} {why}",
                hint="Set DJFS['noncurrent_days'] and call 'manage.py djpyfs lifecycle --apply', "
                "or give the credentials the right s3:GetBucketVersioning.",
                obj="settings.DJFS",
                id="djpyfs.W009",
            )
