"""One connection of the sink: bytes in, arrivals recorded, answers and faults out.

The way of a request: first byte (stamped) -> headers complete (numbered; limit asked; fault and
latency decided; ``*_before`` faults strike) -> body complete (judged; from here on the provider
has acted, if it acts at all) -> latency -> answer or fault -> recorded. Pipelined requests wait
in a queue and are worked on one after the other, as a serial server would. All in callbacks: no
task is made for a request.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import httptools
import msgspec

from paceline.sink import control
from paceline.sink.answers import Request, Verdict, When, mistyped, padded
from paceline.sink.connections import ConnectionRecord
from paceline.sink.encoding import EncodingError, decoded
from paceline.sink.exchange import UNANSWERED, Exchange
from paceline.sink.faults import Fault
from paceline.sink.wire import CONTINUE, HTML, JSON, response, retry_after_value

if TYPE_CHECKING:
    from paceline.sink.server import Sink

_LINGER_ZERO = struct.pack("ii", 1, 0)
# How long a half-closed connection waits for the peer to close its half.
_HALF_CLOSED_S = 2.0
_HTML_PAGE = b"<!DOCTYPE html><html><body><h1>Service</h1><p>Please stand by.</p></body></html>"
_BINARY = bytes(range(128, 256))
_MESSAGE_ID = frozenset((b"paceline-message-id", b"webhook-id"))


class Connection(asyncio.Protocol):
    """Protocol of one accepted connection; also the parser's callbacks (``on_...``)."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._loop = sink.loop
        self._log = sink.arrivals
        self._wanted = sink.profile.headers
        self._parser: httptools.HttpRequestParser | None = None
        self._transport: asyncio.Transport
        self._record: ConnectionRecord
        self._incoming: Exchange | None = None
        self._current: Exchange | None = None
        self._waiting: deque[Exchange] = deque()
        self._timer: asyncio.TimerHandle | None = None
        # True once nothing more shall be read: the rest of what arrives is thrown away.
        self._deaf = False
        self._mono_ns = 0
        self._wall_ns = 0

    # -- asyncio ---------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._mono_ns = time.monotonic_ns()
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # None where the peer was gone again before it was accepted.
        host, port = (transport.get_extra_info("peername") or ("unknown", 0))[:2]
        self._record = self._sink.connections.opened(f"{host}:{port}", self._mono_ns)
        self._parser = httptools.HttpRequestParser(self)
        self._sink.live.add(self)
        self._sink.changed()

    def data_received(self, data: bytes) -> None:
        if self._deaf or self._parser is None:
            return
        self._mono_ns = time.monotonic_ns()
        self._wall_ns = time.time_ns()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # CONNECT or Upgrade: what follows is not HTTP. It was answered like any request.
            self._deaf = True
            if self._current is None:
                self._transport.close()
            else:
                self._current.keep_alive = False
        except httptools.HttpParserCallbackError as exc:
            # A mistake of our own in a callback: to the loop's handler, which stops the sink.
            raise exc.__context__ or exc from None
        except httptools.HttpParserError:
            self._refuse_bad_http()

    def eof_received(self) -> None:
        # Counted as closed when its FIN is seen: a client that closes one connection and opens
        # the next must not appear to hold two.
        self._sink.connections.closed(self._record, time.monotonic_ns())

    def connection_lost(self, _exc: Exception | None) -> None:
        self._deaf = True
        self._cancel_timer()
        self._sink.connections.closed(self._record, time.monotonic_ns())
        self._sink.live.discard(self)
        if self._current is not None:
            self._log.end(self._current)
        for exchange in self._waiting:
            if not exchange.admin:
                exchange.played = UNANSWERED
                self._log.end(exchange)
        if self._incoming is not None and not self._incoming.admin:
            if self._incoming.seq < 0:
                self._log.begin(self._incoming)
            self._log.end(self._incoming)
        self._current = self._incoming = self._parser = None
        self._waiting.clear()
        self._sink.changed()

    # -- the parser's callbacks --------------------------------------------------------------

    def on_message_begin(self) -> None:
        if not self._deaf:
            record = self._record
            self._incoming = Exchange(self._mono_ns, self._wall_ns, record.number, record.peer)

    def on_url(self, url: bytes) -> None:
        if self._incoming is not None:
            self._incoming.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        exchange = self._incoming
        if exchange is None:
            return
        if self._wanted and (lowered := name.lower()) in self._wanted:
            exchange.headers[lowered] = value
        # Compare lengths first: of a dozen headers a few matter.
        length = len(name)
        if length in (10, 19) and name.lower() in _MESSAGE_ID:
            exchange.message_id = value.decode("latin-1")
        elif length == 15 and name.lower() == b"idempotency-key":
            # The draft standard wants it quoted, real providers bare.
            exchange.idempotency_key = value.decode("latin-1").strip('"')
        elif length == 12 and name.lower() == b"content-type":
            exchange.content_type = value
        elif length == 16 and name.lower() == b"content-encoding":
            exchange.content_encoding = value
        elif length == 6 and name.lower() == b"expect":
            exchange.expects = value.lower() == b"100-continue"

    def on_headers_complete(self) -> None:
        exchange, sink = self._incoming, self._sink
        if exchange is None or self._parser is None:
            return
        exchange.method = self._parser.get_method()
        if exchange.url.startswith(control.PREFIX):
            exchange.admin = True
            self._record.admin_requests += 1
        else:
            self._record.requests += 1
            self._log.begin(exchange)
            if sink.limit is not None:
                exchange.wait_s = sink.limit.wait_s(exchange.mono_ns)
            # What the limit turns away never reaches the provider proper: it uses up no draw,
            # so that pacing does not change which faults the tries of a message meet.
            if exchange.wait_s == 0:
                message_id = exchange.message_id
                if message_id is None:
                    message_id = exchange.idempotency_key
                exchange.fault, exchange.latency_s = sink.player.decide(message_id, exchange.seq)
            sink.changed()
        if self._current is not None:
            return
        if exchange.fault is not None and exchange.fault.before_body:
            self._strike_before_body(exchange, exchange.fault)
        elif exchange.expects:
            self._transport.write(CONTINUE)

    def on_body(self, body: bytes) -> None:
        exchange = self._incoming
        if exchange is not None:
            exchange.add_body(body, exchange.admin or self._sink.profile.reads_body)

    def on_message_complete(self) -> None:
        exchange = self._incoming
        if exchange is None or self._parser is None:
            return
        self._incoming = None
        exchange.keep_alive = self._parser.should_keep_alive()
        if self._current is None and not self._waiting:
            self._start(exchange)
        else:
            self._waiting.append(exchange)

    # -- a complete request ------------------------------------------------------------------

    def _start(self, exchange: Exchange) -> None:
        self._current = exchange
        if exchange.admin:
            self._answer_admin(exchange)
            return
        fault, profile = exchange.fault, self._sink.profile
        if fault is not None and fault.before_body:
            self._strike_before_body(exchange, fault)
            return
        body = exchange.take_body()
        if exchange.method not in profile.methods:
            exchange.played = "method"
            allow = b"Allow: %s\r\n" % b", ".join(sorted(profile.methods))
            self._reply(exchange, 405, b"", extra=allow)
            return
        if exchange.wait_s > 0:
            exchange.played = "limit"
            when = When(time.time(), exchange.wait_s)
            self._reply_with(exchange, profile.row("429", exchange.answer, when))
            return
        verdict = self._judge(exchange, body)
        if fault is None:
            exchange.answer = verdict
            exchange.played = verdict.name
            if verdict.accepted:
                exchange.act(verdict)
        else:
            exchange.played = fault.label
            exchange.answer = answer = self._faulty(verdict, fault)
            if answer is not verdict and answer.accepted and fault.kind == "row":
                exchange.act(answer)
            elif verdict.accepted and fault.acted:
                exchange.act(verdict)
        if exchange.latency_s > 0:
            self._later(exchange.latency_s, self._perform, exchange)
        else:
            self._perform(exchange)

    def _judge(self, exchange: Exchange, body: bytes) -> Verdict:
        profile = self._sink.profile
        if exchange.content_encoding and profile.reads_body:
            try:
                body = decoded(body, exchange.content_encoding)
            except EncodingError as exc:
                no = msgspec.json.encode({"message": str(exc)})
                return Verdict(415, no, False, "encoding")
        return profile.judge(
            Request(
                body,
                exchange.content_type,
                exchange.seq,
                exchange.url,
                exchange.headers,
                exchange.digest() if exchange.idempotency_key is not None else "",
                exchange.method,
            )
        )

    def _faulty(self, good: Verdict, fault: Fault) -> Verdict:
        """What is answered in place of a good answer, where the fault is in the answer itself."""
        if fault.kind == "huge":
            return msgspec.structs.replace(good, body=padded(good.body, fault.code))
        if fault.kind == "typed":
            return msgspec.structs.replace(good, body=mistyped(good.body))
        if fault.kind == "liar":
            return msgspec.structs.replace(good, status=fault.code)
        if fault.kind == "row":
            return self._sink.profile.row(fault.form, good, When(time.time(), fault.for_s))
        return good

    def _perform(self, exchange: Exchange) -> None:
        self._timer = None
        fault = exchange.fault
        if fault is None:
            self._reply_well(exchange)
        else:
            _PERFORM[fault.kind](self, exchange, fault)

    def _reply_well(self, exchange: Exchange) -> None:
        self._reply_with(exchange, exchange.answer)

    def _reply_with(self, exchange: Exchange, answer: Verdict, extra: bytes = b"") -> None:
        self._reply(
            exchange,
            answer.status,
            answer.body,
            content_type=answer.content_type,
            extra=answer.extra + extra,
        )

    def _reply(
        self,
        exchange: Exchange,
        status: int,
        body: bytes,
        *,
        content_type: bytes = JSON,
        extra: bytes = b"",
    ) -> None:
        self._transport.write(
            response(
                status,
                body,
                time.time_ns(),
                keep_alive=exchange.keep_alive,
                content_type=content_type,
                extra=extra,
            )
        )
        self._answered(exchange, status)

    def _answered(self, exchange: Exchange, status: int) -> None:
        exchange.status = status
        exchange.answered_ns = time.monotonic_ns()
        self._end(exchange)
        if not exchange.keep_alive:
            self._deaf = True
            self._transport.close()
        elif self._waiting:
            # Through the loop, or a long pipeline would recurse.
            self._loop.call_soon(self._start_waiting)

    def _start_waiting(self) -> None:
        if self._current is None and self._waiting and not self._transport.is_closing():
            self._start(self._waiting.popleft())
            if self._current is None and self._waiting:
                self._loop.call_soon(self._start_waiting)

    def _end(self, exchange: Exchange) -> None:
        self._current = None
        if not exchange.admin:
            self._log.end(exchange)
            self._sink.changed()

    def _answer_admin(self, exchange: Exchange) -> None:
        status, body, content_type = control.handle(
            self._sink, exchange.method, exchange.url, exchange.take_body()
        )
        if exchange.method == b"HEAD":
            body = b""
        self._reply(exchange, status, body, content_type=content_type)

    def _refuse_bad_http(self) -> None:
        exchange = self._incoming
        if exchange is None:
            record = self._record
            exchange = Exchange(self._mono_ns, self._wall_ns, record.number, record.peer)
        self._incoming = None
        self._deaf = True
        if exchange.seq < 0:
            self._log.begin(exchange)
        exchange.played = "bad_http"
        if self._current is None:
            exchange.status, exchange.answered_ns = 400, time.monotonic_ns()
            no = b'{"message":"this is not HTTP/1.1"}'
            self._transport.write(response(400, no, self._wall_ns, keep_alive=False))
        self._log.end(exchange)
        self._transport.close()

    # -- faults ------------------------------------------------------------------------------

    def _strike_before_body(self, exchange: Exchange, fault: Fault) -> None:
        exchange.played = fault.label
        self._incoming = None
        _PERFORM[fault.kind](self, exchange, fault)

    def _row(self, exchange: Exchange, fault: Fault) -> None:
        self._reply_with(exchange, exchange.answer, _retry_after(fault))

    def _status(self, exchange: Exchange, fault: Fault) -> None:
        extra = _retry_after(fault)
        body = b'{"message":"%d"}' % fault.code if fault.body is None else fault.body.encode()
        self._reply(exchange, fault.code, body, extra=extra)

    def _reset(self, exchange: Exchange, _fault: Fault) -> None:
        self._end(exchange)
        self.abort(reset=True)

    def _eof(self, exchange: Exchange, _fault: Fault) -> None:
        self._end(exchange)
        self._half_close()

    def _hang(self, exchange: Exchange, fault: Fault) -> None:
        # Stays the current one: what comes behind it on this connection waits as well.
        if fault.for_s is not None:
            self._later(fault.for_s, self._reply_well, exchange)

    def _drip(self, exchange: Exchange, fault: Fault) -> None:
        self._drip_on(exchange, fault, self._whole(exchange), 0)

    def _drip_on(self, exchange: Exchange, fault: Fault, answer: bytes, sent: int) -> None:
        self._timer = None
        self._transport.write(answer[sent : sent + 1])
        if sent + 1 < len(answer):
            self._later(fault.every_s, self._drip_on, exchange, fault, answer, sent + 1)
        else:
            self._answered(exchange, exchange.answer.status)

    def _close(self, exchange: Exchange, fault: Fault) -> None:
        self._transport.write(self._whole(exchange))
        exchange.status, exchange.answered_ns = exchange.answer.status, time.monotonic_ns()
        self._eof(exchange, fault)

    def _business(self, exchange: Exchange, fault: Fault) -> None:
        own = fault.body
        made = self._sink.profile.business
        body = made(fault.code, exchange.answer) if own is None else own.encode()
        self._reply(exchange, 200, body)

    def _garbage(self, exchange: Exchange, fault: Fault) -> None:
        if fault.form == "html":
            self._reply(exchange, 200, _HTML_PAGE, content_type=HTML)
        elif fault.form == "empty":
            self._reply(exchange, 200, b"")
        elif fault.form == "binary":
            self._reply(exchange, 200, _BINARY)
        else:
            whole = exchange.answer.body or _HTML_PAGE
            half = whole[: len(whole) // 2]
            self._transport.write(response(200, half, time.time_ns(), length=len(whole)))
            self._eof(exchange, fault)

    def _redirect(self, exchange: Exchange, fault: Fault) -> None:
        location = b"Location: %s\r\n" % fault.location.encode("ascii")
        self._reply(exchange, fault.code, b"", extra=location)

    def _good(self, exchange: Exchange, _fault: Fault) -> None:
        self._reply_well(exchange)

    # -- plumbing ------------------------------------------------------------------------------

    def abort(self, *, reset: bool) -> None:
        """End the connection at once: by RST, or by closing it."""
        self._deaf = True
        if reset:
            sock = self._transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
        self._transport.abort()

    def close_if_idle(self, before_ns: int) -> None:
        """Close it where nothing is under way and nothing came since ``before_ns``."""
        if self._current is None and self._incoming is None and self._mono_ns < before_ns:
            self._deaf = True
            self._transport.close()

    @property
    def is_admin(self) -> bool:
        """Whether it only spoke to the control endpoint so far."""
        return self._record.admin

    def _whole(self, exchange: Exchange) -> bytes:
        answer = exchange.answer
        return response(
            answer.status,
            answer.body,
            time.time_ns(),
            keep_alive=exchange.keep_alive,
            content_type=answer.content_type,
            extra=answer.extra,
        )

    def _half_close(self) -> None:
        # shutdown() and not close(): closing with unread bytes in the kernel sends RST, and the
        # client would see another fault than the one it was promised.
        self._deaf = True
        if self._transport.can_write_eof() and not self._transport.is_closing():
            self._transport.write_eof()
            self._later(_HALF_CLOSED_S, self._transport.abort)

    def _later(self, delay_s: float, call: Callable[..., None], *args: object) -> None:
        self._cancel_timer()
        self._timer = self._loop.call_later(delay_s, call, *args)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _retry_after(fault: Fault) -> bytes:
    if fault.retry_after is None:
        return b""
    value = retry_after_value(fault.retry_after, time.time_ns())
    return b"Retry-After: %s\r\n" % value.encode("ascii")


_PERFORM: dict[str, Callable[[Connection, Exchange, Fault], None]] = {
    "ok": Connection._good,
    "status": Connection._status,
    "reset_before": Connection._reset,
    "reset_after": Connection._reset,
    "eof_before": Connection._eof,
    "eof_after": Connection._eof,
    "hang": Connection._hang,
    "drip": Connection._drip,
    "close": Connection._close,
    "business": Connection._business,
    "garbage": Connection._garbage,
    "redirect": Connection._redirect,
    "huge": Connection._good,
    "typed": Connection._good,
    "liar": Connection._good,
    "row": Connection._row,
}
