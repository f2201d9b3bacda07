"""``audit --deep``: every message against its container, and every place against its message.

The conservation law says *that* something is missing; this says *what*. It reads and never writes.

Messages move while they are walked. A message and its container are looked at in one script, so a
disagreement there is real; a place is read first and its message after, so what looks wrong may
only have moved. Whatever looks wrong is looked at again, at once and after a moment, and is
reported only if it was wrong every time. The byte counter can be compared only when nothing moved
between the first look and the last.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final, TypeVar

from redis.exceptions import ResponseError

from paceline import keys
from paceline.merged import MARK, is_request
from paceline.outbox import OutboxStore
from paceline.records import Ended, Live

CHUNK = 500
SHOWN = 20
#: Pauses before each further look at what seems wrong.
AGAIN_AFTER_S: Final = (0.0, 0.05, 0.25)

_PRIORITY_DIGITS: Final = {"high": "0", "normal": "1", "bulk": "2"}
_SHELVES: Final = {"dead": "dead", "parked": "parked", "s": "scheduled"}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Place:
    """One place in a container: ``container`` is the part of the key after the tag: ``dead``,
    ``parked``, ``s``, ``r:<priority>:<tenant>``, ``b:<nonce>`` or ``qm:<request>``."""

    container: str
    id: str

    @property
    def words(self) -> str:
        """The container, for people."""
        kind, _, rest = self.container.partition(":")
        if kind == "r":
            return f"ready ({self.container})"
        if kind == "b":
            return f"leased (batch {rest})"
        if kind == "qm":
            return f"merged (request {rest})"
        return _SHELVES.get(kind, kind)


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that is not as it should be. ``subject`` is the message's id, or the name of a
    container; ``kind`` one of: no-container, no-message, other-state, unreadable, no-expiry,
    unserved, empty-ring, unindexed-batch, empty-batch, merged, campaign, bytes."""

    kind: str
    subject: str
    problem: str
    mend: str


