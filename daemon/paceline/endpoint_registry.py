"""The registry of a destination's endpoints in Redis, and what is known of each (lua/endpoint.lua).

Redis errors pass through as redis-py raises them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from paceline import keys, scripts
from paceline.endpoints import Endpoint, EndpointSeen, Turn, decode_endpoint
from paceline.outbox import OutboxStore

__all__ = ["EndpointRegistry"]

#: In one call, so that Redis is not held up.
_PIECE = 200


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
        json: Any = self._client.hget(self._key("ep"), name)
        return decode_endpoint(json)

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
        return Turn(under_way=bool(held), until=float(till) / 1e6 if till else None)

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
                    until=till / 1e6 if till > now else None,
                    waiting=sum(ready[3 * at : 3 * at + 3]),
                    leased=max(0, int(leased[at] or 0)),
                    **_trouble(_text(states[at] or b""), barred=till > now),
                )
            )
        return found

    def _key(self, name: str) -> str:
        return keys.key(self._store.destination, name)


def _trouble(text: str, *, barred: bool) -> dict[str, Any]:
    kind, *parts = text.split(" ", 1)
    if kind == "d":
        at, _, why = parts[0].partition(" ")
        return {"state": "disabled", "since": int(at) / 1e6, "why": why}
    if kind == "f":
        fails, since, _, why = parts[0].split(" ", 3)
        return {
            "state": "waiting" if barred else "failing",
            "failures": int(fails),
            "since": int(since) / 1e6,
            "why": why,
        }
    return {"state": "waiting"} if barred else {}


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
