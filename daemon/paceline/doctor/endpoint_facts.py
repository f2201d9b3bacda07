"""What is known of one URL of a destination. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """What the peer showed, verified. ``expires_s`` is unix seconds."""

    subject: str
    issuer: str
    expires_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressFacts:
    """One address of the name.

    connect_s    how long TCP took, None where it failed
    trouble      why, in the system's words
    refused      why the proxy opened no way to the provider, in its words
    guarded      why the destination's guard lets nothing connect to it; it was not tried then
    tls_s        how long the handshake took, None where there was none or it failed
    tls_trouble  why, in the TLS library's words
    tls_code     OpenSSL's number of what is wrong with the certificate, 0 for none
    """

    address: str
    connect_s: float | None = None
    trouble: str = ""
    refused: str = ""
    guarded: str = ""
    tls_s: float | None = None
    tls_version: str = ""
    tls_trouble: str = ""
    tls_code: int = 0
    certificate: Certificate | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointFacts:
    """One URL. ``trouble`` where not even its name could be resolved; ``unfinished`` where the
    time was up before all was known.

    proxy  host:port of the proxy on the way there, "" for none; name, addresses and connects are
           the proxy's then, for the provider's are its to find
    """

    host: str
    port: int
    tls: bool
    loopback: bool
    proxy: str = ""
    proxy_host: str = ""
    resolve_s: float | None = None
    trouble: str = ""
    ca_trouble: str = ""
    unfinished: bool = False
    addresses: tuple[AddressFacts, ...] = ()
