"""Randomness that does not depend on the order of events. Pure.

A draw is a hash of (seed, what is drawn for, message id, occurrence): two runs with the same
seed play the same fault to the same try of the same message, however the sender's threads and
connections interleave. A shared ``random.Random`` would hand out draws in order of arrival, and
no failure seen once could be seen again.
"""

from __future__ import annotations

from hashlib import blake2b

_SCALE = 1.0 / (1 << 53)


def draws(seed: int, message_id: str | None, occurrence: int) -> tuple[float, float]:
    """Two independent uniform numbers in (0, 1): the first for the fault, the second for latency.

    ``occurrence`` counts how often this id was seen before (0 first). Where ``message_id`` is
    None, pass the arrival's number instead: such requests cannot be told apart otherwise.
    """
    # The leading letter keeps the id "7" and the anonymous arrival 7 apart.
    name = f"i{message_id}" if message_id is not None else "n"
    key = f"{seed}\0{name}\0{occurrence}".encode("utf-8", "surrogateescape")
    digest = blake2b(key, digest_size=16).digest()
    first = int.from_bytes(digest[:8], "big") >> 11
    second = int.from_bytes(digest[8:], "big") >> 11
    return (first + 0.5) * _SCALE, (second + 0.5) * _SCALE
