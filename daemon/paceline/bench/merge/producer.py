"""The producer: ``python -m paceline.bench.merge.producer REDIS DESTINATION COUNT``."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from paceline.bench.merge.body import CAMPAIGN, payload
from paceline.bench.meter import Meter
from paceline.client import Outbox
from paceline.errors import PacelineError
from paceline.message import Message


def main() -> None:
    """Hands a mailing over, made as it goes. Raises PacelineError when a message is refused."""
    server, destination, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    with Outbox.from_url(server) as outbox:
        outbox.destinations()  # connected before the clock runs
        with Meter(count):
            for answer in outbox.send_stream(_messages(destination, count)):
                if isinstance(answer, PacelineError):
                    raise answer


def _messages(destination: str, count: int) -> Iterator[Message]:
    for number in range(count):
        yield Outbox.message(destination, payload(number), campaign=CAMPAIGN, priority="bulk")


if __name__ == "__main__":
    main()
