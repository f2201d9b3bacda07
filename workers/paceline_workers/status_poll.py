"""Asks the provider, some time after a message was sent, what became of it.

A look at what is past, and never more: it changes the state of no message, closes no gate, and
judges neither the destination nor its URLs. Messages go first: it is run by a sender thread that
has none to send, one question at a time, and does not wait for a permit that messages might need.

What is learnt goes onto the message's attempts. What is not (404: not known there yet; an answer
that cannot be read; none at all) is asked again, later, three times in all (``lua/errand.lua``).
"""

from __future__ import annotations

import logging
import threading

from redis.exceptions import RedisError

from paceline.clock import Clock
from paceline.errands import Errand, Errands
from paceline_workers.gate import CalledOff
from paceline_workers.outage import Outage
from paceline_workers.outcome import EXCERPT_BYTES, Reply, parse_retry_after
from paceline_workers.providers.base import Polling
from paceline_workers.transports.adapter import GatedAdapter, GatedRequest
from paceline_workers.transports.connection import TransportError
from paceline_workers.transports.pool import NoRoom

#: A question that is not answered within this is given up: a message may want its connection.
DEADLINE_S = 10.0
#: While nothing is due, so often it is looked.
_LOOK_S = 1.0
#: After an answer that is none, or that refuses: the provider has other things to do.
_TROUBLE_S = 60.0
_UNKNOWN = 404

log = logging.getLogger("paceline.status_poll")


class StatusPoll:
    """The errand of a destination whose provider is asked. Thread-safe.

    ``url`` is the destination's as it is shown; ``adapter`` sends what passes the gate.
    ``stopping`` calls off what has not been written.
    """

    def __init__(
        self,
        profile: Polling,
        url: str,
        adapter: GatedAdapter,
        errands: Errands,
        *,
        clock: Clock,
        stopping: threading.Event,
    ) -> None:
        self._profile = profile
        self._url = url
        self._adapter = adapter
        self._errands = errands
        self._clock = clock
        self._stopping = stopping
        self._outage = Outage(log, "errand")
        self._turn = threading.Lock()
        self._next_s = 0.0
        self._trouble = ""

    def is_due(self) -> bool:
        """Whether it is time to look whether there is something to ask."""
        return self._clock.monotonic_s() >= self._next_s

    def run(self) -> None:
        """One question, if one is due and nobody else is asking."""
        if not self._turn.acquire(blocking=False):
            return
        wait_s = _TROUBLE_S  # also after a defect of ours
        try:
            wait_s = self._run_once()
        except RedisError as error:
            self._outage.note(error)
            wait_s = _LOOK_S
        finally:
            self._next_s = self._clock.monotonic_s() + wait_s
            self._turn.release()

    def _run_once(self) -> float:
        """Returns for how long there is nothing to do."""
        errand = self._errands.look()
        self._outage.over()
        if errand is None:
            return _LOOK_S
        try:
            reply = self._ask(errand)
        except (CalledOff, NoRoom):
            return _LOOK_S
        except TransportError as error:
            return self._in_trouble(f"{error.failure.phase}: {error.failure.cause}")
        line = self._profile.read_status(reply)
        if line is not None:
            self._errands.note(errand, self._record(reply, line))
        elif reply.status not in (200, _UNKNOWN):
            retry_s = parse_retry_after(
                reply.header("retry-after"), self._clock.wall_s(), reply.header("date")
            )
            return self._in_trouble(f"HTTP {reply.status}", retry_s or 0.0)
        self._trouble = ""
        return 0.0

    def _ask(self, errand: Errand) -> Reply:
        mine = errand

        def gate() -> float:
            nonlocal mine
            if self._stopping.is_set():
                raise CalledOff("stopping")
            permit, mine = self._errands.draw(mine)
            wait_s, at_s = permit.wait_s, self._clock.elapsed_s()
            if permit.verdict != "go" or wait_s is None:
                # Whatever would be waited for: it is not worth a connection.
                raise CalledOff(permit.verdict, permit.what, wait_s)
            if wait_s > 0.0 and self._stopping.wait(wait_s):
                raise CalledOff("stopping")
            return at_s + wait_s

        rendered = self._profile.render_status(errand.provider_id)
        request = GatedRequest(
            rendered.method,
            self._url,
            rendered.headers,
            rendered.body,
            gate,
            suffix=rendered.suffix,
            sibling=rendered.sibling,
            tells=False,
        )
        response = self._adapter.send(request)
        return Reply(response.status_code, response.headers, response.content, request.truncated)

    def _record(self, reply: Reply, line: str) -> dict[str, object]:
        return {
            "outcome": "status",
            "reason": line,
            "status": reply.status,
            "response": reply.body[:EXCERPT_BYTES].decode("utf-8", "replace"),
            "at_us": str(round(self._clock.wall_s() * 1e6)),
        }

    def _in_trouble(self, what: str, least_s: float = 0.0) -> float:
        """Told once for each kind, until there is an answer again."""
        if what != self._trouble:
            log.warning(
                "what became of sent messages cannot be asked (%s); asking again later",
                what,
                extra={"event": "poll_refused", "cause": what},
            )
            self._trouble = what
        return max(_TROUBLE_S, least_s)
