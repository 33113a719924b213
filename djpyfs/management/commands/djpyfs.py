"""``manage.py djpyfs``: sweeps, and shows and mends the records, from a shell."""

from __future__ import annotations

import sys
from argparse import SUPPRESS, ArgumentParser, ArgumentTypeError
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from itertools import chain
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connections
from fs.errors import FSError

from ... import conf, cors, inspection, lifecycle, resharding
from ...audit import Audit, Finding, Totals
from ...cors import CorsComparison
from ...errors import DjpyfsError, printable
from ...expirations import State
from ...filesystem import get_filesystem
from ...inspection import Preview, Sample, SetAsideFile, Status, TrackedFile
from ...lifecycle import Change, Comparison
from ...phrases import counted, duration, moment, size
from ...sweeper import SweepReport, sweep
from ...takeover import TakeOver, take_over
from ..console import Console, OutputClosed, OutputLost, indented, more, table

AMISS, REFUSED = 1, 2  # exit status
MOST = 1_000_000_000  # of anything that an option counts
UNPUNCTUAL = (
    "Nobody keeps time: files go with the next sweep of beat or cron. A Celery worker with "
    "djpyfs_tasks keeps time, unless DJFS['punctual'] is False."
)
PIPE_CLOSED = 141  # as for a process that a closed pipe kills
OUT_OF_DATE = "{} to bring up to date: run this again with --apply"
WHERE = "a namespace, or 'prefix/*' for all the namespaces below one"

Run = Callable[[Console, dict[str, Any]], None]


class _CommonOptions(BaseCommand):
    """The common options behind a sub-command, which do not reset those before it."""

    requires_system_checks = ()

    def add_base_argument(self, parser: CommandParser, *args: Any, **kwargs: Any) -> None:
        super().add_base_argument(parser, *args, **{**kwargs, "default": SUPPRESS})


