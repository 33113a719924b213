"""The demo, played by itself: ten pictures are drawn over HTTP, and watched until they are gone."""

from __future__ import annotations

import ast
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.cookiejar import CookieJar
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode, urljoin
from urllib.request import HTTPCookieProcessor, Request, build_opener

from redis import Redis

from demo.stack import HTTP_TIMEOUT, SWEEP_INTERVAL, Stack
from demo.supervisor import Pause

ORDERS: tuple[dict[str, str], ...] = (
    {"plot": "sine", "sine-frequency": "3", "sine-amplitude": "1", "sine-phase": "0"},
    {"plot": "damped", "damped-frequency": "2", "damped-damping": "0.6"},
    {"plot": "lissajous", "lissajous-across": "3", "lissajous-up": "4", "lissajous-phase": "90"},
    {"plot": "normal", "normal-mean": "0", "normal-deviation": "1", "normal-sample": "2000"},
    {"plot": "walk", "walk-steps": "400", "walk-walks": "5", "walk-seed": "7"},
) * 2
LIVES = (3, 4, 5, 6, 7, 8, 5, 6, 7, 8)  # seconds
POLL = 0.05  # seconds
# A picture goes with the first sweep after its deadline; the rest is for a machine that is busy.
LATEST = SWEEP_INTERVAL + 3.0  # seconds
FLOWER_TIMEOUT = 10.0  # seconds: Flower hears of a sweep a little after its end
PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Picture:
    name: str
    url: str
    life: int  # seconds
    deadline: float  # seconds since the epoch


class Failed(Exception):
    """Something was not as it should be; the message says what."""


class Scenario:
    """Plays the scenario against the servers of ``stack``, and prints what it sees."""

    def __init__(self, stack: Stack, pause: Pause) -> None:
        self._stack = stack
        self._pause = pause
        self._place = "on S3" if stack.s3 else "on disk"
        self._redis = Redis.from_url(stack.redis_url, decode_responses=True)
        self._cookies = CookieJar()
        self._browser = build_opener(HTTPCookieProcessor(self._cookies))

    def play(self) -> bool:
        """Return whether everything was as promised."""
        try:
            pictures = self._draw_all()
            self._watch_until_gone(pictures)
            self._see_nothing_left(pictures)
            self._read_sweeps_in_flower(len(pictures))
        except Failed as failure:
            print(f"\nFAILED: {failure}", flush=True)
            return False
        print("\nAll as promised.", flush=True)
        return True

    def _draw_all(self) -> list[Picture]:
        _title("Drawn", f"{'picture':<30}{'lives':>6}{'served':>15}")
        self._get(self._stack.address("web"))  # the page sets the cookie against forgery
        return [self._draw(*order) for order in zip(ORDERS, LIVES, strict=True)]

    def _draw(self, order: dict[str, str], seconds: int) -> Picture:
        token = next(cookie.value for cookie in self._cookies if cookie.name == "csrftoken")
        request = Request(  # noqa: S310
            f"{self._stack.address('web')}/plots",
            data=urlencode(order | {"seconds": str(seconds)}).encode(),
            headers={"X-CSRFToken": token or ""},
        )
        with self._browser.open(request, timeout=HTTP_TIMEOUT) as answer:
            drawn = json.load(answer)
        url = urljoin(request.full_url, drawn["url"])
        picture = Picture(drawn["name"], url, seconds, drawn["deadline"])
        self._see(picture)
        return picture

    def _see(self, picture: Picture) -> None:
        body = self._get(picture.url)
        _check(body.startswith(PNG), f"{picture.name} was served, but is no PNG")
        _check(picture.name in self._stack.stored_names(), f"{picture.name} is not {self._place}")
        _check(picture.name in self._recorded_names(), f"{picture.name} has no record in Redis")
        seen = f"{self._place}, in Redis"
        print(f"  {picture.name:<30}{picture.life:>4} s{len(body):>9,} bytes  {seen}", flush=True)

    def _watch_until_gone(self, pictures: list[Picture]) -> None:
        _title(f"Gone from {self._place.removeprefix('on ')}", f"{'picture':<30}{'late by':>9}")
        alive = pictures
        while alive:
            stored = self._stack.stored_names()
            now = time.time()
            for picture in alive:
                _check_gone(picture, picture.name not in stored, now - picture.deadline)
            alive = [picture for picture in alive if picture.name in stored]
            self._pause(POLL)

    def _see_nothing_left(self, pictures: list[Picture]) -> None:
        for picture in pictures:
            self._see_not_found(picture)
        self._wait_until("a record is left in Redis", lambda: not self._recorded_names())
        _title("Left", "")
        print("  over HTTP  404 for each of them\n  in Redis   no record", flush=True)

    def _see_not_found(self, picture: Picture) -> None:
        try:
            self._get(picture.url)
        except HTTPError as answer:
            _check(answer.code == 404, f"{picture.name} is gone, but HTTP says {answer.code}")
        else:
            raise Failed(f"{picture.name} is gone, and is still served")

    def _read_sweeps_in_flower(self, expected: int) -> None:
        self._wait_until(
            f"Flower does not account for {expected} deletions",
            lambda: sum(_result(task)["deleted"] for task in self._sweeps()) == expected,
        )
        _title("Sweeps, as Flower tells", f"{'task':<38}{'state':<9}{'deleted':>8}  worker")
        for task in self._sweeps():
            deleted = f"{_result(task)['deleted']:>8}"
            print(f"  {task['uuid']:<38}{task['state']:<9}{deleted}  {task['worker']}", flush=True)

    def _sweeps(self) -> list[dict[str, Any]]:
        """Those that deleted something, the oldest first."""
        sweeps = [task for task in self._stack.sweeps_in_flower() if _result(task)["deleted"]]
        return sorted(sweeps, key=lambda task: float(task["succeeded"]))

    def _recorded_names(self) -> set[str]:
        """The names in the record store, overdue and claimed ones included."""
        keys = list(self._redis.scan_iter("djpyfs:*", _type="zset"))
        members = [str(member) for key in keys for member in self._redis.zrange(key, 0, -1)]
        return {member.rpartition("\0")[2] for member in members}

    def _get(self, url: str) -> bytes:
        with self._browser.open(url, timeout=HTTP_TIMEOUT) as answer:
            body: bytes = answer.read()
        return body

    def _wait_until(self, trouble: str, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + FLOWER_TIMEOUT
        while not condition():
            _check(time.monotonic() < end, trouble)
            self._pause(POLL)


def _check_gone(picture: Picture, gone: bool, late: float) -> None:
    if gone:
        _check(late >= 0, f"{picture.name} went {-late:.2f} s before its deadline")
        print(f"  {picture.name:<30}{late:>7.2f} s", flush=True)
    _check(late <= LATEST, f"{picture.name} is still there {late:.1f} s after its deadline")


def _result(task: dict[str, Any]) -> dict[str, float]:
    """The report that a sweep returned; Flower shows it as Python would."""
    report: dict[str, float] = ast.literal_eval(task["result"])
    return report


def _check(holds: bool, trouble: str) -> None:
    if not holds:
        raise Failed(trouble)


def _title(title: str, columns: str) -> None:
    print(f"\n{title}\n  {columns}".rstrip(), flush=True)
