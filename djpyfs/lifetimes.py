"""How long a file may live under a policy, in the units of the record store."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from numbers import Real
from typing import Any

from .conf import LONGEST_LIFE, SECOND, Policy
from .errors import InvalidLifetime

Seconds = float | timedelta
DAY = 86_400  # s

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
        return self.allowed(asked_life(seconds, days, expires))

    def allowed(self, ttl: int | None) -> int | None:
        """Return a life in µs, None for an endless one; with ``clamp`` the nearest that may be.

        Raises `InvalidLifetime` if the policy does not allow it.
        """
        policy = self._policy
        nearest = policy.max_ttl if ttl is None else policy.nearest(ttl)
        if nearest is None or nearest == ttl or policy.clamp:
            return nearest
        life = "an endless lifetime" if ttl is None else f"a lifetime of {ttl / SECOND:g} s"
        key = "max_ttl" if ttl is None or ttl > nearest else "min_ttl"
        raise InvalidLifetime(
            f"{life} does not fit DJFS[{key!r}] of {nearest / SECOND:g} s, "
            "which counts for this file: choose another, or set 'clamp'"
        )


def asked_life(
    seconds: Seconds | None = None, days: float | None = None, expires: bool = True
) -> int | None:
    """Return the life that is asked for in µs, or None for an endless one.

    Raises `InvalidLifetime` for what is none under any policy.
    """
    if seconds is None and days is None and expires:
        raise InvalidLifetime(
            "no lifetime is given: write seconds=300, for instance, or seconds=0 for now"
        )
    total = total_of(0 if seconds is None else seconds, 0 if days is None else days)
    return round(total * SECOND) if expires else None


def total_of(seconds: Seconds, days: float) -> float:
    """Return a lifetime in seconds. Raises `InvalidLifetime`."""
    total = seconds_of("seconds", seconds) + _number_of("days", days, DAY) * DAY
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


def _number_of(name: str, value: Any, unit: int = 1) -> float:
    # Real alone would do, but a check against an abstract class costs a microsecond.
    if isinstance(value, bool) or not isinstance(value, (int, float, Real)):
        raise InvalidLifetime(f"{name} is {value!r}: give it a number")
    number: Any = value
    longest = LONGEST_LIFE // unit
    if not 0 <= number <= longest:  # so is neither NaN nor infinite
        is_huge = isinstance(value, int) and value.bit_length() > 99  # Python may not print it
        shown = "huge" if is_huge else repr(value)
        raise InvalidLifetime(f"{name} is {shown}: use 0 to {longest}")
    return float(number)
