"""Is this Redis fit to hold messages? Pure."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from paceline.doctor.finding import REDIS, Finding, Level
from paceline.doctor.redis_facts import RedisFacts

LEAST_VERSION = (7, 0)
_SKEW_WARN_S, _SKEW_FAIL_S = 1.0, 60.0
_SLOW_S = 0.005
_FULL = 0.8
#: Of maxmemory: a little before intake is refused, unless memory_share says otherwise.
_NEARLY = 0.7
_LEAST_FREE_BYTES = 256 * 1024**2


def judge(facts: RedisFacts, library_version: int) -> list[Finding]:
    """All there is to say, in the order in which an operator reads it."""
    if not facts.answered:
        return [_said("answers", "fail", f"{facts.url}: {facts.trouble}", facts.mend)]
    return [
        _said("answers", "ok", f"{facts.url} answers"),
        *_version(facts),
        *_role(facts),
        *_durability(facts),
        *_memory(facts),
        *_snapshots(facts),
        *_disk(facts),
        *_replicas(facts),
        *_clock(facts),
        *_latency(facts),
        *_library(facts, library_version),
        *_rights(facts),
    ]


def _said(check: str, level: Level, text: str, mend: str = "") -> Finding:
    return Finding(REDIS, check, level, text, mend)


def _version(facts: RedisFacts) -> Iterator[Finding]:
    version = str(facts.info.get("redis_version", ""))
    try:
        parts = tuple(int(part) for part in version.split(".")[:2])
    except ValueError:
        parts = ()
    valkey = facts.info.get("valkey_version")
    shown = f"Valkey {valkey}" if valkey else f"Redis {version}"
    if not parts:
        yield _said("version", "warn", "its version cannot be read", "Allow INFO to this user")
    elif parts < LEAST_VERSION:
        yield _said("version", "fail", f"{shown} is too old", "Use Redis 7.0 or later, or Valkey")
    else:
        yield _said("version", "ok", shown)


def _role(facts: RedisFacts) -> Iterator[Finding]:
    role = facts.info.get("role")
    if role == "master":
        yield _said("role", "ok", "it is a master")
    elif role is not None:
        yield _said(
            "role",
            "fail",
            "it is a replica: it takes no writes, and is behind its master",
            "Name the master, or all Sentinels: sentinel+redis://host:26379,host:26379/NAME",
        )


def _durability(facts: RedisFacts) -> Iterator[Finding]:
    enabled = facts.info.get("aof_enabled")
    if enabled is None:
        yield _said("append-only file", "warn", "it cannot be seen", "Allow INFO to this user")
        return
    if not enabled:
        yield _said(
            "append-only file",
            "fail",
            "it is off: a restart of Redis loses what came since the last snapshot",
            "CONFIG SET appendonly yes, and in its configuration file",
        )
        return
    if facts.info.get("aof_last_write_status", "ok") != "ok":
        yield _said(
            "append-only file",
            "fail",
            "its last write failed: Redis refuses all writes until one succeeds",
            "Look into Redis's log; usually the disk is full",
        )
    else:
        yield _said("append-only file", "ok", "on, and its last write was good")
    if facts.info.get("aof_last_bgrewrite_status", "ok") != "ok":
        yield _said(
            "append-only file",
            "warn",
            "its last rewrite failed: it grows without end",
            "Look into Redis's log: it needs memory and disk for a copy",
        )
    yield from _fsync(facts)


def _fsync(facts: RedisFacts) -> Iterator[Finding]:
    policy = facts.appendfsync
    if policy == "always":
        yield _said("fsync", "ok", "always: each answer follows the fsync")
    elif policy == "everysec":
        yield _said(
            "fsync",
            "warn",
            "everysec: up to 2 s of accepted messages and outcomes may be lost in a crash of Redis "
            "or its machine (a lost outcome is a message sent twice)",
            "CONFIG SET appendfsync always, and in its configuration file",
        )
    elif policy is None:
        yield _said(
            "fsync",
            "warn",
            "appendfsync cannot be read, so what a crash may lose is not known",
            "Allow CONFIG GET to this user, or ask who runs this Redis",
        )
    else:
        yield _said(
            "fsync",
            "fail",
            f"{policy}: the system writes when it likes, half a minute and more may be lost",
            "CONFIG SET appendfsync always, and in its configuration file",
        )
    if policy == "always" and (facts.config or {}).get("no-appendfsync-on-rewrite") == "yes":
        yield _said(
            "fsync",
            "warn",
            "no-appendfsync-on-rewrite is on: while the file is rewritten nothing is synced",
            "CONFIG SET no-appendfsync-on-rewrite no",
        )


def _memory(facts: RedisFacts) -> Iterator[Finding]:
    info = facts.info
    policy = info.get("maxmemory_policy") or (facts.config or {}).get("maxmemory-policy")
    if policy == "noeviction":
        yield _said("eviction", "ok", "noeviction")
    elif policy is not None:
        yield _said(
            "eviction",
            "fail",
            f"{policy}: a full Redis deletes messages",
            "CONFIG SET maxmemory-policy noeviction, and in its configuration file",
        )
    evicted = int(info.get("evicted_keys", 0))
    if evicted:
        yield _said(
            "eviction",
            "fail",
            f"{evicted:,} keys were evicted since it started: messages may be among them",
            "paceline audit --deep tells; then set maxmemory-policy noeviction",
        )
    most, used = int(info.get("maxmemory", 0)), int(info.get("used_memory", 0))
    if most and used > _NEARLY * most:
        yield _said(
            "memory",
            "warn",
            f"{used / most:.0%} of maxmemory is used; intake is refused at 75%, or at memory_share "
            "of [redis]",
            "Raise maxmemory, or let less wait (max_bytes of the destinations)",
        )
    elif most:
        yield _said("memory", "ok", f"{_mb(used)} of {_mb(most)} used")
    elif used:
        system = int(info.get("total_system_memory", 0))
        yield _said(
            "memory",
            "warn" if system and used > _FULL * system else "ok",
            f"{_mb(used)} used, no limit (maxmemory 0)"
            + (f" on a machine with {_mb(system)}" if system else ""),
            "Set maxmemory: then intake is refused before the system kills Redis",
        )


def _snapshots(facts: RedisFacts) -> Iterator[Finding]:
    if facts.info.get("rdb_last_bgsave_status", "ok") != "ok":
        yield _said(
            "snapshot",
            "fail",
            "the last snapshot failed: by default Redis then refuses all writes",
            "Look into Redis's log; usually the disk is full, or memory for the copy is missing",
        )


def _disk(facts: RedisFacts) -> Iterator[Finding]:
    free, size = facts.disk_free_bytes, int(facts.info.get("aof_current_size", 0))
    if free is None:
        return
    text = f"{_mb(free)} free in {facts.aof_dir}, the append-only file has {_mb(size)}"
    if free < max(size, _LEAST_FREE_BYTES):
        yield _said("disk", "fail", f"{text}: too little to rewrite it", "Make room, or move it")
    elif free < 3 * size:
        yield _said("disk", "warn", text, "Make room: a rewrite needs the same again")
    else:
        yield _said("disk", "ok", text)


def _replicas(facts: RedisFacts) -> Iterator[Finding]:
    count = int(facts.info.get("connected_slaves", 0))
    config = facts.config or {}
    least = int(config.get("min-replicas-to-write") or 0)
    if config.get("min-replicas-max-lag") == "0":
        least = 0  # it switches the other off
    if count < least:
        yield _said(
            "replicas",
            "fail",
            f"{count} connected, and it takes no writes below {least}",
            "Start the replicas, or lower min-replicas-to-write",
        )
    elif count and facts.config is None:
        yield _said("replicas", "ok", f"{count} connected")
    elif count and not least:
        yield _said(
            "replicas",
            "warn",
            f"{count} connected, but it takes writes without any: a master cut off from the others "
            "accepts what a fail-over then forgets",
            "CONFIG SET min-replicas-to-write 1, and min-replicas-max-lag 2",
        )
    elif count:
        yield _said("replicas", "ok", f"{count} connected, at least {least} needed to write")


def _clock(facts: RedisFacts) -> Iterator[Finding]:
    ahead = facts.ahead_s
    if ahead is None:
        return
    side = "ahead of" if ahead > 0 else "behind"
    shown = f"{abs(ahead) * 1e3:.1f} ms" if abs(ahead) < 1 else f"{abs(ahead):.1f} s"
    text = f"its clock is {shown} {side} this machine's"
    if abs(ahead) < _SKEW_WARN_S:
        yield _said("clock", "ok", text)
        return
    yield _said(
        "clock",
        "fail" if abs(ahead) > _SKEW_FAIL_S else "warn",
        f"{text}: not_before, expires and a provider's dates are off by as much",
        "Let both machines follow NTP",
    )


def _latency(facts: RedisFacts) -> Iterator[Finding]:
    if not facts.pings_s:
        return
    middle = median(facts.pings_s)
    text = f"a round trip takes {middle * 1e3:.2g} ms (least {min(facts.pings_s) * 1e3:.2g} ms)"
    if middle > _SLOW_S:
        yield _said(
            "latency",
            "warn",
            f"{text}: each request asks Redis first",
            "Run the workers nearer to it",
        )
    else:
        yield _said("latency", "ok", text)


def _library(facts: RedisFacts, version: int) -> Iterator[Finding]:
    if facts.library is None:
        yield _said(
            "function library",
            "fail",
            "this user may not call functions: nothing can be handed over",
            "Allow FCALL and FCALL_RO",
        )
    elif facts.library == 0:
        yield _said(
            "function library",
            "warn",
            "not loaded: apps in other languages cannot hand messages over",
            "Start the daemon: it loads it",
        )
    elif facts.library < version:
        yield _said(
            "function library",
            "warn",
            f"version {facts.library}, this Paceline has {version}",
            "Restart the daemon with this version: it loads its own",
        )
    else:
        yield _said("function library", "ok", f"version {facts.library}")


def _rights(facts: RedisFacts) -> Iterator[Finding]:
    if facts.lacking:
        some = ", ".join(facts.lacking[:6])
        more = f" and {len(facts.lacking) - 6} more" if len(facts.lacking) > 6 else ""
        yield _said(
            "rights",
            "fail",
            f"user {facts.user!r} may not do: {some}{more}",
            "Make the user as paceline acl prints it: docs/threat-model.md",
        )
    elif facts.user is not None:
        yield _said("rights", "ok", f"user {facts.user!r} may do all that is needed")
    others = [name for name in facts.refused if name not in ("ACL", "FCALL_RO")]
    if others or "ACL" in facts.refused:
        names = ", ".join(others or ["ACL"])
        yield _said(
            "rights",
            "warn",
            f"not allowed here: {names}; what rests on it could not be checked",
            "Allow it to this user, or run doctor as one who may",
        )


def _mb(size: int) -> str:
    return f"{size / 1024**3:.1f} GiB" if size >= 1024**3 else f"{size / 1024**2:.1f} MiB"


NOTHING_KNOWN = "What is accepted cannot be told: no Redis is named."


def durability(facts: RedisFacts) -> str:
    """What "accepted" means on this Redis, in a sentence or two."""
    if not facts.answered:
        return "What is accepted cannot be told: Redis does not answer."
    if not facts.info.get("aof_enabled"):
        return (
            "What is accepted is lost with Redis's process, back to its last snapshot: the "
            "append-only file is off."
        )
    policy = facts.appendfsync
    survives = "What is accepted survives a crash of apps, workers and daemon"
    if policy == "always":
        text = f"{survives}, of Redis, and of its machine (appendfsync always)."
    elif policy == "everysec":
        text = (
            f"{survives}; in a crash of Redis or its machine up to 2 s of it may be lost "
            "(appendfsync everysec)."
        )
    elif policy is None:
        text = f"{survives}; what a crash of Redis or its machine loses is not known."
    else:
        text = (
            f"{survives}; in a crash of its machine half a minute of it and more may be lost "
            f"(appendfsync {policy})."
        )
    weak = []
    if facts.info.get("aof_last_write_status", "ok") != "ok":
        weak.append("the last write to the append-only file failed")
    if (facts.info.get("maxmemory_policy") or "noeviction") != "noeviction":
        weak.append(f"a full Redis evicts ({facts.info['maxmemory_policy']})")
    if (facts.config or {}).get("no-appendfsync-on-rewrite") == "yes" and policy == "always":
        weak.append("nothing is synced while the file is rewritten")
    if weak:
        text += f" Weakened: {'; '.join(weak)}."
    replicas = int(facts.info.get("connected_slaves", 0))
    if not replicas:
        return text + " The loss of its disk loses it: there is no replica."
    return text + (
        f" {replicas} replica{'s' if replicas > 1 else ''} follow within moments: a fail-over may "
        "lose what was not copied yet."
    )
