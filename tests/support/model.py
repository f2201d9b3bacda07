"""The outbox as a small model: what each transition promises, in plain dicts and lists.

Written from the documents, not from the Lua, so that one examines the other
(tests/contract/test_outbox_model.py). `now` is an argument in microseconds. One destination; ids
are never reused by another writer; records never run out.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from paceline.answers import Settlement
from paceline.message import Message
from support.model_breaker import Breaker

SECOND = 1_000_000
AHEAD_US = 250_000
GAP_US = 2 * SECOND
DAEMON_US = 5 * SECOND
NO_NONCE = "-" * 16
PRIORITIES = ("high", "normal", "bulk")
BUCKETS_US = (
    1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000, 30_000_000, 60_000_000, 300_000_000,
)  # fmt: skip


@dataclass
class Held:
    """A message that has not ended."""

    id: str
    payload: bytes
    priority: int
    tenant: str
    seq: int
    at: int
    expires: int
    due: int
    state: str = "ready"
    attempts: int = 0
    tries: int = 0
    nonce: str = NO_NONCE
    cancel_asked: bool = False
    met_outage: bool = field(default=False, compare=False)


@dataclass(frozen=True)
class Ended:
    """What stays of one that has."""

    state: str
    nonce: str
    at: int
    sha1: str
    provider_id: str


@dataclass
class Batch:
    worker: str
    lane: str
    deadline: int
    ids: set[str] = field(default_factory=set)


@dataclass
class Invitation:
    lane: str
    n: int
    deadline: int


class Model:
    """One destination. Methods are the transitions, named and answering as OutboxStore's do."""

    def __init__(self) -> None:
        self.cfg: dict[str, Any] = {}
        self.digest, self.version = "", 0
        self.held: dict[str, Held] = {}
        self.ended: dict[str, Ended] = {}
        self.told: dict[str, set[str]] = {}  # whose `sent`, of an ended one, is accounted for
        self.attempts: dict[str, list[Mapping[str, Any]]] = {}
        self.passes: tuple[dict[str, float], ...] = ({}, {}, {})
        self.batches: dict[str, Batch] = {}
        self.shelved: dict[str, int] = {}  # since when a dead or parked one is there
        self.expiries: dict[str, int] = {}
        self.invitations: dict[str, Invitation] = {}
        self.workers: dict[str, int] = {}
        self.slots: dict[str, int] = {}
        self.daemons: dict[str, int] = {}
        self.seen: tuple[int, str] | None = None  # the reaper's last look
        self.gate: dict[str, Any] = {"k": 0}
        self.n: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter()
        self.histogram: Counter[str] = Counter()
        self.wakes = 0
        self.breaker = Breaker(self.gate, self.n)

    # -- containers -------------------------------------------------------------------------

    def ready(self, priority: int, tenant: str) -> list[str]:
        """Who waits there, first come first."""
        waiting = [
            m
            for m in self.held.values()
            if m.state == "ready" and m.priority == priority and m.tenant == tenant
        ]
        return [m.id for m in sorted(waiting, key=lambda m: m.seq)]

    def waiting(self, priority: int) -> int:
        return sum(m.state == "ready" and m.priority == priority for m in self.held.values())

    def in_state(self, *states: str) -> list[Held]:
        return [m for m in self.held.values() if m.state in states]

    def _to_ready(self, m: Held, *, wake: bool = True) -> None:
        m.state = "ready"
        ring = self.passes[m.priority]
        if m.tenant not in ring:
            ring[m.tenant] = min(ring.values(), default=0)
            if wake:
                self._wake()

    def _leave(self, m: Held) -> None:
        """Out of its container, which goes when it is empty."""
        was, m.state = m.state, "between"
        if was == "ready" and not self.ready(m.priority, m.tenant):
            del self.passes[m.priority][m.tenant]
        elif was in ("leased", "begun"):
            batch = self.batches[m.nonce]
            batch.ids.remove(m.id)
            if not batch.ids:
                del self.batches[m.nonce]
        elif was in ("dead", "parked"):
            del self.shelved[m.id]

    def _finish(
        self, m: Held, state: str, now: int, nonce: str | None = None, provider_id: str = ""
    ) -> None:
        self._leave(m)
        del self.held[m.id]
        self.expiries.pop(m.id, None)
        sha1 = hashlib.sha1(m.payload).hexdigest()
        self.ended[m.id] = Ended(state, nonce or m.nonce, now, sha1, provider_id)
        self.told[m.id] = {nonce or m.nonce} if state == "sent" else set()
        self.n["bytes"] -= len(m.payload)
        self.n[state] += 1

    def _shelve(self, m: Held, state: str, now: int) -> None:
        m.state = state
        self.shelved[m.id] = now
        self.n["died" if state == "dead" else "stopped"] += 1

    def _schedule(self, m: Held, due: int) -> None:
        m.state, m.due = "scheduled", due
        self.n["retried"] += 1

    def _wake(self) -> None:
        self.wakes = min(4, self.wakes + 1)

    def _note(self, message_id: str, record: Mapping[str, Any] | None) -> None:
        if record is not None:
            notes = self.attempts.setdefault(message_id, [])
            notes.append(record)
            del notes[:-10]

    def _explain_second(self, now: int, s: Settlement) -> None:
        """A second attempt without a first of unknown fate: Redis must have lost that one."""
        if any(note["outcome"] == "ambiguous" for note in self.attempts.get(s.id, ())):
            return
        self.n["lost_outcomes"] += 1
        at_us = str(s.begun_us or now)
        told = {"outcome": "ambiguous", "reason": "redis-loss", "nonce": s.nonce, "at_us": at_us}
        self._note(s.id, told)

    def _is_over(self, m: Held, now: int) -> bool:
        return 0 < m.expires <= now or m.at + self.cfg["max_age_us"] <= now

    def _live_workers(self, now: int) -> list[str]:
        return sorted(w for w, until in self.workers.items() if until > now)

    def closed(self, now: int) -> str:
        """What keeps the gate shut, or ''."""
        for what, until in (
            ("paused", self.gate.get("pause_until", 0)),
            (self.gate.get("hold_kind", "held"), self.gate.get("hold_until", 0)),
        ):
            if until == -1 or until > now:
                return str(what)
        return ""

    # -- intake -----------------------------------------------------------------------------

    def enqueue(self, now: int, message: Message) -> str:
        known = self.held.get(message.id) or self.ended.get(message.id)
        if known:
            sha1 = hashlib.sha1(message.payload).hexdigest()
            same = known.sha1 == sha1 if isinstance(known, Ended) else (
                known.payload == message.payload)  # fmt: skip
            return "already" if same else "DuplicateConflict"
        expires = math.floor((message.expires or 0) * 1e6)
        due = math.floor((message.not_before or 0) * 1e6)
        if message.expires is not None and (expires <= now or due >= expires):
            return "InvalidMessage"
        if self.gate.get("draining"):
            return "Draining"
        if len(self.held) >= self.cfg["max_count"]:
            return "OutboxFull"
        if self.n["bytes"] + len(message.payload) > self.cfg["max_bytes"]:
            return "OutboxFull"
        self.n.update(seq=1, accepted=1, bytes=len(message.payload))
        m = Held(
            message.id, message.payload, PRIORITIES.index(message.priority), message.tenant or "",
            self.n["seq"], now, expires, due, state="scheduled",
        )  # fmt: skip
        self.held[m.id] = m
        if due <= now:
            self._to_ready(m)
        if expires:
            self.expiries[m.id] = expires
        return "new"

    # -- the scheduler's side ---------------------------------------------------------------

    def release(
        self, now: int, lane: str, largest: int, lease_us: int, invitation: str
    ) -> tuple[int, str]:
        for name, inv in list(self.invitations.items()):
            inv.deadline = min(inv.deadline, now + lease_us)
            if inv.deadline <= now:
                del self.invitations[name]
        if invitation in self.invitations:
            return 0, "repeated"
        out = {
            which: sum(i.n for i in self.invitations.values() if i.lane == which)
            for which in ("high", "any")
        }
        waiting = self.waiting(0) if lane == "high" else self.waiting(1) + self.waiting(2)
        want = waiting - out[lane]
        if want < 1:
            return 0, "covered" if out["high"] + out["any"] else "idle"
        if what := self.closed(now):
            return 0, what
        live = len(self._live_workers(now))
        if not live:
            return 0, "no-worker"
        working = sum(slots > 0 for slots in self.slots.values())
        share = max(1, math.ceil(2 * self.cfg["rate"] / max(1, working)))
        n = min(want, largest, share)
        if len(self.passes[1]) > 1 or len(self.passes[2]) > 1:
            # Where tenants share: a tenth of a second.
            n = min(n, max(1, math.ceil(self.cfg["rate"] / 10 / max(1, working))))
        standing = sum(i.lane == lane for i in self.invitations.values())
        if n == want and standing >= 2 * live:
            return 0, "covered"
        n = 1 if self.breaker.is_open else n
        window = max(2 * live * largest, math.floor(self.cfg["rate"]))
        if n > window - (out["high"] if lane == "high" else sum(out.values())):
            return 0, "window"
        burst, rate = self.cfg["burst"], self.cfg["rate"]
        level, at = self.gate.get("rel_level", burst), self.gate.get("rel_at", now)
        level = min(burst + largest, level + max(0, now - at) * rate / 1e6)
        self.gate.update(rel_level=level, rel_at=now)
        if lane == "any" and level < min(n, burst):
            return 0, "rate"
        self.gate["rel_level"] = level - n
        self.invitations[invitation] = Invitation(lane, n, now + lease_us)
        return n, "released"

    def _credit_releases(self, count: int) -> None:
        if "rel_level" in self.gate:
            self.gate["rel_level"] += count

    def promote(self, now: int, most: int) -> tuple[int, int | None]:
        due = sorted(self.in_state("scheduled"), key=lambda m: (m.due, m.id))
        chosen = [m for m in due if m.due <= now][:most]
        count = 0
        for m in chosen:
            if m.met_outage and self.breaker.suspects(now) and any(self.passes):
                # Others go first.
                m.due = now + 2 * SECOND
            else:
                self._to_ready(m, wake=False)
                count += 1
        left = [m.due for m in self.in_state("scheduled")]
        return count, max(0, min(left) - now) if left else None

    def expire(self, now: int, most: int) -> int:
        come = sorted((when, i) for i, when in self.expiries.items() if when <= now)[:most]
        count = 0
        for _, message_id in come:
            m = self.held[message_id]
            if m.state in ("ready", "scheduled"):
                self._finish(m, "expired", now)
                count += 1
            elif m.state in ("leased", "begun"):
                self.expiries[m.id] = now + SECOND
            else:
                del self.expiries[m.id]
        return count

    def reap(self, now: int, run: str, daemon: str, most: int) -> tuple[str, int, int]:
        before, self.seen = self.seen, (now, run)
        self.daemons[daemon] = now + DAEMON_US
        self.daemons = {d: until for d, until in self.daemons.items() if until > now}
        lease = self.cfg["lease_us"]
        if before is None or before[1] != run or not 0 <= now - before[0] <= GAP_US:
            last = before[0] if before else 0
            for batch in self.batches.values():
                batch.deadline = now + lease
            for worker, until in self.workers.items():
                if now < last or until > last:
                    self.workers[worker] = now + lease
            return "terms", len(self.batches), 0
        back, ambiguous, idle = 0, 0, False
        late = sorted((b.deadline, nonce) for nonce, b in self.batches.items() if b.deadline <= now)
        for _, nonce in late:
            if back + ambiguous >= most:
                break
            for m in [self.held[i] for i in sorted(self.batches[nonce].ids)]:
                if m.state == "begun":
                    ambiguous += 1
                    self._ambiguous(m, now, self.batches[nonce].worker)
                else:
                    back += 1
                    self._leave(m)
                    idle |= m.tenant not in self.passes[m.priority]
                    self._to_ready(m, wake=False)
        if idle:
            self._wake()
        self.n.update(reaped=back + ambiguous, ambiguous_reaped=ambiguous, returned=back)
        self._credit_releases(back)
        return "reaped", back, ambiguous

    def _ambiguous(self, m: Held, now: int, worker: str) -> None:
        self._note(m.id, {
            "outcome": "ambiguous", "reason": "lease-expired", "worker": worker,
            "at_us": str(now), "nonce": m.nonce, "attempt": m.attempts,
        })  # fmt: skip
        m.tries += 1
        if m.cancel_asked:
            self._finish(m, "cancelled", now)
            return
        self._leave(m)
        if self.cfg["on_ambiguous"] == "park":
            self._shelve(m, "parked", now)
        elif m.tries > self.cfg["max_tries"]:
            self._shelve(m, "dead", now)
        else:
            self._schedule(m, now + self.cfg["retry_first_us"])

    # -- the worker's side ------------------------------------------------------------------

    def take(
        self, now: int, worker: str, nonce: str, count: int, lane: str, invitation: str
    ) -> tuple[str, list[str]]:
        if nonce in self.batches:
            again = sorted(
                (self.held[i] for i in self.batches[nonce].ids), key=lambda m: (m.priority, m.seq)
            )
            return "batch", [m.id for m in again]
        if invitation and self.invitations.pop(invitation, None) is None:
            return "stale", []
        if what := self.closed(now):
            return what, []
        if worker not in self._live_workers(now):
            return "not-live", []
        if self.breaker.is_open:
            count = min(count, 1)
        taken: list[Held] = []
        if lane == "high":
            self._serve(now, taken, 0, count)
        else:
            # A tenth of what is taken while bulk waits is bulk's; what a small batch cannot
            # give it is owed to it.
            bulk_waits = bool(self.passes[2])
            owed = self.gate.get("bulk_owed", 0) + count if bulk_waits else 0
            kept = count - min(count, owed // 10)
            self._serve(now, taken, 0, kept)
            self._serve(now, taken, 1, kept)
            before = len(taken)
            self._serve(now, taken, 2, count)
            if bulk_waits:
                left = max(0, owed - 10 * (len(taken) - before))
                self.gate["bulk_owed"] = left if self.passes[2] else 0
            self._serve(now, taken, 0, count)
            self._serve(now, taken, 1, count)
        for m in taken:
            m.state, m.nonce = "leased", nonce
        if taken:
            ids = {m.id for m in taken}
            self.batches[nonce] = Batch(worker, lane, now + self.cfg["lease_us"], ids)
            if self.breaker.is_open:
                self.gate.update(
                    probe=taken[0].id,
                    probe_at=now,
                    hold_until=now + self.cfg["probe_wait_us"],
                    hold_kind="breaker",
                )
        return "batch", [m.id for m in taken]

    def _serve(self, now: int, taken: list[Held], priority: int, upto: int) -> None:
        """Each tenant in turn, the least served first, an even share of the rest at a time; sent
        so that one tenant's are spread among the others'."""
        ring = self.passes[priority]
        lumps: list[list[Held]] = []
        room = upto - len(taken)
        while ring and room > 0:
            tenant = min(ring, key=lambda t: (ring[t], t))
            served = self.ready(priority, tenant)[: max(1, room // len(ring))]
            ring[tenant] += len(served)
            lump: list[Held] = []
            for m in [self.held[i] for i in served]:
                if self._is_over(m, now):
                    self._finish(m, "expired", now)
                else:
                    self._leave(m)
                    lump.append(m)
            lumps.append(lump)
            room -= len(lump)
        spread = [
            ((place + 0.5) / len(lump), number, m)
            for number, lump in enumerate(lumps)
            for place, m in enumerate(lump)
        ]
        taken += [m for _, _, m in sorted(spread, key=lambda it: it[:2])]

    def begin(self, now: int, message_id: str, nonce: str, run: str) -> tuple[Any, ...]:
        """('go', wait_us, attempt), ('wait', us), ('closed', what) or ('gone', what)."""
        m = self.held.get(message_id)
        if m is None or m.nonce != nonce or m.state not in ("leased", "begun"):
            return "gone", "fenced"
        what = self.closed(now) or ("breaker" if self.breaker.is_open else "")
        probes = self.gate.get("probe") == m.id
        end = "cancelled" if m.cancel_asked else "expired" if self._is_over(m, now) else ""
        if end:
            self._finish(m, end, now)
            if probes:
                del self.gate["probe"]
                if what == "breaker":
                    self.gate["hold_until"] = now
            return "gone", end
        if what and not (what == "breaker" and probes):
            return "closed", what
        gate, k, rate = self.gate, self.gate["k"], self.cfg["rate"]
        level, at = gate.get("level", 0.0), gate.get("at")
        if at is None or gate["run"] != run:
            level = min(level, 0.0)
        else:
            level = min(k, level + max(0, now - at) * rate / 1e6)
        need = 1 if m.priority == 0 else max(1, min(k, 1 + self.cfg["reserve"]))
        wait = max(0, math.ceil((need - level) * 1e6 / rate))
        if k < 1 or wait > AHEAD_US:
            # Nothing drawn; a fresh bucket and a clock that stepped back are noted all the same.
            if at is None or gate["run"] != run or now < at:
                gate.update(level=level, at=now, run=run)
            return "wait", AHEAD_US if k < 1 else wait - AHEAD_US
        gate.update(level=level - 1, at=now, run=run)
        self.n["permits"] += 1
        if m.state == "leased":
            m.state, m.attempts = "begun", m.attempts + 1
        return "go", wait, m.attempts

    def settle(self, now: int, settlements: Sequence[Settlement]) -> list[str]:
        good, words = 0, []
        for s in settlements:
            tenant = self.held[s.id].tenant if s.id in self.held else ""
            word = self._settle_sent(now, s) if s.action == "sent" else self._settle_other(now, s)
            words.append(word)
            if word not in ("ok", "won", "duplicate"):
                continue
            if s.label:
                self.outcomes[s.label] += 1
            if s.latency_s is not None:
                self._observe("api", round(s.latency_s * 1e6))
            if s.action == "sent":
                self.breaker.judge(now, self.cfg, s, tenant)
                good = max(good, s.begun_us)
            if s.action == "unavailable" and self.breaker.refusals() >= 3:
                self._throttle(now, 0, s.begun_us)
        # A success that began after the last refusal ends the doubling.
        if self.gate.get("throttles") and good > self.gate["throttle_at"]:
            self.gate["throttles"] = 0
        return words

    def _observe(self, name: str, us: int) -> None:
        us = max(0, us)
        self.histogram[f"{name}:{next((b for b in BUCKETS_US if us <= b), 'inf')}"] += 1
        self.histogram[f"{name}:sum"] += us

    def _throttle(self, now: int, delay_us: int, begun_us: int, kind: str = "throttled") -> None:
        count = self.gate.get("throttles", 0)
        if not count or begun_us > self.gate["throttle_at"]:
            count += 1
            self.gate.update(throttles=count, throttle_at=now)
            self.n["throttles"] += 1
        first, cap = self.cfg["throttle_first_us"], self.cfg["throttle_cap_us"]
        if kind == "quota":
            first, cap = 60 * SECOND, 3600 * SECOND
        self._hold(now, kind, now + (delay_us or min(cap, first * 2 ** (count - 1))))

    def _hold(self, now: int, kind: str, until: int) -> None:
        """The longer wait wins; one without an end wins over all."""
        old = self.gate.get("hold_until", 0)
        if old != -1 and (until == -1 or until > old):
            self.gate.update(hold_until=until, hold_kind=kind)

    def _settle_sent(self, now: int, s: Settlement) -> str:
        m = self.held.get(s.id)
        if m is None:
            end = self.ended.get(s.id)
            if end is None:
                return "gone"
            if s.nonce in self.told[s.id]:
                return "repeat" if end.state == "sent" else "gone"
            self.told[s.id].add(s.nonce)
            if end.state != "sent":
                self.n["sent_after_end"] += 1
                return "gone"
            self.n["duplicates"] += 1
            self._explain_second(now, s)
            self._note(s.id, s.record)
            return "duplicate"
        ours = m.nonce == s.nonce and m.state in ("leased", "begun")
        if m.nonce != s.nonce:
            self._explain_second(now, s)
        if not ours or m.attempts > 1:
            self._note(s.id, s.record)
        if not ours:
            self.n.update(late_sent=1, overtaken=int(m.state == "begun"))
        self._observe("sent", now - m.at)
        self._finish(m, "sent", now, s.nonce, s.provider_id)
        return "ok" if ours else "won"

    def _settle_other(self, now: int, s: Settlement) -> str:
        m = self.held.get(s.id)
        if m is None:
            return "gone"
        if m.nonce != s.nonce:
            return "late"
        if m.state not in ("leased", "begun"):
            return "repeat"
        self._note(m.id, s.record)
        self.breaker.judge(now, self.cfg, s, m.tenant)
        m.met_outage = s.health in ("o", "u")
        if m.met_outage and self.breaker.suspects(now):
            # The destination's fault, not the message's.
            verdict_s = min(10.0, max(1.0, 100 / self.cfg["rate"]))
            later = max(s.delay_s, self.cfg["retry_first_us"] / 1e6, verdict_s)
            action = "retry" if s.action == "dead" else s.action
            s = msgspec.structs.replace(s, charge=False, action=action, delay_s=later)
        if m.cancel_asked and s.action not in ("dead", "parked"):
            self._finish(m, "cancelled", now)
        elif s.action in ("retry", "unavailable", "dead", "parked"):
            m.tries += int(s.charge)
            self._leave(m)
            if s.action in ("dead", "parked"):
                self._shelve(m, s.action, now)
            else:
                self._schedule(m, now + round(s.delay_s * 1e6))
        else:
            self._leave(m)
            self._to_ready(m)
            self.n["returned"] += 1
            self._credit_releases(1)
        if s.action in ("throttled", "quota"):
            self._throttle(now, round(s.delay_s * 1e6), s.begun_us, s.action)
        if s.action == "held":
            self._hold(now, "held", -1)
        return "ok"

    def renew(self, now: int, nonces: Iterable[str]) -> set[str]:
        gone = set()
        for nonce in nonces:
            if nonce in self.batches:
                self.batches[nonce].deadline = now + self.cfg["lease_us"]
            else:
                gone.add(nonce)
        return gone

    def beat(self, now: int, op: str, worker: str, open_connections: int) -> tuple[int, int, int]:
        """slots: (allowance, live workers, bucket)."""
        if op == "beat":
            self.workers[worker] = now + self.cfg["lease_us"]
        else:
            self.workers.pop(worker, None)
            self.slots.pop(worker, None)
        if op == "bury":
            for batch in self.batches.values():
                if batch.worker == worker:
                    batch.deadline = now
        live = self._live_workers(now)
        lapsed = sum(n for w, n in self.slots.items() if w not in live)
        others = sum(n for w, n in self.slots.items() if w in live and w != worker)
        burst = self.cfg["burst"]
        usable = min(self.cfg["connections"], burst - 1 - self.cfg["reserve"] - lapsed)
        usable = max(0 if lapsed else 1, usable)
        allowance = 0
        if op == "beat":
            rank = live.index(worker)
            share = usable // len(live) + (1 if rank < usable % len(live) else 0)
            # What it has open it has; more only of what nobody else may have open.
            self.slots[worker] = max(open_connections, min(share, usable - others), 0)
            allowance = min(share, self.slots[worker])
        standing = others + self.slots.get(worker, 0)
        self.gate["k"] = max(0, burst - max(usable, standing) - lapsed)
        return allowance, len(live), self.gate["k"]

    # -- operators --------------------------------------------------------------------------

    def cancel(self, now: int, ids: Iterable[str]) -> list[str]:
        return [self._cancel(now, i) for i in ids]

    def _cancel(self, now: int, message_id: str) -> str:
        m = self.held.get(message_id)
        if m is None:
            return "ended" if message_id in self.ended else "unknown"
        if m.state in ("dead", "parked"):
            return m.state
        if m.state == "begun":
            m.cancel_asked = True
            return "begun"
        self._finish(m, "cancelled", now)
        return "cancelled"

    def replay(self, now: int, ids: Iterable[str]) -> list[str]:
        return [self._replay(now, i) for i in ids]

    def _replay(self, now: int, message_id: str) -> str:
        m = self.held.get(message_id)
        if m is None or m.state not in ("dead", "parked"):
            return "not-dead" if m else "unknown"
        if 0 < m.expires <= now:
            self._finish(m, "expired", now)
            return "expired"
        self.n.update(seq=1, replayed=1)
        self._leave(m)
        m.seq, m.at, m.tries, m.nonce, m.cancel_asked = self.n["seq"], now, 0, NO_NONCE, False
        self._to_ready(m)
        return "ready"

    def drop(self, now: int, ids: Iterable[str]) -> list[str]:
        return [self._end_shelved(now, i, ("dead", "parked"), "dropped", "not-dead") for i in ids]

    def attest(self, now: int, ids: Iterable[str]) -> list[str]:
        words = [self._end_shelved(now, i, ("parked",), "sent", "not-parked") for i in ids]
        self.n["attested"] += words.count("sent")
        return words

    def _end_shelved(
        self, now: int, message_id: str, states: tuple[str, ...], end: str, refusal: str
    ) -> str:
        m = self.held.get(message_id)
        if m is None or m.state not in states:
            return refusal if m else "unknown"
        self._finish(m, end, now)
        return end

    def purge(self, now: int, most: int) -> int:
        waiting = [i for p in (0, 1, 2) for t in sorted(self.passes[p], key=lambda t, p=p: (
            self.passes[p][t], t)) for i in self.ready(p, t)]  # fmt: skip
        due = sorted(self.in_state("scheduled"), key=lambda m: (m.due, m.id))
        chosen = [*waiting, *(m.id for m in due)][:most]
        for message_id in chosen:
            self._finish(self.held[message_id], "dropped", now)
        return len(chosen)

    def hold(self, now: int, op: str, until: int) -> list[str]:
        if op == "resume":
            what = self.closed(now)
            also = "breaker" if self.breaker.is_open and what != "breaker" else ""
            words = [w for w in (what, also, self.gate.get("draining") and "draining") if w]
            for name in ("pause_until", "hold_until", "hold_kind", "draining", "throttles",
                         "throttle_at"):  # fmt: skip
                self.gate.pop(name, None)
            self.breaker.forget()
            self._wake()
            return words
        if op == "pause":
            self.gate["pause_until"] = until
            return ["paused"]
        if op == "hold":
            self.gate.update(hold_until=until, hold_kind="held")
            return ["held"]
        self.gate["draining"] = "draining"
        return ["draining"]

    def publish_config(
        self, now: int, digest: str, numbers: Mapping[str, Any], *, force: bool = False
    ) -> tuple[str, int]:
        if digest == self.digest:
            return "same", self.version
        busy = any(until > now for until in (*self.workers.values(), *self.daemons.values()))
        if self.digest and busy and not force:
            return "differs", self.version
        self.cfg, self.digest, self.version = dict(numbers), digest, self.version + 1
        live = {w for w, until in self.workers.items() if until > now}
        standing = sum(n for w, n in self.slots.items() if w in live)
        lapsed = sum(n for w, n in self.slots.items() if w not in live)
        usable = max(
            0, min(numbers["connections"], numbers["burst"] - 1 - numbers["reserve"] - lapsed)
        )
        if not lapsed:
            usable = max(1, usable)
        self.gate["k"] = max(0, numbers["burst"] - max(usable, standing) - lapsed)
        return "published", self.version

    # -- what can be compared ---------------------------------------------------------------

    def snapshot(self) -> dict[str, Any]:
        """Every container, in order, and every counter that is not 0."""

        def ordered(scores: Mapping[str, float]) -> list[tuple[str, float]]:
            return sorted(scores.items(), key=lambda item: (item[1], item[0]))

        return {
            "messages": {i: replace(m) for i, m in self.held.items()},
            "ended": dict(self.ended),
            "told": {i: t for i, t in self.told.items() if i in self.ended and t},
            "attempts": {i: list(a) for i, a in self.attempts.items()},
            "rings": [ordered(ring) for ring in self.passes],
            "ready": {(p, t): self.ready(p, t) for p in (0, 1, 2) for t in self.passes[p]},
            "scheduled": ordered({m.id: m.due for m in self.in_state("scheduled")}),
            "dead": ordered({m.id: self.shelved[m.id] for m in self.in_state("dead")}),
            "parked": ordered({m.id: self.shelved[m.id] for m in self.in_state("parked")}),
            "expiries": ordered(self.expiries),
            "batches": {nonce: replace(b, ids=set(b.ids)) for nonce, b in self.batches.items()},
            "invitations": {name: replace(inv) for name, inv in self.invitations.items()},
            "workers": dict(self.workers),
            "slots": dict(self.slots),
            "daemons": dict(self.daemons),
            "seen": self.seen,
            "gate": dict(self.gate),
            "counters": {name: n for name, n in self.n.items() if n},
            "outcomes": dict(self.outcomes),
            "histogram": {name: n for name, n in self.histogram.items() if n},
            "wakes": self.wakes,
        }
