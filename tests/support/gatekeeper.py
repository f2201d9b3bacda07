"""A provider that lets in who shows the right key, and remembers who showed what."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field

from support.peers import OK, Peer, Talk

NO = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"


@dataclass
class Gatekeeper:
    """``keys``: whoever shows one of them in X-Key is let in. ``shown`` is what came, in order;
    ``accepted`` counts ids. ``hold`` is waited for before each answer."""

    keys: set[str]
    shown: list[str] = field(default_factory=list)
    accepted: Counter[str] = field(default_factory=Counter)
    refused: int = 0

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self.go = threading.Event()
        self.go.set()

    def __enter__(self) -> Gatekeeper:
        self.peer = Peer(self._talk)
        self.peer.__enter__()
        self.url = self.peer.url
        return self

    def __exit__(self, *_: object) -> None:
        self.go.set()
        self.peer.__exit__(None, None, None)

    def _talk(self, _: Peer, it: Talk) -> None:
        while request := it.read_request():
            head = request.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]
            found = {n.lower(): v.strip().decode() for n, _, v in (h.partition(b":") for h in head)}
            key, message_id = found.get(b"x-key", ""), found[b"paceline-message-id"]
            with self._lock:
                self.shown.append(key)
                right = key in self.keys
                self.refused += not right
                self.accepted[message_id] += right
            self.go.wait(10)
            it.send(OK if right else NO)

    def last(self, count: int) -> set[str]:
        """The keys of the last so many requests."""
        with self._lock:
            return set(self.shown[-count:])
