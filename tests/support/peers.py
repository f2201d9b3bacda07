"""Ugly peers: a loopback server whose every byte, and every close, a test decides."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
_PATIENCE_S = 10.0


class Talk:
    """One accepted connection, as its handler drives it. ``number`` counts from 0."""

    def __init__(self, sock: socket.socket, number: int, over: threading.Event) -> None:
        self.sock = sock
        self.number = number
        self.over = over
        self._rest = b""

    def read_request(self) -> bytes:
        """One whole request, head and body; b"" when the client closed."""
        while b"\r\n\r\n" not in self._rest:
            if not self._more():
                return b""
        head, _, body = self._rest.partition(b"\r\n\r\n")
        length = 0
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        while len(body) < length:
            if not self._more():
                return b""
            body = self._rest.partition(b"\r\n\r\n")[2]
        self._rest = body[length:]
        return head + b"\r\n\r\n" + body[:length]

    def _more(self) -> bool:
        try:
            data = self.sock.recv(65536)
        except (OSError, ValueError):
            return False
        self._rest += data
        return bool(data)

    def send(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            self.sock.sendall(data)

    def close(self) -> None:
        """FIN, where nothing unread is left (else the system makes it a reset)."""
        self.sock.close()

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def hold(self) -> None:
        """Until the test is over: silence."""
        self.over.wait(_PATIENCE_S)


class Peer:
    """Runs ``talk`` in a thread for each connection. ``requests`` is what came, whole."""

    def __init__(
        self,
        talk: Callable[[Peer, Talk], None],
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        receive_bytes: int = 0,
    ) -> None:
        self._talk = talk
        self._tls = tls
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self.accepted = 0
        self.open = 0
        self.most_open = 0
        self.requests: list[bytes] = []
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if receive_bytes:
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.listener.bind((host, port))
        self.listener.listen(128)
        self.host, self.port = self.listener.getsockname()

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://{self.host}:{self.port}/send"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._over.set()
        # shutdown wakes the thread in accept(); close alone does not.
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                sock.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            with self._lock:
                number, self.accepted = self.accepted, self.accepted + 1
                self.open += 1
                self.most_open = max(self.most_open, self.open)
                self._sockets.append(sock)
            threading.Thread(target=self._serve, args=(sock, number), daemon=True).start()

    def _serve(self, sock: socket.socket, number: int) -> None:
        try:
            sock.settimeout(_PATIENCE_S)
            if self._tls is not None:
                sock = self._tls.wrap_socket(sock, server_side=True)
            self._talk(self, Talk(sock, number, self._over))
        except OSError:
            pass
        finally:
            with contextlib.suppress(OSError):
                sock.close()
            with self._lock:
                self.open -= 1

    def note(self, request: bytes) -> None:
        with self._lock:
            self.requests.append(request)


def answers(*replies: bytes) -> Callable[[Peer, Talk], None]:
    """A polite peer: every request gets the next reply (the last one for ever), and it is kept
    open."""

    def talk(peer: Peer, it: Talk) -> None:
        while request := it.read_request():
            peer.note(request)
            it.send(replies[min(len(peer.requests), len(replies)) - 1])

    return talk


def make_certificate(folder: Path, host: str = "localhost") -> Path:
    """A self-signed certificate with its key, in one PEM file. Needs openssl."""
    at = folder / f"{host}.pem"
    key = folder / f"{host}.key"
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
            "-nodes", "-days", "2", "-subj", f"/CN={host}", "-addext", f"subjectAltName=DNS:{host}",
            "-keyout", str(key), "-out", str(at),
        ],
        check=True,
        capture_output=True,
    )  # fmt: skip
    at.write_bytes(at.read_bytes() + key.read_bytes())
    return at


def make_ca(folder: Path) -> Path:
    """A CA of one's own: its certificate, with its key beside it (``.key``). Needs openssl."""
    at = folder / "ca.pem"
    _openssl(
        "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
        "-days", "2", "-subj", "/CN=A CA of our own",
        "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign",
        "-keyout", str(at.with_suffix(".key")), "-out", str(at),
    )  # fmt: skip
    return at


def signed_by(ca: Path, host: str) -> Path:
    """A certificate for ``host``, signed by it, with its key, in one PEM file. Needs openssl."""
    at, request, key = (ca.with_name(f"{host}.{kind}") for kind in ("crt", "csr", "key"))
    _openssl(
        "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
        "-subj", f"/CN={host}", "-addext", f"subjectAltName=DNS:{host}",
        "-keyout", str(key), "-out", str(request),
    )  # fmt: skip
    _openssl(
        "x509", "-req", "-in", str(request), "-CA", str(ca), "-CAkey", str(ca.with_suffix(".key")),
        "-days", "2", "-copy_extensions", "copy", "-out", str(at),
    )  # fmt: skip
    at.write_bytes(at.read_bytes() + key.read_bytes())
    return at


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


def server_context(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context
