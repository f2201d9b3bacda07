"""Connections that are each blocked in a read of their own, in one process::

    python -m shows.blocked_reads REDIS DESTINATION (stream|idle) COUNT

``stream``: XREAD BLOCK of the destination's events, again from the last entry whenever woken.
``idle``: BLPOP of a key that is never there. No client library is in the way.
"""

from __future__ import annotations

import re
import selectors
import socket
import sys
from urllib.parse import urlsplit

_ENTRY = re.compile(rb"\r\n(\d+-\d+)\r\n")


def main() -> None:
    """Until it is killed."""
    server, destination, of, count = *sys.argv[1:4], int(sys.argv[4])
    parts = urlsplit(server)
    stream = b"{%s}:ev" % destination.encode()
    poll = selectors.DefaultSelector()
    for number in range(count):
        link = socket.create_connection((parts.hostname, parts.port))
        if parts.password:
            _command(link, b"AUTH", parts.password.encode())
            link.recv(100)
        if of == "stream":
            _read(link, stream, b"$")
        else:
            _command(link, b"BLPOP", b"never-%d" % number, b"0")
        poll.register(link, selectors.EVENT_READ)
    while True:
        for key, _ in poll.select():
            link = key.fileobj  # type: ignore[assignment]
            reply = link.recv(1_000_000)
            if not reply:
                return
            found = _ENTRY.findall(reply)
            _read(link, stream, found[-1] if found else b"$")


def _read(link: socket.socket, stream: bytes, after: bytes) -> None:
    _command(link, b"XREAD", b"BLOCK", b"0", b"STREAMS", stream, after)


def _command(link: socket.socket, *words: bytes) -> None:
    parts = b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)
    link.sendall(b"*%d\r\n%s" % (len(words), parts))


if __name__ == "__main__":
    main()
