"""How numbers, sizes and times are written for people, in the shell and in the admin."""

from __future__ import annotations

from datetime import datetime

from django.template.defaultfilters import filesizeformat
from django.utils.formats import number_format
from django.utils.timezone import localtime

PRECISE = 10  # s, below which tenths are shown


def counted(number: int, noun: str, nouns: str = "") -> str:
    """Return ``1 file`` or ``3,000 files``; ``nouns`` is the plural if it is not regular."""
    return f"{number:,} {noun if number == 1 else nouns or f'{noun}s'}"


def size(number: int) -> str:
    """Return a number of bytes in its largest unit."""
    return filesizeformat(number).replace("\xa0", " ")


def moment(when: datetime) -> str:
    """Return a point in time, to the second, in the time zone of the site, which it names."""
    return f"{localtime(when):%Y-%m-%d %H:%M:%S %Z}"


def duration(seconds: float) -> str:
    """Return a length of time in its two largest units, whatever its sign."""
    if abs(seconds) < PRECISE:
        tenths = round(abs(float(seconds)), 1)
        return f"{number_format(int(tenths) if tenths.is_integer() else tenths)} s"
    left = round(abs(seconds))
    parts = []
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        count, left = divmod(left, length)
        parts.append((count, unit))
    first = next(place for place, (count, _) in enumerate(parts) if count)
    return " ".join(f"{count} {unit}" for count, unit in parts[first : first + 2] if count)
