"""The demo, played by itself over HTTP.

Files are uploaded and handed out by signed links and by one that works once, links are revoked, a
row is deleted, the admin looks at the records, ten pictures are drawn, and all of it is watched
until it is gone.
"""

from __future__ import annotations

import ast
import json
import re
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urljoin

from redis import Redis

from demo.browser import Answer, Browser
from demo.stack import ADMIN_PAGE, ADMIN_USER, SWEEP_INTERVAL, Stack
from demo.supervisor import Pause

ORDERS: tuple[dict[str, str], ...] = (
    {"plot": "sine", "sine-frequency": "3", "sine-amplitude": "1", "sine-phase": "0"},
    {"plot": "damped", "damped-frequency": "2", "damped-damping": "0.6"},
    {"plot": "lissajous", "lissajous-across": "3", "lissajous-up": "4", "lissajous-phase": "90"},
    {"plot": "normal", "normal-mean": "0", "normal-deviation": "1", "normal-sample": "2000"},
    {"plot": "walk", "walk-steps": "400", "walk-walks": "5", "walk-seed": "7"},
) * 2
LIVES = (5, 6, 7, 8, 5, 6, 7, 8, 5, 6)  # seconds
# What is uploaded, whether a browser shows it or saves it, and how many seconds it lives.
UPLOADS = {
    "notes.txt": (b"To be gone soon.", "inline", 10),
    "page.html": (b"<script>alert(document.domain)</script>", "attachment", 10),
    "drawing.svg": (
        b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>",
        "attachment",
        10,
    ),
    "draft.txt": (b"To be gone with its row.", "inline", 60),
}
GRACE = 10  # seconds for which a file lives at most when its row is deleted, see demo/settings.py
AT_ONCE = 8  # requests for a link that works once
POLL = 0.05  # seconds
# A file goes with the first sweep after its deadline; the rest is for a machine that is busy.
LATEST = SWEEP_INTERVAL + 18.0  # seconds
FLOWER_TIMEOUT = 30.0  # seconds: Flower hears of a sweep a little after its end
LATE = "-uploads"
# How the keys end that hold records waiting for something, or being deleted.
WAITING = ":due", ":retries", ":suspects", ":claimed"
PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Kept:
    """A file that the site keeps until its deadline."""

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
        self._browser = self._new_browser()

    def _new_browser(self) -> Browser:
        return Browser(self._stack.address("web"))

    def play(self) -> bool:
        """Return whether everything was as promised."""
        try:
            self._browser.get("/")  # the page sets the cookie against forgery
            self._log_in()
            files = self._upload_all()
            self._use_a_one_time_link(next(iter(UPLOADS)), files[0])
            files[-1] = self._delete_row(self._revoke_links(files[-1]))
            self._ask_admin("Tracked", len(files))
            files += self._draw_all()
            self._watch_until_gone(files)
            self._see_nothing_left(files)
            self._read_sweeps_in_flower(len(files))
            self._ask_admin("Tracked", 0)
        except Failed as failure:
            print(f"\nFAILED: {failure}", flush=True)
            return False
        print("\nAll as promised.", flush=True)
        return True

    def _log_in(self) -> None:
        asked = self._browser.get(ADMIN_PAGE)
        _check("/login/" in asked.url, "the admin page is open to strangers")
        form = {"username": ADMIN_USER, "password": self._stack.admin_password}
        page = self._browser.post(asked.url, form)
        _check(page.url.endswith(ADMIN_PAGE), "the admin does not let its user in")

    def _upload_all(self) -> list[Kept]:
        _title("Uploaded", f"{'file':<30}{'lives':>6}  its signed link")
        for address in "/uploads/begin", "/uploads/end":
            forged = self._new_browser().post(address, {})
            _check(forged.status == 403, f"{address} takes forms without the token against forgery")
        return [self._upload(name) for name in UPLOADS]

    def _upload(self, name: str) -> Kept:
        content, disposition, seconds = UPLOADS[name]
        told = {"file": name, "size": str(len(content)), "seconds": str(seconds)}
        form = {f"upload-{field}": value for field, value in told.items()}
        target = json.loads(self._browser.post("/uploads/begin", form).body)
        sent = self._new_browser().send(target, name, content)
        _check(sent.status in (201, 204), f"{name} was sent, and {sent.url} says {sent.status}")
        kept = _kept(self._browser.post("/uploads/end", {"receipt": target["receipt"]}))
        answer = self._new_browser().get(kept.url)
        _check(answer.body == content, f"the signed link to {name} brings something else")
        _check_safeguards(kept, answer, disposition)
        forged = self._new_browser().get(kept.url[:-1] + ("A" if kept.url[-1] != "A" else "B"))
        _check(forged.status == 404, f"a forged link to {name} gets {forged.status}")
        print(f"  {name:<30}{kept.life:>4} s  {disposition}; forged: 404", flush=True)
        return kept

    def _use_a_one_time_link(self, name: str, kept: Kept) -> None:
        """Ask for it several times at once, and once more."""
        address = self._card(kept)["one_time_link"]
        url = json.loads(self._browser.post(address, {}).body)["url"]
        with ThreadPoolExecutor(AT_ONCE) as visitors:
            answers = list(visitors.map(lambda _: self._new_browser().get(url), range(AT_ONCE)))
        answers.append(self._new_browser().get(url))
        count = Counter(answer.status for answer in answers)
        _check(count == {200: 1, 404: AT_ONCE}, f"a one-time link answers {dict(count)}")
        bodies = [answer.body for answer in answers if answer.status == 200]
        _check(bodies == [UPLOADS[name][0]], "a one-time link brings something else")
        _title("One-time link", f"{AT_ONCE} visitors at once, and one after them")
        print(f"  {name} once, 404 for the {AT_ONCE} others", flush=True)

    def _revoke_links(self, kept: Kept) -> Kept:
        renewed = _kept(self._browser.post(self._card(kept)["revoke_links"], {}))
        statuses = [self._new_browser().get(link).status for link in (kept.url, renewed.url)]
        _check(statuses == [404, 200], f"a revoked link and a new one get {statuses}")
        _title("Links revoked", "")
        print(f"  {kept.name:<46}the old one: 404, the new one: 200", flush=True)
        return renewed

    def _delete_row(self, kept: Kept) -> Kept:
        """See a row go at once, and its file have little time left."""
        rows = self._rows()
        answer = self._browser.post(self._card(kept)["delete_row"], {})
        _check(answer.status == 200, f"{answer.url} answers {answer.status}")
        _check(self._rows() == rows - 1, f"the row of {kept.name} is still there")
        left = json.loads(answer.body)["deadline"] - time.time()
        _check(left <= GRACE, f"{kept.name} has no row, and {left:.1f} s left")
        _check(kept.name in self._stack.stored_names(), f"{kept.name} went at once")
        _title("Row deleted", "")
        print(f"  {kept.name:<46}its file goes within {GRACE} s, not {kept.life} s", flush=True)
        return replace(kept, deadline=json.loads(answer.body)["deadline"])

    def _ask_admin(self, number: str, expected: int) -> None:
        """Read the numbers on the page of djpyfs."""
        page = self._browser.get(ADMIN_PAGE)
        shown = dict(re.findall(r"<dt>(.+?)</dt><dd><strong>(.+?)</strong>", page.body.decode()))
        _title("Admin page", "  ".join(shown))
        _check(shown.get(number) == str(expected), f"{number} should be {expected}: {shown}")
        print("  " + "  ".join(f"{shown[name]:>{len(name)}}" for name in shown), flush=True)

    def _draw_all(self) -> list[Kept]:
        _title("Drawn", f"{'picture':<30}{'lives':>6}{'served':>15}")
        return [self._draw(*order) for order in zip(ORDERS, LIVES, strict=True)]

    def _draw(self, order: dict[str, str], seconds: int) -> Kept:
        picture = _kept(self._browser.post("/plots", order | {"seconds": str(seconds)}))
        body = self._browser.get(picture.url).body
        _check(body.startswith(PNG), f"{picture.name} was served, but is no PNG")
        _check(picture.name in self._stack.stored_names(), f"{picture.name} is not {self._place}")
        _check(picture.name in self._recorded_names(), f"{picture.name} has no record in Redis")
        seen = f"{self._place}, in Redis"
        print(f"  {picture.name:<30}{picture.life:>4} s{len(body):>9,} bytes  {seen}", flush=True)
        return picture

    def _watch_until_gone(self, files: list[Kept]) -> None:
        _title(f"Gone from {self._place.removeprefix('on ')}", f"{'file':<30}{'late by':>9}")
        alive, began = files, time.time()
        while alive:
            stored = self._stack.stored_names()
            now = time.time()
            for file in alive:
                _check_gone(file, file.name not in stored, now, began)
            alive = [file for file in alive if file.name in stored]
            self._pause(POLL)

    def _see_nothing_left(self, files: list[Kept]) -> None:
        for file in files:
            self._see_not_found(file)
        self._wait_until("a record is left in Redis", lambda: not self._recorded_names())
        self._wait_until("a row is left in the database", lambda: not self._rows())
        _title("Left", "")
        print("  over HTTP  404 for each of them\n  in Redis   no record", flush=True)
        print("  in SQLite  no row of an upload", flush=True)

    def _see_not_found(self, file: Kept) -> None:
        status = self._browser.get(file.url).status
        _check(status == 404, f"{file.name} is gone, but HTTP says {status}")

    def _read_sweeps_in_flower(self, expected: int) -> None:
        self._wait_until(
            f"Flower does not account for {expected} deletions",
            lambda: sum(_result(task)["deleted"] for task in self._sweeps()) == expected,
        )
        _title("Sweeps, as Flower shows them", f"{'task':<38}{'state':<9}{'deleted':>8}  worker")
        for task in self._sweeps():
            deleted = f"{_result(task)['deleted']:>8}"
            print(f"  {task['uuid']:<38}{task['state']:<9}{deleted}  {task['worker']}", flush=True)

    def _sweeps(self) -> list[dict[str, Any]]:
        """Those that deleted something, the oldest first."""
        sweeps = [task for task in self._stack.sweeps_in_flower() if _result(task)["deleted"]]
        return sorted(sweeps, key=lambda task: float(task["succeeded"]))

    def _recorded_names(self) -> set[str]:
        """The names in the record store, overdue and claimed ones included.

        A record that has a sweep look for a late upload is not the record of a file.
        """
        found = self._redis.scan_iter("djpyfs:*", _type="zset")
        keys = [key for key in found if key.endswith(WAITING) and LATE not in key]
        members = [str(member) for key in keys for member in self._redis.zrange(key, 0, -1)]
        return {member.rpartition("/")[2] for member in members}

    def _rows(self) -> int:
        """How many uploads the site has in its database."""
        with closing(sqlite3.connect(self._stack.database)) as database:
            [(count,)] = database.execute("SELECT count(*) FROM demo_upload")
        return int(count)

    def _card(self, kept: Kept) -> dict[str, Any]:
        """What the page gets about an upload."""
        uploads: list[dict[str, Any]] = json.loads(self._browser.get("/state").body)["uploads"]
        [card] = [upload for upload in uploads if upload["name"] == kept.name]
        return card

    def _wait_until(self, trouble: str, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + FLOWER_TIMEOUT
        while not condition():
            _check(time.monotonic() < end, trouble)
            self._pause(POLL)


def _kept(answer: Answer) -> Kept:
    """What the site says that it has made."""
    _check(answer.status == 201, f"{answer.url} answers {answer.status}")
    made = json.loads(answer.body)
    return Kept(made["name"], urljoin(answer.url, made["url"]), made["life"], made["deadline"])


def _check_safeguards(kept: Kept, answer: Answer, disposition: str) -> None:
    headers = answer.headers
    [life] = re.findall(r"^private, max-age=(\d+)$", headers["Cache-Control"]) or [kept.life + 1]
    safeguards = {
        "Content-Disposition": headers["Content-Disposition"].startswith(f"{disposition};"),
        "Content-Security-Policy": headers["Content-Security-Policy"].startswith("sandbox;"),
        "X-Content-Type-Options": headers["X-Content-Type-Options"] == "nosniff",
        "Cache-Control": int(life) <= kept.life,
    }
    for header, holds in safeguards.items():
        _check(holds, f"the link to {kept.name} says {header}: {headers[header]}")


def _check_gone(file: Kept, gone: bool, now: float, began: float) -> None:
    late, seen_late = now - file.deadline, now - max(file.deadline, began)
    if gone:
        _check(late >= 0, f"{file.name} went {-late:.2f} s before its deadline")
        print(f"  {file.name:<30}{late:>7.2f} s", flush=True)
    _check(seen_late <= LATEST, f"{file.name} is still there {late:.1f} s after its deadline")


def _result(task: dict[str, Any]) -> dict[str, float]:
    """The report that a sweep returned; Flower shows it as Python would."""
    report: dict[str, float] = ast.literal_eval(task["result"])
    return report


def _check(holds: bool, trouble: str) -> None:
    if not holds:
        raise Failed(trouble)


def _title(title: str, columns: str) -> None:
    print(f"\n{title}\n  {columns}".rstrip(), flush=True)
