"""A TCP proxy that delays, keeps silent, or cuts connections in the middle of a reply."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.servers import HOST


class Proxy:
    """Passes bytes on to a server on a loopback port, or holds them back."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server((HOST, 0))
        self._open: set[socket.socket] = set()
        #: Seconds for which each reply is held back.
        self.delay = 0.0
        #: How many replies pass until something happens to one.
        self.passing = 0
        #: How many replies are cut in the middle.
        self.cuts = 0
        #: Whether replies never arrive.
        self.silent = False
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}/0"

    def stop(self) -> None:
        self._listener.close()
        for connection in list(self._open):
            _close(connection)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError), self._registered(client):
            server = socket.create_connection((HOST, self._target))
            with self._registered(server):
                threading.Thread(target=self._ask, args=(client, server), daemon=True).start()
                self._answer(server, client)

    def _ask(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := client.recv(1 << 16):
                server.sendall(data)
        _close(server)

    def _answer(self, server: socket.socket, client: socket.socket) -> None:
        while data := server.recv(1 << 16):
            if passes := self.passing > 0:
                self.passing -= 1
            elif self.cuts:
                self.cuts -= 1
                client.sendall(data[: len(data) // 2])
                return
            time.sleep(self.delay)
            while self.silent and not passes:
                time.sleep(0.05)
            client.sendall(data)

    @contextmanager
    def _registered(self, connection: socket.socket) -> Iterator[None]:
        self._open.add(connection)
        try:
            yield
        finally:
            self._open.discard(connection)
            _close(connection)


def _close(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
