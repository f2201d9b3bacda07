"""What the messages cost Redis at least: ``python -m paceline.bench.merge.floor REDIS DESTINATION
COUNT BATCH``.

The bare commands that every message needs on its way out (take, fetch, settle), from one loop that
does nothing else: no request, no thread, no gate. No worker can be faster than this.
"""

from __future__ import annotations

import hashlib
import sys
import time

from paceline.answers import Leased, Settlement
from paceline.bench.child import BenchFailed
from paceline.bench.meter import Meter
from paceline.connect import connect
from paceline.outbox import OutboxStore, new_nonce

_WORKER, _BEAT_S = "floor", 2.0


def main() -> None:
    """Takes, fetches and settles ``COUNT`` messages as sent, ``BATCH`` at a time. Raises
    BenchFailed when one is missing, RedisError."""
    server, destination, count, batch = *sys.argv[1:3], int(sys.argv[3]), int(sys.argv[4])
    with connect(server, name="paceline-bench", timeout_s=30.0) as client:
        store = OutboxStore(client, destination)
        store.slots("beat", _WORKER)
        beat_s = time.monotonic()
        with Meter(count):
            done = 0
            while done < count:
                if time.monotonic() - beat_s > _BEAT_S:
                    store.slots("beat", _WORKER)
                    beat_s = time.monotonic()
                done += _turn(store, min(batch, count - done))


def _turn(store: OutboxStore, count: int) -> int:
    taken = store.take(_WORKER, new_nonce(), count, "any")
    settled = store.settle([_sent(leased) for leased in store.fetch(taken)])
    if settled != ["ok"] * count:
        raise BenchFailed(
            f"{count} messages were to be taken: {taken.status}, {len(taken.sizes)} taken, "
            f"{settled.count('ok')} settled"
        )
    return count


def _sent(leased: Leased) -> Settlement:
    sha1 = hashlib.sha1(leased.payload, usedforsecurity=False).digest()
    return Settlement(
        id=leased.id, nonce=leased.nonce, action="sent", sha1=sha1, latency_s=0.01,
        label="sent:200", health="g",
    )  # fmt: skip


if __name__ == "__main__":
    main()
