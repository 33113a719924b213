"""Forms by which a browser sends a file to the bucket itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...errors import ConfigurationError, InvalidLimit, InvalidName

LARGEST = 5 * 2**30  # bytes that S3 takes in one piece
# What a form calls the arguments of an upload; those beginning with x-amz- are called so in S3's
# headers as well.
FIELDS = {
    "ACL": "acl",
    "CacheControl": "Cache-Control",
    "ContentDisposition": "Content-Disposition",
    "ContentEncoding": "Content-Encoding",
    "ContentType": "Content-Type",
    "SSEKMSKeyId": "x-amz-server-side-encryption-aws-kms-key-id",
    "ServerSideEncryption": "x-amz-server-side-encryption",
    "StorageClass": "x-amz-storage-class",
}
# S3 puts the name of the browser's file in its place, which nobody has checked.
REPLACED = "${filename}"


def check_limits(path: str, max_bytes: int, content_types: Sequence[str]) -> None:
    """Raise `InvalidLimit` or `InvalidName` for what the policy of a form cannot bind."""
    if max_bytes > LARGEST:
        raise InvalidLimit(f"max_bytes is {max_bytes}: S3 takes up to {LARGEST} in one piece")
    if len(content_types) > 1:
        raise InvalidLimit(
            f"content_types is {list(content_types)}: S3 binds one type, so give a suffix that "
            "stands for one of them, such as '.png', or ask the browser for file.type first"
        )
    if REPLACED in path:
        raise InvalidName(path, f"holds {REPLACED!r}, which S3 would replace")


def fields_of(upload_args: Mapping[str, Any]) -> dict[str, str]:
    """Return the fields that make S3 store a file with these arguments."""
    fields: dict[str, str] = {}
    for name, value in upload_args.items():
        if name == "Metadata":
            fields |= {f"x-amz-meta-{key}": str(told) for key, told in value.items()}
        elif name in FIELDS:
            fields[FIELDS[name]] = str(value)
        else:
            known = ", ".join(sorted([*FIELDS, "Metadata"]))
            raise ConfigurationError(
                f"DJFS['upload_args'] has {name!r}, which no browser's form can set: "
                f"use {known}, or let the files go through the site"
            )
    return fields
