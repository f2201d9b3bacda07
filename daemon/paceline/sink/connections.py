"""What is kept of connections: when they opened and closed, and what went over them."""

from __future__ import annotations

from collections.abc import Iterable


class ConnectionRecord:
    """One connection. Times are time.monotonic_ns(); ``closed_ns`` is None while it is open."""

    __slots__ = ("admin_requests", "closed_ns", "number", "opened_ns", "peer", "requests")

    def __init__(self, number: int, peer: str, opened_ns: int) -> None:
        self.number = number
        self.peer = peer
        self.opened_ns = opened_ns
        self.closed_ns: int | None = None
        self.requests = 0
        self.admin_requests = 0

    @property
    def admin(self) -> bool:
        """Whether it only ever spoke to the control endpoint: not the account's connection."""
        return self.admin_requests > 0 and self.requests == 0

    def as_dict(self) -> dict[str, object]:
        """For JSON: conn, peer, opened_ns, closed_ns, requests."""
        return {
            "conn": self.number,
            "peer": self.peer,
            "opened_ns": self.opened_ns,
            "closed_ns": self.closed_ns,
            "requests": self.requests,
        }


class ConnectionLog:
    """All connections since the last reset, in order of opening."""

    def __init__(self) -> None:
        self._records: list[ConnectionRecord] = []
        self._number = 0
        self.open_now = 0

    def opened(self, peer: str, now_ns: int) -> ConnectionRecord:
        """Keep a new connection."""
        record = ConnectionRecord(self._number, peer, now_ns)
        self._number += 1
        self._records.append(record)
        self.open_now += 1
        return record

    def closed(self, record: ConnectionRecord, now_ns: int) -> None:
        """Keep its end; the first call counts."""
        if record.closed_ns is None:
            record.closed_ns = now_ns
            self.open_now -= 1

    def all(self) -> list[ConnectionRecord]:
        """Every connection but those of the control endpoint."""
        return [record for record in self._records if not record.admin]

    def reset(self) -> None:
        """Forget those closed; those open stay, with no requests so far."""
        self._records = [record for record in self._records if record.closed_ns is None]
        for record in self._records:
            record.requests = 0


def max_open(records: Iterable[ConnectionRecord]) -> int:
    """The highest number open at the same time.

    Found afterwards by a sweep: a running count could not leave out the control endpoint's
    connections, which are only known by their first request.
    """
    steps: list[tuple[int, int]] = []
    for record in records:
        steps.append((record.opened_ns, 1))
        if record.closed_ns is not None:
            steps.append((record.closed_ns, -1))
    steps.sort()  # at the same instant -1 sorts first: a replacement is not an overlap
    highest = now = 0
    for _, step in steps:
        now += step
        highest = max(highest, now)
    return highest
