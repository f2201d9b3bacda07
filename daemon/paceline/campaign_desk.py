"""Campaigns at work: looked through in pieces, paused, resumed and cancelled to the end.

The index of a campaign's live messages may be long, so nothing here asks Redis for all of it at
once (``lua/campaigns.lua``). ``advance`` is told how many more messages were looked at. All raise
RedisError.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from paceline import keys
from paceline.campaigns import (
    STATES,
    TOTALS,
    Campaign,
    CampaignPause,
    CampaignTotals,
    Tail,
    eta_s,
    tail_of,
)
from paceline.outbox import OutboxStore

Advance = Callable[[int], None]

#: Messages in one step: Redis serves nobody else for about as many times 10 us. To cancel one costs
#: three times that.
STEP = 200
_CANCEL_STEP = 70
#: Campaigns that are looked up at one instant.
_TOGETHER = 100
#: Rounds of a cancel, while messages keep coming in.
_ROUNDS = 10


def names(store: OutboxStore) -> list[str]:
    """All campaigns that anything is known of, by name: with live messages, paused, or ended not
    longer ago than records are kept."""
    after = f"({store.redis_now_us()}"
    found: list[Any] = store.client.zrangebyscore(_key(store, "cs"), after, "+inf")
    paused: Any = store.client.hkeys(_key(store, "cp"))
    return sorted({_text(name) for name in (*found, *paused)})


def listed(store: OutboxStore) -> list[CampaignTotals]:
    """What is known of each of them without a look at its messages."""
    every = names(store)
    starts = range(0, len(every), _TOGETHER)
    return [it for start in starts for it in _totals(store, every[start : start + _TOGETHER])]


def totals(store: OutboxStore, name: str) -> CampaignTotals:
    """What is known of one of them; zeros where that is nothing."""
    return _totals(store, [name])[0]


def _totals(store: OutboxStore, some: Sequence[str]) -> list[CampaignTotals]:
    pipe = store.client.pipeline(transaction=True)
    for name in some:
        pipe.scard(_key(store, f"c:{name}"))
        pipe.hgetall(_key(store, f"cn:{name}"))
        pipe.hget(_key(store, "cp"), name)
        pipe.hexists(_key(store, "cw"), name)
    replies = pipe.execute()
    return [_known(store, name, *replies[4 * n : 4 * n + 4]) for n, name in enumerate(some)]


def _known(
    store: OutboxStore, name: str, live: Any, counted: Any, paused: Any, under_way: Any
) -> CampaignTotals:
    n = {_text(field): int(value) for field, value in counted.items()}
    return CampaignTotals(
        destination=store.destination,
        name=name,
        live=int(live),
        totals={field: n.get(field, 0) for field in TOTALS},
        pause=_pause(paused),
        under_way=bool(under_way),
    )


def look(store: OutboxStore, name: str, advance: Advance = lambda _: None) -> Campaign:
    """All of one, each message looked at. Messages move meanwhile: each is told once, as it was
    when it was looked at."""
    found: Counter[str] = Counter()
    tops: dict[str, int] = {}
    seen: set[str] = set()
    for ids in pieces(store, name):
        # SSCAN may tell of one twice.
        fresh = [message_id for message_id in ids if message_id not in seen]
        seen.update(fresh)
        for what, number in store.survey(name, fresh).items():
            if what in STATES:
                found[what] += number
            else:
                tops[what] = max(number, tops.get(what, 0))
        advance(len(fresh))
    known, census, tail = totals(store, name), store.census(), tail_of(tops)
    states = {state: found[state] for state in STATES}
    soonest_s, latest_s = eta_s(states, tail, census, _before(store, tail))
    return Campaign(
        destination=known.destination,
        name=name,
        live=known.live,
        totals=known.totals,
        pause=known.pause,
        under_way=known.under_way,
        states=states,
        soonest_s=soonest_s,
        latest_s=latest_s,
    )


def pause(
    store: OutboxStore, name: str, *, why: str, who: str, advance: Advance = lambda _: None
) -> bool:
    """Nothing of it begins any more. True if it was not paused before."""
    changed, _ = store.pause_campaign(name, why=why, who=who)
    _walk(store, advance)
    return changed


def resume(store: OutboxStore, name: str, *, who: str, advance: Advance = lambda _: None) -> bool:
    """All that waits with it is back at its place. True if it was paused."""
    changed, _ = store.resume_campaign(name, who=who)
    _walk(store, advance)
    return changed


def cancel(store: OutboxStore, name: str, advance: Advance = lambda _: None) -> dict[str, int]:
    """Cancels all that can be, also what comes in meanwhile (up to _ROUNDS times). How many by
    word: cancelled; begun (may be on the wire), dead, parked: these are left."""
    cancelled = 0
    left: dict[str, str] = {}
    for _ in range(_ROUNDS):
        before, left = cancelled, {}
        for ids in pieces(store, name, _CANCEL_STEP):
            words = dict(zip(ids, store.cancel_of_campaign(name, ids), strict=True))
            cancelled += sum(1 for word in words.values() if word == "cancelled")
            left |= {i: word for i, word in words.items() if word in ("begun", "dead", "parked")}
            advance(len(words))
        if cancelled == before:
            break
    words_left = Counter(left.values())
    return {"cancelled": cancelled} | {
        word: words_left[word] for word in ("begun", "dead", "parked")
    }


def pieces(store: OutboxStore, name: str, most: int = STEP) -> Iterator[list[str]]:
    """The ids of its live messages, ``most`` at a time, each at least once; one that comes in or
    ends meanwhile may be missing."""
    cursor = 0
    while True:
        reply: Any = store.client.sscan(_key(store, f"c:{name}"), cursor, count=STEP)
        cursor, ids = int(reply[0]), [_text(i) for i in reply[1]]
        # A small set comes as a whole.
        for start in range(0, len(ids), most):
            yield ids[start : start + most]
        if not cursor:
            return


def _walk(store: OutboxStore, advance: Advance) -> None:
    left = 1
    while left:
        looked, left = store.walk_campaigns(STEP)
        advance(looked)


def _before(store: OutboxStore, tail: Tail | None) -> int | None:
    """How many are ready at the tail's place or before it, in its priority; None where several
    tenants share it."""
    if tail is None:
        return 0
    ring: list[Any] = store.client.zrange(_key(store, f"t:{tail.priority}"), 0, 1)
    if len(ring) > 1:
        return None
    if not ring:
        return 0
    place = _key(store, f"r:{tail.priority}:{_text(ring[0])}")
    return int(store.client.zcount(place, "-inf", tail.place))


def _pause(entry: Any) -> CampaignPause | None:
    if entry is None:
        return None
    told = json.loads(entry)
    return CampaignPause(since_s=int(told["at_us"]) / 1e6, who=told["who"], why=told["why"])


def _key(store: OutboxStore, name: str) -> str:
    return keys.key(store.destination, name)


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
