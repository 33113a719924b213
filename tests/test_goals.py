"""When `make bench` counts a goal as met, and when as explained."""

from __future__ import annotations

import re
from typing import Any

from tests.bench.goals import EXPLANATIONS, Explained, Goal, passes, table
from tests.pages import ROOT

MET = Goal("sweep", "unlink", 1.2, least=1)
MISSED = Goal("sweep", "unlink", 0.5, least=1)


def expire(measured: float, **besides: Any) -> Goal:
    why: dict[str, Any] = {"explained": Explained.VIEWS, "tolerated": 2.0}
    return Goal("expire()", "ZADD", measured, most=1.25, **why, **besides)


def test_a_goal_that_is_missed_fails_the_run_unless_it_is_explained_why() -> None:
    assert passes([MET, expire(1.2), expire(1.5)])
    assert not passes([MET, MISSED])
    *_, met, missed, explained = table([MET, MISSED, expire(1.5)]).splitlines()
    assert met.endswith("ok")
    assert missed.endswith("MISSED")
    assert explained.endswith(f"missed: see {EXPLANATIONS}#{Explained.VIEWS}")


def test_an_explanation_goes_only_so_far_and_is_of_the_figure_alone() -> None:
    assert not passes([expire(2.1)])
    assert not passes([expire(1.5, besides="one round trip", besides_holds=False)])


def test_the_explanations_are_there() -> None:
    headings = re.findall("^#+ (.+)$", (ROOT / EXPLANATIONS).read_text(), re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
    assert anchors >= set(Explained)
