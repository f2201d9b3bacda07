"""A census and what Redis says of itself, as samples; the catalogue and its page."""

from __future__ import annotations

import re
from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from redis.exceptions import ConnectionError as RedisAway

from paceline.census import BOUNDS_US, CONTAINERS, END_TERMS, IN_TERMS, Census, WorkerSeen
from paceline.exporter.catalogue import CATALOGUE
from paceline.exporter.collector import Collector
from paceline.exporter.destination import put_destination
from paceline.exporter.reading import Reading
from paceline.exporter.redis_server import ServerFacts, put_redis
from paceline.exporter.sheet import Sheet
from paceline.rates import permits_now

ROOT = Path(__file__).parents[2]
NOW = 1_800_000_000_000_000
RUN = "run-1"

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def census(law: dict[str, int] | None = None, **given: Any) -> Census:
    fields: dict[str, Any] = {
        "destination": "api",
        "now_us": NOW,
        "law": dict.fromkeys((*IN_TERMS, *END_TERMS, *CONTAINERS), 0) | (law or {}),
        "counters": {},
        "sizes": {"ready_high": 0, "ready_normal": 0, "ready_bulk": 0, "oldest_us": 0,
                  "next_due_us": -1, "invitations": 0},
        "gate": {"k": "140"},
        "config": {"rate": "90", "burst": "150", "connections": "10", "lease_us": "8000000",
                   "max_count": "1000", "max_bytes": "5000"},
        "workers": [],
        "daemons": 1,
        "outcomes": {},
        "histogram": {},
    }  # fmt: skip
    return Census(**{**fields, **given})


def seen(name: str, live: bool, left_s: float, slots: int, **facts: Any) -> WorkerSeen:
    return WorkerSeen(id=name, live=live, lease_left_s=left_s, slots=slots, facts=facts)


def server(info: dict[str, Any] | None = None, **given: Any) -> ServerFacts:
    fields: dict[str, Any] = {
        "info": {"aof_enabled": 1, "aof_last_write_status": "ok", "redis_version": "7.0.0",
                 "maxmemory_policy": "noeviction", "role": "master"} | (info or {}),
        "appendfsync": "always", "monitor_ms": 0, "spikes": (), "latency_s": 0.001,
        "now_s": 1_000_000.0,
    }  # fmt: skip
    return ServerFacts(**{**fields, **given})


class _Once:
    def __init__(self, sheet: Sheet) -> None:
        self.collect = sheet.families


def rendered(sheet: Sheet) -> Samples:
    """Through the text that Prometheus gets, and back."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Once(sheet))  # type: ignore[arg-type]
    text = generate_latest(registry).decode()
    return {
        (s.name, frozenset(s.labels.items())): s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
    }


def of(it: Census, run_id: str = RUN) -> Callable[..., float | None]:
    """``get("paceline_messages", state="ready")`` on this census's samples."""
    sheet = Sheet()
    put_destination(sheet, it, run_id)
    samples = rendered(sheet)

    def get(name: str, **labels: str) -> float | None:
        labels["destination"] = "api"
        return samples.get((name, frozenset(labels.items())))

    return get


def redis_of(facts: ServerFacts) -> Callable[[str], float | None]:
    sheet = Sheet()
    put_redis(sheet, facts)
    samples = rendered(sheet)
    return lambda name: samples.get((name, frozenset()))


def test_what_waits() -> None:
    sizes = {"ready_high": 1, "ready_normal": 2, "ready_bulk": 4, "oldest_us": 1_500_000,
             "next_due_us": 250_000, "invitations": 3}  # fmt: skip
    get = of(census({"ready": 7, "dead": 2}, sizes=sizes, counters={"bytes": 123}))
    assert get("paceline_messages", state="ready") == 7
    assert get("paceline_messages", state="dead") == 2
    assert get("paceline_messages", state="parked") == 0
    assert get("paceline_ready_messages", priority="bulk") == 4
    assert get("paceline_backlog_seconds") == 1.5
    assert get("paceline_next_due_seconds") == 0.25
    assert get("paceline_stored_bytes") == 123
    assert (get("paceline_messages_max"), get("paceline_stored_bytes_max")) == (1000, 5000)
    assert get("paceline_invitations") == 3


def test_nothing_is_due_when_nothing_is_scheduled() -> None:
    assert of(census())("paceline_next_due_seconds") is None


