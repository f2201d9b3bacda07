"""What the kernel knows of an open connection: round trip, segments sent again. Linux only."""

from __future__ import annotations

import socket
import struct
import sys
from dataclasses import dataclass

#: struct tcp_info of linux/tcp.h (the layout only ever grows at its end): eight single bytes, then
#: 32-bit numbers, of which tcpi_rtt (microseconds) stands at offset 68 and tcpi_total_retrans at
#: offset 100.
_INFO_BYTES = 104
_RTT_AND_RETRANS = struct.Struct("=68xI28xI")


@dataclass(frozen=True, slots=True)
class TcpInfo:
    """``rtt_s`` is smoothed by the kernel; ``retransmits`` counts since the connection opened."""

    rtt_s: float
    retransmits: int


def tcp_info(sock: socket.socket) -> TcpInfo | None:
    """None where the platform does not tell, and for a socket that is closed.

    Safe beside a thread that closes it: the descriptor is read and used under the interpreter's
    lock, so it is this socket's or none, never the number's next owner.
    """
    if sys.platform != "linux":
        return None
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
    except OSError:
        return None
    if len(info) < _INFO_BYTES:
        return None
    rtt_us, retransmits = _RTT_AND_RETRANS.unpack(info)
    return TcpInfo(rtt_us / 1e6, retransmits)
