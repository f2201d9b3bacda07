"""What each kind of process may do on Redis: users of an ACL file, with the least rights.

A rule is written with ``{d}`` for the tag of a destination. Commands are named one by one, without
categories, for a category grows with Redis. In brackets are selectors: commands that are allowed
on the keys named with them only. A script or function is let in by EVALSHA or FCALL, and each
command in it is checked against its caller's rights as if the caller had sent it; a unit test
compares TRANSITIONS with the scripts' text.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence

from paceline import keys

__all__ = ["ROLES", "TRANSITIONS", "acl_lines", "hash_of"]

#: Every command of every script. Who may send EVAL may send them in any order, so that there is no
#: difference in giving some of them only: what keeps such a user in its place are its keys.
TRANSITIONS = (
    "copy del exists get getrange hdel hexists hget hgetall hincrby hincrbyfloat hkeys hlen "
    "hmget hrandfield hset hvals lpush lrange ltrim mset pexpire pttl rename rpush sadd scard set "
    "setrange sismember smembers smismember spop srem sscan strlen sunionstore time unlink xadd "
    "xlen xrange xtrim zadd zcard zcount zincrby zrange zrangebyscore zrem zremrangebyrank "
    "zremrangebyscore zrevrangebyscore zscore"
)

#: Those of them that the scripts `census` and `inspect` run, which write nothing.
_LOOKS = (
    "exists get getrange hexists hget hgetall hkeys hlen hmget hrandfield hvals scard sismember "
    "strlen time xlen xrange zcard zcount zrange zrangebyscore zrevrangebyscore zscore"
)

_ANYBODY = "ping select client|setname client|setinfo"
_DESTINATIONS = "%R~" + keys.DESTINATIONS


def _may(*lists: str) -> str:
    """``get set`` -> ``+get +set``, each once, in order."""
    names = dict.fromkeys(name for text in lists for name in text.split())
    return " ".join("+" + name for name in names)


#: What the function paceline_enqueue does, key by key. No DEL, and no HSET of counters: who hands
#: messages over can remove nothing, and leaves each key of the type that it has.
_HANDS_OVER = (
    f"~{{d}} {_DESTINATIONS} {_may(_ANYBODY, 'time fcall fcall_ro smembers wait')}",
    f"(%R~{{d}}:cfg %R~{{d}}:gate %R~{{d}}:ep %R~{{d}}:es %R~{{d}}:eo %R~{{d}}:tb "
    f"%R~{{d}}:cp {_may('hget hmget hexists')})",
    f"(~{{d}}:n ~{{d}}:cn:* {_may('hget hmget hincrby')})",
    f"(~{{d}}:m:* {_may('set get getrange strlen exists')})",
    f"(~{{d}}:r:* ~{{d}}:t:* ~{{d}}:s ~{{d}}:e ~{{d}}:eb ~{{d}}:el:* ~{{d}}:cs "
    f"{_may('zadd zcard zscore')})",
    f"(%R~{{d}}:t:* %R~{{d}}:el:* {_may('zrange')})",
    f"(~{{d}}:ef:* ~{{d}}:c:* {_may('sadd scard exists')})",
    f"(~{{d}}:wake {_may('lpush ltrim')})",
    f"(~{{d}}:ev {_may('xadd xtrim xrange xlen')})",
)

#: Status, wait, and events with consumer groups.
_ASKS = (
    f"(%R~{{d}} %R~{{d}}:* {_may('evalsha_ro eval_ro lrange', _LOOKS)})",
    f"(~{{d}}:ev {_may('xread xrange xinfo|stream xgroup|create xreadgroup xack xautoclaim')})",
)

#: What paceline_cancel does besides: a wish, and no more. To cancel by itself an app would need to
#: take away what workers hold; the daemon does that for it.
_WISHES = "(~{d}:cx +zadd)"

#: What runs the service has all keys of its destinations, and RQ's.
_SERVES = f"~{{d}} ~{{d}}:* ~{keys.DESTINATIONS} "
_RUNS = "eval evalsha multi exec discard info lrange"
_WORKS = f"{_RUNS} client|info mget unwatch zmscore"
_WORKS_RQ = (
    "blpop del exists expire hdel hget hgetall hincrby hincrbyfloat hmget hset hsetnx lrem persist "
    "rpush sadd smembers srem watch xadd zadd zrem zremrangebyscore"
)
#: CONFIG GET is for appendfsync, which INFO does not tell. It shows all of the server's settings.
_MEASURES = "info evalsha_ro eval_ro smembers config|get latency|history"
_SCHEDULES = f"{_RUNS} client|list fcall fcall_ro function|load blpop {_MEASURES}"
_SCHEDULES_RQ = "del exists expire hset lrange lrem persist rpush sadd"
_OPERATES = (
    f"{_RUNS} client|list evalsha_ro eval_ro fcall fcall_ro config|get latency|history dbsize "
    "lindex mget scan sscan xinfo|stream xread zmscore zscan acl|whoami acl|dryrun"
)

_ALL = ("~* &* +@all",)

#: Role -> its rules, and what it is for. The user of a role has its name unless another is given.
ROLES: Mapping[str, tuple[Sequence[str], str]] = {
    "producer": (_HANDS_OVER, "apps that hand messages over, in any language"),
    "app": (
        (*_HANDS_OVER, *_ASKS, _WISHES),
        "apps that also ask what became of them, cancel, and read events",
    ),
    "worker": (
        (_SERVES + _may(_ANYBODY, TRANSITIONS, _WORKS), f"(~rq:* {_may(_WORKS_RQ)})"),
        "paceline worker",
    ),
    "scheduler": (
        (_SERVES + _may(_ANYBODY, TRANSITIONS, _SCHEDULES), f"(~rq:* {_may(_SCHEDULES_RQ)})"),
        "paceline daemon, paceline scheduler",
    ),
    "exporter": (
        (f"%R~{{d}} %R~{{d}}:* {_DESTINATIONS} {_may(_ANYBODY, _LOOKS, _MEASURES)}",),
        "paceline exporter, on its own",
    ),
    "up": (
        (
            _SERVES + _may(_ANYBODY, TRANSITIONS, _WORKS, _SCHEDULES),
            f"(~rq:* {_may(_WORKS_RQ, _SCHEDULES_RQ)})",
        ),
        "paceline up: all processes as one user",
    ),
    "operator": (
        (_SERVES + _may(_ANYBODY, TRANSITIONS, _OPERATES),),
        "people: every other command of the command line",
    ),
    "admin": (_ALL, "Redis's own administration; nothing of Paceline's"),
}

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


def hash_of(password: str) -> str:
    """As an ACL file keeps it. One that is a hash already (``#`` and 64 hex digits) stays."""
    if re.fullmatch(r"#[0-9a-f]{64}", password):
        return password
    return "#" + hashlib.sha256(password.encode()).hexdigest()


def acl_lines(
    users: Iterable[tuple[str, str]], destinations: Sequence[str], hashes: Mapping[str, str]
) -> list[str]:
    """Lines for ``aclfile``: one for each (user, role), after one that shuts the default user out.

    ``hashes``: user -> hash_of its password; one without a password is off, and cannot log in.
    Raises KeyError for a role that there is not, ValueError for a name that no user can have.
    """
    lines = ["user default off"]
    for user, role in users:
        if not _NAME.fullmatch(user) or user == "default":
            raise ValueError(f"{user!r} is no name: 1 to 64 of A-Z a-z 0-9 . _ -, not default")
        state = f"on {hashes[user]}" if user in hashes else "off"
        rules = (_for_all(rule, destinations) for rule in ROLES[role][0])
        lines.append(f"user {user} reset {state} {' '.join(rules)}")
    return lines


def _for_all(rule: str, destinations: Sequence[str]) -> str:
    """Each key pattern with ``{d}`` once for each destination."""
    words: list[str] = []
    for word in rule.split(" "):
        if "{d}" in word:
            # Only the first word of a selector has its bracket.
            bracket = "(" if word.startswith("(") else ""
            bare = word.removeprefix("(")
            named = [bare.replace("{d}", keys.tag(name)) for name in destinations]
            words += [bracket + named[0], *named[1:]] if named else [bracket]
        else:
            words.append(word)
    return " ".join(words)
