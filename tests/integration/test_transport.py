"""The pooled HTTP transport against peers that misbehave: what failed, in which phase, and what it
leaves open."""

from __future__ import annotations

import errno
import os
import select
import socket
import ssl
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from paceline.sink.thread import SinkThread
from paceline_workers.transports import http1
from paceline_workers.transports.adapter import REPLY_BYTES, GatedRequest
from paceline_workers.transports.connection import Connector, resolve
from paceline_workers.transports.pool import NoRoom, Retirement
from support.peers import (
    OK,
    Peer,
    Talk,
    answers,
    make_ca,
    make_certificate,
    server_context,
    signed_by,
)
from support.rig import Rig
from support.wait import until


@pytest.fixture
def rig() -> Iterator[Callable[..., Rig]]:
    made: list[Rig] = []

    def make(*urls: str, **options: Any) -> Rig:
        made.append(Rig(*urls, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


MakeRig = Callable[..., Rig]


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


# -- no connection ------------------------------------------------------------------------------


def test_a_name_that_does_not_resolve(rig: MakeRig) -> None:
    one = rig("http://no-such-name.invalid/")
    failure = one.failure()
    assert (failure.phase, failure.cause, failure.unreceived) == ("connect", "dns", True)
    assert one.gates == 0, "a permit was drawn without a connection"


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "xn--\x80"])
def test_a_name_that_cannot_be_encoded(rig: MakeRig, host: str) -> None:
    assert rig(f"http://{host}/").failure().cause == "dns"


def test_refused(rig: MakeRig) -> None:
    one = rig(f"http://127.0.0.1:{_free_port()}/")
    failure = one.failure()
    assert (failure.phase, failure.cause, failure.unreceived) == ("connect", "refused", True)
    assert one.gates == 0
    assert one.pool.counts["failed"] == 1


def test_a_connect_that_is_not_answered(rig: MakeRig) -> None:
    with socket.socket() as full, socket.socket() as filler:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        filler.setblocking(False)
        filler.connect_ex(full.getsockname())  # the backlog of 0 holds one: it is full now
        more = [socket.socket() for _ in range(3)]
        for sock in more:
            sock.setblocking(False)
            sock.connect_ex(full.getsockname())
        one = rig(f"http://127.0.0.1:{full.getsockname()[1]}/", connect_s=0.2)
        failure = one.failure()
        for sock in more:
            sock.close()
    assert (failure.phase, failure.cause) == ("connect", "connect-timeout")
    assert failure.unreceived


def test_a_family_that_this_host_has_not_is_passed_over(rig: MakeRig) -> None:
    with Peer(answers(OK)) as peer:
        one = rig(peer.url, resolver=lambda *_: [(9999, "::1"), (socket.AF_INET, "127.0.0.1")])
        assert [one.post().status_code for _ in range(2)] == [200, 200]
        alone = rig(peer.url, resolver=lambda *_: [(9999, "::1")])
        assert (alone.failure().phase, alone.gates) == ("connect", 0)


