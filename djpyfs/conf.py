"""The one place that reads ``settings.DJFS``: lazily, so that ``override_settings`` works."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cached_property, lru_cache, reduce
from typing import Any

from django.conf import settings as django_settings

from .errors import ConfigurationError, InvalidName
from .names import check_namespace

DEFAULTS: Mapping[str, Any] = {
    "type": "osfs",
    "directory_root": "django-pyfs/static/django-pyfs",
    "url_root": "/static/django-pyfs",
}
SECOND = 1_000_000  # the record store counts in microseconds
POLICIES = 10_000  # directories whose policy is remembered
LONGEST_LIFE = 100 * 365 * 86_400  # seconds; keeps every deadline exact in a double
MOST_SHARDS = 1_024


@dataclass(frozen=True)
class Placement:
    """Where files are kept: a backend's ``type`` and options; equal if both are equal."""

    type: str
    options: Mapping[str, Any] = field(compare=False, repr=False)  # they may hold secrets
    identity: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "identity", repr(sorted(self.options.items(), key=str)))


@dataclass(frozen=True)
class Bounds:
    """Bounds for all sweeps of one place, over all workers; None: no bound."""

    deletions_per_second: int | None = None
    sweepers: int | None = None  # that are at work at once


@dataclass(frozen=True)
class Policy:
    """The policy of one namespace: where its files are, how long they live, who serves them."""

    placement: Placement
    default_ttl: int | None = None  # µs
    min_ttl: int | None = None  # µs
    max_ttl: int | None = None  # µs
    clamp: bool = False
    signed_urls: bool = False
    hide_expired: bool = False
    renew_on_read: bool = False
    hold: bool = False
    bounds: Bounds = Bounds()

    @property
    def life(self) -> int:
        """How long a file lives if nobody sets a deadline for it, in µs; 0: forever."""
        return self.default_ttl or self.max_ttl or 0

    def nearest(self, ttl: int) -> int:
        """Return the life that the policy allows and that is nearest to ``ttl``, in µs."""
        longer = max(ttl, self.min_ttl or 0)
        return min(longer, self.max_ttl or longer)

    def within(self, others: Sequence[Policy]) -> Policy:
        """Return this policy with the bounds of others that hold for the same files."""
        together = [self, *others]
        longest = _least(*(it.max_ttl for it in together))
        shortest = max((it.min_ttl for it in together if it.min_ttl is not None), default=None)
        bounded = replace(
            self,
            max_ttl=longest,
            min_ttl=shortest and _least(shortest, longest),
            signed_urls=any(it.signed_urls for it in together),
            hide_expired=any(it.hide_expired for it in together),
            hold=any(it.hold for it in together),
        )
        default = self.default_ttl and bounded.nearest(self.default_ttl)
        return replace(bounded, default_ttl=default)


def _least(*bounds: int | None) -> int | None:
    return min((bound for bound in bounds if bound is not None), default=None)


@dataclass(frozen=True, eq=False)
class Settings:
    """``DJFS``, checked, in the units of the record store."""

    policy: Policy
    namespaces: Mapping[str, Policy]
    redis_url: str = field(repr=False)  # may hold a password
    key_prefix: str
    shards: int
    wait_replicas: int
    sweep_interval: float  # s
    batch_size: int
    lease: int  # µs
    max_attempts: int
    grace: int  # µs
    punctual: bool
    one_shot: bool
    one_shot_horizon: float  # s
    metrics: bool

    @cached_property
    def placements(self) -> Sequence[Placement]:
        """Where files are kept, each place once."""
        policies = [self.policy, *self.namespaces.values()]
        return list(dict.fromkeys(policy.placement for policy in policies))

    @cached_property
    def bounds(self) -> Mapping[Placement, Bounds]:
        """The bounds of each place: the strictest that any policy sets for it."""
        found: dict[Placement, Bounds] = {}
        for policy in (self.policy, *self.namespaces.values()):
            known, own = found.get(policy.placement, Bounds()), policy.bounds
            found[policy.placement] = Bounds(
                _least(known.deletions_per_second, own.deletions_per_second),
                _least(known.sweepers, own.sweepers),
            )
        return found

    def policy_for(self, directory: str) -> Policy:
        """Return the policy for the files of a directory, such as a namespace.

        An entry of ``namespaces`` applies to everything below its name; ``prefix/*`` is one for
        each directory in ``prefix`` that has none of its own. If several apply, the nearest says
        where the files are and how long they live by default. Of their bounds the strictest
        counts, because one file may be reached by names in each of them.
        """
        return self._policies(directory) if self.namespaces else self.policy

    @cached_property
    def _policies(self) -> Callable[[str], Policy]:
        return lru_cache(maxsize=POLICIES)(self._combined)

    def _combined(self, directory: str) -> Policy:
        found = list(self._entries_above(directory))
        return found[-1].within(found[:-1]) if found else self.policy

    def _entries_above(self, directory: str) -> Iterator[Policy]:
        above, name = "", ""
        for segment in directory.split("/"):
            above, name = name, f"{name}/{segment}" if name else segment
            for key in name, f"{above}/*":
                if key in self.namespaces:
                    yield self.namespaces[key]
                    break


