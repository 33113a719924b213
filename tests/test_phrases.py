"""How numbers and times are written for people."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from django.utils import translation

from djpyfs.phrases import counted, duration, moment, size


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (0, "0 s"),
        (0.04, "0 s"),
        (-2.34, "2.3 s"),
        (9.96, "10 s"),
        (10.4, "10 s"),
        (59.6, "1 min"),
        (3_661, "1 h 1 min"),
        (86_400, "1 d"),
        (90_061, "1 d 1 h"),
        (-864_000, "10 d"),
    ],
)
def test_a_length_of_time_has_no_more_than_two_units(seconds: float, written: str) -> None:
    assert duration(seconds) == written


def test_tenths_are_written_as_in_the_language_of_the_reader() -> None:
    with translation.override("de"):
        assert (duration(2.34), duration(4)) == ("2,3 s", "4 s")


def test_numbers_are_grouped_and_sizes_have_the_largest_unit() -> None:
    assert [counted(number, "file") for number in (0, 1, 3_000)] == [
        "0 files",
        "1 file",
        "3,000 files",
    ]
    assert [size(number) for number in (1, 300, 10_240, 5 << 30)] == [
        "1 byte",
        "300 bytes",
        "10.0 KB",
        "5.0 GB",
    ]


@pytest.mark.parametrize("use_tz", [True, False])
def test_a_point_in_time_is_that_of_the_site_and_names_its_zone(
    settings: Any, use_tz: bool
) -> None:
    settings.TIME_ZONE, settings.USE_TZ = "Europe/Berlin", use_tz
    assert moment(datetime(2030, 1, 1, 12, tzinfo=UTC)) == "2030-01-01 13:00:00 CET"
