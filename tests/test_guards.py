"""The list of guards, which `make guards` takes out one by one."""

from __future__ import annotations

from tests.guards.__main__ import CHECKOUT, listed

INHERITED = "djpyfs/conformance.py"


def test_every_guard_stands_in_the_code_as_the_list_has_it_and_has_a_killer() -> None:
    for guard in listed([]):  # which ends the process where one is not there
        path, *_, name = guard.killer.split("::")
        tests = (CHECKOUT / path).read_text() + (CHECKOUT / INHERITED).read_text()
        assert f"def {name.partition('[')[0]}(" in tests, guard.name
