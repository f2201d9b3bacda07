"""What the kernel tells of real connections, and of closed ones nothing."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from paceline_workers.transports.connection import TransportError
from paceline_workers.transports.network import Network, WatchedConnector
from paceline_workers.transports.tcp_info import tcp_info
from support.peers import Peer, Talk, make_certificate, server_context
from support.wait import until

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="TCP_INFO is Linux's")


def silence(peer: Peer, talk: Talk) -> None:
    talk.hold()


@pytest.fixture
def peer() -> Iterator[Peer]:
    with Peer(silence) as peer:
        yield peer


def connector(network: Network, url: str, ca_file: str | None = None) -> WatchedConnector:
    return WatchedConnector(
        network, url, connect_timeout_s=5.0, read_timeout_s=5.0, ca_file=ca_file
    )


@on_linux
def test_the_round_trip_of_an_open_socket(peer: Peer) -> None:
    with socket.create_connection((peer.host, peer.port)) as sock:
        info = tcp_info(sock)
        assert info is not None
        # Loopback: above nothing, and far below what a wrong offset would show.
        assert 0 < info.rtt_s < 5
        assert info.retransmits == 0
    assert tcp_info(sock) is None


@on_linux
@pytest.mark.needs("ss")
def test_the_round_trip_is_what_the_systems_own_tool_shows(peer: Peer) -> None:
    with socket.create_connection((peer.host, peer.port)) as sock:
        port = sock.getsockname()[1]
        told = subprocess.run(
            ["ss", "-tinH", "src", f"127.0.0.1:{port}"], capture_output=True, text=True, check=True
        ).stdout
        info = tcp_info(sock)
    shown_ms = re.search(r"\brtt:([\d.]+)/", told)
    assert shown_ms is not None, told
    assert info is not None
    assert info.rtt_s == pytest.approx(float(shown_ms[1]) / 1e3, abs=1e-6)


@on_linux
def test_segments_that_nobody_takes_are_sent_again() -> None:
    """A listener whose queue is full drops what comes: the kernel sends the SYN again."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        socks = []
        for _ in range(4):
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
            socks.append(sock)
        network = Network()
        for sock in socks:
            network.opened(sock, "peer")

        def sent_again() -> int:
            network.look()
            return network.retransmits

        until(sent_again, 10, "a segment is sent again")
        before = network.retransmits
        del socks[:], sock
        stack.close()
        network.look()
        assert network.retransmits >= before, "the total of closed connections stays"


def test_facts_are_of_open_connections_only(peer: Peer) -> None:
    network = Network()
    assert network.facts() == {}
    wire = connector(network, peer.url).open()
    network.look()
    assert set(network.facts()) == ({"tcp_rtt_s"} if sys.platform == "linux" else set())
    wire.close()
    network.look()
    assert network.facts() == {}


def test_one_that_cannot_be_opened_is_not_counted() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/"
        network = Network()
        with pytest.raises(TransportError):
            connector(network, url).open()
    network.look()
    assert network.facts() == {}


@pytest.mark.needs("openssl")
def test_the_certificate_that_the_provider_showed(tmp_path: Path) -> None:
    at = make_certificate(tmp_path)
    network = Network()
    with Peer(silence, tls=server_context(at)) as peer:
        url = peer.url.replace("127.0.0.1", "localhost")
        others = Network(certificates=False)
        for it in (network, others):
            connector(it, url, ca_file=str(at)).open().close()
    assert others.facts() == {}, "kept of thousands of endpoints"
    expires_s = network.facts()["certificate_expires_s"]
    assert time.time() < expires_s < time.time() + 40 * 86400
