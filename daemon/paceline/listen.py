"""Where a listener binds: ``host:port``, or off. Pure."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

#: How a right value looks, for error messages.
MEND = 'For example "127.0.0.1:9108", "[::1]:9108", or "off"'


@dataclass(frozen=True, slots=True)
class Listen:
    """``named``: somebody chose this address, so that not getting it is an error; port 0: any."""

    host: str
    port: int
    named: bool = True

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


DEFAULT_LISTEN = Listen("127.0.0.1", 9108, named=False)


def parse_listen(text: str) -> Listen | None:
    """The address; None for ``off``. Raises ValueError saying what is wrong."""
    if text == "off":
        return None
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+)):(\d{1,5})", text)
    if found is None:
        raise ValueError(f"{text!r} is no host:port")
    host, port = found[1] or found[2], int(found[3])
    if found[1]:
        try:
            ipaddress.IPv6Address(host)
        except ValueError as error:
            raise ValueError(f"{host!r} is no IPv6 address") from error
    if port > 65535:
        raise ValueError(f"{port} is no port: the highest is 65535")
    return Listen(host, port)
