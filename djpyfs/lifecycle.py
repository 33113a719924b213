"""Lifecycle rules, by which S3 itself deletes what djpyfs has missed: a second safety net.

S3 knows no exceptions: a rule takes every object whose key begins like its prefix, and where
two apply, the sooner one wins. It counts in days from the last write.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from hashlib import sha256
from typing import Any

from fs.errors import FSError

from . import conf
from .backends import Bucket, backend_at
from .conf import SECOND, Policy, Settings

DAY = 86_400 * SECOND
OURS = "djpyfs-"  # what the id of each of our rules begins with
WHOLE_BUCKET = "it would take everything in the bucket: set 'prefix', or say --whole-bucket"
UPLOAD_DAYS = 1  # what is sent in parts is sent at once, from a copy: by then its sender is dead


class Action(StrEnum):
    """What happens to a rule."""

    ADD = "add"
    CHANGE = "change"
    KEEP = "keep"
    REMOVE = "remove"


@dataclass(frozen=True)
class Rule:
    """A rule that djpyfs makes."""

    #: What the keys of the backend begin with.
    root: str
    prefix: str
    days: int
    #: The entries of ``DJFS["namespaces"]`` whose files it takes; ``*`` for all that have none.
    namespaces: Sequence[str]
    #: Namespaces without an entry whose files it takes too, sooner than they need to go.
    besides: Sequence[str] = ()
    #: Whether it is for old versions, in a bucket that keeps them.
    noncurrent: bool = False

    @property
    def id(self) -> str:
        """Its name in the bucket, of at most 255 characters."""
        what = ("noncurrent\0" if self.noncurrent else "") + self.prefix
        return _mark(self.root) + sha256(what.encode()).hexdigest()[:16]

    def as_s3(self) -> dict[str, Any]:
        """Return it in the form that S3 uses."""
        common = {"ID": self.id, "Status": "Enabled", "Filter": {"Prefix": self.prefix}}
        if self.noncurrent:
            return {
                **common,
                "NoncurrentVersionExpiration": {"NoncurrentDays": self.days},
                "Expiration": {"ExpiredObjectDeleteMarker": True},
            }
        return {
            **common,
            "Expiration": {"Days": self.days},
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": UPLOAD_DAYS},
        }


@dataclass(frozen=True)
class LeftOut:
    """A rule that would take too much."""

    prefix: str
    namespaces: Sequence[str]
    reason: str


@dataclass(frozen=True)
class Change:
    """What happens to a rule of djpyfs in the bucket."""

    action: Action
    prefix: str
    #: None if the rule goes.
    days: int | None
    #: None if there was no such rule.
    days_before: int | None
    namespaces: Sequence[str] = ()
    besides: Sequence[str] = ()
    noncurrent: bool = False


@dataclass(frozen=True)
class Comparison:
    """The rules that a bucket should have, and how they differ from what it has."""

    bucket: str
    #: Ours, as S3 writes them.
    rules: Sequence[Mapping[str, Any]]
    left_out: Sequence[LeftOut]
    changes: Sequence[Change] = ()
    #: How many rules of others are there, and stay.
    others: int = 0
    #: Why the bucket's rules could not be read, or not be set.
    problem: str = ""

    @property
    def differs(self) -> bool:
        """Whether the bucket lacks one of these rules, or has an old one of djpyfs."""
        return any(change.action is not Action.KEEP for change in self.changes)


@dataclass(frozen=True)
class BucketRules:
    """The rules that one bucket should have; `plan` makes them."""

    bucket: Bucket
    #: What the keys of the backends begin with.
    roots: Collection[str]
    rules: Sequence[Rule]
    left_out: Sequence[LeftOut]

    def compare(self) -> Comparison:
        """Compare them with those that the bucket has."""
        return self._settle(apply=False)

    def apply(self) -> Comparison:
        """Set them, if they differ from those that the bucket has; rules of others stay."""
        return self._settle(apply=True)

    def _settle(self, apply: bool) -> Comparison:
        wanted = [rule.as_s3() for rule in self.rules]
        result = Comparison(self.bucket.address, wanted, self.left_out)
        try:
            configuration = self.bucket.lifecycle()
            present = [_with_filter(rule) for rule in configuration["Rules"]]
            others = [rule for rule in present if not self._is_ours(rule)]
            ours = {rule["ID"]: rule for rule in present if self._is_ours(rule)}
            result = replace(result, changes=list(self._changes(ours)), others=len(others))
            if apply and result.differs:
                self.bucket.set_lifecycle({**configuration, "Rules": [*others, *wanted]})
        except FSError as error:  # the rules of the other buckets can still be set
            return replace(result, problem=str(error))
        return result

    def _is_ours(self, rule: Mapping[str, Any]) -> bool:
        return str(rule.get("ID", "")).startswith(tuple(map(_mark, self.roots)))

    def _changes(self, ours: Mapping[str, Mapping[str, Any]]) -> Iterator[Change]:
        for rule in self.rules:
            before = ours.get(rule.id, {})
            changed = Action.KEEP if _says(before, rule) else Action.CHANGE
            yield Change(
                changed if before else Action.ADD,
                rule.prefix,
                rule.days,
                days_of(before),
                rule.namespaces,
                rule.besides,
                rule.noncurrent,
            )
        for id_ in sorted(ours.keys() - {rule.id for rule in self.rules}):
            yield Change(
                Action.REMOVE,
                _prefix_of(ours[id_]),
                None,
                days_of(ours[id_]),
                noncurrent="NoncurrentVersionExpiration" in ours[id_],
            )


@dataclass(frozen=True)
class _Area:
    """The keys in one bucket that an entry of ``DJFS["namespaces"]`` is for; ``*``: the others."""

    name: str
    root: str
    policy: Policy
    noncurrent_days: int | None

    @property
    def prefix(self) -> str:
        own = self.name.removesuffix("*").rstrip("/")
        return f"{self.root}{own}/" if own else self.root

    def overlaps(self, prefix: str) -> bool:
        return self.prefix.startswith(prefix) or prefix.startswith(self.prefix)

    def days(self) -> int:
        return -(-(self.policy.max_ttl or 0) // DAY) + 1


def plan(whole_bucket: bool = False) -> list[BucketRules]:
    """Return the rules for each bucket that ``DJFS`` names, without asking it.

    Each namespace with a ``max_ttl`` gets a rule for the keys below its name: the longest
    ``max_ttl`` of any namespace there that ``DJFS`` names, in whole days, and a day more. There
    is none if one of these is on hold or has no ``max_ttl``; nor, unless ``whole_bucket``,
    one for all the keys of a bucket. ``noncurrent_days`` is a rule for the old versions of all that
    is below a ``prefix``, unless something there is on hold or keeps them for longer. Raises
    `ConfigurationError`.
    """
    settings = conf.current()
    areas: dict[str, list[_Area]] = {}
    buckets: dict[str, Bucket] = {}
    for name, policy in {"*": settings.policy, **settings.namespaces}.items():
        backend = backend_at(settings, policy.placement)
        if bucket := backend.bucket():
            root = f"{backend.prefix}/" if backend.prefix else ""
            areas.setdefault(bucket.address, []).append(
                _Area(name, root, policy, bucket.noncurrent_days)
            )
            buckets[bucket.address] = bucket
    return [
        _rules(settings, bucket, areas[address], whole_bucket)
        for address, bucket in buckets.items()
    ]


def _mark(root: str) -> str:
    # Another site may keep its files in the same bucket, below another root.
    return f"{OURS}{sha256(root.encode()).hexdigest()[:8]}-"


def _rules(
    settings: Settings, bucket: Bucket, areas: Sequence[_Area], whole_bucket: bool
) -> BucketRules:
    rules: list[Rule] = []
    left_out: list[LeftOut] = []
    limited = {area.prefix: area.root for area in areas if area.policy.max_ttl}
    for prefix, root in sorted(limited.items()):  # the shortest first
        inside = [area for area in areas if area.prefix.startswith(prefix)]
        names = [area.name for area in inside]
        if reason := _reason_against(prefix, inside, areas, whole_bucket):
            left_out.append(LeftOut(prefix, names, reason))
            continue
        besides = list(_besides(settings, prefix, inside))
        rule = Rule(root, prefix, max(area.days() for area in inside), names, besides)
        if not any(_implies(outer, rule) for outer in rules):
            rules.append(rule)
    for root, days in sorted({(it.root, it.noncurrent_days) for it in areas if it.noncurrent_days}):
        names = [area.name for area in areas if area.prefix.startswith(root)]
        if reason := _reason_to_keep(root, days, areas, whole_bucket):
            left_out.append(LeftOut(root, names, reason))
        else:
            rules.append(Rule(root, root, days, names, noncurrent=True))
    return BucketRules(bucket, {area.root for area in areas}, rules, left_out)


def _reason_against(
    prefix: str, inside: Sequence[_Area], areas: Sequence[_Area], whole_bucket: bool
) -> str | None:
    for area in areas:
        if area.policy.hold and area.overlaps(prefix):
            return f"it would take files of {area.name!r}, which is on hold"
    for area in inside:
        if area.policy.max_ttl is None:
            return f"it would take files of {area.name!r}, which has no max_ttl"
    return None if prefix or whole_bucket else WHOLE_BUCKET


def _reason_to_keep(root: str, days: int, areas: Sequence[_Area], whole_bucket: bool) -> str | None:
    for area in areas:
        if area.policy.hold and area.overlaps(root):
            return f"it would take old versions of {area.name!r}, which is on hold"
        stays = area.noncurrent_days is None or area.noncurrent_days > days
        if stays and area.prefix.startswith(root):
            return f"it would take old versions of {area.name!r}, which are to stay for longer"
    return None if root or whole_bucket else WHOLE_BUCKET


def _besides(settings: Settings, prefix: str, inside: Sequence[_Area]) -> Iterator[str]:
    """Yield what shares a prefix unnamed: the namespace of ``a/*`` itself, those below ``a``."""
    longest = max(area.policy.max_ttl or 0 for area in inside)
    for area in inside:
        twin = area.name[:-2] if area.name.endswith("/*") else f"{area.name}/*"
        policy = settings.policy_for(twin)
        here = area.prefix == prefix and policy.placement == area.policy.placement
        if here and (policy.max_ttl is None or policy.max_ttl > longest):
            yield twin


def _implies(outer: Rule, inner: Rule) -> bool:
    return inner.prefix.startswith(outer.prefix) and outer.days <= inner.days


def _with_filter(rule: Mapping[str, Any]) -> dict[str, Any]:
    """Return a bucket's rule in the present form: S3 does not take both forms together."""
    new = dict(rule)
    if "Prefix" in new:
        new["Filter"] = {"Prefix": new.pop("Prefix")}
    return new


def _prefix_of(rule: Mapping[str, Any]) -> str:
    return str(rule.get("Filter", {}).get("Prefix", ""))


def days_of(rule: Mapping[str, Any]) -> int | None:
    """Return the days of a rule as S3 writes it."""
    noncurrent = rule.get("NoncurrentVersionExpiration", {}).get("NoncurrentDays")
    days: int | None = rule.get("Expiration", {}).get("Days", noncurrent)
    return days


def _says(present: Mapping[str, Any], rule: Rule) -> bool:
    # Some stores add keys of their own to what they were given.
    return all(present.get(key) == value for key, value in rule.as_s3().items())
