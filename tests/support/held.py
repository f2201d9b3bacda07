"""What a worker holds, by the outbox's own account."""

from __future__ import annotations

from paceline.outbox import OutboxStore


def batches_of(store: OutboxStore, worker: str) -> list[str]:
    """Nonces of the batches that are leased to it."""
    nonces = [nonce.decode() for nonce in store.client.zrange(f"{store.tag}:batches", 0, -1)]
    pipe = store.client.pipeline(transaction=False)
    for nonce in nonces:
        pipe.hget(f"{store.tag}:bm:{nonce}", "worker")
    holders = pipe.execute()
    return [n for n, who in zip(nonces, holders, strict=True) if who == worker.encode()]


def begun_by(store: OutboxStore, worker: str) -> list[str]:
    """Ids that it has begun and not settled."""
    held = [
        member.decode()
        for nonce in batches_of(store, worker)
        for member in store.client.smembers(f"{store.tag}:b:{nonce}")
    ]
    found = store.look(held) if held else []
    return [
        its_id
        for its_id, it in zip(held, found, strict=True)
        if it is not None and it[0].state == "begun" and it[3] == worker
    ]
