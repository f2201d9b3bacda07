"""Paceline's producer: ``python -m paceline.bench.producer REDIS DESTINATION PREFIX COUNT``."""

from __future__ import annotations

import sys

from paceline.bench.body import payload
from paceline.bench.meter import Meter
from paceline.client import Outbox
from paceline.errors import PacelineError

#: Messages made at a time: a producer need not hold half a million.
_PIECE = 1000


def main() -> None:
    """Hands messages over, pipelined. Raises PacelineError when one is refused."""
    server, destination, prefix, count = *sys.argv[1:4], int(sys.argv[4])
    with Outbox.from_url(server) as outbox:
        outbox.destinations()
        with Meter(count):
            for first in range(0, count, _PIECE):
                _send(outbox, destination, prefix, range(first, min(first + _PIECE, count)))


def _send(outbox: Outbox, destination: str, prefix: str, numbers: range) -> None:
    messages = [outbox.message(destination, payload(n), id=f"{prefix}-{n}") for n in numbers]
    for answer in outbox.send_many(messages):
        if isinstance(answer, PacelineError):
            raise answer


if __name__ == "__main__":
    main()