class Command(BaseCommand):
    """The command and its sub-commands."""

    help = (
        "Deletes files that have expired, and shows and repairs the records of what expires when. "
        "Exit status: 0 all is well; 1 it was done, but there is a problem, such as a deletion "
        "that failed or files that were set aside; 2 it was refused, and nothing was done, or "
        "could not go on."
    )
    # A sweep need not wait for the checks of the whole site; DJFS is checked as it is read.
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add a parser for each sub-command."""
        commands = parser.add_subparsers(title="sub-commands", metavar="COMMAND", required=True)
        common = _CommonOptions().create_parser("", "")
        for name, (describe, run, summary) in SUB_COMMANDS.items():
            own = commands.add_parser(
                name,
                help=summary.partition(":")[0],
                description=summary,
                parents=[common],
                add_help=False,  # those of the parent have it
                formatter_class=parser.formatter_class,
            )
            own.add_argument(
                "--format", choices=("text", "json"), default="text", help="for people, or programs"
            )
            own.set_defaults(run=run)
            describe(own)

    def handle(self, *args: Any, run: Run, **options: Any) -> None:
        """Run a sub-command; what djpyfs refuses is one line."""
        has_output = sys.stdout or options.get("stdout")
        console = Console(self.stdout if has_output else None, self.stderr, options["format"])
        try:
            try:
                run(console, options)
            finally:
                console.flush()
        except OutputClosed:
            raise SystemExit(PIPE_CLOSED) from None
        except KeyboardInterrupt:
            told = "stopped: what it has done stays done, and it can be called again"
            raise CommandError(told, returncode=REFUSED) from None
        except OutputLost as error:
            raise CommandError(
                f"the output cannot be written: {error}", returncode=REFUSED
            ) from error
        except (DjpyfsError, FSError) as error:
            raise CommandError(printable(str(error)), returncode=REFUSED) from error


# -- sweep


def _describe_sweep(parser: ArgumentParser) -> None:
    parser.add_argument("--limit", type=_above(int), metavar="N", help="stop after N files")
    parser.add_argument("--seconds", type=_above(float), metavar="S", help="stop after S seconds")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="delete nothing; say what would go, by namespace: files, bytes where no network is "
        "needed to know, and how many requests it would take; beyond 10,000 files an estimate",
    )


def _sweep(console: Console, options: dict[str, Any]) -> None:
    if options["dry_run"]:
        _preview(console, options["limit"])
    else:
        _sweep_now(console, options["limit"], options["seconds"])


def _sweep_now(console: Console, limit: int | None, seconds: float | None) -> None:
    def tell(report: SweepReport) -> None:
        console.progress(f"{report.deleted + report.missing:,} done, {report.failed:,} failed")

    report = sweep(limit, seconds, tell)
    console.show(report, _report_lines(report))
    if report.failed or report.postponed or report.unreachable:
        raise CommandError(
            f"deletions that failed: {report.failed:,}; postponed, because their backend is away, "
            f"or who owns them is not known: {report.postponed:,}; shards that cannot be asked: "
            f"{report.unreachable:,}",
            returncode=AMISS,
        )


def _report_lines(report: SweepReport) -> Iterator[str]:
    yield (
        f"{report.deleted:,} deleted, {report.missing:,} missing, {report.failed:,} failed "
        f"({report.retried:,} to be tried again, {report.set_aside:,} set aside), "
        f"{report.held:,} on hold, {report.owned:,} owned by rows, {report.postponed:,} postponed, "
        f"{report.remaining:,} still overdue"
    )
    yield (
        f"The oldest was {duration(report.lag)} late; the sweep took {duration(report.duration)}"
    )


def _preview(console: Console, limit: int | None) -> None:
    found = inspection.preview(limit)
    console.show(found, _preview_lines(found), "Nothing is overdue.")
    _end_amiss(*found.unreadable)


def _preview_lines(found: Preview) -> Iterator[str]:
    if not found.files:
        return
    sampled, requests = found.sampled < found.files, found.requests
    about, of_sample = "", ""
    if sampled:
        about, of_sample = "about ", f" of the {found.sampled:,} that were looked at"
    held = f", {found.held:,}{of_sample} on hold" if found.held else ""
    yield f"{counted(found.files, 'file')} overdue{held}"
    unknown = f"; the size of {found.unmeasured:,}{of_sample} is unknown"
    yield f"{about}{size(found.bytes)}{unknown if found.unmeasured else ''}"
    for_files = counted(requests.files, "request")
    yield f"{about}{for_files} for files, {requests.records:,} to the record store"
    rows = [(f"{count:,}", namespace) for namespace, count in found.by_namespace.items()]
    lines = chain(table(rows, ("files", "namespace")), more(found.more, "namespace"))
    yield from indented(lines, f"Namespaces{of_sample}:")


# -- status


def _describe_status(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--next", type=_above(int), default=10, metavar="N", help="deadlines to show (10)"
    )


def _status(console: Console, options: dict[str, Any]) -> None:
    found, sample = inspection.status(options["next"]), inspection.sample()
    lines = chain(_status_lines(found), _sample_lines(sample))
    console.show({**asdict(found), "namespaces": sample}, lines)
    set_aside = f"files set aside: {found.set_aside:,}; 'djpyfs failed' lists them"
    _end_amiss(*found.unreadable, *[set_aside] * bool(found.set_aside))


def _end_amiss(*problems: str) -> None:
    """Say what is wrong, after what could be shown; do nothing if all is well."""
    if problems:
        raise CommandError("\n".join(problems), returncode=AMISS)


def _status_lines(found: Status) -> Iterator[str]:
    oldest = f"the oldest for {duration(found.oldest_overdue)}" if found.overdue else ""
    waiting = [
        ("  retried", found.retried, "a deletion has failed, and is tried again"),
        ("  on hold", found.held, "nothing is deleted in their namespaces"),
        ("  postponed", found.postponed, "their backend is away, or who owns them is not known"),
    ]
    counts = [
        ("tracked", found.tracked, ""),
        ("overdue", found.overdue, oldest),
        *(row for row in waiting if row[1]),
        ("claimed", found.claimed, ""),
        ("set aside", found.set_aside, ""),
    ]
    yield from table((name, f"{count:,}", remark) for name, count, remark in counts)
    if conf.current().punctual and found.punctual is False:
        yield UNPUNCTUAL
    if found.shards != found.shards_soon:
        yield (
            f"Records are on their way from {found.shards} to {found.shards_soon} shards: "
            f"'manage.py djpyfs reshard {found.shards_soon}' finishes that."
        )
    elsewhere = [(f"{count:,}", name) for name, count in found.elsewhere.items()]
    yield from indented(
        table(elsewhere, ("records", "place")),
        "Waiting for places that this process does not know, or that are not there now:",
    )
    later = found.tracked - len(found.next_deadlines)
    lines = chain(_file_lines(found.next_deadlines), more(later, "file"))
    yield from indented(lines, "Next deadlines:")


def _sample_lines(sample: Sample) -> Iterator[str]:
    rows = [
        (f"{it.files:,}", f"{it.overdue:,}", f"{it.set_aside:,}", prefix)
        for prefix, it in sample.by_prefix.items()
    ]
    headings = "files", "overdue", "set aside", "namespace"
    lines = chain(table(rows, headings), more(sample.more, "namespace"))
    looked = "" if sample.complete else f", by a look at {sample.records:,} records"
    return indented(lines, f"Namespaces{looked}:")


def _file_lines(files: Sequence[TrackedFile]) -> Iterator[str]:
    rows = [(_deadline(file), _remaining(file), file.namespace, file.path) for file in files]
    return table(rows, ("deadline", "remaining", "namespace", "file"))


def _deadline(file: TrackedFile) -> str:
    return moment(file.deadline)


def _remaining(file: TrackedFile) -> str:
    words = "overdue {}" if file.remaining < 0 else "in {}"
    life = words.format(duration(file.remaining))
    return life if file.state is State.DUE else f"{life}, {file.state}"


# -- ls


def _describe_ls(parser: ArgumentParser) -> None:
    parser.add_argument("where", metavar="NAMESPACE", nargs="?", help=f"{WHERE}; all if left out")
    parser.add_argument(
        "--limit", type=_above(int), default=1_000, metavar="N", help="files to show (1000)"
    )
    parser.add_argument(
        "--looks",
        type=_above(int),
        default=1_000_000,
        metavar="N",
        help="records of any namespace to look at for them (1000000)",
    )


def _ls(console: Console, options: dict[str, Any]) -> None:
    found = inspection.tracked_files(options["where"], options["limit"], options["looks"])
    console.show(found, _file_lines(found.files), "No file with a deadline was found.")
    if not found.complete:
        console.note("There may be more: raise --limit or --looks.")
    _end_amiss(*found.unreadable)


# -- expire


def _describe_expire(parser: ArgumentParser) -> None:
    parser.add_argument("namespace", metavar="NAMESPACE")
    parser.add_argument("paths", metavar="PATH", nargs="+")
    parser.add_argument("--seconds", type=float, metavar="S", help="due S seconds from now")
    parser.add_argument("--days", type=float, metavar="D", help="due D days from now, or D + S")
    parser.add_argument("--never", action="store_true", help="make the files permanent")


def _expire(console: Console, options: dict[str, Any]) -> None:
    seconds, days, never = options["seconds"], options["days"], options["never"]
    if never == (seconds is not None or days is not None):
        raise CommandError("use --seconds, --days or both, or else --never", returncode=REFUSED)
    filesystem, paths = get_filesystem(_single(options["namespace"])), options["paths"]
    if never:
        for path in paths:
            filesystem.expiration(path)  # so that all are refused, or none
        for path in paths:
            filesystem.expire(path, expires=False)
    else:
        filesystem.expire_many(paths, seconds or 0, days or 0)
    deadlines = {path: filesystem.expiration(path) for path in paths}
    rows = [(moment(due) if due else "permanent", path) for path, due in deadlines.items()]
    console.show(deadlines, table(rows, ("deadline", "file")))


def _single(namespace: str) -> str:
    """Return a namespace, unless it stands for many: that would be a file that nobody has."""
    if "*" in namespace.split("/"):
        raise CommandError(
            f"{namespace!r} stands for many namespaces, and single files need one: "
            "'manage.py djpyfs ls' shows that of each",
            returncode=REFUSED,
        )
    return namespace


# -- failed


def _describe_failed(parser: ArgumentParser) -> None:
    parser.add_argument("where", metavar="NAMESPACE", nargs="?", help=WHERE)
    parser.add_argument("paths", metavar="PATH", nargs="*", help="single files of the namespace")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--retry", action="store_true", help="make them due now")
    action.add_argument(
        "--forget", action="store_true", help="drop their records; the files stay forever"
    )
    parser.add_argument("--all", action="store_true", help="of all namespaces, to forget")
    parser.add_argument(
        "--limit", type=_above(int), default=1_000, metavar="N", help="files to list (1000)"
    )


def _failed(console: Console, options: dict[str, Any]) -> None:
    where, paths = options["where"], options["paths"]
    if options["all"] and where is not None:
        raise CommandError("give either a namespace or --all", returncode=REFUSED)
    if options["forget"] and where is None and not options["all"]:
        raise CommandError(
            "--forget drops records for good: give a namespace or --all", returncode=REFUSED
        )
    if options["retry"] or options["forget"]:
        verb = inspection.retry if options["retry"] else inspection.forget
        released = verb(where, [(_single(where), path) for path in paths])
        lines = [counted(len(released), "file"), *table(released, ("namespace", "file"))]
        console.show({"released": released}, lines)
        if len(released) < len(set(paths)):
            raise CommandError("the other files were not set aside", returncode=AMISS)
    elif paths:
        raise CommandError("say what to do with the files: --retry or --forget", returncode=REFUSED)
    else:
        found = inspection.files_set_aside(where, options["limit"])
        console.show(found, _set_aside_lines(found.files), "No file is set aside.")
        if not found.complete:
            console.note("There are more: raise --limit.")
        count = f"files set aside: {len(found.files):,}{'' if found.complete else ' or more'}"
        _end_amiss(*found.unreadable, *[count] * bool(found.files))


def _set_aside_lines(files: Sequence[SetAsideFile]) -> Iterator[str]:
    rows = [
        (moment(file.at), f"{file.attempts:,}", file.namespace, file.path, file.reason)
        for file in files
    ]
    return table(rows, ("since", "attempts", "namespace", "file", "reason"))


# -- import


def _describe_import(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--database", choices=tuple(connections), default="default", help="its alias (default)"
    )


def _import(console: Console, options: dict[str, Any]) -> None:
    def tell(report: TakeOver) -> None:
        console.progress(f"{report.rows:,} rows read, {report.taken:,} deadlines taken over")

    report = take_over(connections[options["database"]], tell)
    console.show(report, _import_lines(report))
    if report.refused:
        raise CommandError(f"rows that were skipped: {len(report.refused):,}", returncode=AMISS)


def _import_lines(report: TakeOver) -> Iterator[str]:
    yield (
        f"{counted(report.rows, 'row')}: {counted(report.taken, 'deadline')} taken over, "
        f"{counted(report.permanent, 'file')} made permanent, {report.known:,} known already, "
        f"{report.gone:,} gone, {report.rewritten:,} newer than their deadline, "
        f"{len(report.refused):,} skipped"
    )
    rows = [(row.namespace, row.path, row.reason) for row in report.refused]
    yield from table(rows, ("namespace", "file", "reason"))


# -- audit


def _describe_audit(parser: ArgumentParser) -> None:
    parser.add_argument("wheres", metavar="NAMESPACE", nargs="*", help=f"{WHERE}; all if left out")
    parser.add_argument(
        "--adopt",
        type=float,
        metavar="TTL",
        help="give each file without a record a deadline, TTL seconds after it was last modified, "
        "except those that somebody has made permanent",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="adopt nothing; say what would get which deadline"
    )


def _audit(console: Console, options: dict[str, Any]) -> None:
    def tell(totals: Totals) -> None:
        console.progress(f"{totals.files:,} files and {totals.records:,} records looked at")

    audit = Audit(options["adopt"], tell, options["dry_run"])
    for finding in audit.run(*options["wheres"]):
        console.stream(finding, _finding_line(finding))
    totals = audit.totals
    console.stream(totals, _totals_line(totals))
    if totals.differences:
        raise CommandError(f"differences left: {totals.differences:,}", returncode=AMISS)


def _totals_line(totals: Totals) -> str:
    return (
        f"{counted(totals.files, 'file')}, {totals.permanent:,} of them permanent, "
        f"{totals.no_record:,} without a record, {totals.adopted:,} adopted; "
        f"{counted(totals.records, 'record')}, {totals.no_file:,} of them without a file; "
        f"{counted(totals.refused, 'name')} refused; {counted(totals.away, 'place')} not there, "
        f"{counted(totals.unreadable, 'shard')} not read; "
        f"{counted(totals.unlisted, 'directory', 'directories')} that may not be listed"
    )


def _finding_line(finding: Finding) -> str:
    due = f"  due {moment(finding.deadline)}" if finding.deadline else ""
    return f"{finding.kind:12}  {finding.namespace}  {finding.path}{due}"


# -- lifecycle


def _describe_lifecycle(parser: ArgumentParser) -> None:
    parser.add_argument("--apply", action="store_true", help="set the rules; without it, show them")
    parser.add_argument(
        "--whole-bucket",
        action="store_true",
        help="also make the rule of a max_ttl of all namespaces where DJFS has no 'prefix': it "
        "takes all that is in the bucket, no matter who put it there",
    )


def _lifecycle(console: Console, options: dict[str, Any]) -> None:
    buckets = lifecycle.plan(options["whole_bucket"])
    found = [rules.apply() if options["apply"] else rules.compare() for rules in buckets]
    console.show(found, chain.from_iterable(map(_bucket_lines, found)))
    if not found:
        console.note("No namespace keeps its files on S3.")
    _end_of_buckets(found, options["apply"])


def _end_of_buckets(found: Sequence[Comparison | CorsComparison], applied: bool) -> None:
    """Raise `CommandError` if a bucket could not be reached, or lacks what was not applied."""
    if failed := sum(bool(each.problem) for each in found):
        raise CommandError(f"buckets that could not be reached: {failed:,}", returncode=AMISS)
    if not applied and (behind := sum(each.differs for each in found)):
        raise CommandError(OUT_OF_DATE.format(counted(behind, "bucket")), returncode=AMISS)


def _bucket_lines(found: Comparison) -> Iterator[str]:
    yield f"{found.bucket}: {found.problem or counted(found.others, 'other rule')}"
    yield from table(map(_change_cells, found.changes))
    if found.problem:
        yield from table(
            ("wanted", rule["Filter"]["Prefix"], f"{lifecycle.days_of(rule)} days")
            for rule in found.rules
        )
    yield from table(("left out", each.prefix, each.reason) for each in found.left_out)


def _change_cells(change: Change) -> Sequence[str]:
    days = counted(change.days or change.days_before or 0, "day")
    if change.action is lifecycle.Action.CHANGE:
        days += f", was {change.days_before}"
    if change.noncurrent:
        days += " for old versions"
    besides = f"; also takes {', '.join(change.besides)}" if change.besides else ""
    whose = f"for {', '.join(change.namespaces)}{besides}" if change.namespaces else ""
    return change.action, change.prefix, days, whose


# -- cors


def _describe_cors(parser: ArgumentParser) -> None:
    parser.add_argument("--apply", action="store_true", help="set the rule; without it, show it")


def _cors(console: Console, options: dict[str, Any]) -> None:
    buckets = cors.plan()
    found = [each.apply() if options["apply"] else each.compare() for each in buckets]
    console.show(found, chain.from_iterable(map(_cors_lines, found)))
    if not any(each.origins for each in found):
        console.note("DJFS['upload_origins'] names no page from which browsers send files to S3.")
    _end_of_buckets(found, options["apply"])


def _cors_lines(found: CorsComparison) -> Iterator[str]:
    action = found.action or "not needed"
    ours = f"rule of djpyfs: {action}; {counted(found.others, 'other rule')}"
    yield f"{found.bucket}: {found.problem or ours}"
    rows = [("shut out" if it in found.missing else "let in", it) for it in found.origins]
    yield from table(rows if not found.problem else (("wanted", it) for it in found.origins))


# -- reshard


def _describe_reshard(parser: ArgumentParser) -> None:
    parser.add_argument(
        "shards", type=_above(int), metavar="N", help="how many shards there will be"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="move nothing; say what there is to move"
    )


def _reshard(console: Console, options: dict[str, Any]) -> None:
    shards = options["shards"]
    if options["dry_run"]:
        plan = resharding.plan(shards)
        console.show(plan, _plan_lines(plan))
        return
    found = resharding.Resharding()
    try:
        for found in resharding.reshard(shards):
            waiting = f", {found.waiting:,} wait for a sweep" if found.waiting else ""
            console.progress(
                f"{found.looked:,} of about {found.total:,} entries looked at, "
                f"{found.moved:,} files moved{waiting}, {found.rate:,.0f} a second"
            )
    except KeyboardInterrupt:
        raise CommandError(
            f"stopped when {found.moved:,} files had moved; everything works as before: "
            f"'manage.py djpyfs reshard {shards}' moves the others",
            returncode=REFUSED,
        ) from None
    console.show(found, [_resharded(found)])


def _plan_lines(plan: resharding.Plan) -> Iterator[str]:
    if plan.shards == plan.soon:
        yield f"The records are spread over {counted(plan.shards, 'shard')} already."
    else:
        yield f"From {plan.shards} to {counted(plan.soon, 'shard')}:"
        yield f"about {plan.moving:,} of {counted(plan.files, 'file')} would move to another one"


def _resharded(found: resharding.Resharding) -> str:
    return f"{counted(found.moved, 'file')} moved in {duration(found.duration)}"


def _above(kind: type[int] | type[float]) -> Callable[[str], float]:
    def read(text: str) -> float:
        value = kind(text)
        if not value > 0:
            raise ArgumentTypeError(f"{text} is not above 0")
        if value > MOST:
            raise ArgumentTypeError(f"{text} is above {MOST:,}")
        return value

    read.__name__ = kind.__name__  # argparse shows it if the text is not a number
    return read


SUB_COMMANDS: dict[str, tuple[Callable[[ArgumentParser], None], Run, str]] = {
    "sweep": (
        _describe_sweep,
        _sweep,
        "Delete what is overdue, in this process: for cron, if there is no Celery. Any number "
        "of sweeps may run at once. Exit status 1 means that deletions failed; they are tried "
        "again by a later sweep, or set aside after too many attempts.",
    ),
    "status": (
        _describe_status,
        _status,
        "Count the records: tracked, overdue (and of these retried, on hold, postponed), claimed "
        "by a sweep, set aside. Show what is due next, and the namespaces with the most records, "
        "by a sample if there are very many. Exit status 1 means that files were set aside, or "
        "that a shard cannot be read.",
    ),
    "ls": (
        _describe_ls,
        _ls,
        "List the files of a namespace, or all, that have a deadline: soonest first, with "
        "the state of each. Files without a deadline have no record and are not listed.",
    ),
    "expire": (
        _describe_expire,
        _expire,
        "Set the deadline of files: from now, replacing an earlier one; or make them permanent. "
        "The files need not exist.",
    ),
    "failed": (
        _describe_failed,
        _failed,
        "List the files whose deletion was given up: with reason, attempts and time, newest "
        "first. --retry makes those of a namespace, single files, or all of them due now; --forget "
        "drops their records (of all only with --all). Exit status 1 means that there are some.",
    ),
    "import": (
        _describe_import,
        _import,
        "Take over the deadlines that openedx-django-pyfs has in its table: what has passed is "
        "due at once, what never expires becomes permanent, what has a record already "
        "keeps it, and what was written after its deadline stays. The table is only read, and this "
        "can be repeated. Exit status 1 means that rows were skipped: their names are refused, or "
        "their files cannot be looked at.",
    ),
    "audit": (
        _describe_audit,
        _audit,
        "Compare files and records: walk through namespaces, or all, with the directories below "
        "them, and list files without a record, which stay forever (those made permanent by hand "
        "are left out); records without a file, which the sweep drops when they are due; and names "
        "that djpyfs refuses. Nothing is changed without --adopt. JSON comes as one object per "
        "line, the totals last. Exit status 1 means that differences are left.",
    ),
    "lifecycle": (
        _describe_lifecycle,
        _lifecycle,
        "Show, or set, lifecycle rules of S3: one for each namespace with a max_ttl, which takes "
        "what is a day older than that, in whole days. S3 counts from the last write: a file "
        "whose deadline is moved again and again, beyond max_ttl after it was written, goes "
        "early. A rule takes all keys below its prefix, even those of namespaces that DJFS does "
        "not name. It is as long as the longest max_ttl there, and is left out if a namespace "
        "below the prefix is on hold, or has no max_ttl. Rules of others stay as they are. Exit "
        "status 1 means that, without --apply, a bucket does not have these rules, or that one "
        "could not be reached.",
    ),
    "reshard": (
        _describe_reshard,
        _reshard,
        "Spread the records over N shards: writers and sweeps go on. It can be stopped at any "
        "time, and goes on where it was when it is called again with the same number; until "
        "then everything works, a little more slowly. All processes learn of it by themselves. "
        "Exit status 2 means that it has not finished.",
    ),
    "cors": (
        _describe_cors,
        _cors,
        "Show, or set, from which pages browsers may send files to S3: those of the origins in "
        "DJFS['upload_origins'], by a CORS rule beside the rules of others, if these do not allow "
        "it already. Exit status 1 means that, without --apply, a bucket does not have that rule, "
        "or that one could not be reached.",
    ),
}
