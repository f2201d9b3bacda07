"""What the messages cost Redis at least: ``python -m paceline.bench.merge.floor REDIS DESTINATION
COUNT BATCH merged|plain``.

The bare commands that every message needs on its way out, from one loop that does nothing else: no
provider's body is made, no request sent. Merged: take, fetch, freeze (with a body of the payloads'
size), begin, settle; one by one: take, fetch, settle. No worker can be faster than this.
"""

from __future__ import annotations

import hashlib
import sys
import time

from paceline.answers import Leased, Settlement, Taken
from paceline.bench.child import BenchFailed
from paceline.bench.merge.body import CAMPAIGN
from paceline.bench.meter import Meter
from paceline.connect import connect
from paceline.merged import MARK, Member
from paceline.outbox import OutboxStore, new_nonce
from paceline.scripts import Pinned

_WORKER, _BEAT_S = "floor", 2.0


def main() -> None:
    """Takes, fetches and settles ``COUNT`` messages as sent, ``BATCH`` at a time. Raises
    BenchFailed when one is missing, RedisError."""
    server, destination, count, batch = *sys.argv[1:3], int(sys.argv[3]), int(sys.argv[4])
    merged = sys.argv[5] == "merged"
    with connect(server, name="paceline-bench", timeout_s=30.0) as client:
        store = OutboxStore(client, destination)
        store.slots("beat", _WORKER)
        pinned = Pinned(client)
        beat_s = time.monotonic()
        with Meter(count):
            done = 0
            while done < count:
                if time.monotonic() - beat_s > _BEAT_S:
                    store.slots("beat", _WORKER)
                    beat_s = time.monotonic()
                done += _turn(store, pinned, min(batch, count - done), merged=merged)


def _turn(store: OutboxStore, pinned: Pinned, count: int, *, merged: bool) -> int:
    taken = store.take(_WORKER, new_nonce(), count, "any")
    settled = 0
    if merged and taken.sizes:
        settled = _merged(store, pinned, taken)
    elif taken.sizes:
        settled = store.settle([_sent(leased) for leased in store.fetch(taken)]).count("ok")
    if settled != count:
        raise BenchFailed(
            f"{count} messages were to be taken: {taken.status}, {len(taken.sizes)} taken, "
            f"{settled} settled"
        )
    return count


def _merged(store: OutboxStore, pinned: Pinned, taken: Taken) -> int:
    values = [(i, v) for piece in store.fetch_values(taken) for i, v in piece if v is not None]
    members = [
        Member(i, taken.nonce, v[:60], hashlib.sha1(v, usedforsecurity=False).digest(), len(v) - 60)
        for i, v in values
    ]
    request = new_nonce()
    body = b"".join([v for _, v in values])
    batches = {taken.nonce: len(taken.sizes)}
    changed = store.freeze(
        _WORKER, request, body, members, priority="bulk", campaign=CAMPAIGN, batches=batches
    )
    permit = store.begin(pinned, MARK + request, request, len(body))
    done = Settlement(
        id=MARK + request, nonce=request, action="sent", latency_s=0.01, label="sent:200",
        health="g", begun_us=permit.begun_us,
    )  # fmt: skip
    words = store.settle([done])
    return len(members) if (changed, permit.verdict, words) == (None, "go", ["ok"]) else 0


def _sent(leased: Leased) -> Settlement:
    sha1 = hashlib.sha1(leased.payload, usedforsecurity=False).digest()
    return Settlement(
        id=leased.id, nonce=leased.nonce, action="sent", sha1=sha1, latency_s=0.01,
        label="sent:200", health="g",
    )  # fmt: skip


if __name__ == "__main__":
    main()
