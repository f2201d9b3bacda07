"""What Redis says of itself, as samples. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from paceline.exporter.sheet import Sheet

_RECENT_S = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """``info`` is INFO; ``appendfsync`` and ``monitor_ms`` (the latency monitor's threshold) are
    None where Redis does not let us ask; ``spikes`` are (unix seconds, milliseconds) of fsyncs over
    the threshold; ``now_s`` is Redis's clock."""

    info: Mapping[str, Any]
    appendfsync: str | None
    monitor_ms: int | None
    spikes: Sequence[tuple[int, int]]
    latency_s: float
    now_s: float
    #: Whether ``no-appendfsync-on-rewrite`` is set: "yes" or "no".
    unsynced_rewrite: str = "no"


def put_redis(sheet: Sheet, facts: ServerFacts) -> None:
    """All metrics of the server. What a server does not tell is left out."""
    info = facts.info
    version = info.get("valkey_version") or info.get("redis_version", "")
    labels = (info.get("role", ""), facts.appendfsync or "", info.get("maxmemory_policy", ""))
    sheet.put("paceline_redis_info", 1, str(version), *(str(label) for label in labels))
    sheet.put("paceline_redis_latency_seconds", facts.latency_s)
    durable = _is_durable(facts)
    if durable is not None:
        sheet.put("paceline_redis_durable", float(durable))
    _put_persistence(sheet, facts)
    _put_load(sheet, info)
    _put_replication(sheet, info)


def _is_durable(facts: ServerFacts) -> bool | None:
    """None where the server does not let us see its settings."""
    info = facts.info
    if facts.appendfsync is None or "aof_enabled" not in info:
        return None
    return (
        int(info["aof_enabled"]) == 1
        and facts.appendfsync == "always"
        and facts.unsynced_rewrite != "yes"
        and info.get("aof_last_write_status") == "ok"
        and info.get("maxmemory_policy") == "noeviction"
    )


def _put_persistence(sheet: Sheet, facts: ServerFacts) -> None:
    info = facts.info
    _put_if(sheet, "paceline_redis_aof_enabled", info, "aof_enabled")
    for metric, field in (
        ("aof_last_write_ok", "aof_last_write_status"),
        ("rdb_last_save_ok", "rdb_last_bgsave_status"),
    ):
        if field in info:
            sheet.put(f"paceline_redis_{metric}", float(info[field] == "ok"))
    _put_if(sheet, "paceline_redis_aof_size_bytes", info, "aof_current_size")
    _put_if(sheet, "paceline_redis_fsync_delayed_total", info, "aof_delayed_fsync")
    if facts.monitor_ms:
        recent = [ms for at, ms in facts.spikes if facts.now_s - at <= _RECENT_S]
        sheet.put("paceline_redis_fsync_seconds", max(recent, default=0) / 1e3)


def _put_load(sheet: Sheet, info: Mapping[str, Any]) -> None:
    _put_if(sheet, "paceline_redis_memory_bytes", info, "used_memory")
    _put_if(sheet, "paceline_redis_memory_max_bytes", info, "maxmemory")
    _put_if(sheet, "paceline_redis_evicted_keys_total", info, "evicted_keys")
    _put_if(sheet, "paceline_redis_clients", info, "connected_clients")
    _put_if(sheet, "paceline_redis_commands_total", info, "total_commands_processed")
    if "used_cpu_user" in info and "used_cpu_sys" in info:
        cpu_s = float(info["used_cpu_user"]) + float(info["used_cpu_sys"])
        sheet.put("paceline_redis_cpu_seconds_total", cpu_s)
    _put_if(sheet, "paceline_redis_uptime_seconds", info, "uptime_in_seconds")


def _put_replication(sheet: Sheet, info: Mapping[str, Any]) -> None:
    _put_if(sheet, "paceline_redis_replicas", info, "connected_slaves")
    offset = info.get("master_repl_offset")
    behind = [
        float(offset) - float(replica["offset"])
        for name, replica in info.items()
        if name.removeprefix("slave").isdigit()
        and isinstance(replica, Mapping)
        and "offset" in replica
        and offset is not None
    ]
    if behind:
        sheet.put("paceline_redis_replication_lag_bytes", max(0.0, *behind))


def _put_if(sheet: Sheet, metric: str, info: Mapping[str, Any], field: str) -> None:
    if field in info:
        sheet.put(metric, float(info[field]))
