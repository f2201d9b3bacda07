"""The control endpoint, on the sink's own port under ``/_sink/``. Not recorded as arrivals.

=======================  ====================================================================
``GET /_sink/report``    the report, JSON
``GET /_sink/arrivals``  every arrival, JSON Lines, by time of arrival (``?since=SEQ`` leaves
                         out those numbered lower); what has ended is in ``--record``'s file then
``GET /_sink/connections``  every connection, JSON Lines
``POST /_sink/faults``   change what is played, below; answers what is in force
``POST /_sink/reset``    forget arrivals, closed connections, occurrences, idempotency keys;
                         rewind the script
=======================  ====================================================================

``POST /_sink/faults`` takes a JSON object; keys left out stay as they are::

    {"faults": "503:1%,hang:0.5%",            random mix; "" for none
     "latency": "20-60ms", "seed": 7,
     "script": ["503", "ok"],                 or {"id-7": [...]}, or null
     "next": {"count": 5, "fault": "429:retry_after=2"},   or null
     "limit": "100,150",                      or null
     "down": true,                            false; or a time: "3s"
     "keep_connections": false}               with down: do not reset those there are
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import UNSET, UnsetType

from paceline.sink.faults import parse_fault, parse_faults
from paceline.sink.latency import parse_latency
from paceline.sink.limit import parse_limit
from paceline.sink.script import Script
from paceline.sink.spec import SpecError, duration_s
from paceline.sink.wire import JSON

if TYPE_CHECKING:
    from paceline.sink.server import Sink

PREFIX = b"/_sink/"
JSON_LINES = b"application/jsonl"

_Answer = tuple[int, bytes, bytes]


class Next(msgspec.Struct, forbid_unknown_fields=True):
    """A fault for the next ``count`` arrivals."""

    count: int
    fault: str


class Change(msgspec.Struct, forbid_unknown_fields=True):
    """The body of ``POST /_sink/faults``."""

    faults: str | UnsetType = UNSET
    latency: str | UnsetType = UNSET
    seed: int | UnsetType = UNSET
    script: list[str] | dict[str, list[str]] | UnsetType | None = UNSET
    next: Next | UnsetType | None = UNSET
    limit: str | UnsetType | None = UNSET
    down: bool | str | UnsetType = UNSET
    keep_connections: bool = False


def apply(sink: Sink, change: Change) -> None:
    """Put a change in force: all of it, or (SpecError) none of it."""
    player = sink.player
    # Everything is read before anything is changed.
    mix = player.mix if isinstance(change.faults, UnsetType) else parse_faults(change.faults)
    latency = player.latency
    if not isinstance(change.latency, UnsetType):
        latency = parse_latency(change.latency)
    limit = sink.limit
    if not isinstance(change.limit, UnsetType):
        limit = parse_limit(change.limit) if change.limit else None
    order = None
    if isinstance(change.next, Next):
        if change.next.count < 1:
            raise SpecError(f"next: count must be 1 or more, not {change.next.count}")
        order = (change.next.count, parse_fault(change.next.fault))
        sink.check([order[1]])
    if isinstance(change.script, list | dict):
        sink.check(Script(change.script).faults())
    sink.check(mix.faults)
    down_s = duration_s(change.down) if isinstance(change.down, str) else None

    player.mix, player.latency, sink.limit = mix, latency, limit
    if not isinstance(change.seed, UnsetType):
        player.seed = change.seed
    if not isinstance(change.script, UnsetType):
        player.set_script(change.script)
    if order is not None:
        player.set_next(*order)
    elif change.next is None:
        player.next_count = 0
    if change.down is False:
        sink.up()
    elif not isinstance(change.down, UnsetType):
        sink.down(down_s, keep_connections=change.keep_connections)


def handle(sink: Sink, method: bytes, url: bytes, body: bytes) -> _Answer:
    """Answer one control request: HTTP status, body, content type."""
    path, _, query = url.partition(b"?")
    name = path.removeprefix(PREFIX)
    route = _ROUTES.get(name)
    if route is None:
        known = ", ".join(f"/_sink/{known.decode()}" for known in _ROUTES)
        return _error(404, f"no {path.decode('latin-1')} here; there are: {known}")
    allowed, answer = route
    if method != allowed and not (method == b"HEAD" and allowed == b"GET"):
        return _error(405, f"{path.decode('latin-1')} answers {allowed.decode()} only")
    return answer(sink, query, body)


def _report(sink: Sink, _query: bytes, _body: bytes) -> _Answer:
    return 200, msgspec.json.encode(sink.report()), JSON


def _arrivals(sink: Sink, query: bytes, _body: bytes) -> _Answer:
    since = 0
    if query:
        key, _, value = query.partition(b"=")
        if key != b"since" or not value.isdigit():
            return _error(400, "the only query understood is ?since=NUMBER")
        since = int(value)
    sink.flush_record()
    wanted = [arrival for arrival in sink.arrivals.all() if arrival.seq >= since]
    return 200, msgspec.json.Encoder().encode_lines(wanted), JSON_LINES


def _connections(sink: Sink, _query: bytes, _body: bytes) -> _Answer:
    records = [record.as_dict() for record in sink.connections.all()]
    return 200, msgspec.json.Encoder().encode_lines(records), JSON_LINES


def _faults(sink: Sink, _query: bytes, body: bytes) -> _Answer:
    try:
        apply(sink, msgspec.json.decode(body, type=Change))
    except (msgspec.DecodeError, SpecError) as exc:
        return _error(400, f"{exc}; nothing was changed")
    return 200, msgspec.json.encode(in_force(sink)), JSON


def _reset(sink: Sink, _query: bytes, _body: bytes) -> _Answer:
    sink.reset()
    return 200, b'{"ok":true}', JSON


def in_force(sink: Sink) -> dict[str, object]:
    """What is being played, by the names of Change."""
    player = sink.player
    return {
        "faults": player.mix.text,
        "latency": player.latency.text,
        "seed": player.seed,
        "script": player.script is not None,
        "next": player.next_count,
        "limit": str(sink.limit) if sink.limit is not None else None,
        "down": sink.is_down,
    }


def _error(status: int, text: str) -> _Answer:
    return status, msgspec.json.encode({"error": text}), JSON


_ROUTES = {
    b"report": (b"GET", _report),
    b"arrivals": (b"GET", _arrivals),
    b"connections": (b"GET", _connections),
    b"faults": (b"POST", _faults),
    b"reset": (b"POST", _reset),
}
