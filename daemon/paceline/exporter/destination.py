"""One destination's census as samples. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from paceline.census import BOUNDS_US, CONTAINERS, Census, WorkerSeen
from paceline.exporter.sheet import Sheet
from paceline.rates import permits_now

_EVENTS = (
    "accepted", "sent", "expired", "cancelled", "dropped", "replayed", "moved_in", "moved_out",
)  # fmt: skip
#: What an outcome or an operator's hold is called in the gate (``hold_kind``).
#: Of these only intake knows.
_INTAKE = ("drained", "full")
_HOLDS = ("held", "throttled", "quota", "breaker")
_HELD_BY_WORKER = ("queued", "in_flight", "unsettled")


def put_destination(sheet: Sheet, census: Census, run_id: str) -> None:
    """All metrics of one destination. ``run_id`` is the Redis that was read."""
    _put_waiting(sheet, census)
    _put_events(sheet, census)
    _put_endpoints(sheet, census)
    _put_forwarding(sheet, census)
    _put_rate(sheet, census, run_id)
    _put_connections(sheet, census)
    _put_processes(sheet, census)


def _put_waiting(sheet: Sheet, census: Census) -> None:
    name, sizes, config = census.destination, census.sizes, census.config
    for state in CONTAINERS:
        sheet.put("paceline_messages", census.law[state], name, state)
    for priority in ("high", "normal", "bulk"):
        sheet.put("paceline_ready_messages", sizes[f"ready_{priority}"], name, priority)
    sheet.put("paceline_merged_messages", sizes.get("merged", 0), name)
    sheet.put("paceline_backlog_seconds", sizes["oldest_us"] / 1e6, name)
    if sizes["next_due_us"] >= 0:
        sheet.put("paceline_next_due_seconds", sizes["next_due_us"] / 1e6, name)
    sheet.put("paceline_stored_bytes", census.counters.get("bytes", 0), name)
    for metric, field in (("messages_max", "max_count"), ("stored_bytes_max", "max_bytes")):
        if field in config:
            sheet.put(f"paceline_{metric}", float(config[field]), name)


def _put_events(sheet: Sheet, census: Census) -> None:
    name, n = census.destination, census.counters
    for event in _EVENTS:
        sheet.put("paceline_messages_total", n.get(event, 0), name, event)
    ambiguous = n.get("ambiguous_reaped", 0)
    for label, count in sorted(census.outcomes.items()):
        outcome, _, status = label.partition(":")
        sheet.put("paceline_requests_total", count, name, outcome, status)
        ambiguous += count if outcome == "ambiguous" else 0
    sheet.put("paceline_merged_requests_total", n.get("merged_requests", 0), name)
    sheet.put("paceline_merged_messages_total", n.get("merged_messages", 0), name)
    sheet.put("paceline_retries_total", n.get("retried", 0), name)
    sheet.put("paceline_ambiguous_total", ambiguous, name)
    sheet.put("paceline_duplicates_total", n.get("duplicates", 0), name)
    for what in ("accepted", "outcomes", "sent"):
        sheet.put("paceline_redis_lost_total", n.get(f"lost_{what}", 0), name, what)
    sheet.put("paceline_returned_total", n.get("returned", 0), name)
    sheet.put("paceline_dead_letters_total", n.get("died", 0), name)
    for counter in ("events", "events_trimmed", "events_lost"):
        sheet.put(f"paceline_{counter}_total", n.get(counter, 0), name)
    _put_histogram(sheet, "paceline_api_latency_seconds", census, "api")
    _put_histogram(sheet, "paceline_delivery_seconds", census, "sent")
    sheet.put("paceline_law_difference", census.difference, name)


def _put_forwarding(sheet: Sheet, census: Census) -> None:
    name, lost = census.destination, census.counters.get("events_unforwarded", 0)
    sheet.put("paceline_events_forward_lag", census.forward_lag or 0, name)
    sheet.put("paceline_events_unforwarded_total", lost, name)


def _put_histogram(sheet: Sheet, metric: str, census: Census, which: str) -> None:
    # All of them, held or not: quantiles would be reckoned from holes.
    slots = census.histogram
    buckets, count = [], 0.0
    for bound in BOUNDS_US:
        count += slots.get(f"{which}:{bound}", 0)
        buckets.append((repr(bound / 1e6), count))
    buckets.append(("+Inf", count + slots.get(f"{which}:inf", 0)))
    total_s = slots.get(f"{which}:sum", 0) / 1e6
    sheet.put_histogram(metric, buckets, total_s, census.destination)


def _put_endpoints(sheet: Sheet, census: Census) -> None:
    name, sizes = census.destination, census.sizes
    if "endpoints" not in sizes:
        return
    sheet.put("paceline_endpoints", sizes["endpoints"], name, "registered")
    for state in ("failing", "disabled"):
        sheet.put("paceline_endpoints", sizes[f"endpoints_{state}"], name, state)
    disabled = census.counters.get("endpoints_disabled", 0)
    sheet.put("paceline_endpoints_disabled_total", disabled, name)


def _put_rate(sheet: Sheet, census: Census, run_id: str) -> None:
    name, config = census.destination, census.config
    sheet.put("paceline_permits_total", census.counters.get("permits", 0), name)
    sheet.put("paceline_permits", permits_now(census, run_id), name)
    if "rate" in config:
        sheet.put("paceline_rate", census.ceiling, name)
        sheet.put("paceline_pace", census.rate, name)
    if "burst" in config:
        sheet.put("paceline_burst", float(config["burst"]), name)
    for counter in ("pace_cuts", "breaker_opened"):
        sheet.put(f"paceline_{counter}_total", census.counters.get(counter, 0), name)
    sheet.put("paceline_bucket_size", float(census.gate.get("k", 0)), name)
    closed = _closed(census)
    for reason in ("paused", *_INTAKE, *_HOLDS):
        sheet.put("paceline_closed", float(reason in closed), name, reason)
    # These refuse intake; requests go on, so there is nothing to wait for.
    lefts = [left for reason, left in closed.items() if reason not in _INTAKE]
    if lefts:
        sheet.put("paceline_closed_seconds", max(lefts), name)
    sheet.put("paceline_throttles_total", census.counters.get("throttles", 0), name)


def _closed(census: Census) -> dict[str, float]:
    """What closes the destination now, with the seconds until it opens by itself."""
    gate, found = census.gate, {}
    kind = gate.get("hold_kind", "held")
    for reason, field in (("paused", "pause"), (kind if kind in _HOLDS else "held", "hold")):
        until = float(gate.get(f"{field}_until", 0))
        if until == -1:
            found[reason] = float("inf")
        elif until > census.now_us:
            found[reason] = (until - census.now_us) / 1e6
    if "breaker" in gate:
        # Open through its probes too, whose wait is over.
        found.setdefault("breaker", 0.0)
    if "draining" in gate:
        found["drained"] = float("inf")
    if census.intake_shut() is not None:
        found["full"] = float("inf")
    return found


def _put_connections(sheet: Sheet, census: Census) -> None:
    name, n = census.destination, census.counters
    live = [worker for worker in census.workers if worker.live]
    if "connections" in census.config:
        sheet.put("paceline_connections_max", float(census.config["connections"]), name)
        sheet.put("paceline_connections_usable", census.usable_connections, name)
    sheet.put("paceline_connection_slots", sum(worker.slots for worker in live), name)
    sheet.put("paceline_connections", sum(_number(w.facts, "connections") for w in live), name)
    sheet.put("paceline_connections_opened_total", n.get("net:opened", 0), name)
    for field, count in sorted(n.items()):
        if field.startswith("net:closed:"):
            reason = field.removeprefix("net:closed:")
            sheet.put("paceline_connections_closed_total", count, name, reason)
    sheet.put("paceline_connection_failures_total", n.get("net:failed", 0), name)
    sheet.put("paceline_connection_reuses_total", n.get("net:reused", 0), name)
    for worker in live:
        if "tcp_rtt_s" in worker.facts:
            rtt_s = _number(worker.facts, "tcp_rtt_s")
            sheet.put("paceline_tcp_rtt_seconds", rtt_s, name, worker.id)
    sheet.put("paceline_tcp_retransmits_total", n.get("net:retransmits", 0), name)
    expiries = [
        _number(w.facts, "certificate_expires_s")
        for w in live
        if "certificate_expires_s" in w.facts
    ]
    if expiries:
        sheet.put("paceline_certificate_expiry_timestamp_seconds", min(expiries), name)


def _put_processes(sheet: Sheet, census: Census) -> None:
    name = census.destination
    live = [worker for worker in census.workers if worker.live]
    sheet.put("paceline_workers", len(live), name, "live")
    sheet.put("paceline_workers", len(census.workers) - len(live), name, "silent")
    for worker in census.workers:
        sheet.put("paceline_worker_seen_seconds", _seen_s(census, worker), name, worker.id)
    # What a silent one held when it was last heard of, nobody knows to be so.
    for worker in live:
        memory = _number(worker.facts, "memory_bytes")
        if memory:
            sheet.put("paceline_worker_memory_bytes", memory, name, worker.id)
        for state in _HELD_BY_WORKER:
            held = _number(worker.facts, state)
            sheet.put("paceline_worker_messages", held, name, worker.id, state)
    sheet.put("paceline_daemons", census.daemons, name)
    sheet.put("paceline_invitations", census.sizes["invitations"], name)


def _seen_s(census: Census, worker: WorkerSeen) -> float:
    lease_s = float(census.config.get("lease_us", 0)) / 1e6
    return max(0.0, lease_s - worker.lease_left_s)


def _number(facts: Mapping[str, Any], field: str) -> float:
    """A fact that a worker told, which may be of another version; 0 where it is no number."""
    value = facts.get(field)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number else 0.0  # type: ignore[arg-type]