def test_no_file_descriptor_left_is_a_failure_to_connect(
    rig: MakeRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(*_: Any) -> socket.socket:
        raise OSError(errno.EMFILE, "Too many open files")

    one = rig("http://127.0.0.1:9/")
    monkeypatch.setattr("paceline_workers.transports.connection.socket.socket", exhausted)
    failure = one.failure()
    assert (failure.phase, failure.unreceived) == ("connect", True)


@pytest.mark.needs("openssl")
def test_certificates_are_verified(rig: MakeRig, tmp_path: Path) -> None:
    at = make_certificate(tmp_path)
    with Peer(answers(OK), tls=server_context(at)) as peer:
        unknown = rig(f"https://localhost:{peer.port}/")
        wrong_host = rig(f"https://127.0.0.1:{peer.port}/", ca_file=str(at))
        for one in (unknown, wrong_host):
            failure = one.failure()
            assert (failure.phase, failure.cause, failure.unreceived) == ("connect", "tls", True)
            assert one.gates == 0
        right = rig(f"https://localhost:{peer.port}/", ca_file=str(at))
        assert right.post().content == b"ok"
        assert len(peer.requests) == 1


@pytest.mark.needs("openssl")
def test_a_ca_of_ones_own_is_believed_and_no_other(rig: MakeRig, tmp_path: Path) -> None:
    ours, theirs = make_ca(tmp_path), make_ca(_folder(tmp_path / "theirs"))
    at, other = signed_by(ours, "localhost"), signed_by(ours, "other.example")
    with (
        Peer(answers(OK), tls=server_context(at)) as peer,
        Peer(answers(OK), tls=server_context(other)) as elsewhere,
    ):
        assert rig(f"https://localhost:{peer.port}/", ca_file=str(ours)).post().content == b"ok"
        for url, ca, why in (
            (f"https://localhost:{peer.port}/", None, "unable to get local issuer"),
            (f"https://localhost:{peer.port}/", theirs, "unable to get local issuer"),
            (f"https://localhost:{elsewhere.port}/", ours, "Hostname mismatch"),
            (f"https://127.0.0.1:{peer.port}/", ours, "IP address mismatch"),
        ):
            failure = rig(url, ca_file=None if ca is None else str(ca)).failure()
            assert (failure.phase, failure.cause, failure.unreceived) == ("connect", "tls", True)
            assert why in failure.detail
        assert (len(peer.requests), elsewhere.requests) == (1, [])


@pytest.mark.needs("openssl")
def test_tls_1_2_is_the_least(rig: MakeRig, tmp_path: Path) -> None:
    at = make_certificate(tmp_path)

    def speaks(version: ssl.TLSVersion) -> ssl.SSLContext:
        context = server_context(at)
        # What distributions forbid to begin with, so that the refusal is ours.
        context.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = context.maximum_version = version
        return context

    with (
        Peer(answers(OK), tls=speaks(ssl.TLSVersion.TLSv1_1)) as old,
        Peer(answers(OK), tls=speaks(ssl.TLSVersion.TLSv1_2)) as enough,
    ):
        assert _shakes_hands(old.port, at) == "TLSv1.1", "this peer proves nothing"
        failure = rig(f"https://localhost:{old.port}/", ca_file=str(at)).failure()
        assert (failure.phase, failure.cause) == ("connect", "tls")
        assert "protocol" in failure.detail.lower()
        assert rig(f"https://localhost:{enough.port}/", ca_file=str(at)).post().content == b"ok"
        assert old.requests == []


def _folder(at: Path) -> Path:
    at.mkdir()
    return at


def _shakes_hands(port: int, ca: Path) -> str | None:
    """With a client that would take anything."""
    context = ssl.create_default_context(cafile=str(ca))
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
    with (
        socket.create_connection(("127.0.0.1", port), 5) as sock,
        context.wrap_socket(sock, server_hostname="localhost") as tls,
    ):
        return tls.version()


def test_a_peer_that_speaks_no_tls(rig: MakeRig) -> None:
    with Peer(lambda _, it: it.send(b"220 smtp.example ESMTP\r\n")) as peer:
        failure = rig(f"https://127.0.0.1:{peer.port}/").failure()
    assert (failure.phase, failure.cause) == ("connect", "tls")


# -- no reply, or half of one -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        ("reset_before", "reset"),
        ("reset_after", "reset"),
        ("eof_before", "eof"),
        ("eof_after", "eof"),
        ("garbage=truncated", "eof"),
    ],
)
def test_faults_after_the_write_prove_nothing(rig: MakeRig, fault: str, cause: str) -> None:
    with SinkThread(profile="http", faults=fault) as sink:
        failure = rig(sink.url).failure()
        assert (failure.phase, failure.cause, failure.unreceived) == ("read", cause, False)
        assert len(sink.wait_closed()) == 1


def test_silence_past_the_read_timeout(rig: MakeRig) -> None:
    with SinkThread(profile="http", faults="hang") as sink:
        failure = rig(sink.url, read_s=0.3).failure()
        assert (failure.phase, failure.cause, failure.unreceived) == ("read", "timeout", False)


def _drip(_: Peer, it: Talk) -> None:
    it.read_request()
    it.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    while not it.over.wait(0.02):
        try:
            it.sock.sendall(b"x")
        except OSError:
            return


def _drip_without_length(_: Peer, it: Talk) -> None:
    it.read_request()
    it.send(b"HTTP/1.1 200 OK\r\n\r\n")
    while not it.over.wait(0.02):
        try:
            it.sock.sendall(b"x")
        except OSError:
            return


@pytest.mark.parametrize("talk", [_drip, _drip_without_length])
def test_a_drip_is_ended_at_the_total_deadline(
    rig: MakeRig, talk: Callable[[Peer, Talk], None]
) -> None:
    with Peer(talk) as peer:
        one = rig(peer.url, total_s=0.5)
        began = time.monotonic()
        failure = one.failure()
        took = time.monotonic() - began
    assert (failure.phase, failure.cause, failure.unreceived) == ("read", "deadline", False)
    assert 0.5 <= took < 0.7
    assert one.request.latency_s is not None
    assert one.request.latency_s >= 0.5


