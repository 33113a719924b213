"""The rows that own files: what changes with a row, and what a sweep asks before it deletes.

A file whose fate depends on rows has a record that waits for an owner. It gets that record before
the row is written, and the record is updated when the row has been committed. If that did not
happen, because the process died or Django sent no signal, the sweep asks the database.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, NamedTuple, cast

from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, connections, models, router, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.fields.files import FieldFile
from django.db.models.signals import post_save, pre_delete, pre_save

from . import conf
from .backends import backend_for, reason
from .backends.storage import DjpyfsStorage
from .conf import SECOND
from .errors import InvalidLifetime, InvalidName
from .expirations import Expirations
from .lifetimes import Lifetimes, Seconds, seconds_of
from .names import Entry, check_path
from .places import records_of

log = logging.getLogger("djpyfs")

UNSETTLED = 3_600  # s, for a transaction if no storage says how long it may take
NAMES_PER_QUERY = 500
PATIENCE = 1.0  # s, after which a database that has no answer is not asked again in one go
LONGEST_LOCK = 2_000  # ms that a sweep waits for a table that somebody has locked
NO_DATABASE = "django.db.backends.dummy"  # of an alias without settings, as "default" may be
_is_following = False  # whether the application has begun to

CHANGES = "djpyfs_changes"  # where the state of a row has them while it is written

Row = models.Model


class OwnedStorage(DjpyfsStorage):
    """A storage whose files may belong to rows."""

    def __init__(
        self,
        namespace: str,
        default_ttl: Seconds | None,
        until_committed: Seconds | None,
        clean_up: bool,
    ) -> None:
        self.namespace = namespace
        self.default_ttl = default_ttl
        self.until_committed = until_committed
        self.clean_up = clean_up
        for name, life in ("default_ttl", default_ttl), ("until_committed", until_committed):
            if life is not None and not seconds_of(name, life):
                raise InvalidLifetime(f"{name} is 0: make it longer, or leave it out")

    @property
    def follows_rows(self) -> bool:
        """Whether the fate of its files depends on rows."""
        return self.until_committed is not None or self.clean_up

    def check_followed(self) -> None:
        """Raise `ImproperlyConfigured` if nothing follows the rows."""
        if self.follows_rows and not _is_following:
            raise ImproperlyConfigured(
                "until_committed and clean_up need 'djpyfs' in INSTALLED_APPS: add it"
            )


class _Record(NamedTuple):
    """The record of a file in a storage."""

    records: Expirations
    entry: Entry
    settings: conf.Settings

    @classmethod
    def of(cls, storage: OwnedStorage, name: str) -> _Record | None:
        """Return it, or None if no file can have the name."""
        try:
            entry = Entry(storage.namespace, check_path(name))
        except InvalidName:
            return None
        settings = conf.current()
        backend = backend_for(settings, storage.namespace)
        return cls(records_of(settings, backend, make=True), entry, settings)


def await_owner(storage: OwnedStorage, name: str) -> None:
    """Have a file deleted when its time is up, unless a row owns it."""
    record = _Record.of(storage, name)
    if record is None:
        return
    records, entry, settings = record
    if storage.until_committed is None:
        records.await_owner(entry.member, UNSETTLED * SECOND)
        return
    # If no field can name it, the code that saved it has the last word.
    if any(field.name_of("/".join(entry)) for field in _fields()):
        ttl = Lifetimes(settings.policy_for(entry.directory)).of(storage.until_committed) or 0
        records.await_owner(entry.member, ttl, _life(storage, settings, entry))


def let_rows_decide(storage: OwnedStorage, name: str) -> None:
    """Let rows decide what happens to a file that has been saved, as its storage says."""
    if storage.until_committed is not None:
        await_owner(storage, name)
    elif storage.clean_up and (record := _Record.of(storage, name)):
        records, entry, settings = record
        if _life(storage, settings, entry):  # else rows may let go of what has no deadline anyway
            records.take_up(entry.member, unawaited=True)


def await_owners(settings: conf.Settings, records: Expirations, entries: Iterable[Entry]) -> None:
    """Let files with a deadline that may belong to rows be deleted only if no row owns them."""
    followed = [own for own in _fields() if own.storage.follows_rows]
    for entry in entries:
        for own in followed:
            if own.name_of("/".join(entry)):
                records.await_owner(entry.member, 0, _life(own.storage, settings, entry))


def _life(storage: OwnedStorage, settings: conf.Settings, entry: Entry) -> int:
    """Return how long a file lives if a row owns it, in µs; 0: forever."""
    policy = settings.policy_for(entry.directory)
    if storage.default_ttl is None:
        return policy.life
    return Lifetimes(policy).of(storage.default_ttl) or 0


def _take_up(own: _Field, using: str, key: Any, name: str) -> None:
    """Let a row own the file that it was saved with, if the database still says so.

    Django reports a commit to what a savepoint has undone, unless `atomic` made that savepoint.
    """
    if name and (record := _Record.of(own.storage, name)):
        model, attribute = own.field.model, own.field.attname
        if _stored(model, key, using, [attribute]).get(attribute) == name:
            record.records.take_up(record.entry.member)


def _let_go(storage: OwnedStorage, name: str) -> None:
    _doubt(storage, name, conf.current().grace)


def _let_go_soon(storage: OwnedStorage, name: str) -> None:
    """Have a sweep ask about a file that a row is about to let go of, if no outcome is reported."""
    unsettled = seconds_of("until_committed", storage.until_committed or UNSETTLED)
    _doubt(storage, name, round(unsettled * SECOND))


def _doubt(storage: OwnedStorage, name: str, ttl: int) -> None:
    if name and storage.clean_up and (record := _Record.of(storage, name)):
        record.records.let_go(record.entry.member, ttl)


# -- the fields that name files


class _Field(NamedTuple):
    """A field of a model that names files of a storage."""

    field: models.FileField
    storage: OwnedStorage

    def name_of(self, file: str) -> str:
        """Return how a row would name a file, given its whole path; '' if it cannot."""
        beginning = f"{self.storage.namespace}/"
        return file.removeprefix(beginning) if file.startswith(beginning) else ""

    def name_in(self, row: Row) -> str | None:
        """Return which file a row names; None: one that is saved with the row."""
        file = getattr(row, self.field.attname)
        if not isinstance(file, FieldFile):  # an expression, say
            return ""
        is_stored: bool = not file or vars(file)["_committed"]
        return file.name or "" if is_stored else None

    def is_default(self, name: str) -> bool:
        """Return whether a file is the default of all rows without one of their own."""
        in_database = getattr(self.field.db_default, "value", self.field.db_default)
        defaults = self.field.get_default(), in_database
        return name in [_canonical(it) for it in defaults if isinstance(it, str)]


def _fields_of(fields: Iterable[Any]) -> Iterator[_Field]:
    for one in fields:
        if isinstance(one, models.FileField):
            storage, is_ours = one.storage, False
            with suppress(Exception):  # using a storage that cannot be made raises the reason
                is_ours = isinstance(storage, OwnedStorage)
            if is_ours:
                yield _Field(one, cast(OwnedStorage, storage))


def _fields() -> Iterator[_Field]:
    """Yield every field of the site that may name files of djpyfs."""
    for model in apps.get_models(include_auto_created=True):
        if not model._meta.proxy:
            yield from _fields_of(model._meta.local_concrete_fields)


def misfits(settings: conf.Settings) -> Iterator[tuple[models.FileField, InvalidLifetime]]:
    """Yield the fields whose storage has a lifetime that the policy of its namespace refuses."""
    for own in _fields():
        lifetimes = Lifetimes(settings.policy_for(own.storage.namespace))
        for life in (own.storage.default_ttl, own.storage.until_committed):
            try:
                _ = life is not None and lifetimes.of(life)
            except InvalidLifetime as error:
                yield own.field, error


def _canonical(name: str) -> str:
    """Return the form of a row's name in which a sweep asks for it."""
    path = name.replace("\\", "/")
    with suppress(InvalidName):
        return name if path.startswith("/") else check_path(path)  # a storage opens no absolute one
    return name


