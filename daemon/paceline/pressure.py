"""Whether a Redis has room for new messages. Pure.

Intake stops at a share of Redis's memory, well before Redis itself refuses: settling, retries and
records of what was sent need the rest. It begins again a little below, or it would flap.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["Drain", "Limits", "Memory", "Verdict", "judge", "memory_of"]

#: Intake begins again at so much of the share at which it stops.
_AGAIN = 0.95
#: For how long the fall of memory is looked at, and what is told of when to try again, in seconds.
_SPAN_S = 10.0
_SOONEST_S, _LATEST_S, _UNKNOWN_S = 5, 60, 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What all destinations of a Redis may hold together: messages and bytes of payload that have
    not ended, 0 for no limit; and the share of Redis's memory at which intake stops."""

    max_messages: int = 0
    max_bytes: int = 0
    memory_share: float = 0.75


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes used and allowed (0: without limit), and what Redis does when they are used up."""

    used: int
    most: int
    policy: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """``word``: "open", "shut", or "keep": as it was. ``why`` it is shut, should it be."""

    word: Literal["open", "shut", "keep"]
    why: str = ""


def memory_of(info: Mapping[str, Any]) -> Memory:
    """From the section "memory" of INFO. Buffers that Redis does not count against the limit are
    not counted here either."""
    used = int(info["used_memory"]) - int(info.get("mem_not_counted_for_evict", 0))
    policy = str(info.get("maxmemory_policy", "noeviction"))
    return Memory(used, int(info.get("maxmemory", 0)), policy)


def judge(memory: Memory, share: float) -> Verdict:
    """Whether intake may go on. Without a limit of Redis's own it always may."""
    if not memory.most:
        return Verdict("open")
    if memory.policy.startswith("allkeys"):
        # What has an expiry, and may go under the other policies, is no message.
        return Verdict(
            "shut",
            f"Redis may throw accepted messages away (maxmemory-policy {memory.policy}), "
            "an operator must set noeviction",
        )
    used = memory.used / memory.most
    if used < _AGAIN * share:
        return Verdict("open")
    why = f"{used:.0%} of Redis's memory is used, and intake stops at {share:.0%}"
    if used < share:
        return Verdict("keep", f"{why} until it is below {_AGAIN * share:.0%}")
    return Verdict("shut", why)


class Drain:
    """How fast memory falls, and so when there is room again."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def retry_s(self, now_s: float, memory: Memory, share: float) -> int:
        """In whole seconds, 5 to 60; half a minute while it does not fall."""
        self._seen.append((now_s, memory.used))
        while now_s - self._seen[0][0] > _SPAN_S:
            self._seen.popleft()
        first_s, first = self._seen[0]
        over = memory.used - _AGAIN * share * memory.most
        if first <= memory.used or now_s <= first_s or over <= 0:
            return _UNKNOWN_S
        left_s = over * (now_s - first_s) / (first - memory.used)
        return max(_SOONEST_S, min(_LATEST_S, round(left_s)))
