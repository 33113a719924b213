"""`python -m demo` as a process, for the tests of the demo and of its page."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.servers import PATIENCE, wait_for

CHECKOUT = Path(__file__).resolve().parent.parent


class Demo:
    """A demo that has said that it is ready."""

    def __init__(self, process: subprocess.Popen[bytes], output: Path) -> None:
        self.process = process
        self._output = output
        wait_for(lambda: "Ctrl-C" in self.output or self._ended(), 2 * PATIENCE, "the demo")
        self.page = self._said("The page")
        self.admin = self._said("The admin")
        self.password = self._said("password")
        self.directory = Path(self._said("The log")).parent

    @property
    def output(self) -> str:
        return self._output.read_text()

    def press_ctrl_c(self) -> None:
        """Do what a terminal does: every process in the foreground gets the signal."""
        os.killpg(self.process.pid, signal.SIGINT)

    def wait(self) -> int:
        return self.process.wait(PATIENCE)

    def processes(self) -> dict[int, str]:
        """The command of every process that the demo has started, by its id."""
        listed = subprocess.run(
            ["ps", "-ww", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True
        )
        family, found = {self.process.pid}, {}
        for line in sorted(listed.stdout.splitlines(), key=lambda line: int(line.split()[0])):
            pid, parent, command = line.split(maxsplit=2)
            if int(parent) in family:
                family.add(int(pid))
                found[int(pid)] = command
        return found

    @property
    def redis_url(self) -> str:
        """Where its records are; the title of the server process says it."""
        [port] = re.findall(r"-server 127\.0\.0\.1:(\d+)", "\n".join(self.processes().values()))
        return f"redis://127.0.0.1:{port}/0"

    def _ended(self) -> bool:
        return self.process.poll() is not None

    def _said(self, label: str) -> str:
        line = re.search(rf"{label} +(\S+)", self.output)
        assert line, self.output
        return line[1]


@contextlib.contextmanager
def running_demo(
    output: Path, environ: dict[str, str] | None = None, *options: str
) -> Iterator[Demo]:
    """Start the demo, wait until it is ready, and stop it at the end if it still runs."""
    with (
        output.open("wb") as file,
        subprocess.Popen(
            [sys.executable, "-m", "demo", *options],
            cwd=CHECKOUT,
            env={**os.environ, **(environ or {})},
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process,
    ):
        try:
            yield Demo(process, output)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGINT)
