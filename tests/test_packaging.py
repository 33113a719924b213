"""What is in the wheel, and that it works in an environment that holds nothing else."""

from __future__ import annotations

import re
import sys
import sysconfig
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.pythons import ROOT, Environment, run

ANCESTOR = "openedx-django-pyfs==4.0.0"
CURE = "install --force-reinstall --no-deps djpyfs"


def test_the_wheel_holds_the_two_packages_with_all_that_they_read(wheel: Path) -> None:
    names = ZipFile(wheel).namelist()
    data = [
        path.relative_to(ROOT)
        for path in ROOT.glob("djpyfs/**/*.*")
        if path.suffix in {".lua", ".html", ".css", ".mo"}
    ]
    assert {path.suffix for path in data} == {".lua", ".html", ".css", ".mo"}
    assert {"djpyfs/py.typed", "djpyfs_tasks/py.typed", *map(str, data)} <= set(names)
    rooms = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert rooms == {"djpyfs", "djpyfs_tasks"}


def test_the_readme_of_the_wheel_links_to_files_of_the_source(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith("/METADATA")]
        links = re.findall(r"\]\(([^)]+)\)", archive.read(name).decode())
    source = re.compile("https://github.com/djpyfs/djpyfs/(?:blob|raw)/main/([^#]+)")
    linked = [found[1] for found in map(source.match, links) if found]
    assert "docs/pictures/demo.png" in linked
    assert [path for path in linked if not (ROOT / path).exists()] == []
    assert [link for link in links if not link.startswith(("https://", "#"))] == []


def test_the_wheel_works_silently_with_the_newest_setuptools_and_without_any(
    wheel: Path, tmp_path: Path
) -> None:
    environment = Environment(tmp_path / "environment")
    environment.install(wheel)
    assert environment.use() == ""
    environment.uninstall("setuptools")
    assert environment.use() == ""


STARTS = """
import django
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

def start_a_worker():
    import djpyfs_tasks

def start_a_site():
    django.setup()
    from djpyfs import djpyfs
    djpyfs.get_filesystem("plots").expire("sine.png", seconds=0)
    assert djpyfs.expire_objects().missing == 1

settings.configure(INSTALLED_APPS=["djpyfs"], DJFS={"type": "memory", "redis_url": "memory://"})
for start in start_a_worker, start_a_site:
    try:
        start()
    except ImproperlyConfigured as error:
        print(error)
    else:
        print("works")
"""


class Site:
    """An environment that finds all that djpyfs needs where the tests find it."""

    def __init__(self, place: Path, wheel: Path) -> None:
        self._environment, self._wheel = Environment(place), wheel
        [self.packages] = place.glob("lib/*/site-packages")
        self.packages.joinpath("needs.pth").write_text(sysconfig.get_path("purelib"))

    def pip(self, command: str) -> None:
        words = command.split()
        self._environment.pip(*(self._wheel if word == "djpyfs" else word for word in words))

    def starts(self) -> list[str]:
        """Return with what a worker and a site start."""
        return self._environment.run("-c", STARTS).splitlines()


@pytest.fixture
def site(wheel: Path, tmp_path: Path) -> Site:
    return Site(tmp_path / "environment", wheel)


def test_both_distributions_work_or_refuse_to_start_in_whatever_order_they_come_and_go(
    site: Site,
) -> None:
    def after(command: str) -> list[str]:
        site.pip(command)
        return site.starts()

    def refused(told: list[str]) -> bool:
        cause, cure = "openedx-django-pyfs", f"pip {CURE}"
        return len(told) == 2 and all(cause in line and cure in line for line in told)

    install = "install --no-deps --no-compile --force-reinstall"
    assert after(f"{install} djpyfs") == ["works", "works"]
    assert refused(after(f"{install} {ANCESTOR}"))
    assert after(CURE) == ["works", "works"]
    assert refused(after("uninstall --yes openedx-django-pyfs"))
    assert after(CURE) == ["works", "works"]


def test_a_site_with_one_file_of_the_other_distribution_refuses_to_start(
    site: Site, tmp_path: Path
) -> None:
    site.pip("install --no-deps --no-compile djpyfs")
    here, elsewhere = site.packages / "djpyfs", tmp_path / "elsewhere"
    site.pip(f"install --no-deps --no-compile --target {elsewhere} {ANCESTOR}")
    for name in "__init__.py", "djpyfs.py", "models.py":
        ours = (here / name).read_bytes()
        (here / name).write_bytes((elsewhere / "djpyfs" / name).read_bytes())
        assert CURE in site.starts()[1], name
        (here / name).write_bytes(ours)
    assert site.starts() == ["works", "works"]


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