# -- what changes with a row


class _Change(NamedTuple):
    """What a row that is being written is about to name."""

    own: _Field
    before: str
    after: str | None  # None: a file that is saved with the row


def _name_canonically(sender: type[Row], instance: Row, **_: Any) -> None:
    for own in _fields_of(sender._meta.concrete_fields):
        attribute = own.field.attname
        if attribute in vars(instance) and (name := own.name_in(instance)):
            getattr(instance, attribute).name = _canonical(name)


def _before_save(
    sender: type[Row], instance: Row, using: str, update_fields: Collection[str] | None, **_: Any
) -> None:
    fields = [
        own
        for own in _followed(sender)
        if own.field.attname in vars(instance)
        and (update_fields is None or {own.field.name, own.field.attname} & {*update_fields})
    ]
    changes = []
    for own, before in _committed(instance, using, fields):
        changes.append(change := _Change(own, before, own.name_in(instance)))
        if change.after != before:
            if change.after:
                await_owner(own.storage, change.after)
            _let_go_soon(own.storage, before)
    setattr(instance._state, CHANGES, changes)


def _after_save(sender: type[Row], instance: Row, using: str, **_: Any) -> None:
    for own, before, expected in vars(instance._state).pop(CHANGES, ()):
        name = own.name_in(instance) or ""
        if name != expected and expected is not None:  # another receiver has named it
            await_owner(own.storage, name)
        if name != before or name != expected:
            key = _key(own.field.model, instance)
            _on_commit(using, _take_up, own, using, key, name)
        if name != before:
            _on_commit(using, _let_go, own.storage, before)


