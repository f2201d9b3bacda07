"""Connects to a destination's URL as a worker does, and sends nothing."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from paceline.doctor.endpoint_facts import AddressFacts, Certificate, EndpointFacts
from paceline.guard import Guard
from paceline.proxy import Proxy, ProxyRefused, open_tunnel

#: Of a name with very many addresses these are tried.
MOST_ADDRESSES = 8
WITHIN_S = 15.0


def probe_all(
    urls: Sequence[str],
    *,
    connect_timeout_s: float,
    ca_file: str | None,
    proxy: Proxy | None = None,
    guard: Guard | None = None,
    within_s: float = WITHIN_S,
) -> list[EndpointFacts]:
    """The facts of each URL, side by side, within ``within_s`` seconds: the system's resolver knows
    no time-out, so its threads are left behind where it does not answer."""
    found: dict[int, EndpointFacts] = {}
    threads = [
        threading.Thread(
            target=lambda at, url: found.__setitem__(
                at, probe(url, connect_timeout_s, ca_file, proxy, guard)
            ),
            args=(at, url),
            daemon=True,
        )
        for at, url in enumerate(urls)
    ]
    for thread in threads:
        thread.start()
    end_s = time.monotonic() + within_s
    for thread in threads:
        thread.join(max(0.0, end_s - time.monotonic()))
    return [
        found.get(at) or replace(_blank(url, proxy), unfinished=True) for at, url in enumerate(urls)
    ]


def _blank(url: str, proxy: Proxy | None) -> EndpointFacts:
    parts = urlsplit(url)
    tls = parts.scheme == "https"
    host = parts.hostname or ""
    return EndpointFacts(
        host=host,
        port=parts.port or (443 if tls else 80),
        tls=tls,
        loopback=host in ("localhost", "127.0.0.1", "::1"),
        proxy="" if proxy is None else proxy.shown,
        proxy_host="" if proxy is None else proxy.host,
    )


def probe(
    url: str,
    connect_timeout_s: float,
    ca_file: str | None,
    proxy: Proxy | None = None,
    guard: Guard | None = None,
) -> EndpointFacts:
    """Name, every address, handshake; through a proxy: its name and addresses, and the way through
    it. What ``guard`` refuses is not connected to. Never raises for the network."""
    facts = _blank(url, proxy)
    context: ssl.SSLContext | None = None
    if facts.tls:
        try:
            # As the worker's: the system's authorities, or those of ca_file alone.
            context = ssl.create_default_context(cafile=ca_file)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
        except OSError as error:  # SSLError is one: a file without a certificate
            facts = replace(facts, ca_trouble=f"{ca_file}: {error.strerror or error}")
    began_s = time.perf_counter()
    host, port = (proxy.host, proxy.port) if proxy is not None else (facts.host, facts.port)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        return replace(facts, trouble=getattr(error, "strerror", None) or str(error))
    resolve_s = time.perf_counter() - began_s
    where = list(dict.fromkeys((family, address) for family, _, _, _, address in found))
    return replace(
        facts,
        resolve_s=resolve_s,
        addresses=tuple(
            _try(int(family), address, facts, connect_timeout_s, context, proxy, guard)
            for family, address in where[:MOST_ADDRESSES]
        ),
    )


def _try(
    family: int,
    where: Any,
    endpoint: EndpointFacts,
    timeout_s: float,
    context: ssl.SSLContext | None,
    proxy: Proxy | None,
    guard: Guard | None,
) -> AddressFacts:
    facts = AddressFacts(address=str(where[0]))
    if guard is not None and (word := guard.refusal(facts.address)):
        return replace(facts, guarded=word)
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        return replace(facts, trouble=error.strerror or str(error))
    with sock:
        sock.settimeout(timeout_s)
        began_s = time.perf_counter()
        try:
            sock.connect(where)
        except TimeoutError:
            return replace(facts, trouble=f"no answer within {timeout_s:g} s")
        except OSError as error:
            return replace(facts, trouble=error.strerror or str(error))
        facts = replace(facts, connect_s=time.perf_counter() - began_s)
        if proxy is not None and endpoint.tls:
            try:
                open_tunnel(sock, proxy, endpoint.host, endpoint.port, within_s=timeout_s)
                sock.settimeout(timeout_s)
            except (ProxyRefused, OSError, UnicodeError) as error:
                return replace(facts, refused=str(error))
        return facts if context is None else _shake_hands(facts, sock, endpoint.host, context)


def _shake_hands(
    facts: AddressFacts, sock: socket.socket, host: str, context: ssl.SSLContext
) -> AddressFacts:
    began_s = time.perf_counter()
    try:
        with context.wrap_socket(sock, server_hostname=host) as tls:
            return replace(
                facts,
                tls_s=time.perf_counter() - began_s,
                tls_version=tls.version() or "",
                certificate=_certificate(tls.getpeercert() or {}),
            )
    except ssl.SSLCertVerificationError as error:
        return replace(facts, tls_trouble=error.verify_message, tls_code=error.verify_code)
    except TimeoutError:
        return replace(facts, tls_trouble="no handshake in time")
    except OSError as error:  # SSLError is one
        reason = getattr(error, "reason", None) or error.strerror or str(error)
        return replace(facts, tls_trouble=str(reason))


def _certificate(shown: Mapping[str, Any]) -> Certificate:
    return Certificate(
        subject=_name(shown.get("subject", ())),
        issuer=_name(shown.get("issuer", ())),
        expires_s=float(ssl.cert_time_to_seconds(shown["notAfter"])),
    )


def _name(parts: Sequence[Sequence[tuple[str, str]]]) -> str:
    """A distinguished name by its most telling part."""
    found = {key: value for part in parts for key, value in part}
    return next(
        (found[key] for key in ("commonName", "organizationName") if found.get(key)), "no name"
    )
