"""The reference lists what there is: no more, and no less."""

from __future__ import annotations

import ast
import inspect
import re
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path

import pytest
from django.dispatch import Signal

import djpyfs
import djpyfs_tasks
from djpyfs import errors, signals
from djpyfs.backends import BUILT_IN, backend_class
from djpyfs.conf import KEYS, SERVICE_KEYS
from djpyfs.filesystem import ExpiringFS
from djpyfs.management.commands.djpyfs import SUB_COMMANDS
from djpyfs.metrics import RecordStoreCollector
from tests.pages import ROOT, first_cells, page, table


def listed(name: str, heading: str) -> list[str]:
    return sorted(first_cells(name, heading))


def test_every_setting_is_listed() -> None:
    of_backends = {key for type_ in BUILT_IN for key in backend_class(type_).options}
    assert listed("reference/settings.md", "key") == sorted(KEYS | of_backends)


def test_the_defaults_of_settings_are_those_listed() -> None:
    rows = table("reference/settings.md", "key")
    told = {key.strip("` "): default.strip("` ") for key, default, _ in rows}
    for key, (_, default) in SERVICE_KEYS.items():
        assert ast.literal_eval(told[key]) == default


def test_every_system_check_is_listed_and_has_an_id_of_its_own() -> None:
    rooms = (path for room in ("djpyfs", "djpyfs_tasks") for path in ROOT.glob(f"{room}/**/*.py"))
    ids = [id_ for path in rooms for id_ in re.findall(r'id="(djpyfs\.\w+)"', path.read_text())]
    assert listed("reference/checks.md", "id") == sorted(ids)
    assert len(ids) == len(set(ids))


def test_every_command_is_listed_with_its_options() -> None:
    rows = {name.strip("` "): does for name, does in table("reference/commands.md", "sub-command")}
    assert rows.keys() == SUB_COMMANDS.keys()
    for name, (describe, _, _) in SUB_COMMANDS.items():
        parser = ArgumentParser(add_help=False)
        describe(parser)
        options = {option for action in parser._actions for option in action.option_strings}
        assert set(re.findall(r"--[a-z-]+", rows[name])) == options, name


def test_the_help_of_the_command_has_one_short_line_for_each_sub_command() -> None:
    for _, _, summary in SUB_COMMANDS.values():
        heading, _, rest = summary.partition(":")
        assert len(heading) < 80
        assert rest


def test_every_error_is_listed_with_its_families() -> None:
    rows = table("reference/errors.md", "error")
    found = {
        name: cls
        for name, cls in vars(errors).items()
        if inspect.isclass(cls) and issubclass(cls, errors.DjpyfsError) and name[0] != "_"
    }
    assert {name.strip("` ") for name, *_ in rows} == found.keys()
    for name, families, _ in rows:
        ancestors = {cls.__name__ for cls in found[name.strip("` ")].__mro__[1:]}
        assert set(re.findall(r"`(\w+)`", families)) <= ancestors


def test_every_signal_is_listed() -> None:
    found = [name for name, it in vars(signals).items() if isinstance(it, Signal)]
    assert listed("reference/signals.md", "signal") == sorted(found)


def test_every_metric_is_listed(djfs: Callable[..., None], tmp_path: Path) -> None:
    djfs(type="osfs", directory_root=tmp_path)
    told = list(RecordStoreCollector().collect())
    names = [f"{it.name}_total" if it.type == "counter" else it.name for it in told]
    assert listed("reference/metrics.md", "metric") == sorted(names)
    text = page("reference/metrics.md")
    for sample in (sample for metric in told for sample in metric.samples):
        for label in sample.labels.values() if "le" not in sample.labels else ():
            assert f"`{label}`" in text


def test_every_method_of_the_filesystem_is_listed() -> None:
    inherited = {name for cls in ExpiringFS.__mro__[1:] for name in vars(cls)}
    own = {name for name in vars(ExpiringFS) if name[0] != "_" and callable(vars(ExpiringFS)[name])}
    assert listed("reference/filesystem.md", "method") == sorted(own - inherited)


@pytest.mark.parametrize("module", [djpyfs, djpyfs_tasks])
def test_every_public_name_is_listed(module: object) -> None:
    text = page("reference/python.md") + page("reference/errors.md")
    names = set(re.findall(r"\w+", text))
    assert set(module.__all__) <= names  # type: ignore[attr-defined]