@pytest.mark.needs("openssl")
@pytest.mark.parametrize("talk", [_drip, _drip_without_length])
def test_a_drip_over_tls_is_ended_too(
    rig: MakeRig, tmp_path: Path, talk: Callable[[Peer, Talk], None]
) -> None:
    at = make_certificate(tmp_path)
    with Peer(talk, tls=server_context(at)) as peer:
        one = rig(f"https://localhost:{peer.port}/", ca_file=str(at), total_s=0.3)
        assert [one.failure().cause for _ in range(3)] == ["deadline"] * 3


@pytest.mark.needs("openssl")
def test_the_watchdog_leaves_the_tls_layer_on(rig: MakeRig, tmp_path: Path) -> None:
    at = make_certificate(tmp_path)
    with Peer(lambda _, it: it.hold(), tls=server_context(at)) as peer:
        one = rig(f"https://localhost:{peer.port}/", ca_file=str(at))
        one.watchdog.stop()
        link = one.pool.checkout()
        sock = link.wire.sock
        assert isinstance(sock, ssl.SSLSocket)
        guarded = one.watchdog.guard(sock, 0.0)
        assert one.watchdog.check() == 1
        assert guarded.fired
        # Without it the next write of the sender's thread would go out in clear.
        assert sock._sslobj is not None  # type: ignore[attr-defined]
        one.pool.checkin(link)


def test_a_whole_answer_wins_over_the_deadline(rig: MakeRig) -> None:
    """The watchdog fires between the last byte and its own release."""
    with Peer(answers(OK)) as peer:
        one = rig(peer.url)
        link_sock: list[socket.socket] = []
        guard = one.watchdog.guard

        def late(sock: socket.socket, deadline_s: float) -> Any:
            link_sock.append(sock)
            guarded = guard(sock, deadline_s)
            guarded.fired = True
            return guarded

        one.watchdog.guard = late  # type: ignore[method-assign]
        assert one.post().content == b"ok"
        assert one.pool.open_connections == 0


@pytest.mark.parametrize(
    ("reply", "cause"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "unreadable"),
        (b"HTTP/1.1 two hundred\r\n\r\n", "unreadable"),
        (b"HTTP/2 200 OK\r\n\r\n", "unreadable"),
        (b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200 + b"\r\n", "unreadable"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", "eof"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhal", "eof"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", "eof"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhalf\r\n", "unreadable"),
        # A head that ends in the middle is no head, whatever its first line said.
        (b"HTTP/1.1 200 OK\r\nContent-Le", "eof"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n", "eof"),
        (b"HTTP/1.1 200", "eof"),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nxx", "unreadable"),
    ],
)
def test_replies_that_cannot_be_read(rig: MakeRig, reply: bytes, cause: str) -> None:
    def talk(_: Peer, it: Talk) -> None:
        it.read_request()
        it.send(reply)
        it.close()

    with Peer(talk) as peer:
        failure = rig(peer.url).failure()
    assert (failure.phase, failure.cause, failure.unreceived) == ("read", cause, False)


# -- the peer closed first ----------------------------------------------------------------------


class _Corked(Connector):
    """Holds small writes back for 200 ms, as a network does: so the peer's FIN is here before our
    bytes are there, and its reset has not come yet."""

    def open(self) -> Any:
        wire = super().open()
        wire.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
        wire.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
        return wire


@pytest.mark.skipif(not hasattr(socket, "TCP_CORK"), reason="needs Linux's tcp_info")
@pytest.mark.parametrize(("size", "one_write"), [(2, 65536), (5000, 100)])
def test_an_end_before_anything_arrived_is_proven(
    rig: MakeRig, monkeypatch: pytest.MonkeyPatch, size: int, one_write: int
) -> None:
    monkeypatch.setattr(http1, "_ONE_WRITE_BYTES", one_write)
    closing = threading.Event()

    def talk(_: Peer, it: Talk) -> None:
        closing.wait(5)
        it.close()

    def close_first() -> float:
        """Asked after the last look at the socket, before the write."""
        if not closing.is_set():
            closing.set()
            until(lambda: select.select(opened[-1:], [], [], 0)[0], 2, "the FIN is here")
        return time.monotonic()

    opened: list[socket.socket] = []

    class Seen(_Corked):
        def open(self) -> Any:
            wire = super().open()
            opened.append(wire.sock)
            return wire

    with Peer(talk) as peer:
        one = rig(peer.url, connector=Seen, elapsed_s=close_first)
        failure = one.failure(b"x" * size)
    assert (failure.phase, failure.cause, failure.unreceived) == ("read", "eof", True)


