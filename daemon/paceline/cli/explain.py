"""What a census means to a person: what waits and why, when it will be done. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from paceline.census import CONTAINERS, END_TERMS, IN_TERMS, Census, WorkerSeen
from paceline.cli.words import count_of, excerpt, in_words
from paceline.fallback import lean_of
from paceline.prospects import capacity as capacity
from paceline.prospects import connections as connections
from paceline.prospects import live_workers as live_workers
from paceline.prospects import messages_per_s, opens_in_s
from paceline.rates import Rates, ambiguous, observations, percentile_s, permits_now

TERMS = (*IN_TERMS, *END_TERMS, *CONTAINERS)


@dataclass(frozen=True, slots=True)
class Closure:
    """Something that keeps requests from beginning: paused, held, throttled, quota or breaker.

    ``left_s`` None means until an operator resumes.
    """

    what: str
    left_s: float | None
    why: str
    who: str

    @property
    def text(self) -> str:
        """One line for people."""
        left = "until resumed" if self.left_s is None else f"for {in_words(self.left_s)} more"
        by = f" by {self.who}" if self.who else ""
        return f"{self.what} {left}{by}" + (f": {excerpt(self.why, 500)}" if self.why else "")


@dataclass(frozen=True, slots=True)
class Why:
    """Why what waits is not sent yet, and which limit binds. ``code``: nothing; paused, held,
    throttled, quota, breaker; campaign (all of it is of paused ones); no-daemon, no-worker, bucket,
    scheduled, endpoints, tenant-cap, bytes, connections (too few for the latency), slots (fewer in
    use, for the provider fails), pace (found below the rate), rate-set (by an operator), rate."""

    code: str
    text: str


def closures(census: Census) -> list[Closure]:
    """All that closes the destination now; a pause and a hold can stand together."""
    found = []
    gate = census.gate
    for what, field in (("paused", "pause"), (gate.get("hold_kind", "held"), "hold")):
        until = float(gate.get(f"{field}_until", "0"))
        if until == -1 or until > census.now_us:
            left_s = None if until == -1 else (until - census.now_us) / 1e6
            # A hold set by an outcome leaves the name of who held before it.
            who = gate.get(f"{field}_who", "") if what in ("paused", "held") else ""
            found.append(Closure(what, left_s, gate.get(f"{field}_why", ""), who))
    if "breaker" in gate and not any(closure.what == "breaker" for closure in found):
        why = f"the next message is the probe; {gate.get('breaker_why', '')}"
        found.append(Closure("breaker", 0.0, why, ""))
    return found


def rate(census: Census) -> float:
    """Requests a second allowed now."""
    return census.rate


def rate_origin(census: Census) -> tuple[str, str]:
    """Where the rate comes from: (pace | rate-set | rate, in words)."""
    gate = census.gate
    if census.rate < census.ceiling:
        why = gate.get("pace_why", "")
        return "pace", (
            f"the pace that the provider's answers allow, {census.rate:.3g}/s of "
            f"{census.ceiling:g}/s" + (f" (lowered for: {why})" if why else "")
        )
    if "rate_set" in gate:
        by = f" by {gate['rate_who']}" if gate.get("rate_who") else ""
        why = f": {gate['rate_why']}" if gate.get("rate_why") else ""
        configured = float(census.config.get("rate", 0))
        return "rate-set", (
            f"the rate, set{by} to {census.ceiling:g}/s instead of {configured:g}/s{why}"
        )
    return "rate", f"the rate, {census.rate:g}/s"


def rate_words(census: Census, rates: Rates | None) -> str:
    """The rate asked for, and where it was measured the one achieved."""
    asked = f"{rate(census):.4g}/s"
    return asked if rates is None else f"{rates.requests:.3g} of {asked}"


def held_words(worker: WorkerSeen) -> str:
    """What a worker holds, as it told at its last heartbeat; "" where it told nothing."""
    facts = worker.facts
    parts = [
        f"{facts[name]:,} {label}"
        for name, label in (
            ("connections", "open"),
            ("queued", "queued"),
            ("in_flight", "in flight"),
            ("unsettled", "unsettled"),
        )
        if isinstance(facts.get(name), int)
    ]
    memory = facts.get("memory_bytes")
    if isinstance(memory, int) and memory:
        parts.append(f"{memory / 1024**2:.0f} MiB")
    return f" ({', '.join(parts)})" if parts else ""


def route_words(worker: WorkerSeen) -> list[str]:
    """What a worker finds, a line each: URLs, where the destination has several, tenants whose
    requests hang, and one for all endpoints whose do."""
    lines = [
        f"tenant {tenant or '(none)'}: SLOW, its requests hang; it has a quarter of the connections"
        for tenant in worker.facts.get("slow_tenants") or ()
    ]
    slow = worker.facts.get("slow_endpoints")
    if slow:
        named = ", ".join(slow["some"])
        more = slow["count"] - len(slow["some"])
        lines.append(
            f"{count_of(slow['count'], 'endpoint')} SLOW, whose requests hang, with a quarter of "
            f"the connections between them: {named}{f' and {more:,} more' if more > 0 else ''}"
        )
    for route in worker.facts.get("routes") or ():
        latency_s = route.get("latency_s")
        parts = [
            "used" if route.get("healthy") else "LEFT, for it fails",
            "latency not known" if latency_s is None else f"answers in {in_words(latency_s)}",
            f"{count_of(int(route.get('requests', 0)), 'request')}, "
            f"{int(route.get('failures', 0)):,} failed",
        ]
        lines.append(f"{route.get('url')}: {'; '.join(parts)}")
    return lines


def leans_to(census: Census) -> tuple[str, int] | None:
    """The destination it falls back to, and how many points of 100 of its flow go there now; None
    where it has none."""
    to = census.config.get("fallback")
    return (to, lean_of(census.gate, to).share) if to else None


def forwards_to(census: Census) -> dict[str, Any] | None:
    """Where its events go, how many are not there yet, and how many were trimmed away before; None
    where they go nowhere."""
    lag = census.forward_lag
    if lag is None:
        return None
    missed = census.counters.get("events_unforwarded", 0)
    return {"to": census.config["deliver_to"], "lag": lag, "unforwarded": missed}


def bucket_level(census: Census) -> float | None:
    """Permits in the bucket at the census's time; None before the first draw."""
    if "level" not in census.gate or "at" not in census.gate:
        return None
    return permits_now(census, census.gate.get("run"))


