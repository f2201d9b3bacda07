"""One request, from a message to its outcome."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from dataclasses import replace as dataclass_replace
from typing import Any, Literal

import requests
from msgspec.structs import replace
from redis.exceptions import RedisError

from paceline.answers import Action, Leased, Permit, Settlement
from paceline.clock import Clock
from paceline.errors import PayloadError
from paceline.version import __version__
from paceline_workers.endpoint_book import Address, EndpointBook
from paceline_workers.gate import CalledOff, WireGate
from paceline_workers.outcome import (
    Disposition,
    Kind,
    Outcome,
    Reply,
    dispose,
    judge_failure,
)
from paceline_workers.packing import packed
from paceline_workers.providers.base import (
    Addressing,
    Merging,
    Profile,
    RenderedRequest,
    as_addressing,
    as_merging,
)
from paceline_workers.ratelimit import parse_rate_limit
from paceline_workers.transports.adapter import GatedAdapter, GatedRequest
from paceline_workers.transports.connection import TransportError

_EXCERPT_BYTES = 2048
#: Requests that other connections may have on their way while a RateLimit header is read.
_UNDER_WAY = 10

#: What goes back because nobody knows where its endpoint is rests for so long: it would be taken
#: again at once.
_UNKNOWN_REST_S = 0.25

#: A merged request that a provider refuses so is sent again in two.
_REFUSED = (Kind.REJECTED, Kind.TOO_LARGE)

log = logging.getLogger("paceline.delivery")


@dataclass(frozen=True, slots=True)
class Route:
    """Where requests of a destination go: its URL as it is shown (the connection decides which of
    several), the header that carries the message's id ("" for none), and from how many bytes on
    bodies are packed (0: never)."""

    url: str
    id_header: str
    gzip_from_bytes: int = 0


class Delivery:
    """Delivers messages one by one, on one thread, with a Session of its own.

    ``on_ambiguous``: what becomes of a merged request that may have been processed. ``book``: where
    each message goes, where the destination has many endpoints. ``cover``: a text for the record,
    without what nobody is to read, given the payload that it may quote (None: of many messages).
    """

    def __init__(
        self,
        profile: Profile,
        route: Route,
        adapter: GatedAdapter,
        gate: WireGate,
        *,
        worker: str,
        clock: Clock,
        rand: Callable[[], float],
        on_ambiguous: Literal["retry", "park"] = "park",
        book: EndpointBook | None = None,
        cover: Callable[[str, bytes | None], str] = lambda text, _: text,
    ) -> None:
        self._cover = cover
        self._profile = profile
        self._route = route
        self._gate = gate
        self._worker = worker
        self._clock = clock
        self._rand = rand
        self._on_ambiguous = on_ambiguous
        self._book = book
        self._session = _session(adapter)
        #: What became of each member of the request that was delivered last, where that is known.
        self.parts: tuple[Outcome, ...] = ()

    def deliver(
        self,
        leased: Leased,
        on_wire: Callable[[], None],
        on_connect: Callable[[bool], None] = lambda _is_open: None,
    ) -> Settlement | None:
        """Sends one message and says what became of it; None where it is not ours any more.

        ``on_wire`` is called when a permit is in hand and the write is next (again, where it must
        be drawn anew); ``on_connect(False)`` where a connection must be opened first,
        ``on_connect(True)`` when it is open and the gate is next. Raises CalledOff (closed or
        stopping): nothing was written, give the message back.
        """
        self.parts = ()
        address = None
        try:
            if self._book is not None:
                address = self._find(self._book, leased)
                if address is None:
                    # Registered no more, or not to be read, or not to be known: Redis is away.
                    return Settlement(
                        id=leased.id, nonce=leased.nonce, action="back", delay_s=_UNKNOWN_REST_S
                    )
            rendered = packed(self._render(leased, address), self._route.gzip_from_bytes)
        except PayloadError as error:
            return self._unfit(leased, error)
        permits: list[Permit] = []
        connecting = False

        def before_connect() -> None:
            nonlocal connecting
            self._gate.flush()
            connecting = True
            on_connect(False)

        def gate() -> float:
            nonlocal connecting
            if connecting:
                connecting = False
                on_connect(True)
            permit, due_s = self._gate.await_permit(leased, len(rendered.body))
            permits[:] = [permit]
            on_wire()
            return due_s

        request = self._request(leased, rendered, gate, before_connect, address)
        cause, advised_s = "", None
        try:
            # Without `proxies` the Session would look for some, for each request.
            response = self._session.send(request, allow_redirects=False, proxies={})
        except TransportError as error:
            outcome, cause = judge_failure(error.failure), error.failure.cause
        except CalledOff as off:
            if off.verdict == "gone":
                return None
            raise
        else:
            reply = Reply(
                response.status_code, response.headers, response.content, request.truncated
            )
            outcome = self._judge(leased, reply)
            advised_s = self._advised(reply)
        kind = "partial" if outcome.partial else outcome.kind
        label = f"{kind}:{outcome.status if outcome.status is not None else cause}"
        settlement = self._settlement(
            leased, outcome, label, permits[0] if permits else None, request
        )
        return settlement if advised_s is None else replace(settlement, advised_s=advised_s)

    def _advised(self, reply: Reply) -> float | None:
        """For how long a RateLimit header says that nothing is left: what is left of the last tenth
        other connections are using already. Where the limit is one request a window, there is never
        anything left: the pace learns that by itself."""
        advice = parse_rate_limit(reply.headers, self._clock.wall_s(), lambda: reply.header("date"))
        if advice is None or advice.limit == 1 or advice.reset_s <= 0:
            return None
        under_way = min(_UNDER_WAY, (advice.limit or 0) // 10)
        return advice.reset_s if advice.remaining <= under_way else None

    @staticmethod
    def _find(book: EndpointBook, leased: Leased) -> Address | None:
        try:
            return book.find(leased.head.tenant)
        except RedisError as error:
            log.warning("message %s: where its endpoint is: %s; given back", leased.id, error)
            return None

    def _render(self, leased: Leased, address: Address | None) -> RenderedRequest:
        if address is not None:
            return _addressing(self._profile).render_to(address.name, leased.id, leased.payload)
        request_id = leased.request_id
        if request_id is None:
            return self._profile.render(leased.id, leased.payload)
        return _merging(self._profile).render_merged(request_id, leased.payload)

    def _judge(self, leased: Leased, reply: Reply) -> Outcome:
        now = self._clock.wall_s()
        try:
            if leased.request_id is None:
                return self._profile.judge(reply, now)
            return _merging(self._profile).judge_merged(reply, now, leased.count)
        except Exception as error:
            # A defect of ours. What the reply meant is not known: the provider may have acted.
            log.exception("message %s: its reply could not be judged", leased.id)
            return Outcome(
                kind=Kind.AMBIGUOUS,
                reason=f"internal: {type(error).__name__}",
                status=reply.status,
                body=reply.body[:_EXCERPT_BYTES],
            )

    def _request(
        self,
        leased: Leased,
        rendered: RenderedRequest,
        gate: Callable[[], float],
        before_connect: Callable[[], None],
        address: Address | None,
    ) -> GatedRequest:
        headers = dict(rendered.headers)
        headers.setdefault("User-Agent", f"paceline/{__version__}")
        if self._route.id_header:
            headers[self._route.id_header] = leased.request_id or leased.id
        return GatedRequest(
            rendered.method,
            self._route.url if address is None else address.url,
            headers,
            rendered.body,
            gate,
            before_connect,
            target="" if address is None else address.target,
            suffix=rendered.suffix,
        )

    def _settlement(
        self,
        leased: Leased,
        outcome: Outcome,
        label: str,
        permit: Permit | None,
        request: GatedRequest,
    ) -> Settlement:
        # One URL of several: others take its load, so the destination is not in trouble, nor is it
        # the message's fault.
        one_url = outcome.outage and request.elsewhere
        decision = self._dispose(leased, outcome, suspect=one_url)
        delay_s = decision.delay_s
        action: Action = decision.action
        if leased.request_id is not None:
            if outcome.parts:
                action, self.parts = "opened", outcome.parts
            elif outcome.kind in _REFUSED and not outcome.unheard:
                # One of its members, or their number: none was sent.
                action = "split"
        if decision.action in ("throttled", "quota") and outcome.retry_after_s is None:
            # The provider named no time: the wait doubles with each refusal that the whole
            # destination meets, which only the script knows.
            delay_s = 0.0
        why = self._why(decision, _payload_of(leased))
        record = self._record(leased, outcome, why, action, permit)
        if request.latency_s is not None:
            record["latency_ms"] = round(request.latency_s * 1e3, 3)
        sent = action == "sent" and leased.request_id is None
        return Settlement(
            id=leased.id,
            nonce=leased.nonce,
            action=action,
            charge=decision.charge,
            delay_s=delay_s,
            why=why,
            record=record,
            provider_id=outcome.provider_id or "",
            sha1=hashlib.sha1(leased.payload, usedforsecurity=False).digest() if sent else b"",
            latency_s=request.latency_s,
            # Of one that is opened the results count, one by one.
            label="" if action == "opened" else label,
            # A connection that failed before the gate drew no permit: nothing was begun.
            begun_us=permit.begun_us if permit and request.wire_s is not None else 0,
            health="" if one_url else outcome.health,
        )

    def _why(self, decision: Disposition, payload: bytes | None) -> str:
        # Of a success the reason is ours alone; and these are many.
        return (
            decision.reason if decision.action == "sent" else self._cover(decision.reason, payload)
        )

    def _dispose(self, leased: Leased, outcome: Outcome, *, suspect: bool) -> Disposition:
        policy = self._profile.policy
        if leased.request_id is not None:
            policy = dataclass_replace(policy, on_ambiguous=self._on_ambiguous)
        return dispose(outcome, leased.head.tries, policy, self._rand(), suspect=suspect)

    def _record(
        self, leased: Leased, outcome: Outcome, reason: str, action: str, permit: Permit | None
    ) -> dict[str, Any]:
        record: dict[str, Any] = {
            "outcome": str(outcome.kind),
            "action": action,
            "reason": reason,
            "status": outcome.status,
            "attempt": permit.attempt if permit else 0,
            "at_us": str(permit.begun_us if permit else round(self._clock.wall_s() * 1e6)),
            "worker": self._worker,
            "nonce": leased.nonce,
        }
        if leased.request_id is not None:
            record["request"], record["members"] = leased.request_id, leased.count
        if outcome.partial:
            record["not_accepted"] = outcome.partial
        if outcome.body and (action != "sent" or outcome.partial):
            # A provider may answer with what it was sent.
            response = outcome.body[:_EXCERPT_BYTES].decode("utf-8", "replace")
            record["response"] = self._cover(response, _payload_of(leased))
        return record

    def each(self, leased: Leased, members: Sequence[str]) -> list[Settlement]:
        """What became of each member of a merged request whose results came one by one: of that
        which was delivered last, in the order of its body."""
        return [
            self._of_member(leased, message_id, outcome)
            for message_id, outcome in zip(members, self.parts, strict=True)
        ]

    def _of_member(self, leased: Leased, message_id: str, outcome: Outcome) -> Settlement:
        decision = dispose(outcome, leased.head.tries, self._profile.policy, self._rand())
        why = self._why(decision, None)
        record = self._record(leased, outcome, why, decision.action, None)
        return Settlement(
            id=message_id,
            nonce=leased.nonce,
            action=decision.action,
            charge=decision.charge,
            delay_s=decision.delay_s,
            why=why,
            record=record,
            provider_id=outcome.provider_id or "",
            label=f"{outcome.kind}:{outcome.status}",
        )

    def _unfit(self, leased: Leased, error: PayloadError) -> Settlement:
        """A message that came by the function alone and that its profile cannot render."""
        return self.dead_letter(leased, "payload", f"payload: {error}")

    def dead_letter(self, leased: Leased, why: str, reason: str) -> Settlement:
        """A message of which nothing was written, and never will be as it is."""
        return Settlement(
            id=leased.id,
            nonce=leased.nonce,
            action="dead",
            why=why,
            record={
                "outcome": "rejected",
                "action": "dead",
                "reason": self._cover(reason, _payload_of(leased)),
                "status": None,
                "attempt": 0,
                "at_us": str(round(self._clock.wall_s() * 1e6)),
                "worker": self._worker,
            },
            label=f"rejected:{why}",
        )

    def carry(self, settlement: Settlement) -> None:
        """An outcome, to be settled with the next request's ask; ``flush`` where none follows."""
        self._gate.carry(settlement)

    def flush(self) -> None:
        """Settles what is carried; returns when Redis has accepted it, or the worker stops."""
        self._gate.flush()

    @property
    def carried(self) -> int:
        """Outcomes that Redis does not know yet."""
        return self._gate.carried

    def close(self) -> None:
        """Closes the session; the shared pool stays. What is carried goes to the settler."""
        self._session.close()
        self._gate.hand_over()


def _payload_of(leased: Leased) -> bytes | None:
    """None of a merged request: its body is no message's."""
    return leased.payload if leased.request_id is None else None


def _merging(profile: Profile) -> Merging:
    merging = as_merging(profile)
    if merging is None:
        raise PayloadError(
            "request",
            "was merged under another configuration, and this one does not merge",
            "Configure [merge] again until it is sent",
        )
    return merging


def _addressing(profile: Profile) -> Addressing:
    addressing = as_addressing(profile)
    if addressing is None:
        raise PayloadError(
            "endpoint",
            "was named, and this destination has none now",
            "Configure [endpoints] again",
        )
    return addressing


def _session(adapter: GatedAdapter) -> requests.Session:
    session = requests.Session()
    # Proxies and credentials come from our configuration, not from the environment or ~/.netrc.
    session.trust_env = False
    session.adapters.clear()
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return session