def _before_delete(sender: type[Row], instance: Row, using: str, **_: Any) -> None:
    fields = [own for own in _followed(sender) if own.storage.clean_up]
    for own, name in _committed(instance, using, fields):
        _let_go_soon(own.storage, name)
        _on_commit(using, _let_go, own.storage, name)


def _on_commit(using: str, tell: Callable[..., object], *about: Any) -> None:
    connection = connections[using]
    if connection.in_atomic_block or connection.get_autocommit():
        # The row is there, whatever happens here: if this fails, the sweep asks for it.
        transaction.on_commit(lambda: tell(*about), using, robust=True)


def _followed(model: type[Row]) -> list[_Field]:
    return [own for own in _fields_of(model._meta.concrete_fields) if own.storage.follows_rows]


def _committed(row: Row, using: str, fields: Sequence[_Field]) -> Iterator[tuple[_Field, str]]:
    """Yield for each field which file the database says that the row names."""
    by_model: dict[type[Row], list[_Field]] = {}
    for own in fields:
        by_model.setdefault(own.field.model, []).append(own)
    for model, of_model in by_model.items():
        known = _stored(model, _key(model, row), using, [own.field.attname for own in of_model])
        for own in of_model:
            name = known.get(own.field.attname) or ""
            yield own, "" if own.is_default(name) else name


def _key(model: type[Row], row: Row) -> Any:
    """Return the key of a row in the table of its model, or of a parent of that."""
    return row.pk if model is row._meta.concrete_model else getattr(row, model._meta.pk.attname)


def _stored(
    model: type[Row], key: Any, using: str, names: Sequence[str]
) -> Mapping[str, str | None]:
    if key is None or (isinstance(key, tuple) and None in key):
        return {}
    rows: models.QuerySet[Row] = models.QuerySet(model, using=using).filter(pk=key)
    connection = connections[using]
    if connection.in_atomic_block and connection.features.has_select_for_update:
        # Else two that replace the same file at a time would each take it for the last one.
        rows = rows.select_for_update(no_key=connection.features.has_select_for_no_key_update)
    return next(iter(rows.values(*names)), {})


def follow() -> None:
    """Follow the rows that are saved and deleted, of all models whose files depend on that."""
    global _is_following
    _is_following = True
    for model in apps.get_models():
        fields = _followed(model)
        if any(_fields_of(model._meta.concrete_fields)):
            pre_save.connect(_name_canonically, model, dispatch_uid=f"{__name__}.names")
        if fields:
            pre_save.connect(_before_save, model, dispatch_uid=__name__)
            post_save.connect(_after_save, model, dispatch_uid=__name__)
        # If somebody listens, Django reads each row before it deletes it.
        if any(own.storage.clean_up for own in fields):
            pre_delete.connect(_before_delete, model, dispatch_uid=__name__)


# -- what a sweep asks


@dataclass
class Answer:
    """Which files rows own. A file in neither has no owner."""

    owned: set[Entry] = field(default_factory=set)
    #: Files for which that is unknown now, each with the reason.
    unknown: dict[Entry, str] = field(default_factory=dict)


def ask(entries: Iterable[Entry]) -> Answer:
    """Ask all databases which of the files rows own."""
    files = {"/".join(entry): entry for entry in entries}
    answer, asked = Answer(), set[Entry]()
    unfit = {alias: why for alias in _databases() if (why := _transaction_on(alias))}
    for own in _fields() if _databases() else ():
        named = {name: entry for file, entry in files.items() if (name := own.name_of(file))}
        asked.update(named.values())
        if named and (why := _ask_all(own, named, answer, unfit)):
            answer.unknown |= dict.fromkeys(named.values(), why)
    strangers = set(files.values()) - asked
    answer.unknown |= dict.fromkeys(strangers, "no model here has a field for it")
    for entry in answer.owned:
        answer.unknown.pop(entry, None)
    return answer