def why_waits(census: Census) -> Why:
    """What binds, the first of them: an operator mends them in this order."""
    if not census.unfinished:
        return Why("nothing", "nothing waits")
    standing = closures(census)
    if standing:
        return Why(standing[0].what, "; ".join(closure.text for closure in standing))
    if not census.to_send:
        return Why(
            "campaign",
            f"all of it waits with paused campaigns; paceline campaign list {census.destination}",
        )
    if not census.daemons:
        return Why("no-daemon", "no daemon runs; start one: paceline daemon")
    if not live_workers(census):
        return Why("no-worker", f"no live worker; start one: paceline worker {census.destination}")
    if float(census.gate.get("k", "0")) < 1:
        return Why("bucket", "permits are kept back for connections of a worker that fell silent")
    if not census.law["ready"] and not census.law["leased"]:
        due_s = max(0, census.sizes.get("next_due_us", 0)) / 1e6
        return Why("scheduled", f"all of it is for later; the next is due in {in_words(due_s)}")
    if all_of_busy_endpoints(census):
        return Why("endpoints", f"all that is ready waits for its endpoints: {_endpoints(census)}")
    if all_capped(census):
        return Why(
            "tenant-cap",
            f"all that is ready is of tenants that have used up their own rate: {_capped(census)}",
        )
    able = capacity(census)
    if able is not None and able < rate(census):
        fewer = census.usable_connections < int(census.config.get("connections", 0))
        return Why(
            "slots" if fewer else "connections",
            f"{count_of(connections(census), 'connection')} at the provider's latency carry "
            f"{able:.3g}/s, less than the rate of {rate(census):.4g}/s"
            + ("; fewer are in use than configured, for requests fail" if fewer else ""),
        )
    if float(census.config.get("bytes_per_s") or 0) and float(census.gate.get("byte_level", 1)) < 1:
        cap = float(census.config["bytes_per_s"]) / 1e6
        return Why("bytes", f"the cap of {cap:.4g} MB/s")
    return Why(*rate_origin(census))


def all_of_busy_endpoints(census: Census) -> bool:
    """Whether nothing of what is ready may be taken now: its endpoints are disabled, or wait, or
    have as many requests under way as they may."""
    return census.law["ready"] > 0 and census.sizes.get("lanes_open") == 0


