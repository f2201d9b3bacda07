"""The registry of a destination's endpoints in Redis, and what is known of each (lua/endpoint.lua).

Redis errors pass through as redis-py raises them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from paceline import keys, scripts
from paceline.endpoints import Endpoint, EndpointSeen, State, Turn, decode_endpoint
from paceline.outbox import OutboxStore

__all__ = ["EndpointRegistry"]

#: In one call, so that Redis is not held up.
_PIECE = 200

# What lua/endpoints.lua writes.
_DISABLED = re.compile(r"d (\d{1,20}) (.*)", re.ASCII | re.DOTALL)
_FAILING = re.compile(r"f (\d{1,9}) (\d{1,20}) \d{1,20} (.*)", re.ASCII | re.DOTALL)
_COUNT = re.compile(rb"\d{1,9}")
#: The last that a calendar has, in unix seconds.
_LAST_S = 253402300799.0


class EndpointRegistry:
    """The endpoints of one destination. Raises ResponseError, which says so, where it has none."""

    def __init__(self, store: OutboxStore) -> None:
        self._store = store
        self._client = store.client

    # -- by an operator's hand ----------------------------------------------------------------

    def put(self, endpoints: Mapping[str, Endpoint], who: str = "") -> list[str]:
        """Registers each under its name, or anew. new, changed or same, one a name."""
        words: list[str] = []
        items = list(endpoints.items())
        for at in range(0, len(items), _PIECE):
            piece = items[at : at + _PIECE]
            flat = [part for name, it in piece for part in (name, it.encode())]
            words += self._run("put", who, *flat)
        return words

    def remove(self, names: Sequence[str], *, force: bool = False, who: str = "") -> list[str]:
        """removed, waits (messages of it do; not with ``force``) or unknown, one a name."""
        return self._by_name("remove", who, str(int(force)), names)

    def enable(self, names: Sequence[str], who: str = "") -> list[str]:
        """Forgets the trouble of each: enabled, well (there was none) or unknown, one a name."""
        return self._by_name("enable", who, "", names)

    def disable(self, names: Sequence[str], why: str, who: str = "") -> list[str]:
        """Nothing more is sent to it, nor accepted for it: disabled, already or unknown, one a
        name."""
        return self._by_name("disable", who, why, names)

    def _by_name(
        self, op: Literal["remove", "enable", "disable"], who: str, word: str, names: Sequence[str]
    ) -> list[str]:
        words: list[str] = []
        for at in range(0, len(names), _PIECE):
            words += self._run(op, who, word, *names[at : at + _PIECE])
        return words

    def _run(self, op: str, *arguments: scripts.Argument) -> list[str]:
        values = (self._store.clock_text(), op, *arguments)
        reply = scripts.run(self._client, "endpoint", self._store.tag, values)
        return [_text(word) for word in reply]

    # -- looking ------------------------------------------------------------------------------

    def exists(self) -> bool:
        """Whether the destination has endpoints, as far as Redis knows its configuration."""
        return bool(self._client.hget(self._key("cfg"), "endpoints"))

    def names(self) -> list[str]:
        """All that are registered, in their order."""
        found: Any = self._client.hkeys(self._key("ep"))
        return sorted(_text(name) for name in found)

    def find(self, name: str) -> Endpoint | None:
        """What is registered under a name; None where nothing is."""
        return decode_endpoint(self.record(name))

    def record(self, name: str) -> bytes | None:
        """The same as it is written, which may be nothing of ours; None where nothing is."""
        json: Any = self._client.hget(self._key("ep"), name)
        return None if json is None else bytes(json)

    def look(self, names: Sequence[str]) -> list[EndpointSeen | None]:
        """Each as it is now; None where nothing is registered under its name."""
        found: list[EndpointSeen | None] = []
        for at in range(0, len(names), _PIECE):
            found += self._look(names[at : at + _PIECE])
        return found

    def turn(self, lane: str, endpoint: Endpoint) -> Turn | None:
        """How the lane's order stands; None of one without."""
        if "/" not in lane and not endpoint.ordered:
            return None
        order = lane if "/" in lane else f"{lane}/"
        held: Any = self._client.hget(self._key("eo"), order)
        till: Any = self._client.zscore(self._key("eb"), order)
        return Turn(under_way=bool(held), until=min(float(till) / 1e6, _LAST_S) if till else None)

    def all(self) -> Iterator[EndpointSeen]:
        """Every endpoint, by name; one that is registered meanwhile may be missed."""
        for seen in self.look(self.names()):
            if seen is not None:
                yield seen

    def _look(self, names: Sequence[str]) -> list[EndpointSeen | None]:
        pipe = self._client.pipeline(transaction=False)
        for name in ("ep", "es", "eo"):
            pipe.hmget(self._key(name), list(names))
        pipe.zmscore(self._key("eb"), list(names))
        for name in names:
            for priority in range(3):
                pipe.zcard(self._key(f"r:{priority}:{name}"))
        now = self._store.redis_now_us()
        registered, states, leased, bars, *ready = pipe.execute()
        found: list[EndpointSeen | None] = []
        for at, name in enumerate(names):
            endpoint = decode_endpoint(registered[at])
            if endpoint is None:
                found.append(None)
                continue
            till = float(bars[at] or 0.0)
            found.append(
                EndpointSeen(
                    name=name,
                    endpoint=endpoint,
                    until=min(till / 1e6, _LAST_S) if till > now else None,
                    waiting=sum(ready[3 * at : 3 * at + 3]),
                    leased=_count(leased[at]),
                    **_trouble(_text(states[at] or b""), barred=till > now),
                )
            )
        return found

    def _key(self, name: str) -> str:
        return keys.key(self._store.destination, name)


def _trouble(text: str, *, barred: bool) -> dict[str, Any]:
    """As the scripts read it, also what nobody of ours has written."""
    if text.startswith("d"):
        found = _DISABLED.fullmatch(text)
        if found is None:
            return {"state": "disabled"}
        return {"state": "disabled", "since": _seconds(found[1]), "why": found[2]}
    if not text:
        return {"state": "waiting"} if barred else {}
    state: State = "waiting" if barred else "failing"
    found = _FAILING.fullmatch(text)
    if found is None:
        return {"state": state}
    return {
        "state": state,
        "failures": int(found[1]),
        "since": _seconds(found[2]),
        "why": found[3],
    }


def _seconds(microseconds: str) -> float:
    return min(int(microseconds) / 1e6, _LAST_S)


def _count(value: Any) -> int:
    """0 for what is no number of ours."""
    return int(value) if value is not None and _COUNT.fullmatch(value) else 0


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
