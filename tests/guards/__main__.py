"""``make guards``: takes out one guard after the other, and prints which test went red.

With arguments, only those guards whose name or file holds one of them.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
import tomllib
import traceback
import xml.etree.ElementTree as ElementTree
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path, PurePath
from typing import NoReturn

import pytest

from tests.tables import laid_out

CHECKOUT = Path(__file__).parent.parent.parent
LISTS = Path(__file__).parent
AT_A_TIME = 2
TEST_TIMEOUT = 60  # s, for what hangs without its guard
LEFT_BEHIND = shutil.ignore_patterns(".*", "__pycache__", "build", "dist")
OURS = ("demo", "djpyfs", "djpyfs_tasks", "tests")
# To import these takes longer than most of the tests: a fork has them already.
IMPORTED_ONCE = """djpyfs boto3.session botocore.client celery django.contrib.admin.sites
    django.test fs.test fs_s3fs hypothesis.stateful pytest_django redis.cluster""".split()
HEADINGS = ("guard", "killer", "without the guard")


@dataclass(frozen=True)
class Guard:
    """A guard of the product, and the test that notices when it is gone."""

    name: str
    file: str
    out: str
    put: str
    killer: str

    @property
    def list(self) -> str:
        """Which list has it: that of the directory of its file, or of a module of djpyfs."""
        path = PurePath(self.file)
        room = path.stem if path.parent.name in ("", "djpyfs") else path.parent.name
        return f"{room}.toml"

    def without(self, source: str) -> str:
        """Return the source of its file without it."""
        if (found := source.count(self.out)) != 1:
            sys.exit(f"{self.name!r} is {found} times in {self.file}: correct {self.list}")
        return source.replace(self.out, self.put)


def listed(words: Sequence[str]) -> list[Guard]:
    found = []
    for file in sorted(LISTS.glob("*.toml")):
        for it in tomllib.loads(file.read_text(encoding="utf-8"))["guards"]:
            guard = Guard(it["guard"], it["file"], it["out"], it["in"], it["killer"])
            if guard.list != file.name:
                sys.exit(f"{guard.name!r} stands in {file.name}: put it into {guard.list}")
            guard.without((CHECKOUT / guard.file).read_text(encoding="utf-8"))
            found.append(guard)
    return [g for g in found if not words or any(w in f"{g.name} {g.file}" for w in words)]


class Copy:
    """A copy of the checkout, in which a process at a time runs tests without some guard."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._report = directory / "report.xml"
        shutil.copytree(CHECKOUT, directory, ignore=LEFT_BEHIND)

    def start(self, tests: Sequence[str], guard: Guard | None = None) -> int:
        """Start tests, without a guard, in a new process; return its id."""
        if guard:
            source = (CHECKOUT / guard.file).read_text(encoding="utf-8")
            (self._directory / guard.file).write_text(guard.without(source), encoding="utf-8")
        self._report.unlink(missing_ok=True)
        return os.fork() or self._run(tests)

    def _run(self, tests: Sequence[str]) -> NoReturn:
        options = f"""-q -p no:randomly -p no:cacheprovider --timeout={TEST_TIMEOUT}
            -W ignore::pytest.PytestAssertRewriteWarning""".split()
        try:
            self._move_in()
            pytest.main([*options, f"--junit-xml={self._report}", *tests])
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(0)  # the report tells the rest

    def _move_in(self) -> None:
        os.chdir(self._directory)
        with Path("told.txt").open("w") as told:
            os.dup2(told.fileno(), sys.stdout.fileno())
            os.dup2(told.fileno(), sys.stderr.fileno())
        sys.path[0] = os.environ["PYTHONPATH"] = str(self._directory)
        for name in [name for name in sys.modules if name.partition(".")[0] in OURS]:
            del sys.modules[name]

    def outcomes(self, tests: Sequence[str], guard: Guard | None = None) -> dict[str, str]:
        """Say what became of tests: green, red, or something that tells nothing."""
        if guard:
            shutil.copy(CHECKOUT / guard.file, self._directory / guard.file)
        if not self._report.exists():
            sys.stderr.write((self._directory / "told.txt").read_text())
            return dict.fromkeys(tests, "not to be run")
        cases = list(ElementTree.parse(self._report).iter("testcase"))
        return {test: _outcome([case for case in cases if _is_of(case, test)]) for test in tests}


def _is_of(case: ElementTree.Element, test: str) -> bool:
    path, _, name = test.rpartition("::")
    module = re.sub(r"\.py(::|$)", r"\1", path).replace("/", ".").replace("::", ".")
    whole = case.get("name", "")
    return case.get("classname") == module and name in (whole, whole.partition("[")[0])


def _outcome(cases: Sequence[ElementTree.Element]) -> str:
    if any(case.find("failure") is not None for case in cases):
        return "red"
    if any(case.find("error") is not None for case in cases):
        return "error"
    ran = [case for case in cases if case.find("skipped") is None]
    return "green" if ran else "not run"


def try_without(chosen: Sequence[Guard], free: list[Copy]) -> dict[Guard, str]:
    """Take out each of the guards, as many at a time as there are copies."""
    waiting, running, outcomes = deque(chosen), dict[int, tuple[Guard, Copy]](), {}
    while waiting or running:
        while waiting and free:
            guard, copy = waiting.popleft(), free.pop()
            running[copy.start([guard.killer], guard)] = guard, copy
        ended, _ = os.wait()
        guard, copy = running.pop(ended)
        outcomes[guard] = copy.outcomes([guard.killer], guard)[guard.killer]
        print(f"{outcomes[guard]:8} {guard.name}", file=sys.stderr, flush=True)
        free.append(copy)
    return outcomes


def main(words: Sequence[str]) -> int:
    chosen = listed(words)
    if not chosen:  # pytest would take no tests for all of them
        sys.exit(f"no guard has {' or '.join(words)} in its name or file")
    for name in IMPORTED_ONCE:
        import_module(name)
    killers = sorted({guard.killer for guard in chosen})
    with tempfile.TemporaryDirectory(prefix="djpyfs-guards-") as directory:
        copies = [Copy(Path(directory, str(number))) for number in range(AT_A_TIME)]
        without = try_without(chosen, copies)
        os.waitpid(copies[0].start(killers), 0)
        with_all = copies[0].outcomes(killers)

    rows, proved = [HEADINGS], 0
    for guard in chosen:
        outcome, sound = without[guard], with_all[guard.killer]
        proved += (sound, outcome) == ("green", "red")
        told = outcome if sound == "green" else f"{outcome}, and {sound} with it"
        rows.append((guard.name, guard.killer, told if outcome == "red" else f"{told.upper()}!"))
    print(laid_out(rows))
    print(f"{proved} of {len(chosen)} guards are proved")
    return int(proved < len(chosen))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
