"""For how long a backend that is away is left alone."""

from __future__ import annotations

import pytest

from djpyfs import outages
from djpyfs.conf import SECOND


@pytest.fixture
def exports(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(outages, "_since", {})
    return "exports"


def pauses(place: str, monkeypatch: pytest.MonkeyPatch, *times: float) -> list[float]:
    clock = iter(times)
    monkeypatch.setattr("djpyfs.outages.monotonic", lambda: next(clock))
    return [outages.pause(place) / SECOND for _ in times]


def test_a_backend_is_left_alone_for_half_as_long_as_it_has_been_away(
    exports: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert pauses(exports, monkeypatch, 100, 103, 120, 160, 5_000) == [5, 5, 10, 30, 600]


def test_a_backend_that_has_answered_starts_over(
    exports: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses(exports, monkeypatch, 100, 5_000)
    assert outages.is_known(exports)
    outages.end(exports)
    assert not outages.is_known(exports)
    assert pauses(exports, monkeypatch, 5_010) == [5]


def test_a_sweep_soon_stops_asking_and_even_sooner_if_answers_take_long(exports: str) -> None:
    for seconds, times in (0, 3), (2, 2), (13, 1):
        patience = outages.Patience()
        for _ in range(times):
            assert not patience.lost(exports)
            patience.lose(exports, "refused", seconds)
        assert patience.lost(exports) == "refused"


def test_an_answer_gives_a_sweep_its_patience_back(exports: str) -> None:
    patience = outages.Patience()
    for _ in range(10):
        patience.lose(exports, "503", 0)
        patience.lose(exports, "503", 0)
        patience.regain(exports)
        assert not patience.lost(exports)