@pytest.mark.parametrize("size", [10, 100_000, 3_000_000])
@pytest.mark.parametrize("read_first", [False, True])
def test_a_peer_that_ends_without_an_answer_may_have_the_request(
    rig: MakeRig, size: int, read_first: bool
) -> None:
    """Its system has acknowledged some of it, whether or not anybody there has read it."""

    def talk(_: Peer, it: Talk) -> None:
        if read_first:
            it.sock.recv(1)
        it.sock.shutdown(socket.SHUT_WR)
        it.hold()

    with Peer(talk, receive_bytes=4096) as peer:
        one = rig(peer.url, read_s=0.3)
        link = one.pool.checkout()
        if not read_first:
            # Not before the write: then it would not even be begun.
            assert select.select([link.wire.sock], [], [], 5)[0]
        one.pool.checkin(link)
        link.wire.is_silent = lambda: True  # type: ignore[method-assign]
        failure = one.failure(b"x" * size)
    assert failure.phase in ("read", "write")
    assert not failure.unreceived


def test_a_connection_closed_while_idle_is_noticed_before_the_write(rig: MakeRig) -> None:
    with SinkThread(profile="http", faults="close") as sink:
        one = rig(sink.url)
        for number in range(1, 6):
            assert one.post().status_code == 200
            sock = one.pool._idle.links[-1].wire.sock
            until(lambda sock=sock: select.select([sock], [], [], 0)[0], 2, "the FIN is here")
            assert len(sink.arrivals()) == number, "a request was written to a dead connection"
        assert one.pool.counts["opened"] == 5
        assert one.pool.counts["closed:closed-by-peer"] == 4


def test_a_connection_closed_while_waiting_at_the_gate_is_replaced(rig: MakeRig) -> None:
    waiting = threading.Event()

    def talk(peer: Peer, it: Talk) -> None:
        if it.number == 0:
            waiting.wait(5)
            return
        answers(OK)(peer, it)

    with Peer(talk) as peer:
        one = rig(peer.url)

        def gate() -> float:
            waiting.set()
            closed = lambda: peer.accepted > 1 or (peer.accepted == 1 and not peer.open)  # noqa: E731
            until(closed, 5, "the peer closed")
            return time.monotonic()

        assert one.post(gate=gate).status_code == 200
        assert peer.accepted == 2
        assert len(peer.requests) == 1
        assert one.pool.open_connections == 1


# -- early, interim and odd answers -------------------------------------------------------------


