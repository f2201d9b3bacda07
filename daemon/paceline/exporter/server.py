"""HTTP: /metrics, /healthz, /readyz, on the configured address and no other.

A bounded number of threads; where all are taken, the request that lasts longest is cut off, so that
a client that reads nothing cannot keep the next scrape out.
"""

from __future__ import annotations

import logging
import socket
import socketserver
import sys
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler
from typing import Any

from paceline.errors import ConfigError, ConfigProblem
from paceline.listen import Listen

#: (status, content type, body)
Page = tuple[int, str, bytes]

TEXT = "text/plain; charset=utf-8"
#: Requests at once.
THREADS = 16
_CLIENT_S = 5.0
_ROOM_S = 0.5

log = logging.getLogger("paceline.exporter")


class AddressTaken(ConfigError):
    """The address cannot be listened on."""

    def __init__(self, listen: Listen, why: str) -> None:
        problem = ConfigProblem(
            "exporter.listen",
            f"cannot listen on {listen}: {why}",
            "End what listens there, or choose another address: [exporter] listen, or "
            "--listen HOST:PORT, or off",
        )
        super().__init__([problem], source="exporter")


class _Handler(BaseHTTPRequestHandler):
    # The system's and Python's versions are nobody's business.
    server_version, sys_version = "paceline", ""
    error_message_format = "%(code)d %(message)s\n"
    error_content_type = TEXT
    timeout = _CLIENT_S
    server: _Listener

    def do_GET(self) -> None:
        page = self.server.pages.get(self.path.partition("?")[0])
        if page is None:
            known = ", ".join(self.server.pages)
            self._answer((404, TEXT, f"nothing here; there is {known}\n".encode()))
            return
        self._answer(page())

    do_HEAD = do_GET  # noqa: N815 - the name that http.server looks for

    def _answer(self, page: Page) -> None:
        status, kind, body = page
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Scrapes are no events."""


class _Listener(socketserver.ThreadingMixIn, socketserver.TCPServer):
    # TCPServer: HTTPServer asks the name service for the name of its own address.
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 32

    def __init__(self, listen: Listen, pages: Mapping[str, Callable[[], Page]]) -> None:
        found = socket.getaddrinfo(listen.host, listen.port, type=socket.SOCK_STREAM)
        self.address_family, _, _, _, where = found[0]
        self.pages = pages
        self._room = threading.BoundedSemaphore(THREADS)
        self._lock = threading.Lock()
        self._open: dict[Any, None] = {}  # in order of arrival
        super().__init__(where[:2], _Handler)  # type: ignore[arg-type]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Called by the accepting thread."""
        if not self._room.acquire(blocking=False):
            self._cut_oldest()
            if not self._room.acquire(timeout=_ROOM_S):
                self.shutdown_request(request)
                return
        with self._lock:
            self._open[request] = None
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """The thread of one request."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._lock:
                self._open.pop(request, None)
            self._room.release()

    def _cut_oldest(self) -> None:
        with self._lock:
            oldest = next(iter(self._open), None)
            if oldest is None:
                return
            # It leaves the list at once, or the next in need of room would cut the same one.
            del self._open[oldest]
            try:
                oldest.shutdown(socket.SHUT_RDWR)
            except OSError:
                return  # its client has gone already: its thread is about to end

    def handle_error(self, *_: Any) -> None:
        """A client that went away, or was cut off, is no event."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            log.exception("unexpected error; going on")


class MetricsServer:
    """Bound when built (AddressTaken where it cannot be); serves from ``start`` to ``stop``."""

    def __init__(self, listen: Listen, pages: Mapping[str, Callable[[], Page]]) -> None:
        try:
            self._listener = _Listener(listen, pages)
        except OSError as error:
            raise AddressTaken(listen, error.strerror or str(error)) from error
        host, port = self._listener.server_address[:2]
        self.address = Listen(str(host), int(port))
        self._thread = threading.Thread(
            target=self._listener.serve_forever, args=(0.2,), name="exporter", daemon=True
        )

    def start(self) -> None:
        """Starts to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Stops, and frees the address."""
        if self._thread.is_alive():
            self._listener.shutdown()
        self._listener.server_close()
