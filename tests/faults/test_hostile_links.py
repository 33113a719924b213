"""Signed links that somebody has changed, kept for too long, or made of two others."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from django.core.signing import Signer
from django.test import Client

from djpyfs import get_filesystem, links
from djpyfs.conf import SECOND
from djpyfs.filesystem import ExpiringFS
from djpyfs.links import Link
from tests.faults.conftest import Measured
from tests.servers import wait_for

CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_:.=%+ /\0é"


@pytest.fixture
def files(djfs: Callable[..., None], settings: Any, tmp_path: Path) -> ExpiringFS:
    settings.ROOT_URLCONF = "tests.faults.urls"
    djfs(type="osfs", directory_root=tmp_path / "files")
    for namespace in "plots", "others":
        get_filesystem(namespace).writebytes("a.png", namespace.encode())
    return get_filesystem("plots")


def status(url: str) -> int:
    with closing(Client().get(url)) as answer:
        return int(answer.status_code)


def mutated(token: str, randomly: random.Random) -> str:
    """The token with one character changed, left out, put in, or in its neighbor's place."""
    at = randomly.randrange(len(token))
    before, character, after = token[:at], token[at], token[at + 1 :]
    other = randomly.choice(CHARACTERS)
    return randomly.choice(
        [
            before + other + after,
            before + character.swapcase() + after,
            before + after,
            before + other + character + after,
            before + after[:1] + character + after[1:],
        ]
    )


@pytest.mark.fault("a token with one character changed", "10,000 mutations, all refused")
def test_no_character_of_a_token_can_be_changed(
    files: ExpiringFS, full: bool, measured: Measured
) -> None:
    tries = 10_000 if full else 500
    urls = [files.get_url("a.png"), files.get_url("a.png", download_as="b", max_downloads=9)]
    randomly = random.Random()
    client, refused = Client(), 0
    while refused < tries:
        token = randomly.choice(urls).removeprefix("/f/")
        mutation = mutated(token, randomly)
        if mutation != token:
            answer = client.get("/f/" + mutation.replace("%", "%25"))
            assert answer.status_code == 404, mutation
            refused += 1
    assert [status(url) for url in urls] == [200, 200]
    measured(f"{refused:,} mutations refused")


def test_parts_of_two_links_make_no_third_link(files: ExpiringFS) -> None:
    ours, theirs = files.get_url("a.png"), get_filesystem("others").get_url("a.png")
    (our_link, our_name), (their_link, their_name) = (
        url.removeprefix("/f/").rsplit(":", 1) for url in (ours, theirs)
    )
    assert status(f"/f/{their_link}:{our_name}") == 404
    assert status(f"/f/{our_link}:{their_name}") == 404
    assert status(f"/f/{our_link}:") == 404
    assert status(ours) == status(theirs) == 200


@pytest.mark.parametrize("salt", ["djpyfs", "django.core.signing", ""])
def test_a_token_that_the_site_signed_for_something_else_is_no_link(
    files: ExpiringFS, salt: str
) -> None:
    signer = Signer(salt=salt) if salt else Signer()
    link = list(Link("plots", "a.png", 2**60))
    assert status(f"/f/{signer.sign_object(link)}") == 404
    assert status(f"/f/{Signer(salt='djpyfs.links').sign_object(link)}") == 200


def test_a_link_to_another_namespace_or_past_its_end_is_a_404(files: ExpiringFS) -> None:
    now = 1_700_000_000 * SECOND
    for link in Link("plots", "a.png", now), Link("plot", "a.png", 2**60), Link("", "a.png", 2**60):
        assert status(f"/f/{links.sign(link)}") == 404
    short = files.get_url("a.png", 1)
    wait_for(lambda: status(short) == 404, what="the end of the link")


def test_a_rotated_key_opens_its_links_as_long_as_it_is_a_fallback(
    files: ExpiringFS, settings: Any
) -> None:
    url = files.get_url("a.png")
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "the next one", [settings.SECRET_KEY]
    assert status(url) == 200
    settings.SECRET_KEY_FALLBACKS = []
    assert status(url) == 404
