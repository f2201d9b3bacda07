"""The copy of a destination's configuration that all processes share in Redis, without secrets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from paceline.config_digest import differences, digest, shared_copy
from paceline.errors import ConfigMismatch
from paceline.outbox import OutboxStore
from paceline.settings import Destination, Endpoints, Events

_RELOAD_MEND = "Give this process the same file, then reload it: kill -HUP, or systemctl reload"


def script_numbers(destination: Destination) -> dict[str, int | float | str]:
    """The fields of ``{destination}:cfg`` that the scripts read; times in microseconds."""
    retry = destination.retry
    return {
        "rate": destination.rate,
        "burst": destination.burst,
        "connections": destination.effective_connections,
        "reserve": destination.reserve,
        "lease_us": _us(destination.lease_s),
        "max_age_us": _us(destination.max_age_s),
        "record_us": _us(destination.record_ttl_s),
        "max_payload": destination.max_payload_bytes,
        "max_count": destination.max_messages,
        "max_bytes": destination.max_bytes,
        "max_tries": retry.max_retries,
        "retry_first_us": _us(retry.first_s),
        "on_ambiguous": retry.on_ambiguous,
        "throttle_first_us": _us(retry.throttle_first_s),
        "throttle_cap_us": _us(retry.throttle_cap_s),
        "pace": destination.pace,
        "probe_us": _us(destination.probe_after_s),
        # How long the result of a probe may take.
        "probe_wait_us": _us(destination.connect_timeout_s + destination.total_timeout_s + 5.0),
        "merge_most": destination.merge.most,
        "merge_ambiguous": destination.merge.on_ambiguous,
        "bytes_per_s": destination.bytes_per_s,
        "poll_us": _us(destination.poll_status_after_s),
        "fallback": destination.fallback or "",
        # Of this provider's own payloads another one can make nothing.
        "fallback_neutral": int(destination.fallback_provider not in (None, destination.provider)),
        "events": _events(destination.events),
        "deliver_to": destination.events.deliver_to or "",
        "endpoints": _endpoints(destination.endpoints),
        "tenants": json.dumps(
            {name: [t.weight, t.rate, t.burst] for name, t in destination.tenants.items()}
        )
        if destination.tenants
        else "",
    }


def publish(store: OutboxStore, destination: Destination, *, force: bool = False) -> int:
    """Makes this configuration the shared one, or confirms that it is. Returns its version.

    Raises ConfigMismatch, naming the keys, while other processes live by a different one.
    """
    word, version, in_force = store.publish_config(
        digest(destination), shared_copy(destination), script_numbers(destination), force=force
    )
    if word == "differs":
        raise ConfigMismatch(destination.name, differences(json.loads(in_force), destination))
    return version


def republish(store: OutboxStore, before: Destination, now: Destination) -> bool:
    """After a reload: makes the new configuration the shared one, whoever lives by another. True
    where it differs from the one before.

    Where it does not, nothing is published: what is in force may come from a newer file, which an
    older one, read again for a new password, must not undo.
    """
    if digest(before) == digest(now):
        return False
    publish(store, now, force=True)
    return True


def confirm(store: OutboxStore, destination: Destination) -> None:
    """Sees to it that there is a shared configuration, for a Redis may come back empty.

    Raises ConfigMismatch where another one is in force: it was reloaded elsewhere.
    """
    word, _, in_force = store.publish_config(
        digest(destination), shared_copy(destination), script_numbers(destination), keep=True
    )
    if word == "differs":
        raise mismatch(destination, json.loads(in_force))


def mismatch(destination: Destination, in_force: Mapping[str, Any]) -> ConfigMismatch:
    """What to say of a process that another one's reload has left behind."""
    return ConfigMismatch(destination.name, differences(in_force, destination), _RELOAD_MEND)


def _events(events: Events) -> str:
    """As ``lua/events.lua`` reads it."""
    if not events.kinds:
        return ""
    return f"{events.max_count} {_us(events.max_age_s)} {' '.join(events.kinds)} "


def _endpoints(endpoints: Endpoints | None) -> str:
    """As ``lua/endpoints.lua`` reads it."""
    if endpoints is None:
        return ""
    rate = f"{endpoints.rate:g}"
    return f"{endpoints.in_flight} {rate} {endpoints.burst} {_us(endpoints.disable_after_s)}"


def _us(seconds: float) -> int:
    return round(seconds * 1e6)
