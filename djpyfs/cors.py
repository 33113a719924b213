"""CORS rules, by which S3 lets browsers send files with the form of `get_upload_url`.

A browser asks the bucket whether a page may send a file there, and whether the page may see the
answer. ``DJFS["upload_origins"]`` says which pages may.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

from fs.errors import FSError

from . import conf
from .backends import Bucket, backend_at
from .lifecycle import Action

METHOD = "POST"


@dataclass(frozen=True)
class CorsComparison:
    """The pages from which browsers may, and should, send files to a bucket."""

    bucket: str
    #: ``DJFS["upload_origins"]``.
    origins: Sequence[str]
    #: Those of them that the bucket does not let in.
    missing: Sequence[str] = ()
    #: What happens to our rule; None if there is none, and none is needed.
    action: Action | None = None
    #: How many rules of others are there, and stay.
    others: int = 0
    #: Why the bucket's rules could not be read, or not be set.
    problem: str = ""

    @property
    def differs(self) -> bool:
        """Whether the bucket lacks our rule, or has an old one."""
        return self.action not in (None, Action.KEEP)


@dataclass(frozen=True)
class BucketOrigins:
    """The origins that one bucket should let in; `plan` makes them."""

    bucket: Bucket
    #: What the keys of the backends begin with.
    root: str
    origins: Sequence[str]

    def compare(self) -> CorsComparison:
        """Compare them with those that the bucket lets in."""
        return self._settle(apply=False)

    def apply(self) -> CorsComparison:
        """Set our rule if it is needed; rules of others stay."""
        return self._settle(apply=True)

    def _settle(self, apply: bool) -> CorsComparison:
        result = CorsComparison(self.bucket.address, self.origins)
        try:
            present = self.bucket.cors()
            others = [rule for rule in present if rule.get("ID") != self._id]
            ours = [rule for rule in present if rule.get("ID") == self._id]
            result = replace(
                result,
                missing=missing(self.origins, present),
                action=self._action(ours, others),
                others=len(others),
            )
            if apply and result.differs:
                gone = result.action is Action.REMOVE
                self.bucket.set_cors([*others, *([] if gone else [self._rule()])])
                result = replace(result, missing=())
        except FSError as error:  # the rules of the other buckets can still be set
            return replace(result, problem=str(error))
        return result

    @property
    def _id(self) -> str:
        # Another site may keep its files in the same bucket, below another root.
        return f"djpyfs-{sha256(self.root.encode()).hexdigest()[:8]}-uploads"

    def _rule(self) -> dict[str, Any]:
        return {
            "ID": self._id,
            "AllowedMethods": [METHOD],
            "AllowedOrigins": list(self.origins),
            "MaxAgeSeconds": 3_600,
        }

    def _action(
        self, ours: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]]
    ) -> Action | None:
        if not missing(self.origins, others):  # with or without us
            return Action.REMOVE if ours else None
        if not ours:
            return Action.ADD
        says = [ours[0].get(key) for key in ("AllowedMethods", "AllowedOrigins")]
        return Action.KEEP if says == [[METHOD], list(self.origins)] else Action.CHANGE


def plan() -> list[BucketOrigins]:
    """Return what each bucket that ``DJFS`` names should let in. Raises `ConfigurationError`."""
    settings = conf.current()
    found: dict[tuple[str, str], BucketOrigins] = {}
    for placement in settings.placements:
        backend = backend_at(settings, placement)
        if bucket := backend.bucket():
            key = bucket.address, backend.prefix
            before = found[key].origins if key in found else ()
            origins = tuple(dict.fromkeys([*before, *bucket.upload_origins]))
            found[key] = BucketOrigins(bucket, backend.prefix, origins)
    return list(found.values())


def missing(origins: Sequence[str], rules: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return those of ``origins`` that no rule of a bucket lets in."""
    patterns = list(_patterns(rules))
    return [origin for origin in origins if not any(_fits(origin, it) for it in patterns)]


def _patterns(rules: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for rule in rules:
        if METHOD in rule.get("AllowedMethods", ()):
            yield from rule.get("AllowedOrigins", ())


def _fits(origin: str, pattern: str) -> bool:
    begin, star, end = pattern.partition("*")
    longer = len(origin) >= len(begin) + len(end)
    wild = star and longer and origin.startswith(begin) and origin.endswith(end)
    return origin == pattern or bool(wild)