@dataclass(slots=True)
class Findings:
    """What a walk found. ``faults`` are the first SHOWN of ``counts``; ``bytes_found`` is None
    where messages moved, so that their sizes could not be compared with the counter."""

    messages: int = 0
    records: int = 0
    places: int = 0
    bytes_counter: int = 0
    bytes_found: int | None = None
    counts: Counter[str] = field(default_factory=Counter)
    faults: list[Fault] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether nothing was found wrong."""
        return not self.counts

    def add(self, fault: Fault) -> None:
        """Counts a fault, and keeps it if it is among the first."""
        self.counts[fault.kind] += 1
        if len(self.faults) < SHOWN:
            self.faults.append(fault)


class _Unreadable:
    """In the place of a head: the key holds something else."""


_Head = tuple[Live | Ended, int, bool, str] | _Unreadable | None


class DeepAudit:
    """One walk over one destination. ``rest`` waits; tests inject it to move messages meanwhile."""

    def __init__(self, store: OutboxStore, rest: Callable[[float], None] = time.sleep) -> None:
        self._store = store
        self._client = store.client
        self._rest = rest
        self._seen: set[str] = set()
        self._bytes = 0
        self._findings = Findings()

    def steps(self) -> int:
        """About how far ``run`` will advance."""
        sizes = self._store.census().law
        containers = sum(sizes[t] for t in ("dead", "parked", "ready", "scheduled", "leased"))
        return int(self._client.dbsize()) + containers

    def run(self, advance: Callable[[int], None] = lambda _: None) -> Findings:
        """Walks everything once. Raises RedisError."""
        before = self._counters()
        tenants, nonces, campaigns = self._walk_keys(advance)
        for prio in "012":
            ring = self._client.zrange(self._key(f"t:{prio}"), 0, -1)
            tenants |= {f"{prio}:{_text(tenant)}" for tenant in ring}
        nonces |= {_text(nonce) for nonce in self._client.zrange(self._key("batches"), 0, -1)}
        containers = [*_SHELVES, *(f"r:{t}" for t in sorted(tenants)), *(f"b:{n}" for n in nonces)]
        for places in _chunks(self._places(containers)):
            self._findings.places += len(places)
            self._settle_on(places, self._check_places)
            advance(len(places))
        self._settle_on(sorted(tenants), self._check_rings)
        self._settle_on(sorted(nonces), self._check_batches)
        requests = [_text(i) for i in self._client.hkeys(self._key("q"))]
        for request in requests:
            self._settle_on([request], self._check_request)
        for campaign in sorted(campaigns):
            self._check_campaign(campaign)
        self._compare_bytes(before)
        return self._findings

    # -- walking ----------------------------------------------------------------------------

    def _walk_keys(self, advance: Callable[[int], None]) -> tuple[set[str], set[str], set[str]]:
        """Checks every message; returns the ready sets ("<priority>:<tenant>"), batches and
        campaigns seen."""
        prefix = keys.tag(self._store.destination) + ":"
        tenants: set[str] = set()
        nonces: set[str] = set()
        campaigns: set[str] = set()
        cursor = 0
        while True:
            reply: Any = self._client.scan(cursor, match=prefix + "*", count=1000)
            cursor, names = reply
            ids = []
            for name in names:
                kind, _, rest = _text(name)[len(prefix) :].partition(":")
                if kind == "m":
                    ids.append(rest)
                elif kind == "r":
                    tenants.add(rest)
                elif kind == "b":
                    nonces.add(rest)
                elif kind == "c":
                    campaigns.add(rest)
            # SCAN may name a key twice, and then its bytes would count twice.
            fresh = [i for i in ids if i not in self._seen]
            for chunk in _chunks(fresh):
                self._settle_on(chunk, self._check_messages)
            advance(1000)
            if not cursor:
                return tenants, nonces, campaigns

    def _places(self, containers: Iterable[str]) -> Iterator[Place]:
        for container in containers:
            members: Iterable[Any]
            if container.startswith("b:"):
                members = self._client.sscan_iter(self._key(container), count=1000)
            else:
                scores = self._client.zscan_iter(self._key(container), count=1000)
                members = (member for member, _ in scores)
            for member in members:
                yield Place(container, _text(member))

    def _settle_on(
        self, subjects: Sequence[T], check: Callable[[Sequence[T]], list[tuple[T, Fault]]]
    ) -> None:
        """Reports what ``check`` finds wrong, and finds wrong again each time it is asked."""
        wrong = check(subjects) if subjects else []
        for pause_s in AGAIN_AFTER_S:
            if not wrong:
                return
            if pause_s:
                self._rest(pause_s)
            wrong = check([subject for subject, _ in wrong])
        for _, fault in wrong:
            self._findings.add(fault)

    # -- checks: each returns the subjects that look wrong, with what is wrong ---------------

    def _check_messages(self, ids: Sequence[str]) -> list[tuple[str, Fault]]:
        wrong = []
        expiring = []
        labelled = []
        for message_id, found in self._look(ids):
            if found is None:
                continue
            first = message_id not in self._seen
            self._seen.add(message_id)
            if isinstance(found, _Unreadable):
                wrong.append((message_id, self._unreadable(message_id)))
                continue
            head, size, in_container, _ = found
            if isinstance(head, Ended):
                self._findings.records += first
                continue
            if first and not is_request(message_id):
                self._findings.messages += 1
                self._bytes += size
            if not in_container:
                wrong.append((message_id, self._homeless(message_id, head)))
                continue
            if is_request(message_id):
                continue
            if head.campaign:
                labelled.append((message_id, head.campaign))
            if head.expires_us and head.state in ("ready", "scheduled", "leased", "begun"):
                expiring.append(message_id)
        if expiring:
            scores = self._client.zmscore(self._key("e"), expiring)
            for message_id, score in zip(expiring, scores, strict=True):
                if score is None:
                    wrong.append((message_id, _no_expiry(message_id)))
        pipe = self._client.pipeline(transaction=False)
        for message_id, campaign in labelled:
            pipe.sismember(self._key(f"c:{campaign}"), message_id)
        for (message_id, campaign), there in zip(labelled, pipe.execute(), strict=True):
            if not there:
                wrong.append((message_id, self._unlisted(message_id, campaign)))
        return wrong

    def _check_campaign(self, campaign: str) -> None:
        """All that stands in its index is of it, and lives."""
        index = self._key(f"c:{campaign}")

        def check(ids: Sequence[str]) -> list[tuple[str, Fault]]:
            pipe = self._client.pipeline(transaction=False)
            for message_id in ids:
                pipe.sismember(index, message_id)
            there = dict(zip(ids, pipe.execute(), strict=True))
            wrong = []
            for message_id, found in self._look([i for i in ids if there[i]]):
                head = found[0] if isinstance(found, tuple) else None
                if not isinstance(head, Live) or head.campaign != campaign:
                    problem = (
                        f"is in the index of campaign {campaign}, but is no live message of it"
                    )
                    mend = f"Scripts of an older version ended it: SREM {index} {message_id}"
                    wrong.append((message_id, Fault("campaign", message_id, problem, mend)))
            return wrong

        members = (_text(member) for member in self._client.sscan_iter(index, count=1000))
        for ids in _chunks(members):
            self._settle_on(ids, check)

    def _check_places(self, places: Sequence[Place]) -> list[tuple[Place, Fault]]:
        pipe = self._client.pipeline(transaction=False)
        for place in places:
            if place.container.startswith("b:"):
                pipe.sismember(self._key(place.container), place.id)
            else:
                pipe.zscore(self._key(place.container), place.id)
        # SISMEMBER answers 0 where it is not, ZSCORE nothing; a score may well be 0.
        there = [
            bool(reply) if place.container.startswith("b:") else reply is not None
            for place, reply in zip(places, pipe.execute(), strict=True)
        ]
        standing = [place for place, still in zip(places, there, strict=True) if still]
        heads = dict(self._look([place.id for place in standing]))
        wrong = []
        for place in standing:
            fault = self._judge(place, heads[place.id])
            if fault is not None:
                wrong.append((place, fault))
        return wrong

    def _judge(self, place: Place, found: _Head) -> Fault | None:
        if found is None:
            return Fault(
                "no-message",
                place.id,
                f"is in {place.words}, but its message is gone",
                "Its key was deleted, or evicted (maxmemory-policy must be noeviction): "
                "send it again from its source",
            )
        if isinstance(found, _Unreadable):
            return self._unreadable(place.id)
        head = found[0]
        if isinstance(head, Live) and _home(head) == place.container:
            return None
        says = f"has ended as {head.state}" if isinstance(head, Ended) else f"says {head.state}"
        return Fault(
            "other-state",
            place.id,
            f"is in {place.words}, but its message {says}",
            "The container was changed by hand: remove this id from it",
        )

    def _check_rings(self, tenants: Sequence[str]) -> list[tuple[str, Fault]]:
        pipe = self._client.pipeline(transaction=True)
        for name in tenants:
            prio, _, tenant = name.partition(":")
            pipe.zscore(self._key(f"t:{prio}"), tenant)
            pipe.zcard(self._key(f"r:{name}"))
        replies = pipe.execute()
        wrong = []
        for name, score, size in zip(tenants, replies[::2], replies[1::2], strict=True):
            if size and score is None:
                problem = f"{size:,} ready, but the ring of tenants does not serve it"
                mend = "Send one message of this tenant and priority: that puts it back"
                wrong.append((name, Fault("unserved", f"r:{name}", problem, mend)))
            elif not size and score is not None:
                problem = "in the ring of tenants, but nothing of it is ready"
                mend = "Harmless: it leaves when a worker takes the next batch"
                wrong.append((name, Fault("empty-ring", f"r:{name}", problem, mend)))
        return wrong

    def _check_batches(self, nonces: Sequence[str]) -> list[tuple[str, Fault]]:
        pipe = self._client.pipeline(transaction=True)
        for nonce in nonces:
            pipe.zscore(self._key("batches"), nonce)
            pipe.scard(self._key(f"b:{nonce}"))
        replies = pipe.execute()
        wrong = []
        for nonce, score, size in zip(nonces, replies[::2], replies[1::2], strict=True):
            if size and score is None:
                problem = f"{size:,} leased, but its lease never runs out"
                mend = f"Add it to {self._key('batches')} with score 0: the reaper gives it back"
                wrong.append((nonce, Fault("unindexed-batch", f"b:{nonce}", problem, mend)))
            elif not size and score is not None:
                problem = "a lease of a batch without messages"
                mend = f"Harmless; remove it from {self._key('batches')}"
                wrong.append((nonce, Fault("empty-batch", f"b:{nonce}", problem, mend)))
        return wrong

    def _check_request(self, requests: Sequence[str]) -> list[tuple[str, Fault]]:
        """A merged request is there, and so is each of its members."""
        wrong = []
        for request in requests:
            count: Any = self._client.hget(self._key("q"), request)
            if count is None:
                continue
            problem = self._request_problem(request, int(count))
            if problem:
                mend = "Its members are not sent as they are: a key was deleted, or evicted"
                wrong.append((request, Fault("merged", request, problem, mend)))
        return wrong

    def _request_problem(self, request: str, count: int) -> str:
        [(_, found)] = self._look([request])
        if not isinstance(found, tuple) or not isinstance(found[0], Live):
            return "is counted as a merged request, but is none"
        members = self._store.members(request[len(MARK) :])
        if len(members) != count:
            return f"has {len(members):,} members, and is counted with {count:,}"
        for message_id, head in self._look(members):
            its = head[0] if isinstance(head, tuple) else None
            if not isinstance(its, Live) or not its.in_request or MARK + its.nonce != request:
                return f"has the member {message_id}, which is not in it"
        return ""

    def _compare_bytes(self, before: Mapping[str, int]) -> None:
        after = self._counters()
        self._findings.bytes_counter = after.get("bytes", 0)
        if before != after:
            return
        self._findings.bytes_found = self._bytes
        if self._bytes != self._findings.bytes_counter:
            fault = Fault(
                "bytes",
                "n.bytes",
                f"counts {self._findings.bytes_counter:,} bytes, and the payloads have "
                f"{self._bytes:,}",
                f"Once the faults above are mended: HSET {self._key('n')} bytes {self._bytes}, "
                "while the destination is paused and drained of senders",
            )
            self._findings.add(fault)

    # -- within -----------------------------------------------------------------------------

    def _look(self, ids: Sequence[str]) -> list[tuple[str, _Head]]:
        if not ids:
            return []
        try:
            return list(zip(ids, self._store.look(ids), strict=True))
        except (ResponseError, ValueError) as error:
            # One key that is no message makes the whole reply fail: find it.
            if isinstance(error, ResponseError) and "WRONGTYPE" not in str(error):
                raise
            if len(ids) == 1:
                return [(ids[0], _Unreadable())]
            half = len(ids) // 2
            return self._look(ids[:half]) + self._look(ids[half:])

    def _unreadable(self, message_id: str) -> Fault:
        return Fault(
            "unreadable",
            message_id,
            "its key holds neither a message nor a record",
            f"Another program wrote {keys.message(self._store.destination, message_id)}: "
            "delete it, and send the message again from its source",
        )

    def _homeless(self, message_id: str, head: Live) -> Fault:
        return Fault(
            "no-container",
            message_id,
            f"says {head.state}, but is not in {Place(_home(head), message_id).words}",
            "As it is it will not be sent: read it with "
            f"paceline show {self._store.destination} {message_id} --payload, "
            "and send that under a new id",
        )

    def _unlisted(self, message_id: str, campaign: str) -> Fault:
        index = self._key(f"c:{campaign}")
        return Fault(
            "campaign",
            message_id,
            f"is of campaign {campaign}, but not in its index: not paused or cancelled with it",
            f"A library of an older version accepted it: SADD {index} {message_id}, and "
            f"ZADD {self._key('cs')} +inf {campaign}",
        )

    def _counters(self) -> dict[str, int]:
        return {_text(name): int(n) for name, n in self._client.hgetall(self._key("n")).items()}

    def _key(self, name: str) -> str:
        return keys.key(self._store.destination, name)


def _home(head: Live) -> str:
    """The container that a message's header names."""
    if head.in_request:
        return f"qm:{head.nonce}"
    if head.state == "ready":
        return f"r:{_PRIORITY_DIGITS[head.priority]}:{head.tenant}"
    if head.state in ("leased", "begun"):
        return f"b:{head.nonce}"
    return "s" if head.state == "scheduled" else head.state


def _no_expiry(message_id: str) -> Fault:
    return Fault(
        "no-expiry",
        message_id,
        "has an expiry, but is not in the index of expiries",
        "Harmless to sending: its expiry is checked when a worker takes it",
    )


def _chunks(items: Iterable[T]) -> Iterator[list[T]]:
    source = iter(items)
    while chunk := list(islice(source, CHUNK)):
        yield chunk


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
