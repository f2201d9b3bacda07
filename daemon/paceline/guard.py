"""Which addresses a destination with ``guard = "public"`` is connected to: public ones. Pure.

A URL that comes from a customer, or a name whose owner changes its addresses, must not lead into
the network that the workers stand in (SSRF). So the address is judged, not the name, and by who is
about to connect to it: there is no second look-up that could answer something else.

The networks are written out, and not asked of ``ipaddress``: its ``is_private`` and ``is_global``
have changed with Python's patch releases, know nothing of cloud providers' own services, and look
through some of the forms in which IPv6 carries an IPv4 address, not through others. Sources: IANA's
registries of special-purpose addresses (RFC 6890, RFC 8190) and what they cite, as given beside
each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

from paceline.settings import Destination

__all__ = ["Guard", "Network", "guard_of", "parse_networks", "refusal"]

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# The first that holds an address names it.
_IPV4: Sequence[tuple[IPv4Network, str]] = [
    (IPv4Network(network), word)
    for network, word in (
        ("169.254.169.254/32", "metadata service"),  # AWS, Azure, Google, and most others
        ("169.254.170.2/32", "metadata service"),  # AWS: credentials of ECS tasks
        ("100.100.100.200/32", "metadata service"),  # Alibaba
        ("192.0.0.192/32", "metadata service"),  # Oracle
        ("168.63.129.16/32", "metadata service"),  # Azure's WireServer, at a public address
        ("0.0.0.0/32", "unspecified"),  # connects to this host
        ("0.0.0.0/8", "this network"),  # RFC 791, 3.2; RFC 1122, 3.2.1.3
        ("10.0.0.0/8", "private"),  # RFC 1918
        ("100.64.0.0/10", "carrier-grade NAT"),  # RFC 6598
        ("127.0.0.0/8", "loopback"),  # RFC 1122, 3.2.1.3
        ("169.254.0.0/16", "link-local"),  # RFC 3927
        ("172.16.0.0/12", "private"),  # RFC 1918
        ("192.0.0.0/24", "IETF protocol assignments"),  # RFC 6890, 2.1
        ("192.0.2.0/24", "documentation"),  # RFC 5737
        ("192.88.99.0/24", "reserved"),  # RFC 7526: was 6to4's relay
        ("192.168.0.0/16", "private"),  # RFC 1918
        ("198.18.0.0/15", "benchmarking"),  # RFC 2544
        ("198.51.100.0/24", "documentation"),  # RFC 5737
        ("203.0.113.0/24", "documentation"),  # RFC 5737
        ("224.0.0.0/4", "multicast"),  # RFC 5771
        ("255.255.255.255/32", "broadcast"),  # RFC 919
        ("240.0.0.0/4", "reserved"),  # RFC 1112, 4
    )
]
_IPV6: Sequence[tuple[IPv6Network, str]] = [
    (IPv6Network(network), word)
    for network, word in (
        ("fd00:ec2::254/128", "metadata service"),  # AWS
        ("fd20:ce::254/128", "metadata service"),  # Google
        ("::/128", "unspecified"),  # RFC 4291, 2.5.2
        ("::1/128", "loopback"),  # RFC 4291, 2.5.3
        ("::/96", "IPv4-compatible"),  # RFC 4291, 2.5.5.1: deprecated, whatever is in it
        ("::ffff:0:0:0/96", "IPv4-translated"),  # RFC 2765, 2.1
        ("64:ff9b:1::/48", "local NAT64"),  # RFC 8215: where the IPv4 address is, is not known
        ("100::/64", "discard-only"),  # RFC 6666
        ("2001:db8::/32", "documentation"),  # RFC 3849
        ("3fff::/20", "documentation"),  # RFC 9637
        ("fc00::/7", "unique local"),  # RFC 4193
        ("fe80::/10", "link-local"),  # RFC 4291, 2.5.6
        ("fec0::/10", "site-local"),  # RFC 3879: deprecated, and in use
        ("ff00::/8", "multicast"),  # RFC 4291, 2.7
    )
]
_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052, 2.1
_TO_6TO4 = IPv6Network("2002::/16")  # RFC 3056, 2
_TEREDO = IPv6Network("2001::/32")  # RFC 4380, 4
_PROTOCOLS = IPv6Network("2001::/23")  # RFC 2928: benchmarking (RFC 5180), ORCHID (RFC 7343), …
_GLOBAL = IPv6Network("2000::/3")  # all that is handed out as global unicast (RFC 4291, 2.4)


@dataclass(frozen=True, slots=True)
class Guard:
    """``allow``: networks that are let through all the same."""

    allow: tuple[Network, ...] = ()

    def refusal(self, address: str) -> str | None:
        """Why nothing may be connected to ``address``, in a word or two; None where it may."""
        return refusal(address, self.allow)


def guard_of(destination: Destination) -> Guard | None:
    """The destination's guard; None where it has none."""
    if destination.guard == "off":
        return None
    return Guard(parse_networks(destination.guard_allow))


def parse_networks(texts: Sequence[str]) -> tuple[Network, ...]:
    """ "10.1.0.0/16", or an address for itself alone. Raises ValueError."""
    return tuple(_network(text) for text in texts)


def _network(text: str) -> Network:
    if "%" in text:
        raise ValueError(f"{text!r} has a scope id")
    return ip_network(text)


def refusal(address: str, allow: Sequence[Network] = ()) -> str | None:
    """As ``Guard.refusal``. ``address`` is as the resolver gave it: what is no plain numeric
    address is refused, for connecting to it would look it up once more."""
    try:
        ip = ip_address(address)
    except ValueError:
        return "no address"
    if isinstance(ip, IPv6Address) and ip.scope_id is not None:
        # It names a network of this very host.
        return "scope id"
    forms = [ip]
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:  # RFC 4291, 2.5.5.2
        # The same host by the same way: the system sends IPv4 packets.
        forms.append(ip.ipv4_mapped)
    if any(form in network for form in forms for network in allow):
        return None
    return _why(forms[-1])


def _why(ip: Address) -> str | None:
    if isinstance(ip, IPv4Address):
        return next((word for network, word in _IPV4 if ip in network), None)
    for carrier, carried in _carried(ip):
        word = _why(carried)
        if word is not None:
            return f"{carrier} to {word}"
    word = next((word for network, word in _IPV6 if ip in network), None)
    if word is not None:
        return word
    if ip in _PROTOCOLS and ip not in _TEREDO:
        return "IETF protocol assignments"
    return None if ip in _GLOBAL or ip in _NAT64 else "not global unicast"


def _carried(ip: IPv6Address) -> list[tuple[str, IPv4Address]]:
    """The IPv4 addresses at which a translator or a tunnel sends what is sent to ``ip``."""
    bits = int(ip)
    if ip in _NAT64:
        return [("NAT64", IPv4Address(bits & 0xFFFFFFFF))]
    if ip in _TO_6TO4:
        return [("6to4", IPv4Address(bits >> 80 & 0xFFFFFFFF))]
    if ip in _TEREDO:
        # The server's, and the client's own, which is written inverted.
        server, client = bits >> 64 & 0xFFFFFFFF, ~bits & 0xFFFFFFFF
        return [("Teredo", IPv4Address(server)), ("Teredo", IPv4Address(client))]
    return []
