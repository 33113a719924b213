"""The management command, as a shell or a program meets it."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from djpyfs import expire_objects, get_filesystem
from djpyfs.filesystem import ExpiringFS
from djpyfs.management.console import ERASE, Console
from djpyfs_tasks.timekeeper import Timekeeper
from tests.conftest import counted, records_here
from tests.servers import RedisServer


@pytest.fixture
def plots(djfs: Callable[..., None], records: dict[str, Any]) -> ExpiringFS:
    """A filesystem in which names that begin with ``bad`` cannot be removed."""
    djfs(type="tests.test_sweep.BrittleBackend", max_attempts=1, **records)
    return get_filesystem("plots")


def fill(filesystem: ExpiringFS, *names: str, seconds: float = 0) -> None:
    for name in names:
        filesystem.writebytes(name, b"picture")
    filesystem.expire_many(names, seconds)


def djpyfs(*arguments: str, amiss: bool = False) -> str:
    """Return what the command writes to standard output; with ``amiss`` it ends with 1."""
    out = StringIO()
    try:
        call_command("djpyfs", *arguments, stdout=out, stderr=StringIO())
    except CommandError as error:
        if not amiss or error.returncode != 1:
            raise
    else:
        assert not amiss
    return out.getvalue()


def read(*arguments: str, amiss: bool = False) -> Any:
    return json.loads(djpyfs(*arguments, "--format", "json", amiss=amiss))


def noted(*arguments: str) -> str:
    """Return what the command notes beside its output."""
    err = StringIO()
    call_command("djpyfs", *arguments, stdout=StringIO(), stderr=err)
    return err.getvalue()


def refused(*arguments: str) -> CommandError:
    with pytest.raises(CommandError) as caught:
        djpyfs(*arguments)
    return caught.value


def test_sweep_deletes_what_is_overdue_and_reports_it(plots: ExpiringFS) -> None:
    fill(plots, "a", "b")
    fill(plots, "later", seconds=100)
    assert read("sweep")["deleted"] == 2
    assert plots.listdir("/") == ["later"]
    assert "0 deleted" in djpyfs("sweep")


def test_sweep_keeps_to_its_limit(plots: ExpiringFS) -> None:
    fill(plots, *"abcd")
    report = read("sweep", "--limit", "3", "--seconds", "60")
    assert (report["deleted"], report["remaining"]) == (3, 1)


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_how_far_the_work_has_got_and_is_left_clean(
    djfs: Callable[..., None],
) -> None:
    djfs(type="memory", batch_size=2)
    watched, piped = Terminal(), StringIO()
    for err in watched, piped:
        fill(get_filesystem("plots"), *"abc")
        call_command("djpyfs", "sweep", stdout=StringIO(), stderr=err)
    lines = watched.getvalue().split(ERASE)
    assert [line for line in lines if line] == ["2 done, 0 failed", "3 done, 0 failed"]
    assert lines[-1] == ""
    assert piped.getvalue() == ""


def test_sweep_ends_with_1_if_a_deletion_failed(plots: ExpiringFS) -> None:
    fill(plots, "bad", "good")
    assert refused("sweep").returncode == 1
    assert plots.listdir("/") == ["bad"]


def test_sweep_ends_with_1_if_a_backend_is_away(djfs: Callable[..., None]) -> None:
    djfs(type="tests.test_sweep.AwayBackend")
    fill(get_filesystem("plots"), "a", "b")
    why = "because their backend is away, or who owns them is not known"
    assert f"postponed, {why}: 2" in str(refused("sweep"))
    assert why.removeprefix("because ") in djpyfs("status")


def test_a_dry_run_says_what_would_go_and_deletes_nothing(plots: ExpiringFS) -> None:
    fill(plots, "a", "b")
    fill(get_filesystem("memos"), "a")
    fill(plots, "later", seconds=100)
    assert read("sweep", "--dry-run") == {
        "files": 3,
        "sampled": 3,
        "held": 0,
        "bytes": 3 * len(b"picture"),
        "unmeasured": 0,
        "requests": {"files": 3, "records": 4},
        "by_namespace": {"plots": 2, "memos": 1},
        "more": 0,
        "unreadable": [],
    }
    assert read("sweep", "--dry-run", "--limit", "1")["files"] == 1
    text = djpyfs("sweep", "--dry-run")
    assert "3 files overdue\n21 bytes\n" in text
    assert "  FILES  NAMESPACE\n  2      plots\n" in text
    assert expire_objects().deleted == 3
    assert djpyfs("sweep", "--dry-run") == ""
    assert noted("sweep", "--dry-run") == "Nothing is overdue.\n"


@pytest.mark.parametrize(
    ("place", "unmeasured"),
    [
        ({"type": "osfs"}, 0),
        ({"type": "storage", "alias": "disk"}, 0),
        ({"type": "storage", "alias": "memory"}, 3),
        ({"type": "opener", "url": "mem://"}, 0),
    ],
    ids=str,
)
def test_a_dry_run_measures_what_needs_no_network(
    djfs: Callable[..., None],
    settings: Any,
    tmp_path: Path,
    place: dict[str, str],
    unmeasured: int,
) -> None:
    storages = "django.core.files.storage"
    settings.STORAGES = {
        "disk": {"BACKEND": f"{storages}.FileSystemStorage", "OPTIONS": {"location": tmp_path}},
        "memory": {"BACKEND": f"{storages}.InMemoryStorage"},
    }
    djfs(**place, directory_root=tmp_path)
    plots = get_filesystem("plots")
    fill(plots, "a", "b")
    plots.expire("gone", 0)
    found = read("sweep", "--dry-run")
    assert (found["bytes"], found["unmeasured"]) == (0 if unmeasured else 14, unmeasured)
    told = f"the size of {unmeasured} is unknown" in djpyfs("sweep", "--dry-run")
    assert told == bool(unmeasured)


def test_a_dry_run_estimates_if_there_are_very_many(djfs: Callable[..., None]) -> None:
    djfs(type="memory", batch_size=1_000)
    plots = get_filesystem("plots")
    fill(plots, *(f"a {number}" for number in range(10)), seconds=0)
    plots.expire_many([str(number) for number in range(29_990)], 0)
    found = read("sweep", "--dry-run")
    assert (found["files"], found["sampled"]) == (30_000, 10_000)
    assert found["bytes"] == 3 * 10 * len(b"picture")
    assert found["requests"] == {"files": 30_000, "records": 33}
    text = djpyfs("sweep", "--dry-run")
    assert "about 30,000 requests" in text
    assert "about 210 bytes" in text
    assert "Namespaces of the 10,000 that were looked at:" in text


def test_a_dry_run_looks_at_what_is_overdue_for_longest_in_whichever_place_that_is(
    djfs: Callable[..., None], records: dict[str, Any], tmp_path: Path
) -> None:
    elsewhere = {"type": "osfs", "directory_root": tmp_path}
    djfs(type="memory", **records, namespaces={"plots": elsewhere})
    for namespace in "plots", "memos":
        fill(get_filesystem(namespace), "a", "b")
    found = read("sweep", "--dry-run", "--limit", "3")
    assert (found["sampled"], found["by_namespace"]) == (3, {"plots": 2, "memos": 1})


def test_namespaces_that_a_list_leaves_out_are_counted(djfs: Callable[..., None]) -> None:
    djfs(type="memory")
    for number in range(60):
        get_filesystem(f"n{number}").expire("a", 0)
    for found in read("sweep", "--dry-run"), read("status")["namespaces"]:
        assert found["more"] == 40
    for text in djpyfs("sweep", "--dry-run"), djpyfs("status"):
        assert text.endswith("  ... and 40 more namespaces\n")
    assert "  ... and 57 more files\n" in djpyfs("status", "--next", "3")


def test_a_dry_run_says_what_is_on_hold(djfs: Callable[..., None]) -> None:
    djfs(type="memory", namespaces={"kept": {"hold": True}})
    for namespace in "kept", "plots":
        fill(get_filesystem(namespace), "a")
    found = read("sweep", "--dry-run")
    assert (found["held"], found["by_namespace"]) == (1, {"plots": 1})
    assert (found["bytes"], found["requests"]["files"]) == (len(b"picture"), 1)


def test_status_counts_and_shows_the_next_deadlines(plots: ExpiringFS) -> None:
    fill(plots, "bad")
    expire_objects()
    fill(plots, "late")
    fill(plots, "soon", seconds=500)
    fill(plots, "later", seconds=1_000)
    found = read("status", "--next", "2", amiss=True)
    assert [found[key] for key in ("tracked", "overdue", "claimed", "set_aside")] == [3, 1, 0, 1]
    assert [file["path"] for file in found["next_deadlines"]] == ["late", "soon"]
    assert 0 < found["oldest_overdue"] < 60
    assert -60 < found["next_deadlines"][0]["remaining"] < 0
    assert 400 < found["next_deadlines"][1]["remaining"] <= 500
    text = djpyfs("status", amiss=True)
    assert re.search(r"^overdue +1  the oldest for \d+(\.\d)? s$", text, re.M)
    assert "DEADLINE" in text
    assert "later" in text


def test_status_says_when_nobody_keeps_time(plots: ExpiringFS) -> None:
    plots.touch("a")
    assert read("status")["punctual"] is False
    assert "Nobody keeps time" in djpyfs("status")
    Timekeeper("worker", lambda: None).look()
    assert read("status")["punctual"] is True
    assert "Nobody keeps time" not in djpyfs("status")


def test_status_and_ls_show_files_that_wait_for_a_retry(
    djfs: Callable[..., None], records: dict[str, Any]
) -> None:
    away = {"type": "tests.test_sweep.AwayBackend"}
    held = {"hold": True}
    brittle = "tests.test_sweep.BrittleBackend"
    djfs(type=brittle, namespaces={"held": held, "away": away}, **records)
    for namespace in "plots", "held", "away":
        fill(get_filesystem(namespace), "bad")
    expire_objects()
    found = read("status")
    states = "overdue", "retried", "held", "postponed"
    assert [found[state] for state in states] == [3, 1, 1, 1]
    assert 0 < found["oldest_overdue"] < 60
    for namespace, state in ("plots", "retried"), ("held", "held"), ("away", "postponed"):
        [file] = read("ls", namespace)["files"]
        assert (file["state"], file["remaining"] < 0) == (state, True)
        assert state in djpyfs("ls", namespace)


def test_status_shows_in_which_namespaces_the_records_are(plots: ExpiringFS) -> None:
    fill(plots, "a", "b", seconds=100)
    for namespace in "usage/x", "usage/y", "usage/y/z":
        fill(get_filesystem(namespace), "a", seconds=100)
    assert read("status")["namespaces"] == {
        "records": 5,
        "complete": True,
        "by_prefix": {
            "usage/*": {"files": 3, "overdue": 0, "set_aside": 0},
            "plots": {"files": 2, "overdue": 0, "set_aside": 0},
        },
        "more": 0,
    }
    fill(plots, "bad")
    expire_objects()
    fill(plots, "late")
    assert read("status", amiss=True)["namespaces"]["by_prefix"]["plots"] == {
        "files": 4,
        "overdue": 1,
        "set_aside": 1,
    }
    assert "FILES  OVERDUE  SET ASIDE  NAMESPACE\n" in djpyfs("status", amiss=True)


def test_status_samples_if_there_are_very_many(
    djfs: Callable[..., None], records: dict[str, Any]
) -> None:
    djfs(type="memory", **records)
    get_filesystem("plots").expire_many([str(number) for number in range(30_000)], 100)
    found = read("status")["namespaces"]
    assert not found["complete"]
    assert 10_000 < found["records"] < 30_000
    assert "Namespaces, by a look at " in djpyfs("status")


def test_status_of_nothing(plots: ExpiringFS) -> None:
    assert read("status")["next_deadlines"] == []
    assert "Next" not in djpyfs("status")


@pytest.fixture
def spread(djfs: Callable[..., None], redis_server: RedisServer) -> ExpiringFS:
    """Files whose records are in two shards."""
    own = {"redis_url": redis_server.url, "key_prefix": uuid.uuid4().hex}
    djfs(type="memory", shards=2, **own)
    filesystem = get_filesystem("plots")
    filesystem.expire_many([f"{number}" for number in range(50)], 100)
    return filesystem


def test_reshard_moves_records_and_says_what_it_did(spread: ExpiringFS) -> None:
    deadline = spread.expiration("7")
    assert read("reshard", "5", "--dry-run") == {"shards": 2, "soon": 5, "files": 50, "moving": 40}
    assert "From 2 to 5 shards" in djpyfs("reshard", "5", "--dry-run")
    assert 30 < read("reshard", "5")["moved"] < 50
    assert "over 5 shards already" in djpyfs("reshard", "5", "--dry-run")
    assert djpyfs("reshard", "5").startswith("0 files moved")
    assert spread.expiration("7") == deadline


def stopped(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> CommandError:
    """What a command says when somebody presses Ctrl-C at its first sign of progress."""
    # If the tests run in the background of a shell, Ctrl-C is ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with monkeypatch.context() as patched:
        patched.setattr(Console, "progress", lambda *_: os.kill(os.getpid(), signal.SIGINT))
        told = refused(*arguments)
    signal.signal(signal.SIGINT, before)
    return told


@pytest.mark.parametrize("arguments", [["audit"], ["sweep"]], ids=" ".join)
def test_a_command_that_is_stopped_says_so_in_one_line(
    plots: ExpiringFS, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    plots.writebytes("a", b"picture")
    plots.expire("a", 0)
    told = stopped(monkeypatch, *arguments)
    assert (told.returncode, str(told).partition(":")[0]) == (2, "stopped")


def test_reshard_can_be_stopped_and_status_says_how_to_go_on(
    spread: ExpiringFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = read("reshard", "5")["moved"]
    told = stopped(monkeypatch, "reshard", "3")
    assert (told.returncode, "djpyfs reshard 3' moves the others" in str(told)) == (2, True)
    assert "from 5 to 3 shards: 'manage.py djpyfs reshard 3'" in djpyfs("status")
    assert (read("status")["shards"], read("status")["shards_soon"]) == (5, 3)
    assert "reshard 3' finish first" in str(refused("reshard", "4"))
    assert 0 < read("reshard", "3")["moved"] <= moved
    assert "reshard" not in djpyfs("status")


@pytest.mark.parametrize("shards", ["0", "1025", "few"])
def test_reshard_refuses_a_bad_number_of_shards(spread: ExpiringFS, shards: str) -> None:
    assert shards in str(refused("reshard", shards))


def test_ls_lists_the_records_below_a_namespace(plots: ExpiringFS) -> None:
    fill(plots, "later", seconds=100)
    fill(plots, "soon", seconds=50)
    fill(get_filesystem("plots/x"), "other", seconds=75)
    fill(get_filesystem("plotsy"), "elsewhere", seconds=60)
    for where in "plots", "plots/*":
        found = read("ls", where)
        assert [file["path"] for file in found["files"]] == ["soon", "other", "later"]
        assert found["complete"]
    assert [file["namespace"] for file in read("ls", "plots/x")["files"]] == ["plots/x"]
    assert len(read("ls")["files"]) == 4
    headings, first, *_ = djpyfs("ls", "plots").splitlines()
    assert headings.split() == ["DEADLINE", "REMAINING", "NAMESPACE", "FILE"]
    assert re.fullmatch(r"2\d+-\d\d-\d\d [\d:]+ \S+ +in \d+ s +plots +soon", first)


@pytest.mark.parametrize("asked", [("ls", "plots"), ("failed",), ("sweep", "--dry-run")], ids=str)
def test_an_empty_list_says_so(plots: ExpiringFS, asked: tuple[str, ...]) -> None:
    assert djpyfs(*asked) == ""
    assert noted(*asked).startswith("No")


def test_ls_says_that_there_may_be_more(plots: ExpiringFS) -> None:
    fill(plots, *"abc", seconds=100)
    assert "may be more" in noted("ls", "plots", "--limit", "2")


def test_expire_sets_and_removes_deadlines(plots: ExpiringFS) -> None:
    djpyfs("expire", "plots", "a", "b", "--seconds", "50", "--days", "1")
    before = counted()
    assert before.tracked == 2
    assert read("expire", "plots", "a", "--never") == {"a": None}
    assert plots.expiration("a") is None
    assert plots.expiration("b")


@pytest.mark.parametrize(
    "choice", [(), ("--never", "--seconds", "0"), ("--never", "--days", "1")], ids=str
)
def test_expire_must_be_told_when(plots: ExpiringFS, choice: tuple[str, ...]) -> None:
    assert "--never" in str(refused("expire", "plots", "a", *choice))


def test_failed_lists_what_was_set_aside(plots: ExpiringFS) -> None:
    fill(plots, "bad", "bad too")
    fill(get_filesystem("memos"), "bad")
    expire_objects()
    assert len(read("failed", amiss=True)["files"]) == 3
    assert not read("failed", "--limit", "2", amiss=True)["complete"]
    [file] = read("failed", "memos", amiss=True)["files"]
    assert (file["namespace"], file["path"], file["attempts"]) == ("memos", "bad", 1)
    assert "read-only" in file["reason"]
    assert "read-only" in djpyfs("failed", amiss=True)


def test_the_file_set_aside_last_is_listed_first_and_within_a_second_by_name(
    plots: ExpiringFS,
) -> None:
    fill(plots, *(f"bad {number:02}" for number in reversed(range(30))))
    expire_objects()
    files = read("failed", amiss=True)["files"]
    expected = sorted(files, key=lambda file: file["path"])
    expected.sort(key=lambda file: file["at"], reverse=True)
    assert files == expected


@pytest.mark.parametrize(("action", "overdue"), [("--retry", 1), ("--forget", 0)])
def test_failed_files_are_retried_or_forgotten(
    plots: ExpiringFS, action: str, overdue: int
) -> None:
    fill(plots, "bad", "bad too", "bad as well")
    expire_objects()
    assert read("failed", action, "plots", "bad") == {"released": [["plots", "bad"]]}
    found = read("status", amiss=True)
    assert (found["overdue"], found["set_aside"]) == (overdue, 2)
    djpyfs("failed", action, "--all")
    assert read("status")["overdue"] == 3 * overdue
    assert plots.exists("bad")


def test_all_are_forgotten_only_with_an_option(plots: ExpiringFS) -> None:
    fill(plots, "bad")
    expire_objects()
    assert "--all" in str(refused("failed", "--forget"))
    assert refused("failed", "--forget", "plots", "--all").returncode == 2
    assert len(read("failed", amiss=True)["files"]) == 1
    djpyfs("failed", "--forget", "plots")
    assert read("failed") == {"files": [], "complete": True, "unreadable": []}


def test_failed_says_which_files_were_not_set_aside(plots: ExpiringFS) -> None:
    fill(plots, "bad")
    expire_objects()
    assert refused("failed", "--retry", "plots", "bad", "good").returncode == 1
    assert read("failed")["files"] == []
    assert refused("failed", "plots", "bad").returncode == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ("ls", "../x"),
        ("ls", "/*"),
        ("expire", "", "a", "--never"),
        ("expire", "plots", "../x", "--seconds", "1"),
        ("expire", "plots", "/", "--seconds", "1"),
        ("expire", "plots", "a", "--seconds", "nan"),
        ("failed", "a//b"),
        ("failed", "plots", "\n", "--forget"),
        ("expire", "plots/*", "a", "--days", "1"),
        ("expire", "*", "a", "--never"),
        ("failed", "plots/*", "a", "--retry"),
        ("ls", "*"),
        ("failed", "*/plots"),
        ("audit", "*"),
    ],
    ids=str,
)
def test_a_refusal_is_one_line(plots: ExpiringFS, arguments: tuple[str, ...]) -> None:
    error = refused(*arguments)
    assert error.returncode == 2
    assert "\n" not in str(error)
    assert counted().tracked == 0


@pytest.mark.parametrize(
    "bound", ["--limit=0", f"--limit={10**20}", "--seconds=-1", "--limit=x", "--seconds=nan"]
)
def test_a_bound_that_makes_no_sense_is_refused(plots: ExpiringFS, bound: str) -> None:
    assert "argument" in str(refused("sweep", bound))


def test_a_record_that_no_file_could_have_is_shown_harmlessly(plots: ExpiringFS) -> None:
    records_here().schedule([b"plots/\x1b[2J\xff"], 0)
    assert "plots      \\x1b[2J\\xff" in djpyfs("ls", "plots")
    assert refused("sweep").returncode == 1
    assert "\x1b" not in djpyfs("failed", amiss=True)
    djpyfs("failed", "--forget", "--all")
    assert read("failed")["files"] == []


def manage(
    djfs: dict[str, Any], *arguments: str, then: str = "", encoding: str = "utf-8", **settings: Any
) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, from a shell that does more ``then``."""
    command = shlex.join([sys.executable, "-m", "django", "djpyfs", *arguments])
    return subprocess.run(
        ["bash", "-c", f"{command} {then}"],
        env={
            "PATH": os.environ["PATH"],
            "DJANGO_SETTINGS_MODULE": "tests.service_settings",
            "SETTINGS": json.dumps({"DJFS": djfs, **settings}),
            "PYTHONIOENCODING": encoding,
        },
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_shell_reads_output_notes_and_exit_status(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    own = {"redis_url": redis_server.url, "key_prefix": f"test-{uuid.uuid4().hex}"}
    djfs = {"type": "osfs", "directory_root": str(tmp_path), **own}
    done = manage(djfs, "expire", "plots", "a", "--seconds", "0", "--format", "json")
    assert (done.returncode, done.stderr, list(json.loads(done.stdout))) == (0, "", ["a"])
    swept = manage(djfs, "sweep")
    assert (swept.returncode, swept.stderr) == (0, "")
    assert "1 missing" in swept.stdout
    away = manage({**djfs, "redis_url": "redis://127.0.0.1:1/0"}, "status")
    assert (away.returncode, away.stdout) == (2, "")
    assert len(away.stderr.splitlines()) == 1
    misspelt = manage({**djfs, "batch_sise": 1}, "status")
    assert (misspelt.returncode, len(misspelt.stderr.splitlines())) == (2, 1)
    helped = manage(djfs, "sweep", "--help")
    assert (helped.returncode, "Celery" in helped.stdout) == (0, True)


@pytest.mark.parametrize("then", [">&-", ">/dev/full"])
def test_a_shell_is_told_in_one_line_that_the_output_cannot_be_written(
    redis_server: RedisServer, tmp_path: Path, then: str
) -> None:
    own = {"redis_url": redis_server.url, "key_prefix": f"test-{uuid.uuid4().hex}"}
    lost = manage({"type": "memory", **own}, "status", then=then)
    assert (lost.returncode, len(lost.stderr.splitlines())) == (2, 1), lost.stderr
    assert "output" in lost.stderr


def test_a_shell_may_close_the_pipe_know_only_ascii_and_put_common_options_last(
    redis_server: RedisServer, tmp_path: Path, djfs: Callable[..., None]
) -> None:
    place = {"type": "osfs", "directory_root": str(tmp_path)}
    own = {**place, "redis_url": redis_server.url, "key_prefix": f"test-{uuid.uuid4().hex}"}
    djfs(**own)
    get_filesystem("zoë").expire_many([f"{number:05}" for number in range(5_000)], 100)
    cut = manage(own, "ls", "--limit", "5000", then='| head -n 1; echo "${PIPESTATUS[0]}"')
    heading, status = cut.stdout.splitlines()
    assert (heading.split()[0], status, cut.stderr) == ("DEADLINE", "141", "")
    ascii_only = manage(own, "ls", "--limit", "1", encoding="ascii")
    assert "zo\\xeb" in ascii_only.stdout
    assert "Traceback" not in ascii_only.stderr
    last = manage(own, "ls", "../x", "--no-color", "--traceback", "-v", "2")
    assert "Traceback" in last.stderr
