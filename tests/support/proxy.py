"""A small HTTP proxy: tunnels (CONNECT), and requests given with their whole URL."""

from __future__ import annotations

import base64
import contextlib
import socket
import threading
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from support.peers import Peer, Talk


@dataclass
class ForwardProxy:
    """``with ForwardProxy() as it: it.url``. ``asked`` is every request's head, as it came.

    login    "user:password" that must be shown, "" for none
    refuses  what it answers instead of opening a tunnel, b"" for nothing of the kind; "silent"
             hosts are held without an answer
    leads    where every request really goes, whatever it names
    """

    login: str = ""
    refuses: bytes = b""
    silent: bool = False
    leads: tuple[str, int] | None = None
    host: str = "127.0.0.1"
    asked: list[bytes] = field(default_factory=list)

    def __enter__(self) -> ForwardProxy:
        self.peer = Peer(self._talk, host=self.host)
        self.peer.__enter__()
        self.url = f"http://{self.host}:{self.peer.port}"
        self.port = self.peer.port
        return self

    def __exit__(self, *_: object) -> None:
        self.peer.__exit__(None, None, None)

    def _talk(self, _: Peer, it: Talk) -> None:
        while request := it.read_request():
            head, _, body = request.partition(b"\r\n\r\n")
            self.asked.append(head)
            method, target, _ = head.split(b"\r\n")[0].split(b" ")
            if self.silent:
                return it.hold()
            if self.login and not self._is_let_in(head):
                it.send(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
                continue
            if self.refuses:
                it.send(self.refuses)
                return None
            if method == b"CONNECT":
                host, _, port = target.decode().rpartition(":")
                return self._pump(it, self.leads or (host.strip("[]"), int(port)))
            parts = urlsplit(target.decode())
            where = self.leads or (parts.hostname or "", parts.port or 80)
            lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"proxy-")]
            lines[0] = b"%s %s HTTP/1.1" % (method, (parts.path or "/").encode())
            it.send(_exchange(where, b"\r\n".join(lines) + b"\r\n\r\n" + body))
        return None

    def _is_let_in(self, head: bytes) -> bool:
        shown = b"proxy-authorization: basic " + base64.b64encode(self.login.encode())
        return any(line.lower() == shown.lower() for line in head.split(b"\r\n"))

    def _pump(self, it: Talk, where: tuple[str, int]) -> None:
        with socket.create_connection(where, 5) as there:
            it.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=_copy, args=(there, it.sock), daemon=True)
            back.start()
            _copy(it.sock, there)
            back.join(5)


def _exchange(where: tuple[str, int], request: bytes) -> bytes:
    with socket.create_connection(where, 5) as there:
        there.sendall(request.replace(b"HTTP/1.1\r\n", b"HTTP/1.1\r\nConnection: close\r\n", 1))
        head, _, rest = _all_of(there).partition(b"\r\n\r\n")
    kept = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"connection")]
    return b"\r\n".join(kept) + b"\r\n\r\n" + rest


def _all_of(sock: socket.socket) -> bytes:
    """One reply with a length."""
    data = b""
    while piece := sock.recv(65536):
        data += piece
        head, end, body = data.partition(b"\r\n\r\n")
        lengths = [
            int(line.partition(b":")[2])
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-length:")
        ]
        if end and lengths and len(body) >= lengths[0]:
            break
    return data


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