def test_what_happened() -> None:
    get = of(
        census(
            {"accepted": 10, "sent": 4},
            counters={"accepted": 10, "sent": 4, "retried": 3, "ambiguous_reaped": 2, "died": 1,
                      "duplicates": 5, "returned": 6, "throttles": 7, "permits": 8,
                      "lost_accepted": 3, "lost_outcomes": 2,
                      "events": 30, "events_trimmed": 12, "events_lost": 1},
            outcomes={"sent:200": 4, "ambiguous:timeout": 2, "ambiguous:500": 1,
                      "retry:refused": 9},
        )
    )  # fmt: skip
    assert get("paceline_messages_total", event="accepted") == 10
    assert get("paceline_messages_total", event="moved_out") == 0
    assert get("paceline_requests_total", outcome="sent", status="200") == 4
    assert get("paceline_requests_total", outcome="retry", status="refused") == 9
    assert get("paceline_ambiguous_total") == 5
    assert get("paceline_retries_total") == 3
    assert get("paceline_dead_letters_total") == 1
    assert get("paceline_duplicates_total") == 5
    assert get("paceline_returned_total") == 6
    lost = [get("paceline_redis_lost_total", what=w) for w in ("accepted", "outcomes", "sent")]
    assert lost == [3, 2, 0]
    assert get("paceline_throttles_total") == 7
    assert get("paceline_events_total") == 30
    assert get("paceline_events_trimmed_total") == 12
    assert get("paceline_events_lost_total") == 1
    assert get("paceline_permits_total") == 8
    assert get("paceline_law_difference") == 6


def test_endpoints() -> None:
    assert of(census())("paceline_endpoints_disabled_total") is None
    sizes = {"endpoints": 50, "endpoints_failing": 3, "endpoints_disabled": 1}
    sizes = {**census().sizes, **sizes}
    get = of(census(sizes=sizes, counters={"endpoints_disabled": 7}))
    states = ("registered", "failing", "disabled")
    assert [get("paceline_endpoints", state=state) for state in states] == [50, 3, 1]
    assert get("paceline_endpoints_disabled_total") == 7


def test_events_on_their_way_to_a_url() -> None:
    told = {"events": 90, "events_forwarded": 70, "events_unforwarded": 5, "events_trimmed": 40}
    to = {"rate": "90", "deliver_to": "hook"}
    get = of(census(counters=told, config=to))
    assert get("paceline_events_forward_lag") == 20
    assert get("paceline_events_unforwarded_total") == 5
    # Before the first look at them it is plain that none is to be made up for.
    del told["events_forwarded"]
    assert of(census(counters=told, config=to))("paceline_events_forward_lag") == 50
    nowhere = of(census(counters=told, config={"rate": "90", "deliver_to": ""}))
    assert nowhere("paceline_events_forward_lag") == 0


def test_histograms_are_cumulative_and_have_every_bucket() -> None:
    found = {"api:25000": 3.0, "api:1000000": 2.0, "api:inf": 1.0, "api:sum": 2_500_000.0}
    get = of(census(histogram=found))
    name = "paceline_api_latency_seconds"
    assert get(f"{name}_bucket", le="0.01") == 0
    assert get(f"{name}_bucket", le="0.025") == 3
    assert get(f"{name}_bucket", le="0.5") == 3
    assert get(f"{name}_bucket", le="300.0") == 5
    assert get(f"{name}_bucket", le="+Inf") == get(f"{name}_count") == 6
    assert get(f"{name}_sum") == 2.5
    assert get("paceline_delivery_seconds_count") == 0


def test_the_bounds_are_those_of_the_script() -> None:
    text = (ROOT / "daemon/paceline/lua/settle.lua").read_text(encoding="utf-8")
    found = re.search(r"SLOTS_US = \{([\d,\s]+)\}", text)
    assert found is not None
    assert tuple(int(n) for n in found[1].split(",")) == BOUNDS_US