def _number(least: float, most: float = LONGEST_LIFE) -> Callable[[str, Any], float]:
    def check(key: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ConfigurationError(f"DJFS[{key!r}] is {value!r}: give it a number")
        if not least <= value <= most:
            raise ConfigurationError(f"DJFS[{key!r}] is {value!r}: use {least:g} to {most:g}")
        return value

    return check


def _whole(least: int, most: int) -> Callable[[str, Any], int]:
    in_range = _number(least, most)

    def check(key: str, value: Any) -> int:
        if in_range(key, value) != int(value):
            raise ConfigurationError(f"DJFS[{key!r}] is {value!r}: give it a whole number")
        return int(value)

    return check


def _microseconds(least: float, most: float = LONGEST_LIFE) -> Callable[[str, Any], int]:
    in_range = _number(least, most)

    def check(key: str, value: Any) -> int:
        seconds = value.total_seconds() if isinstance(value, timedelta) else value
        return round(in_range(key, seconds) * SECOND)

    return check


def _optional(check: Callable[[str, Any], int]) -> Callable[[str, Any], int | None]:
    return lambda key, value: None if value is None else check(key, value)


def flag(key: str, value: Any) -> bool:
    """Return the value of a setting that is True or False. Raises `ConfigurationError`."""
    if not isinstance(value, bool):
        raise ConfigurationError(f"DJFS[{key!r}] is {value!r}: use True or False")
    return value


def _text(key: str, value: Any) -> str:
    if not isinstance(value, str) or not value:  # which is not shown: it may hold a password
        kind = "empty" if isinstance(value, str) else f"a {type(value).__name__}"
        raise ConfigurationError(f"DJFS[{key!r}] is {kind}: give it a str")
    if not value.isprintable():
        raise ConfigurationError(f"DJFS[{key!r}] has a line break or the like: leave it out")
    return value


def _key_prefix(key: str, value: Any) -> str:
    if set(_text(key, value)) & set("{}"):
        raise ConfigurationError(f"DJFS[{key!r}] is {value!r}: leave out braces, they mark shards")
    return str(value)


# key -> (what checks it, default)
SERVICE_KEYS: Mapping[str, tuple[Callable[[str, Any], Any], Any]] = {
    "redis_url": (_text, "redis://127.0.0.1:6379/0"),
    "key_prefix": (_key_prefix, "djpyfs"),
    "shards": (_whole(1, MOST_SHARDS), 1),
    "wait_replicas": (_whole(0, 16), 0),
    "sweep_interval": (_number(0.1, 86_400), 60),
    "batch_size": (_whole(1, 5_000), 1_000),
    "lease": (_microseconds(1, 3_600), 30),
    "max_attempts": (_whole(1, 1_000), 10),
    "grace": (_microseconds(1, 86_400), 60),
    "punctual": (flag, True),
    "one_shot": (flag, False),
    "one_shot_horizon": (_number(0, 3_600), 300),
    "metrics": (flag, False),
}
POLICY_KEYS: Mapping[str, Callable[[str, Any], Any]] = {
    "default_ttl": _optional(_microseconds(0.001)),
    "min_ttl": _optional(_microseconds(0.001)),
    "max_ttl": _optional(_microseconds(0.001)),
    "clamp": flag,
    "signed_urls": flag,
    "hide_expired": flag,
    "renew_on_read": flag,
    "hold": flag,
}
# Of the place that the files are in: the strictest of the policies for it counts.
BOUND_KEYS: Mapping[str, Callable[[str, Any], Any]] = {
    "deletions_per_second": _optional(_whole(1, 1_000_000)),
    "sweepers": _optional(_whole(1, 1_000)),
}


# All but those that a backend takes, see its `options`.
KEYS = frozenset({"type", "namespaces", *SERVICE_KEYS, *POLICY_KEYS, *BOUND_KEYS})


def _policy(raw: Mapping[str, Any], inherits_default: bool = False) -> Policy:
    type_ = _text("type", raw.get("type"))
    options = {key: value for key, value in raw.items() if key not in KEYS}
    given = {key: check(key, raw[key]) for key, check in POLICY_KEYS.items() if key in raw}
    bounds = Bounds(
        **{key: check(key, raw[key]) for key, check in BOUND_KEYS.items() if key in raw}
    )
    policy = Policy(Placement(type_, options), bounds=bounds, **given)
    if inherits_default and policy.default_ttl:
        policy = replace(policy, default_ttl=policy.nearest(policy.default_ttl))
    _check_order("min_ttl", policy.min_ttl, "default_ttl", policy.default_ttl)
    _check_order("default_ttl", policy.default_ttl, "max_ttl", policy.max_ttl)
    _check_order("min_ttl", policy.min_ttl, "max_ttl", policy.max_ttl)
    if policy.renew_on_read and policy.default_ttl is None:
        raise ConfigurationError("DJFS['renew_on_read'] needs DJFS['default_ttl']: set it too")
    return policy


def _check_order(shorter: str, low: int | None, longer: str, high: int | None) -> None:
    if low is not None and high is not None and low > high:
        raise ConfigurationError(f"DJFS[{shorter!r}] is longer than DJFS[{longer!r}]: shorten it")


def _namespaces(raw: Mapping[str, Any]) -> dict[str, Policy]:
    own = raw.get("namespaces", {})
    if not isinstance(own, Mapping):
        kind = type(own).__name__  # it may hold secrets
        raise ConfigurationError(f"DJFS['namespaces'] is of type {kind}: give it a dict of dicts")
    policies = {}
    for name, overrides in own.items():
        directory = name.removesuffix("/*") if isinstance(name, str) else name
        try:
            check_namespace(directory)
        except InvalidName as error:
            raise ConfigurationError(f"DJFS['namespaces']: {error}") from error
        if "*" in directory:
            raise ConfigurationError(
                f"DJFS['namespaces'] names {name!r}: use a namespace, or 'prefix/*'; "
                "what counts for all stands outside"
            )
        if not isinstance(overrides, Mapping):
            raise ConfigurationError(f"DJFS['namespaces'][{name!r}] must be a dict")
        for key in overrides.keys() & {*SERVICE_KEYS, "namespaces"}:
            raise ConfigurationError(
                f"DJFS['namespaces'][{name!r}] sets {key!r}, which counts for all: move it up"
            )
        try:
            policies[name] = _policy({**raw, **overrides}, "default_ttl" not in overrides)
        except ConfigurationError as error:
            raise ConfigurationError(f"DJFS['namespaces'][{name!r}]: {error}") from error
    return policies


def parse(raw: Any) -> Settings:
    """Check a ``DJFS`` dict. Raises `ConfigurationError` naming the key and the cure."""
    if not isinstance(raw, Mapping):
        raise ConfigurationError(f"DJFS is of type {type(raw).__name__}: give it a dict")
    raw = {"type": DEFAULTS["type"], **raw}
    service = {
        key: check(key, raw.get(key, default)) for key, (check, default) in SERVICE_KEYS.items()
    }
    return Settings(policy=_policy(raw), namespaces=_namespaces(raw), **service)


_current: tuple[Any, Settings] | None = None
_replacements: list[Callable[[Mapping[str, Any]], Mapping[str, Any]]] = []


def current() -> Settings:
    """Return the settings in force, read again whenever ``DJFS`` is another object."""
    global _current
    raw = getattr(django_settings, "DJFS", DEFAULTS)
    known = _current
    if known is None or known[0] is not raw:
        replaced = reduce(lambda djfs, by: by(djfs), _replacements, raw)
        _current = known = raw, parse(replaced)
    return known[1]


@contextmanager
def replaced(by: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> Iterator[None]:
    """Have ``by(DJFS)`` in force instead of ``DJFS`` for a block, whatever overrides that in it."""
    global _current
    _replacements.append(by)
    _current = None
    try:
        yield
    finally:
        _replacements.remove(by)
        _current = None
