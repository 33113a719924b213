"""The list of guards, which `make guards` takes out one by one."""

from __future__ import annotations

from functools import reduce
from importlib import import_module

from tests.guards.__main__ import listed


def test_every_guard_stands_in_the_code_as_the_list_has_it_and_has_a_killer() -> None:
    for guard in listed([]):  # which ends the process where one is not there
        path, *names = guard.killer.partition("[")[0].split("::")
        module = import_module(path.removesuffix(".py").replace("/", "."))
        assert callable(reduce(getattr, names, module)), guard.name
