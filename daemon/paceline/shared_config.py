"""The copy of a destination's configuration that all processes share in Redis, without secrets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from paceline.errors import ConfigMismatch
from paceline.outbox import OutboxStore
from paceline.settings import Destination


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
        "bytes_per_s": destination.bytes_per_s,
        "fallback": destination.fallback or "",
        # Of this provider's own payloads another one can make nothing.
        "fallback_neutral": int(destination.fallback_provider not in (None, destination.provider)),
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
    public = destination.public()
    word, version, in_force = store.publish_config(
        destination.digest(), public, script_numbers(destination), force=force
    )
    if word == "differs":
        raise ConfigMismatch(destination.name, differences(json.loads(in_force), public))
    return version


def differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    """Which keys differ, and how, in words; "" for none."""
    keys = sorted(k for k in {*theirs, *ours} if theirs.get(k) != ours.get(k))
    return "; ".join(f"{k} is {theirs.get(k)!r} there, {ours.get(k)!r} here" for k in keys)


def _us(seconds: float) -> int:
    return round(seconds * 1e6)
