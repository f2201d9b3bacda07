"""TLS in front of a server without it, as stunnel would be: the bundled Valkey is built so."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from types import TracebackType
from typing import Self


class TlsFront:
    """``with TlsFront(context, port) as it: it.port``; leads to 127.0.0.1:port."""

    def __init__(self, context: ssl.SSLContext, port: int) -> None:
        self._context, self._to = context, port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        #: Common names of the clients' certificates, None where one showed none.
        self.clients: list[str | None] = []

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        for it in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                it.shutdown(socket.SHUT_RDWR)
            it.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                raw, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(raw,), daemon=True).start()

    def _serve(self, raw: socket.socket) -> None:
        with contextlib.suppress(OSError):  # a handshake that fails is the client's to report
            near = self._context.wrap_socket(raw, server_side=True)
            self.clients.append(_name(near))
            far = socket.create_connection(("127.0.0.1", self._to))
            self._open += [near, far]
            # One direction each: reading and writing at once is what an SSL socket allows.
            threading.Thread(target=_pump, args=(far, near), daemon=True).start()
            _pump(near, far)


def _name(sock: ssl.SSLSocket) -> str | None:
    shown = sock.getpeercert()
    if not shown:
        return None
    return next(value for part in shown["subject"] for key, value in part if key == "commonName")  # type: ignore[misc]


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)
