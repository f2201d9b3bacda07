"""Every metric: name, type, labels, meaning. docs/metrics.md is its page, and a test compares them.

Names are an interface: alerts and dashboards of others are written with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["gauge", "counter", "histogram"]


@dataclass(frozen=True, slots=True)
class Metric:
    """``labels`` in the order in which values are given."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    text: str


def _of_destination(kind: Kind, name: str, text: str, *labels: str) -> Metric:
    return Metric(f"paceline_{name}", kind, ("destination", *labels), text)


def _of_all(kind: Kind, name: str, text: str, *labels: str) -> Metric:
    return Metric(f"paceline_{name}", kind, labels, text)


_LIST: Final = (
    # what waits
    _of_destination("gauge", "messages", "Messages in the outbox that have not ended.", "state"),
    _of_destination("gauge", "ready_messages", "Messages ready to be sent.", "priority"),
    _of_destination("gauge", "merged_messages", "Messages in merged requests that have not ended."),
    _of_destination("gauge", "backlog_seconds", "Age of the oldest ready message."),
    _of_destination("gauge", "next_due_seconds", "Until the next scheduled message is due."),
    _of_destination("gauge", "stored_bytes", "Payload bytes in the outbox."),
    _of_destination("gauge", "messages_max", "Messages beyond which intake is refused."),
    _of_destination("gauge", "stored_bytes_max", "Bytes beyond which intake is refused."),
    # what happened
    _of_destination("counter", "messages_total", "Messages by what happened to them.", "event"),
    _of_destination(
        "counter",
        "requests_total",
        "Requests by outcome and by HTTP status or cause of failure.",
        "outcome",
        "status",
    ),
    _of_destination("counter", "merged_requests_total", "Requests made of several messages."),
    _of_destination("counter", "merged_messages_total", "Messages put into such requests."),
    _of_destination("counter", "retries_total", "Messages put back to be tried again later."),
    _of_destination("counter", "ambiguous_total", "Attempts whose fate is unknown."),
    _of_destination("counter", "duplicates_total", "Messages known to have been sent again."),
    _of_destination(
        "counter", "redis_lost_total", "What Redis forgot after it had said it has it.", "what"
    ),
    _of_destination("counter", "returned_total", "Messages given back untouched."),
    _of_destination("counter", "dead_letters_total", "Messages that became dead letters."),
    _of_destination(
        "histogram", "api_latency_seconds", "First byte written to last byte read, of a request."
    ),
    _of_destination("histogram", "delivery_seconds", "Accepted to sent, of a message."),
    _of_destination("counter", "events_total", "Delivery events told."),
    _of_destination("counter", "events_trimmed_total", "Delivery events no longer kept."),
    _of_destination("counter", "events_lost_total", "Delivery events that could not be written."),
    _of_destination("gauge", "law_difference", "Of the conservation law; 0 when it holds."),
    # endpoints
    _of_destination("gauge", "endpoints", "Endpoints of a destination that has many.", "state"),
    _of_destination("counter", "endpoints_disabled_total", "Endpoints that were disabled."),
    # events on their way to the app's own URL
    _of_destination("gauge", "events_forward_lag", "Events not yet handed on to the app's URL."),
    _of_destination(
        "counter", "events_unforwarded_total", "Events trimmed away before they were handed on."
    ),
    # the rate
    _of_destination("counter", "permits_total", "Permits drawn."),
    _of_destination("gauge", "permits", "Permits in the bucket; below 0: drawn ahead."),
    _of_destination("gauge", "rate", "Requests per second at most."),
    _of_destination("gauge", "pace", "Requests per second now, as the provider's answers allow."),
    _of_destination("counter", "pace_cuts_total", "Times the pace was lowered."),
    _of_destination("counter", "breaker_opened_total", "Times the breaker opened."),
    _of_destination("gauge", "burst", "Requests that may start at once."),
    _of_destination("gauge", "bucket_size", "Permits that the bucket holds at most."),
    _of_destination("gauge", "closed", "1 while the destination is closed for this.", "reason"),
    _of_destination("gauge", "closed_seconds", "Until it opens by itself; +Inf: it does not."),
    _of_destination("counter", "throttles_total", "Refusals for the rate by the provider."),
    # connections and the network
    _of_destination("gauge", "connections_max", "Connections the account may use."),
    _of_destination("gauge", "connections_usable", "Of these, in use by feedback."),
    _of_destination("gauge", "connection_slots", "Connections granted to live workers."),
    _of_destination("gauge", "connections", "Connections open now."),
    _of_destination("counter", "connections_opened_total", "Connections opened."),
    _of_destination("counter", "connections_closed_total", "Connections closed.", "reason"),
    _of_destination("counter", "connection_failures_total", "Connects that failed."),
    _of_destination(
        "counter",
        "connection_reuses_total",
        "Requests on a connection that had carried one before.",
    ),
    _of_destination(
        "gauge", "tcp_rtt_seconds", "Smoothed round trip, mean over open connections.", "worker"
    ),
    _of_destination("counter", "tcp_retransmits_total", "TCP segments sent again."),
    _of_destination(
        "gauge",
        "certificate_expiry_timestamp_seconds",
        "When the certificate that the provider last showed expires.",
    ),
    # processes
    _of_destination("gauge", "workers", "Workers.", "state"),
    _of_destination("gauge", "worker_memory_bytes", "Resident memory of a worker.", "worker"),
    _of_destination("gauge", "worker_messages", "Messages that a worker holds.", "worker", "state"),
    _of_destination("gauge", "worker_seen_seconds", "Since a worker's last heartbeat.", "worker"),
    _of_destination("gauge", "daemons", "Live reapers."),
    _of_destination("gauge", "invitations", "Invitations to workers that are out."),
    # Redis and the exporter
    _of_all("gauge", "up", "1 when this scrape read everything."),
    _of_all("gauge", "last_read_timestamp_seconds", "When everything was last read."),
    _of_all("gauge", "read_seconds", "How long reading Redis took."),
    _of_all("gauge", "build_info", "The exporter's version.", "version"),
    _of_all("gauge", "redis_up", "1 when Redis answers."),
    _of_all("gauge", "redis_latency_seconds", "One round trip to Redis."),
    _of_all(
        "gauge",
        "redis_info",
        "What Redis is, and how it is set.",
        "version",
        "role",
        "appendfsync",
        "maxmemory_policy",
    ),
    _of_all("gauge", "redis_durable", "1 when every answer of Redis follows an fsync."),
    _of_all("gauge", "redis_aof_enabled", "1 when the append-only file is on."),
    _of_all("gauge", "redis_aof_last_write_ok", "1 when its last write went well."),
    _of_all("gauge", "redis_rdb_last_save_ok", "1 when the last snapshot went well."),
    _of_all("gauge", "redis_aof_size_bytes", "Size of the append-only file."),
    _of_all("counter", "redis_fsync_delayed_total", "Fsyncs that held writers up."),
    _of_all("gauge", "redis_fsync_seconds", "Worst fsync of the last minute that Redis noted."),
    _of_all("gauge", "redis_memory_bytes", "Memory that Redis uses."),
    _of_all("gauge", "redis_memory_max_bytes", "Memory that Redis may use; 0: unlimited."),
    _of_all("counter", "redis_evicted_keys_total", "Keys evicted for want of memory."),
    _of_all("gauge", "redis_clients", "Connected clients."),
    _of_all("counter", "redis_commands_total", "Commands processed."),
    _of_all("counter", "redis_cpu_seconds_total", "CPU time of Redis, user and system."),
    _of_all("gauge", "redis_replicas", "Connected replicas."),
    _of_all("gauge", "redis_replication_lag_bytes", "How far the slowest replica is behind."),
    _of_all("gauge", "redis_uptime_seconds", "Since Redis started."),
)

CATALOGUE: Final[Mapping[str, Metric]] = {metric.name: metric for metric in _LIST}