@pytest.mark.parametrize(
    ("gate", "permits"),
    [
        ({}, 0),
        ({"level": "10", "at": str(NOW - 1_000_000), "run": RUN, "k": "140"}, 100),
        ({"level": "10", "at": str(NOW - 9_000_000), "run": RUN, "k": "140"}, 140),
        ({"level": "-3", "at": str(NOW), "run": RUN, "k": "140"}, -3),
        ({"level": "10", "at": str(NOW + 1_000_000), "run": RUN, "k": "140"}, 10),
        ({"level": "10", "at": str(NOW), "run": RUN, "k": "4"}, 4),
        # A restarted Redis: the next draw begins with an empty bucket, or with what is owed.
        ({"level": "10", "at": str(NOW), "run": "run-0", "k": "140"}, 0),
        ({"level": "-3", "at": str(NOW), "run": "run-0", "k": "140"}, -3),
    ],
)
def test_permits_as_the_gate_reckons(gate: dict[str, str], permits: float) -> None:
    assert permits_now(census(gate=gate), RUN) == pytest.approx(permits)


LATER = str(NOW + 2_000_000)


@pytest.mark.parametrize(
    ("gate", "reasons", "left"),
    [
        ({}, set(), None),
        ({"pause_until": str(NOW - 1)}, set(), None),
        ({"pause_until": LATER}, {"paused"}, 2),
        ({"pause_until": LATER, "hold_until": "-1", "hold_kind": "held"}, {"paused", "held"}, inf),
        ({"hold_until": LATER, "hold_kind": "throttled"}, {"throttled"}, 2),
        ({"hold_until": LATER, "hold_kind": "breaker"}, {"breaker"}, 2),
        ({"hold_until": "-1", "hold_kind": "a kind of later"}, {"held"}, inf),
        ({"draining": "draining"}, {"drained"}, None),
        ({"full": f"{LATER} 7 80% is used"}, {"full"}, None),
        ({"full": f"{NOW} 7 80% is used"}, set(), None),
        ({"draining": "draining", "pause_until": LATER}, {"drained", "paused"}, 2),
    ],
)
def test_closed(gate: dict[str, str], reasons: set[str], left: float | None) -> None:
    get = of(census(gate={"k": "1", **gate}))
    shown = {
        reason: get("paceline_closed", reason=reason)
        for reason in ("paused", "drained", "full", "held", "throttled", "breaker")
    }
    assert shown == {reason: float(reason in reasons) for reason in shown}
    assert get("paceline_closed_seconds") == left


def test_of_a_silent_worker_only_is_told_how_long() -> None:
    facts = {"connections": 3, "memory_bytes": 5, "queued": 1, "tcp_rtt_s": 0.5,
             "certificate_expires_s": 77}  # fmt: skip
    workers = [seen("a", True, 7.5, 6, **facts), seen("b", False, -2.0, 4, **facts)]
    get = of(census(workers=workers))
    assert get("paceline_workers", state="live") == get("paceline_workers", state="silent") == 1
    assert get("paceline_connection_slots") == 6
    assert get("paceline_connections") == 3
    assert get("paceline_worker_memory_bytes", worker="a") == 5
    assert get("paceline_worker_memory_bytes", worker="b") is None
    assert get("paceline_worker_messages", worker="a", state="queued") == 1
    assert get("paceline_worker_messages", worker="b", state="queued") is None
    assert get("paceline_tcp_rtt_seconds", worker="a") == 0.5
    assert get("paceline_worker_seen_seconds", worker="a") == 0.5
    assert get("paceline_worker_seen_seconds", worker="b") == 10
    assert get("paceline_certificate_expiry_timestamp_seconds") == 77


def test_facts_of_another_version_are_no_trouble() -> None:
    facts = {"connections": "many", "memory_bytes": None, "queued": True}
    get = of(census(workers=[seen("a", True, 8, 1, **facts)]))
    assert get("paceline_connections") == 0
    assert get("paceline_worker_memory_bytes", worker="a") is None
    assert get("paceline_worker_messages", worker="a", state="queued") == 0


def test_the_earliest_certificate_counts() -> None:
    workers = [seen(str(n), True, 8, 1, certificate_expires_s=n) for n in (30, 20, 40)]
    assert of(census(workers=workers))("paceline_certificate_expiry_timestamp_seconds") == 20


def test_totals_of_connections() -> None:
    n = {
        "net:opened": 4,
        "net:reused": 9,
        "net:failed": 2,
        "net:retransmits": 1,
        "net:closed:age": 3,
    }
    get = of(census(counters=n))
    assert get("paceline_connections_opened_total") == 4
    assert get("paceline_connection_reuses_total") == 9
    assert get("paceline_connection_failures_total") == 2
    assert get("paceline_tcp_retransmits_total") == 1
    assert get("paceline_connections_closed_total", reason="age") == 3