def test_an_answer_while_we_still_write_wins(rig: MakeRig) -> None:
    def talk(peer: Peer, it: Talk) -> None:
        it.sock.recv(1000)
        it.send(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig")
        it.close()  # with unread bytes: a reset

    with Peer(talk, receive_bytes=4096) as peer:
        one = rig(peer.url)
        response = one.post(b"x" * 8_000_000)
        assert (response.status_code, response.content) == (413, b"big")
        assert one.pool.open_connections == 0


def test_an_answer_of_a_peer_that_stopped_reading_wins(rig: MakeRig) -> None:
    def talk(peer: Peer, it: Talk) -> None:
        it.sock.recv(1000)
        it.send(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno")
        it.hold()

    with Peer(talk, receive_bytes=4096) as peer:
        one = rig(peer.url, read_s=0.4)
        assert one.post(b"x" * 8_000_000).status_code == 401
        assert one.pool.open_connections == 0


def test_a_peer_that_reads_nothing_and_says_nothing(rig: MakeRig) -> None:
    with Peer(lambda _, it: it.hold(), receive_bytes=4096) as peer:
        one = rig(peer.url, read_s=0.3)
        began = time.monotonic()
        failure = one.failure(b"x" * 8_000_000)
    assert (failure.phase, failure.cause, failure.unreceived) == ("write", "timeout", False)
    assert time.monotonic() - began < 0.6, "the read time-out was waited for twice"


def test_a_reset_while_we_write(rig: MakeRig) -> None:
    def talk(_: Peer, it: Talk) -> None:
        it.sock.recv(1000)
        it.reset()

    with Peer(talk, receive_bytes=4096) as peer:
        failure = rig(peer.url).failure(b"x" * 8_000_000)
    assert (failure.phase, failure.cause, failure.unreceived) == ("write", "reset", False)


@pytest.mark.parametrize("interim", [b"100 Continue", b"102 Processing", b"103 Early Hints"])
def test_interim_answers_are_not_the_answer(rig: MakeRig, interim: bytes) -> None:
    def talk(peer: Peer, it: Talk) -> None:
        while request := it.read_request():
            peer.note(request)
            it.send(b"HTTP/1.1 " + interim + b"\r\nLink: </a>\r\n\r\n")
            number = b"%d" % len(peer.requests)
            it.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n" + number)

    with Peer(talk) as peer:
        one = rig(peer.url)
        assert [one.post().content for _ in range(3)] == [b"1", b"2", b"3"]
        assert peer.accepted == 1


def test_another_protocol_is_no_answer_and_no_connection(rig: MakeRig) -> None:
    with Peer(answers(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", OK)) as peer:
        one = rig(peer.url)
        assert one.post().status_code == 101
        assert one.pool.open_connections == 0
        assert one.post().status_code == 200


@pytest.mark.parametrize(
    ("reply", "kept"),
    [
        (OK, True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", True),
        (b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", True),
        (b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", False),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX: y\r\n\r\n",
            True,
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: Close\r\n\r\nok", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: Keep-Alive\r\n\r\nok", True),
        (b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n", True),
    ],
)
def test_a_connection_is_kept_where_the_answer_ends_by_itself(
    rig: MakeRig, reply: bytes, kept: bool
) -> None:
    with Peer(answers(reply)) as peer:
        one = rig(peer.url)
        first, second = one.post(), one.post()
        assert first.content == second.content
        assert peer.accepted == (1 if kept else 2)
        assert one.pool.open_connections == (1 if kept else 0)


def test_an_answer_without_length_ends_with_its_connection(rig: MakeRig) -> None:
    def talk(_: Peer, it: Talk) -> None:
        it.read_request()
        it.send(b"HTTP/1.1 200 OK\r\n\r\nall of it")
        it.close()

    with Peer(talk) as peer:
        one = rig(peer.url)
        assert one.post().content == b"all of it"
        assert one.pool.open_connections == 0, "a closed connection is counted as open"
        assert one.post().content == b"all of it"


def test_a_huge_answer_is_cut_and_its_connection_closed(rig: MakeRig) -> None:
    with SinkThread(profile="http", faults="huge=16MB") as sink:
        one = rig(sink.url)
        assert len(one.post().content) == REPLY_BYTES
        assert one.request.truncated
        assert one.pool.open_connections == 0
        sink.wait_closed()


def test_an_answer_without_end_is_cut_before_any_deadline(rig: MakeRig) -> None:
    def talk(_: Peer, it: Talk) -> None:
        it.read_request()
        it.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        piece = b"4000\r\n" + b"x" * 0x4000 + b"\r\n"
        while not it.over.is_set():
            try:
                it.sock.sendall(piece)
            except OSError:
                return

    with Peer(talk) as peer:
        one = rig(peer.url)
        assert len(one.post().content) == REPLY_BYTES
        assert one.pool.open_connections == 0


def test_an_answer_that_unpacks_to_a_huge_one_is_cut(rig: MakeRig) -> None:
    import gzip

    packed = gzip.compress(b"\0" * 50_000_000)
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
    with Peer(answers(head + packed)) as peer:
        one = rig(peer.url)
        assert len(one.post().content) == REPLY_BYTES
        assert one.request.truncated


def test_bytes_after_the_answer_are_not_the_next_answer(rig: MakeRig) -> None:
    def talk(peer: Peer, it: Talk) -> None:
        while request := it.read_request():
            peer.note(request)
            it.send(OK + b"HTTP/1.1 500 Smuggled\r\nContent-Length: 0\r\n\r\n")

    with Peer(talk) as peer:
        one = rig(peer.url)
        assert [one.post().status_code for _ in range(3)] == [200] * 3


def test_a_readable_idle_connection_is_not_used(rig: MakeRig) -> None:
    more = threading.Event()

    def talk(peer: Peer, it: Talk) -> None:
        peer.note(it.read_request())
        it.send(OK)
        more.wait(5)
        it.send(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
        it.hold()

    with Peer(talk) as peer:
        one = rig(peer.url)
        one.post()
        sock = one.pool._idle.links[-1].wire.sock
        more.set()
        until(lambda: select.select([sock], [], [], 0)[0], 2, "the rest arrived")
        assert one.post().status_code == 200
        assert peer.accepted == 2


# -- what requests would do by itself -----------------------------------------------------------


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("location", ["/elsewhere", "http://[bad", "//127.0.0.1:1/x", "\xff"])
def test_redirects_are_answers(rig: MakeRig, code: int, location: str) -> None:
    reply = b"HTTP/1.1 %d Moved\r\nLocation: %b\r\nContent-Length: 0\r\n\r\n"
    with Peer(answers(reply % (code, location.encode("latin-1")))) as peer:
        one = rig(peer.url)
        assert one.post().status_code == code
        assert len(peer.requests) == 1
        assert one.pool.open_connections == 1


def test_cookies_are_not_sent_back(rig: MakeRig) -> None:
    reply = b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b; Path=/\r\nContent-Length: 2\r\n\r\nok"
    with Peer(answers(reply)) as peer:
        one = rig(peer.url)
        one.post()
        one.post()
        assert b"cookie" not in peer.requests[1].lower()


def test_the_environment_changes_nothing(
    rig: MakeRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trap = f"http://127.0.0.1:{_free_port()}"
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, trap)
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login eve password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HOME", str(tmp_path))
    with Peer(answers(OK)) as peer:
        assert rig(peer.url).post().status_code == 200
        assert b"authorization" not in peer.requests[0].lower()
        assert peer.requests[0].startswith(b"POST /send HTTP/1.1\r\n")


def test_a_request_on_the_wire_is_whole_and_in_one_write(rig: MakeRig) -> None:
    first_reads: list[bytes] = []

    def talk(peer: Peer, it: Talk) -> None:
        first_reads.append(it.sock.recv(100_000))
        it.send(OK)
        it.hold()

    with Peer(talk) as peer:
        rig(peer.url).post(b'{"a":"\xc3\xa4"}')
    head, _, body = first_reads[0].partition(b"\r\n\r\n")
    assert body == b'{"a":"\xc3\xa4"}'
    lines = head.split(b"\r\n")
    assert lines[0] == b"POST /send HTTP/1.1"
    assert set(lines[1:]) == {
        b"Host: 127.0.0.1:%d" % peer.port,
        b"Accept-Encoding: identity",
        b"Content-Length: 10",
        b"User-Agent: test",
        b"Content-Type: application/json",
        b"Paceline-Message-Id: m-1",
    }


def test_a_large_body_arrives_whole(rig: MakeRig) -> None:
    with Peer(answers(OK)) as peer:
        body = os.urandom(3_000_000)
        assert rig(peer.url).post(body).status_code == 200
        assert peer.requests[0].endswith(body)


def test_a_url_with_blanks_and_umlauts_is_quoted(rig: MakeRig) -> None:
    with Peer(answers(OK)) as peer:
        one = rig(f"http://127.0.0.1:{peer.port}/sénd to/%41?q=ä b&r=%20")
        assert one.post().status_code == 200
        assert peer.requests[0].startswith(b"POST /s%C3%A9nd%20to/%41?q=%C3%A4%20b&r=%20 HTTP/1.1")


# -- TLS ----------------------------------------------------------------------------------------


@pytest.mark.needs("openssl")
def test_session_tickets_do_not_make_a_connection_look_dead(rig: MakeRig, tmp_path: Path) -> None:
    """TLS 1.3 servers send tickets unasked, a round trip after the handshake: the socket is
    readable, and nothing is wrong."""
    at = make_certificate(tmp_path)
    with Peer(answers(OK), tls=server_context(at)) as peer:
        one = rig(f"https://localhost:{peer.port}/", ca_file=str(at))

        def gate() -> float:
            sockets = [it.sock for it in opened]
            until(lambda: select.select(sockets, [], [], 0)[0], 2, "tickets arrive")
            return time.monotonic()

        opened: list[Any] = []
        real = one.connectors[0].open

        def remember() -> Any:
            opened.append(real())
            return opened[-1]

        one.connectors[0].open = remember  # type: ignore[method-assign]
        assert one.post(gate=gate).status_code == 200
        for _ in range(5):
            assert one.post().status_code == 200
        assert peer.accepted == 1
        assert one.gates == 5, "permits were drawn and thrown away"


@pytest.mark.needs("openssl")
def test_a_tls_peer_that_closed_is_noticed(rig: MakeRig, tmp_path: Path) -> None:
    at = make_certificate(tmp_path)

    def talk(peer: Peer, it: Talk) -> None:
        peer.note(it.read_request())
        it.send(OK)
        assert isinstance(it.sock, ssl.SSLSocket)
        try:
            it.sock.unwrap()
        finally:
            it.close()

    with Peer(talk, tls=server_context(at)) as peer:
        one = rig(f"https://localhost:{peer.port}/", ca_file=str(at))
        for _ in range(3):
            assert one.post().status_code == 200
            link = one.pool._idle.links[-1]
            until(lambda link=link: not link.is_quiet(), 2, "the close arrived")
        assert len(peer.requests) == 3


# -- reuse, retirement, addresses ---------------------------------------------------------------


def test_one_connection_carries_many_requests(rig: MakeRig) -> None:
    with SinkThread(profile="http") as sink:
        one = rig(sink.url, limit=5)
        for _ in range(30):
            one.post()
        assert len({a.conn for a in sink.arrivals()}) == 1
        assert one.pool.counts["opened"] == 1
        assert one.pool.counts["reused"] == 29


def test_connections_retire_by_count_age_and_idleness(rig: MakeRig) -> None:
    now = [1000.0]
    with Peer(answers(OK)) as peer:
        one = rig(peer.url, retirement=Retirement(900, 3, 20), clock=lambda: now[0])
        for _ in range(7):
            one.post()
        assert peer.accepted == 3
        assert one.pool.counts["closed:count"] == 2
        now[0] += 19.9
        one.post()
        assert peer.accepted == 3
        now[0] += 20
        one.post()
        assert (peer.accepted, one.pool.counts["closed:idle"]) == (4, 1)
        aged = rig(peer.url, retirement=Retirement(900, 1000, 1e9), clock=lambda: now[0])
        aged.post()
        now[0] += 899
        aged.post()
        assert aged.pool.counts["opened"] == 1
        now[0] += 1
        aged.pool.trim()
        assert aged.pool.open_connections == 0
        assert aged.pool.counts["closed:age"] == 1


def test_a_connection_in_use_over_its_age_is_not_used_again(rig: MakeRig) -> None:
    now = [1000.0]

    def talk(peer: Peer, it: Talk) -> None:
        while request := it.read_request():
            peer.note(request)
            now[0] += 60  # the answer takes a minute
            it.send(OK)

    with Peer(talk) as peer:
        one = rig(peer.url, retirement=Retirement(100, 1000, 1e9), clock=lambda: now[0])
        assert one.post().status_code == 200
        assert (one.pool.open_connections, peer.accepted) == (1, 1)
        assert one.post().status_code == 200
        assert one.pool.open_connections == 0, "it went on with a connection of two minutes"
        assert one.pool.counts["closed:age"] == 1
        assert one.post().status_code == 200
        assert peer.accepted == 2


@pytest.mark.parametrize("retirement", [Retirement(100, 1000, 1e9), Retirement(1e9, 1000, 100)])
def test_one_that_became_too_old_at_the_gate_is_replaced(
    rig: MakeRig, retirement: Retirement
) -> None:
    """A slow destination's requests wait there with a connection in hand."""
    now = [1000.0]

    def gate() -> float:
        now[0] += 60
        return time.monotonic()

    with Peer(answers(OK)) as peer:
        one = rig(peer.url, retirement=retirement, clock=lambda: now[0])
        one.post()
        now[0] += 50
        assert one.post(gate=gate).status_code == 200
        assert peer.accepted == 2
        assert one.pool.open_connections == 1


def test_permits_that_come_more_rarely_than_connections_live(rig: MakeRig) -> None:
    """And a connection takes so long to open that the permit is stale then: it ends yet."""
    now, permits = [1000.0], []

    def gate() -> float:
        now[0] += 500
        permits.append(now[0])
        return now[0]

    class Slow(Connector):
        def open(self) -> Any:
            now[0] += 0.2
            return super().open()

    with Peer(answers(OK)) as peer:
        one = rig(
            peer.url, retirement=Retirement(100, 1000, 1e9), clock=lambda: now[0],
            elapsed_s=lambda: now[0], connector=Slow,
        )  # fmt: skip
        assert one.post(gate=gate).status_code == 200
        assert len(permits) == 2


def test_addresses_that_change_under_way_are_used_within_a_connections_life(rig: MakeRig) -> None:
    now, addresses = [1000.0], ["127.0.0.2", "127.0.0.3"]
    port = _free_port()

    def resolver(_host: str, _port: int) -> list[tuple[int, str]]:
        return [(int(socket.AF_INET), address) for address in addresses]

    with ExitStack() as exits:
        peers = {
            f"127.0.0.{n}": exits.enter_context(Peer(answers(OK), host=f"127.0.0.{n}", port=port))
            for n in (2, 3, 4, 5)
        }
        one = rig(
            f"http://moving.example:{port}/", resolver=resolver, limit=4,
            retirement=Retirement(900, 1000, 1e9), clock=lambda: now[0],
        )  # fmt: skip
        _use_side_by_side(one, 4)
        assert {a: p.accepted for a, p in peers.items()} == {
            "127.0.0.2": 2, "127.0.0.3": 2, "127.0.0.4": 0, "127.0.0.5": 0,
        }  # fmt: skip
        addresses[:] = ["127.0.0.4", "127.0.0.5"]
        now[0] += 899
        _use_side_by_side(one, 4)
        assert one.pool.counts["opened"] == 4, "open ones are used on"
        now[0] += 1
        before = {a: len(p.requests) for a, p in peers.items()}
        _use_side_by_side(one, 4)
        assert {a: len(p.requests) - before[a] for a, p in peers.items()} == {
            "127.0.0.2": 0, "127.0.0.3": 0, "127.0.0.4": 2, "127.0.0.5": 2,
        }  # fmt: skip
        assert one.pool.open_connections == 4


def _use_side_by_side(one: Rig, count: int) -> None:
    """So many requests on as many connections: all are at the gate before the first goes on."""
    together = threading.Barrier(count)

    def gate() -> float:
        together.wait(5)
        return time.monotonic()

    def post() -> None:
        request = GatedRequest("POST", one.url, {}, b"{}", gate)
        assert one.adapter.send(request).status_code == 200

    with ThreadPoolExecutor(count) as pool:
        for future in [pool.submit(post) for _ in range(count)]:
            future.result(10)


def test_new_connections_spread_over_all_addresses(rig: MakeRig) -> None:
    addresses = [f"127.0.0.{n}" for n in range(1, 5)]
    asked = []

    def resolver(host: str, port: int) -> list[tuple[int, str]]:
        asked.append(host)
        return [(int(socket.AF_INET), a) for a in addresses]

    port = _free_port()
    peers = [Peer(answers(OK), host=a, port=port) for a in addresses[:3]]
    with peers[0], peers[1], peers[2]:
        one = rig(
            f"http://many.example:{port}/", resolver=resolver, retirement=Retirement(900, 1, 20)
        )
        for _ in range(12):
            assert one.post().status_code == 200
        # The fourth is down: its turn goes to the next, and nobody notices.
        assert min(p.accepted for p in peers) >= 3
        assert sum(p.accepted for p in peers) == 12
        assert asked == ["many.example"] * 12, "a new connection resolves anew"
        assert b"Host: many.example:%d" % port in peers[0].requests[0]


def test_resolve_gives_each_address_once() -> None:
    found = resolve("127.0.0.1", 80)
    assert found == [(int(socket.AF_INET), "127.0.0.1")]


# -- the gate and the pool ----------------------------------------------------------------------


def test_a_gate_that_calls_off_leaves_the_connection_for_the_next(rig: MakeRig) -> None:
    with Peer(answers(OK)) as peer:
        one = rig(peer.url)

        def refuse() -> float:
            raise KeyError("called off")

        with pytest.raises(KeyError):
            one.post(gate=refuse)
        assert one.request.wire_s is None
        assert one.pool.open_connections == 1
        assert one.post().status_code == 200
        assert peer.accepted == 1


def test_a_stale_permit_is_asked_for_again(rig: MakeRig) -> None:
    with Peer(answers(OK)) as peer:
        ages = [0.5, 0.11, 0.05]
        one = rig(peer.url, elapsed_s=lambda: 100.0 + ages[one.gates - 1])

        def gate() -> float:
            one.gates += 1
            return 100.0

        assert one.post(gate=gate).status_code == 200
        assert one.gates == 3
        assert len(peer.requests) == 1


def test_no_connection_is_opened_over_a_share_that_shrank(rig: MakeRig) -> None:
    with Peer(answers(OK)) as peer:
        one = rig(peer.url, limit=3)
        assert all(one.pool.enter(0.1) for _ in range(3))
        one.pool.set_limit(1)
        link = one.pool.checkout()
        with pytest.raises(NoRoom):
            one.pool.checkout()
        assert one.pool.open_connections == 1
        one.pool.checkin(link)
        assert one.pool.open_connections == 1
        one.pool.set_limit(0)
        assert one.pool.open_connections == 0
