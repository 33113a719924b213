"""``python -m demo`` starts the demo, ``--once`` plays it through, ``--s3`` keeps files on S3."""

from __future__ import annotations

import signal
import sys
import time
from argparse import ArgumentParser, Namespace
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from demo.scenario import Scenario
from demo.stack import ADMIN_PAGE, ADMIN_USER, Stack, healthy
from demo.supervisor import Interrupted, Journal, Pause, Supervisor

START_TIMEOUT = 180  # seconds: a busy machine takes two minutes
POLL = 0.2  # seconds
A_LONG_TIME = 86_400.0  # seconds


def main() -> int:
    """Run the demo and return its exit status."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # until honcho takes over
    with TemporaryDirectory(prefix="djpyfs-demo-") as name:
        directory = Path(name)
        stack = Stack.below(directory, s3=options.s3, usual_ports=not options.once)
        journal = Journal(directory / "log", shown=options.verbose)
        follow = _play if options.once else _stay

        def job(pause: Pause) -> bool:
            return _wait_until_healthy(stack, pause) and follow(stack, pause)

        return Supervisor(job, journal).run(stack.commands(), stack.environ(), directory)


def _options() -> Namespace:
    parser = ArgumentParser(
        prog="python -m demo", description="The demo of djpyfs, on one machine."
    )
    parser.add_argument("--once", action="store_true", help="play the scenario by itself and exit")
    parser.add_argument("--s3", action="store_true", help="keep the files on S3 (moto's server)")
    parser.add_argument("--verbose", action="store_true", help="show what the processes print")
    return parser.parse_args()


def _wait_until_healthy(stack: Stack, pause: Pause) -> bool:
    started = time.monotonic()
    for name, check in stack.checks().items():
        while not healthy(check):
            if time.monotonic() > started + START_TIMEOUT:
                print(f"{name} is not healthy {START_TIMEOUT} s after the start", file=sys.stderr)
                return False
            pause(POLL)
        print(f"  {name:<8} healthy after {time.monotonic() - started:4.1f} s", flush=True)
    return True


def _play(stack: Stack, pause: Pause) -> bool:
    return Scenario(stack, pause).play()


def _stay(stack: Stack, pause: Pause) -> bool:
    print(
        f"""
  The page   {stack.address("web")}/
  The admin  {stack.address("web")}{ADMIN_PAGE}
             user {ADMIN_USER}, password {stack.admin_password}
  Flower     {stack.address("flower")}/
  The log    {stack.directory / "log"}

  Ctrl-C stops everything and leaves nothing behind.
""",
        flush=True,
    )
    with suppress(Interrupted):
        while True:
            pause(A_LONG_TIME)
    return True


if __name__ == "__main__":
    sys.exit(main())