@pytest.mark.parametrize(
    ("change", "durable"),
    [
        ({}, 1),
        ({"info": {"aof_enabled": 0}}, 0),
        ({"info": {"aof_last_write_status": "err"}}, 0),
        ({"info": {"maxmemory_policy": "allkeys-lru"}}, 0),
        ({"appendfsync": "everysec"}, 0),
        ({"unsynced_rewrite": "yes"}, 0),
        ({"appendfsync": None}, None),
    ],
)
def test_durable(change: dict[str, Any], durable: float | None) -> None:
    assert redis_of(server(**change))("paceline_redis_durable") == durable


def test_fsyncs_of_the_last_minute() -> None:
    spikes = [(999_930, 900), (999_950, 40), (999_990, 70)]
    name = "paceline_redis_fsync_seconds"
    assert redis_of(server(monitor_ms=1, spikes=spikes))(name) == 0.07
    assert redis_of(server(monitor_ms=1))(name) == 0
    assert redis_of(server(monitor_ms=0, spikes=spikes))(name) is None
    assert redis_of(server(monitor_ms=None))(name) is None


def test_the_slowest_replica() -> None:
    replicas = {"connected_slaves": 2, "master_repl_offset": 1000,
                "slave0": {"offset": 990}, "slave1": {"offset": 400}}  # fmt: skip
    get = redis_of(server(replicas))
    assert get("paceline_redis_replicas") == 2
    assert get("paceline_redis_replication_lag_bytes") == 600
    assert redis_of(server())("paceline_redis_replication_lag_bytes") is None


def test_what_the_catalogue_has_not_cannot_be_put() -> None:
    with pytest.raises(KeyError):
        Sheet().put("paceline_invented", 1)
    with pytest.raises(ValueError):
        Sheet().put("paceline_messages", 1, "api")


def reading(*censuses: Census, unread: tuple[str, ...] = ()) -> Reading:
    return Reading(server=server(), censuses=censuses, unread=unread, run_id=RUN, took_s=0.01)


def collected(collector: Collector) -> Samples:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    text = generate_latest(registry).decode()
    return {
        (s.name, frozenset(s.labels.items())): s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
    }


def test_redis_away_invents_nothing_and_keeps_the_time() -> None:
    answers: list[Reading | Exception] = [RedisAway("gone"), reading(census()), RedisAway("gone")]

    def read() -> Reading:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    # The registry collects nothing at registration: each answer is one scrape.
    collector = Collector(read, wall_s=lambda: 5.0)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    names = [{s.name: s.value for f in registry.collect() for s in f.samples} for _ in range(3)]
    away = {"paceline_up": 0, "paceline_redis_up": 0, "paceline_build_info": 1}
    assert names[0] == away
    assert names[1]["paceline_up"] == names[1]["paceline_redis_up"] == 1
    assert "paceline_messages" in names[1]
    assert names[2] == away | {"paceline_last_read_timestamp_seconds": 5.0}


@pytest.mark.parametrize(
    "answer",
    [
        reading(census(), unread=("other: WRONGTYPE",)),
        reading(census(), census(destination="bad", gate={"pause_until": "no number"})),
    ],
    ids=["a key of another type", "a field that is no number"],
)
def test_one_destinations_damage_is_not_the_others(answer: Reading) -> None:
    samples = collected(Collector(lambda: answer))
    assert samples["paceline_up", frozenset()] == 0
    assert samples["paceline_redis_up", frozenset()] == 1
    assert samples["paceline_rate", frozenset({("destination", "api")})] == 90


def test_the_page_and_the_catalogue_name_the_same() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    documented: dict[str, tuple[str, tuple[str, ...]]] = {}
    for section in page.split("\n## ")[1:]:
        alone = "(no `destination`)" in section.partition("\n")[0]
        for line in section.splitlines():
            cells = [cell.strip() for cell in line.split("|")[1:-1]]
            names = re.findall(r"`(paceline_\w+)`", cells[0]) if cells else []
            if alone:
                told = cells[2] if names and "label" in cells[2].partition(";")[0] else ""
                labels = re.findall(r"`(\w+)`", told.partition("(")[0].partition(";")[0])
            else:
                labels = ["destination", *re.findall(r"`(\w+)`", cells[2])] if names else []
            for name in names:
                assert name not in documented, f"{name} is documented twice"
                documented[name] = (cells[1], tuple(labels))
    assert documented == {name: (m.kind, m.labels) for name, m in CATALOGUE.items()}
