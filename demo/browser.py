"""As much of a browser as the scenario needs: cookies, forms, and answers of any status."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from email.message import Message
from http.cookiejar import CookieJar
from typing import Any, NamedTuple
from urllib.error import HTTPError
from urllib.parse import urljoin
from urllib.request import HTTPCookieProcessor, Request, build_opener

TIMEOUT = 20  # seconds: also on a machine that is busy
NO_FILES: Mapping[str, tuple[str, bytes]] = {}


class Answer(NamedTuple):
    """What a server has answered; ``url`` is where redirections have led."""

    url: str
    status: int
    headers: Message
    body: bytes


class Browser:
    """A client of the site at ``address``."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._cookies = CookieJar()
        self._opener = build_opener(HTTPCookieProcessor(self._cookies))

    def get(self, url: str) -> Answer:
        """GET from the site, or from elsewhere by a whole address."""
        return self._ask(Request(urljoin(self._address, url)))  # noqa: S310

    def post(
        self, url: str, fields: Mapping[str, str], files: Mapping[str, tuple[str, bytes]] = NO_FILES
    ) -> Answer:
        """Send a form, with the token against forgery that an earlier answer has set.

        ``files`` has for each field the name of a file and what is in it.
        """
        cookies = {cookie.name: cookie.value or "" for cookie in self._cookies}
        token = {"csrfmiddlewaretoken": cookies.get("csrftoken", "")}
        type_, body = _encoded({**token, **fields}, files)
        request = Request(urljoin(self._address, url), body, {"Content-Type": type_})  # noqa: S310
        return self._ask(request)

    def send(self, target: Mapping[str, Any], name: str, content: bytes) -> Answer:
        """Send a file to where `get_upload_url` has said."""
        headers = dict(target["headers"])
        body = content
        if target["method"] == "POST":
            headers["Content-Type"], body = _encoded(target["fields"], {"file": (name, content)})
        url = urljoin(self._address, target["url"])
        return self._ask(Request(url, body, headers, method=target["method"]))  # noqa: S310

    def _ask(self, request: Request) -> Answer:
        try:
            answer = self._opener.open(request, timeout=TIMEOUT)
        except HTTPError as refusal:  # which is an answer as well
            answer = refusal
        with answer:
            return Answer(answer.url, answer.status, answer.headers, answer.read())


def _encoded(
    fields: Mapping[str, str], files: Mapping[str, tuple[str, bytes]]
) -> tuple[str, bytes]:
    boundary = secrets.token_hex(16)
    parts = [(f'name="{name}"', value.encode()) for name, value in fields.items()]
    parts += [(f'name="{name}"; filename="{of}"', content) for name, (of, content) in files.items()]
    body = b"".join(
        f"--{boundary}\r\nContent-Disposition: form-data; {about}\r\n\r\n".encode()
        + value
        + b"\r\n"
        for about, value in parts
    )
    return f"multipart/form-data; boundary={boundary}", body + f"--{boundary}--\r\n".encode()