def _ask_all(own: _Field, named: Mapping[str, Entry], answer: Answer, unfit: dict[str, str]) -> str:
    """Ask all databases that are not ``unfit``; return why there is no answer, or nothing."""
    reasons: dict[str, str | None] = {}
    for alias in _databases():
        started = monotonic()
        reasons[alias] = unfit[alias] if alias in unfit else _ask(alias, own, named, answer)
        if (why := reasons[alias]) and monotonic() - started > PATIENCE:
            unfit[alias] = why  # the next question would take as long
    if all(why is None for why in reasons.values()) and _is_migrated(own.field.model):
        return f"no database has the table {own.field.model._meta.db_table!r}"
    return next(filter(None, reasons.values()), "")


def _is_migrated(model: type[Row]) -> bool:
    return any(router.allow_migrate_model(alias, model) for alias in _databases())


def _transaction_on(alias: str) -> str:
    """Return why a database cannot be asked here, or nothing.

    A transaction may not see what others have committed since it began, and may itself be rolled
    back. That of a `TestCase` is all that its test sees.
    """
    blocks: Sequence[Any] = connections[alias].atomic_blocks
    if all(block._from_testcase for block in blocks):
        return ""
    return "the sweep runs in a transaction, which may not see all rows"


def _databases() -> list[str]:
    # Routers say who makes a table, and where rows are written, but not where there are any.
    return [
        alias
        for alias, database in connections.settings.items()
        if database["ENGINE"] != NO_DATABASE
    ]


def _ask(alias: str, own: _Field, named: Mapping[str, Entry], answer: Answer) -> str | None:
    """Ask one database; return why it has no answer, "" if it has one, None without the table."""
    try:
        in_rows = _named(alias, own, list(named))
        found = {named[name] for name in {*(in_rows or ()), *filter(own.is_default, named)}}
    except Exception as error:  # a database may raise anything: its files stay for now
        return reason(error)
    answer.owned |= found
    return None if in_rows is None else ""


def _named(alias: str, own: _Field, names: Sequence[str]) -> set[str] | None:
    """Return those of ``names`` that rows in a database have; None if it lacks the table."""
    connection, model, attribute = connections[alias], own.field.model, own.field.attname
    found = set[str]()
    asked = {spelled: name for name in names for spelled in (name, f"./{name}")}
    spellings = list(asked)
    rows: models.QuerySet[Row] = models.QuerySet(model, using=alias)
    inside, is_ours = connection.in_atomic_block, connection.connection is None
    if connection.errors_occurred and not inside:
        connection.close_if_unusable_or_obsolete()
    # A transaction around this has its own time-outs, and elsewhere the settings have one.
    sets_timeout = connection.vendor == "postgresql" and not inside
    atomic = transaction.atomic(alias) if inside or sets_timeout else nullcontext()
    try:
        with atomic:  # a query that fails must not end the transaction around it
            if sets_timeout:
                _wait_no_longer(connection)
            # Where nothing is migrated, there may be no such table, or another one of that name.
            if not (router.allow_migrate_model(alias, model) or _has_column(alias, own)):
                return None
            for first in range(0, len(spellings), NAMES_PER_QUERY):
                some = spellings[first : first + NAMES_PER_QUERY]
                own_rows = rows.filter(**{f"{attribute}__in": some})
                found.update(own_rows.values_list(attribute, flat=True))
    except DatabaseError:
        if _has_table(alias, model):
            raise
        return None
    finally:
        if is_ours and not inside:  # nobody else will close it
            connection.close()
    # To some databases, names that differ in case are the same.
    return {asked[spelled] for spelled in found if spelled in asked}


def _wait_no_longer(connection: BaseDatabaseWrapper) -> None:
    """Have the transaction fail if somebody locks a table for longer than `LONGEST_LOCK`."""
    with connection.cursor() as cursor:
        cursor.execute(f"SET LOCAL lock_timeout = {LONGEST_LOCK}")


def _has_column(alias: str, own: _Field) -> bool:
    connection, table = connections[alias], own.field.model._meta.db_table
    if not _has_table(alias, own.field.model):
        return False
    with connection.cursor() as cursor:
        columns = connection.introspection.get_table_description(cursor, table)
    return own.field.column in [column.name for column in columns]


def _has_table(alias: str, model: type[Row]) -> bool:
    tables = connections[alias].introspection.table_names(include_views=True)
    return model._meta.db_table in tables
