"""Runs processes under honcho, with one job beside them; when one of them ends, all end."""

from __future__ import annotations

import shlex
import sys
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Event, Thread, Timer
from traceback import print_exc

from honcho.manager import Manager
from honcho.printer import Message, Printer

LAST_LINES = 30
ALL_STARTED_POLL = 0.1  # seconds
WHILE_DYING = 1.0  # seconds: a server that dies may fail its clients before honcho notices

Pause = Callable[[float], None]


class Interrupted(Exception):
    """The processes are being stopped: the job must end too."""


class Journal(Printer):  # type: ignore[misc]  # honcho has no types
    """Keeps what the processes print in a file, and shows it if that is wanted."""

    def __init__(self, path: Path, *, shown: bool) -> None:
        super().__init__(path.open("a", encoding="utf-8"))
        self._screen = Printer(sys.stdout) if shown else None
        self.path = path

    def write(self, message: Message) -> None:
        """Take in what a process has printed."""
        super().write(message)
        if self._screen:
            self._screen.width = self.width
            self._screen.write(message)

    def last_lines(self) -> str:
        """What was printed last."""
        with self.path.open(encoding="utf-8") as lines:
            return "".join(deque(lines, LAST_LINES))


class Supervisor(Manager):  # type: ignore[misc]  # honcho has no types
    """Starts processes, does a job while they run, and stops them when the job is done.

    The job gets a function that sleeps for so many seconds, and that raises `Interrupted` as soon
    as the processes are being stopped: on SIGINT or SIGTERM, or because one of them has ended.
    """

    def __init__(self, job: Callable[[Pause], bool], journal: Journal) -> None:
        super().__init__(journal)
        self._job = job
        self._journal = journal
        self._worker = Thread(target=self._work)
        self._stopping = Event()
        self._ended_early: list[str] = []
        self._succeeded: bool | None = None  # None: interrupted

    def run(self, commands: Mapping[str, list[str]], environ: dict[str, str], cwd: Path) -> int:
        """Run until the job is done, and return an exit status."""
        for name, arguments in commands.items():
            # honcho starts a shell; with exec, none stays between us and the process.
            self.add_process(name, f"exec {shlex.join(arguments)}", env=environ, cwd=str(cwd))
        self.loop()
        self._worker.join()
        if self._succeeded is None and not self._ended_early:
            return int(self.returncode or 1)  # a signal, as honcho has noted it
        if self._succeeded and not self._ended_early:
            return 0
        self._explain()
        return 1

    def _explain(self) -> None:
        print(self._journal.last_lines(), file=sys.stderr)
        if self._ended_early:
            names = " and ".join(self._ended_early)
            print(f"Everything was stopped, because {names} ended unasked.", file=sys.stderr)

    def _start(self) -> None:
        super()._start()  # forks, so no thread may run before
        self._worker.start()

    def _work(self) -> None:
        try:
            self._succeeded = self._job(self._pause)
        except Interrupted:
            pass
        except Exception:
            if not self._stopping.wait(WHILE_DYING):  # or it only met processes that stop
                print_exc()
                self._succeeded = False
        self.terminate()

    def _pause(self, seconds: float) -> None:
        if self._stopping.wait(seconds):
            raise Interrupted

    def terminate(self) -> None:
        """Stop everything. Called by honcho too: on a signal, and when a process has ended."""
        if not self._all_started():  # honcho does not know yet whom to stop
            again = Timer(ALL_STARTED_POLL, self.terminate)
            again.daemon = True
            again.start()
            return
        if not self._stopping.is_set():
            self._ended_early = [n for n, p in self._processes.items() if "returncode" in p]
            self._stopping.set()
        super().terminate()