def endpoints_words(census: Census) -> str | None:
    """ "5,000, of which 3 failing, 1 disabled"; None where the destination has none."""
    if "endpoints" not in census.sizes:
        return None
    troubled = _troubled(census)
    return f"{census.sizes['endpoints']:,}" + (f", of which {troubled}" if troubled else "")


def _endpoints(census: Census) -> str:
    troubled = _troubled(census)
    return (f"{troubled}; " if troubled else "") + (
        "each has its own cap, rate and order; "
        f"paceline endpoints list {census.destination} shows them"
    )


def _troubled(census: Census) -> str:
    counts = ((census.sizes.get(f"endpoints_{w}", 0), w) for w in ("failing", "disabled"))
    return ", ".join(f"{count:,} {word}" for count, word in counts if count)


def all_capped(census: Census) -> bool:
    """Whether what is ready waits for its tenants' own caps: but for what a moment of the rate
    carries away, for a tenant may always have gained a message or two since the last take."""
    capped = census.sizes.get("capped", 0)
    return capped > 0 and census.law["ready"] - capped <= max(1.0, 0.25 * rate(census))


def _capped(census: Census) -> str:
    """The tenants whose caps hold most back, as many as fit a line."""
    held = {name.partition(":")[2]: n for name, n in census.sizes.items() if name[:7] == "capped:"}
    most = sorted(held, key=lambda tenant: (-held[tenant], tenant))
    return ", ".join(most[:3]) + (f" and {len(most) - 3} more" if len(most) > 3 else "")


def tenant_cap(census: Census, tenant: str | None) -> str | None:
    """In words, the tenant's own cap that holds its messages back now; None where none does."""
    terms = json.loads(census.config.get("tenants") or "{}")
    if not tenant or not census.sizes.get(f"capped:{tenant}"):
        return None
    _, cap, _ = terms.get(tenant) or terms.get("*") or (1, 0, 0)
    return f"tenant {tenant} has used up its own rate, {cap:g}/s; that binds"


def backlog_s(census: Census) -> float | None:
    """Seconds to send what is unfinished at the configured rate, with requests as full as they
    were; without what waits with a paused campaign."""
    return census.to_send / (rate(census) * census.fill) if rate(census) else None


def eta_s(census: Census) -> float | None:
    """Seconds until what is unfinished should be sent, but for what waits with a paused campaign;
    None while something must be done first."""
    if not census.to_send:
        return 0.0
    per_s, opens_s = messages_per_s(census), opens_in_s(census)
    if per_s is None or opens_s is None:
        return None
    return max(opens_s + census.to_send / per_s, last_due_s(census))


def last_due_s(census: Census) -> float:
    """Seconds until the last scheduled message is due, 0 where none is. A census without
    ``last_due_us`` knows the next only."""
    if not census.law["scheduled"]:
        return 0.0
    sizes = census.sizes
    return max(0, sizes.get("last_due_us", sizes.get("next_due_us", 0))) / 1e6


def counters(census: Census) -> dict[str, int]:
    """The totals that tell of trouble."""
    n = census.counters
    return {
        "retried": n.get("retried", 0),
        "duplicates": n.get("duplicates", 0),
        "ambiguous": ambiguous(census),
        "late": n.get("late_sent", 0) + n.get("sent_after_end", 0),
        "throttles": n.get("throttles", 0),
        "returned": n.get("returned", 0),
        "replayed": n.get("replayed", 0),
    }


def law_view(census: Census) -> dict[str, Any]:
    """The conservation law for ``--json``: its terms by name, and whether it holds."""
    terms = {term: census.law[term] for term in TERMS}
    view = {**terms, "sound": census.sound, "difference": census.difference}
    return {**view, "redis_lost": lost(census)} if any(lost(census).values()) else view


def lost(census: Census) -> dict[str, int]:
    """What Redis forgot after it had said that it has it (docs/durability.md), by what it was."""
    return {
        what: census.counters.get(f"lost_{what}", 0) for what in ("accepted", "outcomes", "sent")
    }


def lost_text(census: Census) -> str:
    """The same in words; "" where nothing is known to be lost."""
    found = lost(census)
    if not any(found.values()):
        return ""
    return (
        f"redis-loss: Redis forgot at least {count_of(found['accepted'], 'accepted message')}; "
        f"of {count_of(found['outcomes'], 'outcome')} it was told again, and of "
        f"{count_of(found['sent'], 'sent message')} that it did not know any more"
    )


