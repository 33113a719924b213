"""Names that somebody might hope to do harm with, and what happens to each.

Most are the same as a namespace and as a file name. ``AS_FILES`` are those that PyFilesystem
normalizes as file names; as namespaces they are refused.
"""

from __future__ import annotations

from typing import Any

LONGEST_SEGMENT = 255  # bytes
LONGEST_KEY = 1_024  # bytes, with the namespace and all

# Refused, as a namespace and as a file name.
REFUSED: dict[str, Any] = {
    # out of the root
    "parent": "..",
    "parent's file": "../secret",
    "parent's parent": "../../canary/secret",
    "in and out": "a/../../canary/secret",
    "rooted and out": "/../canary/secret",
    "out by doubled slashes": "a//..//..//canary/secret",
    "out by dots in between": "./.././canary/secret",
    "out by backslashes": "..\\canary\\secret",
    "out by both": "a/..\\../canary",
    "overlong and out": "../" * 300 + "etc/passwd",
    # NUL, control characters, and ends of lines
    "NUL": "a\0b",
    "NUL at the end": "a.png\0",
    "NUL and out": "\0/../secret",
    "newline": "a\nb",
    "newline at the end": "a\n",
    "carriage return": "a\r\nSet-Cookie: harm=1",
    "a line of a log": "a\n2026-01-01 INFO all is well",
    "tab": "a\tb",
    "bell": "a\ab",
    "escape": "a\x1b[2Jb",
    "delete": "a\x7fb",
    "next line of C1": "a\x85b",
    "escape of C1": "a\x9b2Jb",
    "line separator": "a\u2028b",
    "paragraph separator": "a\u2029b",
    # characters that make a name look like another
    "right to left override": "plot\u202egnp.exe",
    "left to right override": "a\u202db",
    "embedding": "a\u202ab\u202c",
    "isolate": "a\u2066b\u2069",
    "right to left mark": "a\u200fb",
    "Arabic letter mark": "a\u061cb",
    # what cannot be written in UTF-8
    "lone surrogate": "a\ud800b",
    "byte that is no UTF-8": "a\udcff",
    "pair of surrogates": "\ud83d\ude00",
    # what XML cannot hold, and so no request to S3 that names many files
    "no character": "a\uffff",
    "byte order mark, turned round": "\ufffea",
    # separators of other systems
    "backslash": "a\\b",
    "path with a drive": "C:\\Windows\\win.ini",
    "share": "\\\\host\\share",
    # too long
    "long segment": "x" * (LONGEST_SEGMENT + 1),
    "long segment of two bytes": "é" * 128,
    "long key": "/".join(["x" * 200] * 6),
    "deep": "d/" * 520 + "a",
    "flood": "x" * 1_000_000,
    # no text
    "bytes": b"a",
    "None": None,
    "number": 5,
    "list": ["a"],
    "object": {"a": "b"},
}

# Refused as a namespace; as a file name another spelling of the second.
AS_FILES: dict[str, tuple[str, str]] = {
    "absolute": ("/etc/passwd", "etc/passwd"),
    "host": ("//host/share", "host/share"),
    "doubled slash": ("b//c", "b/c"),
    "dot at first": ("./a", "a"),
    "dot in between": ("d/./e", "d/e"),
    "in and out and in": ("a/../f", "f"),
    "scheme": ("file:///etc/passwd", "file:/etc/passwd"),
    "address": ("http://127.0.0.1/", "http:/127.0.0.1"),
    "slash at the end": ("g/", "g"),
}

# The same, but it is no file: the root of the namespace.
ROOTS: dict[str, str] = {"empty": "", "slash": "/", "dot": ".", "slashes": "///", "back": "a/.."}

# Taken literally, as a namespace and as a file name.
ACCEPTED: dict[str, str] = {
    # nothing is expanded
    "variable": "${HOME}",
    "variable without braces": "$HOME",
    "variable of Windows": "%USERPROFILE%",
    "home": "~",
    "somebody's home": "~root",
    "command": "$(touch harm)",
    "backquotes": "`touch harm`",
    "pipe": "a;touch harm|b&c>d<e",
    "pattern": "*",
    "pattern of SCAN": "[a-z]?*",
    "format": "{0.__class__}{}%s%(name)s",
    "option": "--delete",
    # nothing is decoded
    "quoted parent": "%2e%2e",
    "quoted parent's file": "%2e%2e%2fsecret",
    "quoted twice": "%252e%252e",
    "quoted NUL": "a%00b",
    "quoted newline": "a%0d%0ab",
    "overlong UTF-8, quoted": "%c0%ae%c0%ae",
    "entity": "&#46;&#46;",
    # only looks like a parent
    "three dots": "...",
    "hidden": ".htaccess",
    "parent and more": "..a",
    "dots at the end": "a..",
    "dot at the end": "a.",
    "dots of full width": "\uff0e\uff0e",
    "dots in one": "\u2025",
    "slash of full width": "a\uff0fb",
    "slash of a fraction": "a\u2044b",
    "backslash of full width": "a\uff3cb",
    # addresses
    "query": "a?b=c",
    "fragment": "a#b",
    "both": "?#%&+=;@:,!$'()*",
    "plus": "a+b c",
    "script": "javascript:alert(1)",
    "data": "data:text/html,<script>alert(1)</script>".replace("/", ":"),
    "drive": "C:",
    "stream": "a.txt::$DATA",
    "device": "CON",
    # markup and quotes
    "element": "<script>alert(1)<",
    "attribute": '"><img src=x onerror=alert(1)>',
    "quotes": "'\"",
    "template": "{{ 7*7 }}{% debug %}",
    "statement": "'; DROP TABLE djpyfs_fsexpirations; --",
    # Unicode
    "composed": "\u00e9",
    "decomposed": "e\u0301",
    "ligature": "\ufb01le",
    "case": "STRASSE\u1e9e",
    "zero width": "a\u200bb",
    "joined": "👩\u200d💻",
    "byte order mark": "\ufeffa",
    "no character of a higher plane": "a\U0001ffffb",
    "private": "a\ue000b",
    "last plane": "\U0010ffff",
    "Hebrew": "שלום",
    "spaces": " a b ",
    "space": " ",
    "wide space": "\u3000",
    "no-break space": "a\u00a0b",
    # as long as may be
    "longest segment": "x" * LONGEST_SEGMENT,
    "longest segment of two bytes": "é" * 127,
    "long": "/".join(["é" * 100] * 4),
    "nested": "usage/uss__fs/zoë..b",
}
