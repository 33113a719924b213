"""A name that is refused raises the same error from every method of a filesystem."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from inspect import Parameter, iscoroutinefunction, signature
from io import BytesIO, StringIO
from typing import Any

import pytest

from djpyfs import get_filesystem
from djpyfs.errors import InvalidName
from djpyfs.filesystem import ExpiringFS, ExpiringSubFS

REFUSED = ["a\nb", "../../b", b"a"]
#: Parameters that are a name, or a list of names.
NAMES = {"path", "src_path", "dst_path", "dir_path", "filename"}
LISTS = {"filenames"}
WALKS = "files", "dirs", "info"
#: Arguments that the methods take beside names.
OTHERS: Mapping[str, Callable[[], Any]] = {
    "contents": lambda: b"",
    "data": lambda: b"",
    "text": lambda: "",
    "file": BytesIO,
    "info": dict,
    "seconds": lambda: 60,
    "when": lambda: datetime.now(UTC),
    "name": lambda: "md5",
    "pattern": lambda: "*",
    "fs": lambda: None,
}


def other(method: str, argument: str) -> Any:
    return "" if argument == "contents" and "text" in method else OTHERS[argument]()


def methods(kind: type) -> Iterator[tuple[str, str]]:
    """Yield each method of a filesystem with each of its arguments that names a file."""
    for method in sorted(name for name in dir(kind) if not name.startswith("_")):
        function = getattr(kind, method)
        if callable(function) and not iscoroutinefunction(function):  # each has a namesake
            for argument in signature(function).parameters:
                if argument in NAMES | LISTS:
                    yield method, argument


def bound(fs: Any) -> dict[str, Callable[..., Any]]:
    """Return what PyFilesystem binds to a filesystem, and takes a path as well."""
    walks = {"walk": fs.walk, **{name: getattr(fs.walk, name) for name in WALKS}}
    return {
        "tree": lambda path: fs.tree(path=path, file=StringIO()),
        "glob": lambda path: iter(fs.glob("*", path)),
        **{name: partial(walk, ignore_errors=True) for name, walk in walks.items()},
    }


@pytest.fixture(params=[ExpiringFS, ExpiringSubFS])
def fs(request: pytest.FixtureRequest, djfs: Callable[..., None]) -> Any:
    djfs(type="memory", default_ttl=600, hide_expired=True)
    fs = get_filesystem("plots")
    return fs if request.param is ExpiringFS else fs.makedir("below")


def refusal(act: Callable[[], Any]) -> str | None:
    """Return what was raised instead of what `open` raises."""
    try:
        found = act()
        if isinstance(found, Iterator):
            list(found)
    except InvalidName:
        return None
    except Exception as error:
        return repr(error)
    return f"nothing, but {found!r}"


def calls(fs: Any, there: str, refused: Any) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield every call with one refused name; where it takes two, the other is ``there``."""
    for method, argument in methods(type(fs)):
        function = getattr(fs, method)
        given = {
            name: there if name in NAMES else other(method, name)
            for name, parameter in signature(function).parameters.items()
            if parameter.default is Parameter.empty and parameter.kind is not Parameter.VAR_KEYWORD
            if name not in LISTS
        }
        if "seconds" in signature(function).parameters:
            given["seconds"] = 60
        given[argument] = [refused] if argument in LISTS else refused
        yield f"{method}({argument})", partial(function, **given)
    for method, function in bound(fs).items():
        yield method, partial(function, refused)


@pytest.mark.filterwarnings("ignore:method .* has been deprecated:DeprecationWarning")
@pytest.mark.parametrize("there", ["file", "directory", "missing", "expired"])
@pytest.mark.parametrize("refused", REFUSED)
def test_every_method_refuses_a_bad_name_as_open_does_whatever_its_other_name(
    fs: Any, refused: Any, there: str
) -> None:
    fs.makedir("directory")
    for name in "file", "expired":
        fs.writebytes(name, b"")
    fs.expire("expired", 0)
    with pytest.raises(InvalidName):
        fs.open(refused)
    answers = {name: refusal(call) for name, call in calls(fs, there, refused)}
    assert len(answers) > 60
    assert {name: it for name, it in answers.items() if it} == {}