def status_view(census: Census, rates: Rates | None = None) -> dict[str, Any]:
    """One destination for ``status --json``; ``rates`` where they were measured."""
    why = why_waits(census)
    latency = {
        name: {
            "count": observations(census.histogram, name),
            "p50_s": percentile_s(census.histogram, name, 0.5),
            "p99_s": percentile_s(census.histogram, name, 0.99),
        }
        for name in ("api", "sent")
    }
    return {
        **law_view(census),
        "unfinished": census.unfinished,
        "ready_by_priority": {
            name: census.sizes.get(f"ready_{name}", 0) for name in ("high", "normal", "bulk")
        },
        "bytes": census.counters.get("bytes", 0),
        "oldest_age_s": census.sizes.get("oldest_us", 0) / 1e6,
        "next_due_s": max(0, census.sizes.get("next_due_us", 0)) / 1e6
        if census.law["scheduled"] > census.held_back
        else None,
        "campaign_paused": census.held_back,
        "rate": rate(census),
        "pace": pace_view(census),
        "achieved": None
        if rates is None
        else {
            "over_s": rates.over_s,
            "requests_s": rates.requests,
            "sent_s": rates.sent,
            "accepted_s": rates.accepted,
        },
        "burst": int(census.config.get("burst", "0")),
        "bucket": {"size": int(census.gate.get("k", "0")), "level": bucket_level(census)},
        "connections": {
            "allowed": int(census.config.get("connections", "0")),
            "leased": connections(census),
        },
        "workers": [
            {
                "id": worker.id,
                "live": worker.live,
                "lease_left_s": worker.lease_left_s,
                "connections": worker.slots,
                "facts": dict(worker.facts),
            }
            for worker in census.workers
        ],
        "live_workers": live_workers(census),
        "daemons": census.daemons,
        "closed": [
            {"what": c.what, "left_s": c.left_s, "reason": c.why, "who": c.who}
            for c in closures(census)
        ],
        "draining": census.gate.get("draining"),
        "intake_shut": census.intake_shut(),
        "fallback": {"to": leans[0], "share": leans[1]} if (leans := leans_to(census)) else None,
        "endpoints": endpoints_view(census),
        "events_forward": forwards_to(census),
        "why": {"code": why.code, "text": why.text},
        "backlog_s": backlog_s(census),
        "eta_s": eta_s(census),
        "counters": counters(census),
        "outcomes": dict(census.outcomes),
        "latency": latency,
        "config_version": int(census.config.get("version", "0")),
    }


def endpoints_view(census: Census) -> dict[str, int] | None:
    """How many are registered, fail, are disabled; None where the destination has none."""
    sizes = census.sizes
    if "endpoints" not in sizes:
        return None
    return {
        "registered": sizes["endpoints"],
        "failing": sizes["endpoints_failing"],
        "disabled": sizes["endpoints_disabled"],
    }


def pace_view(census: Census) -> dict[str, Any]:
    """Requests/s as configured, as set live, as found; connections in use."""
    gate = census.gate
    return {
        "configured": float(census.config.get("rate", 0)),
        "set": {
            "rate": float(gate["rate_set"]),
            "who": gate.get("rate_who", ""),
            "reason": gate.get("rate_why", ""),
            "at_s": float(gate.get("rate_at", 0)) / 1e6,
        }
        if "rate_set" in gate
        else None,
        "found": float(gate["pace"]) if "pace" in gate else None,
        "reason": gate.get("pace_why"),
        "connections": census.usable_connections,
    }


def equation(census: Census) -> tuple[str, str]:
    """The conservation law's two sides with their numbers."""

    def side(terms: tuple[str, ...]) -> str:
        total = sum(census.law[term] for term in terms)
        return " + ".join(f"{term} {census.law[term]:,}" for term in terms) + f" = {total:,}"

    return side(IN_TERMS), side((*END_TERMS, *CONTAINERS))


def law_verdict(census: Census) -> str:
    """What the difference means, in words."""
    difference = census.difference
    if not difference:
        return "sound: every message is accounted for"
    if difference > 0:
        return (
            f"NOT SOUND: {count_of(difference, 'message')} came in and cannot be accounted for. "
            "Keys of this destination were deleted or a counter was changed; "
            "paceline audit --deep names what is left of them"
        )
    return (
        f"NOT SOUND: {count_of(-difference, 'message')} more than came in. "
        "A counter or a container of this destination was changed by hand"
    )
