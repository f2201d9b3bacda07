"""Where an open connection stands, as the kernel knows it: asked before every write. Linux only.

One call that does not let go of the interpreter, where poll() would hand it to another thread and
wait for it to come back: at a thousand requests a second that is what a look costs.
"""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

# struct tcp_info of linux/tcp.h: the state, tcpi_bytes_acked at 120, tcpi_bytes_received at 128.
_INFO_BYTES, _INFO = 136, struct.Struct("=B119xQQ")
ESTABLISHED, CLOSE_WAIT = 1, 8


class TcpState(NamedTuple):
    """``acked``: bytes of ours that the peer's system has acknowledged; ``received``: bytes of the
    peer's that came in order, read by us or not."""

    state: int
    acked: int
    received: int


def tcp_state(sock: socket.socket) -> TcpState | None:
    """None where the platform does not tell."""
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
        return TcpState._make(_INFO.unpack(info))
    except (OSError, AttributeError, struct.error):
        return None
