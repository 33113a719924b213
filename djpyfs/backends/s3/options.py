"""What the options of the backend may be, and which store an endpoint belongs to."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from boto3.s3.transfer import S3Transfer
from botocore.exceptions import InvalidRegionError, ParamValidationError
from botocore.handlers import validate_bucket_name
from botocore.utils import (
    is_valid_endpoint_url,
    is_valid_ipv6_endpoint_url,
    validate_region_name,
)

from ...errors import ConfigurationError, InvalidName
from ...names import check_namespace

# Not with a key of one's own: whoever reads would have to send it as well.
UPLOAD_ARGS = [it for it in S3Transfer.ALLOWED_UPLOAD_ARGS if not it.startswith("SSECustomer")]
_origin = re.compile(r"https?://[^/?#@\s*]*\*?[^/?#@\s*]+").fullmatch


def bucket_name(options: Mapping[str, Any]) -> str:
    """Return the name of the bucket. Raises `ConfigurationError`."""
    bucket = options.get("bucket")
    if not isinstance(bucket, str) or not bucket:
        raise ConfigurationError("DJFS['bucket'] is missing: type 's3fs' needs the bucket's name")
    try:
        validate_bucket_name({"Bucket": bucket})
        fits = bucket == bucket.strip()  # a newline from a file, say
    except ParamValidationError:
        fits = False
    if not fits:
        raise ConfigurationError(
            f"DJFS['bucket'] is {bucket!r}: use the name of a bucket, or the ARN of an access point"
        )
    return bucket


def text(options: Mapping[str, Any], name: str) -> str:
    """Return an option that may be left out, or empty as in an environment that lacks it."""
    value = options.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):  # which is not shown: it may be a secret
        raise ConfigurationError(f"DJFS[{name!r}] is not a str: put it in quotes")
    if not value.isprintable():
        raise ConfigurationError(f"DJFS[{name!r}] has a line break or the like: leave it out")
    return value


def prefix(options: Mapping[str, Any]) -> str:
    """Return what all keys begin with, without slashes around it. Raises `ConfigurationError`."""
    prefix = text(options, "prefix")
    try:
        return prefix and check_namespace(prefix.strip("/"))
    except InvalidName as error:
        raise ConfigurationError(
            f"DJFS['prefix'] is {prefix!r}: use names joined by '/', such as 'media/plots'"
        ) from error


def upload_args(options: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what is said of each file that is stored. Raises `ConfigurationError`."""
    given = options.get("upload_args")
    args = {} if given is None else given
    known = ", ".join(UPLOAD_ARGS)
    if not isinstance(args, Mapping):
        raise ConfigurationError(
            f"DJFS['upload_args'] is no dict but {type(args).__name__}: give it some of {known}"
        )
    if unknown := set(args) - set(UPLOAD_ARGS):
        raise ConfigurationError(
            f"DJFS['upload_args'] has {sorted(map(str, unknown))}: give it some of {known}"
        )
    return args


def noncurrent_days(options: Mapping[str, Any]) -> int | None:
    """Return how long old versions stay, or None if nobody said. Raises `ConfigurationError`."""
    days = options.get("noncurrent_days")
    if days is not None and (isinstance(days, bool) or not isinstance(days, int) or days < 1):
        raise ConfigurationError(
            f"DJFS['noncurrent_days'] is {days!r}: use a whole number of days, 1 or more, or None"
        )
    return days


def upload_origins(options: Mapping[str, Any]) -> Sequence[str]:
    """Return the origins whose pages may send files. Raises `ConfigurationError`."""
    given = options.get("upload_origins")
    origins = () if given is None else given
    fits = isinstance(origins, list | tuple) and all(map(_is_origin, origins))
    if not fits:
        raise ConfigurationError(
            f"DJFS['upload_origins'] is {origins!r}: give it a list of origins of your pages, such "
            "as ['https://www.example.com'], without a path"
        )
    return tuple(origins)


def _is_origin(given: object) -> bool:
    return isinstance(given, str) and bool(_origin(given))


def check_credentials(options: Mapping[str, Any]) -> None:
    """Raise `ConfigurationError` if only a part of the credentials is given."""
    names = ("aws_access_key_id", "aws_secret_access_key")
    missing = [name for name in names if not text(options, name)]
    if len(missing) == 1 or (text(options, "aws_session_token") and missing):
        raise ConfigurationError(
            f"DJFS[{missing[0]!r}] is missing: set it too, or none of them for boto3's own chain"
        )


def check_region(options: Mapping[str, Any]) -> None:
    """Raise `ConfigurationError` if no region can have that name."""
    region = text(options, "region")
    try:
        validate_region_name(region)
    except InvalidRegionError as error:
        told = f"DJFS['region'] is {region!r}: use one such as 'eu-central-1'"
        raise ConfigurationError(told) from error


def check_address(options: Mapping[str, Any]) -> None:
    """Raise `ConfigurationError` for an endpoint that is no URL of a host, or an unknown style."""
    style = text(options, "addressing_style") or "auto"
    if style not in ("auto", "path", "virtual"):
        raise ConfigurationError(
            f"DJFS['addressing_style'] is {style!r}: use 'auto', 'path' or 'virtual'"
        )
    endpoint = text(options, "endpoint_url")
    if endpoint and not _is_address(endpoint):
        # It is not shown, for errors of boto3 would show it too, password and all.
        raise ConfigurationError(
            "DJFS['endpoint_url'] must be http:// or https:// with a host, such as "
            "'https://store:8333', and hold no query and no user name: "
            "use 'aws_access_key_id' and 'aws_secret_access_key'"
        )


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:  # such as half an IPv6 address, or a port that there cannot be
        return False
    if parts.scheme not in ("http", "https") or parts.username or parts.query or parts.fragment:
        return False
    return is_valid_endpoint_url(url) or is_valid_ipv6_endpoint_url(url)


def store_at(endpoint_url: str) -> str:
    """Return the same for all ways to write the endpoint of a store.

    All of AWS is one store: a bucket's name is good in every region of a partition.
    """
    parts = urlsplit(endpoint_url)
    host = parts.hostname or ""
    if host.endswith(".amazonaws.com"):
        return "s3-us-gov" if ".us-gov-" in host else "s3"
    if host.endswith(".amazonaws.com.cn"):
        return "s3-cn"
    port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    return f"{parts.scheme}://{host}:{port}{parts.path.rstrip('/')}"
