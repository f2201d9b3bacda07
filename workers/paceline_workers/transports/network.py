"""What this process sees of the network to its provider: round trip, retransmits, certificate."""

from __future__ import annotations

import socket
import ssl
import threading
from typing import Any
from weakref import WeakKeyDictionary

from paceline_workers.transports.connection import Connector, Wire
from paceline_workers.transports.tcp_info import tcp_info


class Network:
    """Told of each connection opened; asked once a heartbeat. Thread-safe.

    Sockets are held weakly: a closed one is gone from here without anybody telling. With
    ``certificates`` false nothing is kept of the peers': where they are thousands, and other
    people's, one is always near its end.
    """

    def __init__(self, *, certificates: bool = True) -> None:
        self._keeps_certificates = certificates
        self._lock = threading.Lock()
        self._seen: WeakKeyDictionary[socket.socket, int] = WeakKeyDictionary()
        self._certificates: dict[str, float] = {}
        self._rtt_s: float | None = None
        #: Segments sent again. What a connection adds between the last look and its end is missed.
        self.retransmits = 0

    def opened(self, sock: socket.socket, peer: str) -> None:
        """A connection to ``peer`` is up."""
        expires_s = _certificate_expiry(sock) if self._keeps_certificates else None
        with self._lock:
            self._seen[sock] = 0
            if expires_s is not None:
                self._certificates[peer] = expires_s

    def look(self) -> None:
        """Reads every open connection's figures."""
        with self._lock:
            rtts = []
            for sock, before in list(self._seen.items()):
                info = tcp_info(sock)
                if info is None:
                    continue
                rtts.append(info.rtt_s)
                self.retransmits += info.retransmits - before
                self._seen[sock] = info.retransmits
            self._rtt_s = sum(rtts) / len(rtts) if rtts else None

    def facts(self) -> dict[str, Any]:
        """``tcp_rtt_s``: the mean over the connections open at the last look;
        ``certificate_expires_s``: unix seconds, the earliest of the peers'. Absent: not known."""
        with self._lock:
            found: dict[str, Any] = {}
            if self._rtt_s is not None:
                found["tcp_rtt_s"] = self._rtt_s
            if self._certificates:
                found["certificate_expires_s"] = min(self._certificates.values())
            return found


class WatchedConnector(Connector):
    """A Connector whose connections ``network`` is told of."""

    def __init__(self, network: Network, url: str, **options: Any) -> None:
        super().__init__(url, **options)
        self._network = network

    def open(self) -> Wire:
        """As Connector."""
        wire = super().open()
        self._network.opened(wire.sock, f"{self.host}:{self.port}")
        return wire


def _certificate_expiry(sock: socket.socket) -> float | None:
    if not isinstance(sock, ssl.SSLSocket):
        return None
    certificate = sock.getpeercert()
    ends = certificate.get("notAfter") if certificate else None
    return ssl.cert_time_to_seconds(ends) if isinstance(ends, str) else None
