"""How long a file may live under a policy, in the units of the record store."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from numbers import Real
from typing import Any, NoReturn

from .conf import LONGEST_LIFE, SECOND, Policy
from .errors import InvalidLifetime

Seconds = float | timedelta

_EPOCH = datetime.fromtimestamp(0, UTC)
_MICROSECOND = timedelta(microseconds=1)


class Lifetimes:
    """The lifetimes that a policy allows."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    def of(
        self, seconds: Seconds | None = None, days: float | None = None, expires: bool = True
    ) -> int | None:
        """Return the life of a file in µs, or None for an endless one. Raises `InvalidLifetime`."""
        if seconds is None and days is None and expires:
            raise InvalidLifetime(
                "no lifetime is given: write seconds=300, for instance, or seconds=0 for now"
            )
        total = total_of(0 if seconds is None else seconds, 0 if days is None else days)
        ttl, policy = round(total * SECOND) if expires else None, self._policy
        if policy.max_ttl is not None and (ttl is None or ttl > policy.max_ttl):
            return self._bounded(ttl, "max_ttl", policy.max_ttl)
        if policy.min_ttl is not None and ttl is not None and ttl < policy.min_ttl:
            return self._bounded(ttl, "min_ttl", policy.min_ttl)
        return ttl

    def _bounded(self, ttl: int | None, key: str, bound: int) -> int:
        return bound if self._policy.clamp else self._refuse(ttl, key, bound)

    def _refuse(self, ttl: int | None, key: str, bound: int) -> NoReturn:
        life = "an endless lifetime" if ttl is None else f"a lifetime of {ttl / SECOND:g} s"
        raise InvalidLifetime(
            f"{life} does not fit DJFS[{key!r}] of {bound / SECOND:g} s, "
            "which counts for this file: choose another, or set 'clamp'"
        )


def total_of(seconds: Seconds, days: float) -> float:
    """Return a lifetime in seconds. Raises `InvalidLifetime`."""
    total = seconds_of("seconds", seconds) + _number_of("days", days) * 86_400
    if total > LONGEST_LIFE:
        raise InvalidLifetime(f"a lifetime of {total:g} s is too long: use {LONGEST_LIFE} at most")
    return total


def datetime_of(microseconds: int) -> datetime:
    """Return a time of the record store as an aware datetime (UTC)."""
    return _EPOCH + timedelta(microseconds=microseconds)


def microseconds(when: datetime) -> int:
    """Return an aware datetime as a time of the record store."""
    return (when - _EPOCH) // _MICROSECOND


def seconds_of(name: str, value: Any) -> float:
    """Return a number of seconds, also of a `timedelta`. Raises `InvalidLifetime`."""
    if isinstance(value, timedelta):
        value = value.total_seconds()
    return _number_of(name, value)


def _number_of(name: str, value: Any) -> float:
    # Real alone would do, but a check against an abstract class costs a microsecond.
    if isinstance(value, bool) or not isinstance(value, (int, float, Real)):
        raise InvalidLifetime(f"{name} is {value!r}: give it a number")
    number: Any = value
    if not 0 <= number <= LONGEST_LIFE:  # so is neither NaN nor infinite
        is_huge = isinstance(value, int) and value.bit_length() > 99  # Python may not print it
        shown = "huge" if is_huge else repr(value)
        raise InvalidLifetime(f"{name} is {shown}: use 0 to {LONGEST_LIFE}")
    return float(number)
