"""What is in the wheel, and that it works in an environment that holds nothing else."""

from __future__ import annotations

import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.pythons import ROOT, Environment, build_wheel, run


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


def test_the_wheel_holds_the_two_packages_with_all_that_they_read(wheel: Path) -> None:
    names = ZipFile(wheel).namelist()
    data = [
        path.relative_to(ROOT)
        for path in ROOT.glob("djpyfs/**/*.*")
        if path.suffix in {".lua", ".html", ".css"}
    ]
    assert {path.suffix for path in data} == {".lua", ".html", ".css"}
    assert {"djpyfs/py.typed", "djpyfs_tasks/py.typed", *map(str, data)} <= set(names)
    rooms = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert rooms == {"djpyfs", "djpyfs_tasks"}


def test_the_wheel_works_silently_with_the_newest_setuptools_and_without_any(
    wheel: Path, tmp_path: Path
) -> None:
    environment = Environment(tmp_path / "environment")
    environment.install(wheel)
    assert environment.use() == ""
    environment.uninstall("setuptools")
    assert environment.use() == ""


PUTS_BACK = """
import sys, types
{before}
held = sys.modules.get("pkg_resources", "nothing")
import djpyfs._pkg_resources
import fs
assert sys.modules.get("pkg_resources", "nothing") is held
assert "s3" in fs.opener.registry.protocols
fs.open_fs("mem://").close()
"""


@pytest.mark.parametrize(
    "before",
    [
        "",
        "sys.modules['pkg_resources'] = None",
        "sys.modules['pkg_resources'] = types.ModuleType('x')",
    ],
    ids=["nothing", "a block", "a module"],
)
def test_importing_leaves_pkg_resources_as_it_was(before: str) -> None:
    assert run(sys.executable, "-W", "error", "-c", PUTS_BACK.format(before=before)) == ""
