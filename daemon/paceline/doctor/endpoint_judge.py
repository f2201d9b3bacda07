"""Can a destination's URLs be reached, and trusted? Pure."""

from __future__ import annotations

from collections.abc import Iterator

from paceline.doctor.endpoint_facts import AddressFacts, EndpointFacts
from paceline.doctor.finding import Finding, Level, destination_group

EXPIRES_SOON_S = 21 * 86400.0

#: OpenSSL's numbers (X509_V_ERR_…) -> the mend.
_MENDS = {
    9: "Its time has not come: look at this machine's clock",
    10: "The provider must renew it; look at this machine's clock too",
    18: "If the provider is yours, give its certificate as ca_file",
    19: "If the provider uses a CA of its own, give that CA's certificate as ca_file",
    20: "Install this system's CA certificates, or give the provider's CA as ca_file",
    62: "The URL must carry the name for which the certificate was made",
    64: "The URL must carry the address for which the certificate was made",
}


def judge(
    destination: str, facts: EndpointFacts, *, now_s: float, has_ca_file: bool = False
) -> list[Finding]:
    """All there is to say of one URL."""
    return list(_judge(destination, facts, now_s, has_ca_file))


def _judge(
    destination: str, facts: EndpointFacts, now_s: float, has_ca_file: bool
) -> Iterator[Finding]:
    group, at = destination_group(destination), f"{facts.host}:{facts.port}"

    def said(check: str, level: Level, text: str, mend: str = "") -> Finding:
        return Finding(group, check, level, text, mend)

    if not facts.tls and not facts.loopback:
        yield said(
            "plain http",
            "warn",
            f"{at}: credentials and messages travel readable",
            "Use https:// as soon as the provider has it",
        )
    if facts.ca_trouble:
        yield said(
            "ca_file", "fail", f"cannot be used: {facts.ca_trouble}", "Name a readable PEM file"
        )
    if facts.unfinished:
        yield said(
            "name",
            "fail",
            f"{at}: not all of its addresses, or its name, answered in time",
            "Look at this machine's DNS, and at the firewall",
        )
        return
    host = facts.proxy_host or facts.host
    if facts.trouble:
        yield said(
            "name",
            "fail",
            f"{host} cannot be resolved: {facts.trouble}",
            f"Look at the {'proxy' if facts.proxy else 'URL'}, and at this machine's DNS",
        )
        return
    addresses = [address.address for address in facts.addresses]
    if addresses != [host]:
        shown = ", ".join(addresses)
        yield said("name", "ok", f"{host} is {shown} ({_ms(facts.resolve_s)})")
    yield from _reach(group, facts)
    for address in facts.addresses:
        if address.refused:
            yield said(
                "proxy",
                "fail",
                f"{at}: no way through the proxy at {_where(address, facts)}: {address.refused}",
                "Look at proxy_username and proxy_password, and at what the proxy lets through",
            )
        elif facts.tls and address.connect_s is not None and not facts.ca_trouble:
            yield _tls(group, address, facts, now_s, has_ca_file)


def _reach(group: str, facts: EndpointFacts) -> Iterator[Finding]:
    reached = [a for a in facts.addresses if a.connect_s is not None]
    peer = "proxy" if facts.proxy else "provider"
    way = f" (the proxy to {facts.host}:{facts.port})" if facts.proxy else ""
    for address in facts.addresses:
        where = _where(address, facts)
        if address.connect_s is not None:
            text = f"{where}{way} connects in {_ms(address.connect_s)}"
            yield Finding(group, "connect", "ok", text)
        elif address.guarded:
            yield _guarded(group, facts, address, reached=bool(reached))
        elif reached:
            yield Finding(
                group,
                "connect",
                "warn",
                f"{where}{way}: {address.trouble}",
                "Other addresses answer: connections begun with this one take longer",
            )
        else:
            yield Finding(
                group,
                "connect",
                "fail",
                f"{where}{way}: {address.trouble}",
                f"Look at the port, the firewall, and whether the {peer} is up",
            )


def _guarded(group: str, facts: EndpointFacts, address: AddressFacts, *, reached: bool) -> Finding:
    mend = f'If that is meant: guard_allow = ["{address.address}"]; else ask who owns the name'
    if all(it.guarded for it in facts.addresses):
        mend += ". Each message becomes a dead letter"
    return Finding(
        group,
        "guard",
        "warn" if reached else "fail",
        f'{_where(address, facts)} is {address.guarded}: guard = "public" connects to no such '
        "address",
        mend,
    )


def _tls(
    group: str, address: AddressFacts, facts: EndpointFacts, now_s: float, has_ca_file: bool
) -> Finding:
    where = f"{facts.host}:{facts.port}" if facts.proxy else _where(address, facts)
    certificate = address.certificate
    if certificate is None:
        what = "certificate" if address.tls_code else "tls"
        mend = _MENDS.get(address.tls_code, "")
        if has_ca_file and address.tls_code in (18, 19, 20):
            mend = "ca_file does not hold the CA that signed it"
        if not address.tls_code:
            mend = "Is this an https port? TLS 1.2 is the least"
        return Finding(group, what, "fail", f"{where}: {address.tls_trouble}", mend)
    left_days = (certificate.expires_s - now_s) / 86400
    text = (
        f"{where}: {certificate.subject}, by {certificate.issuer}, valid for "
        f"{max(0, int(left_days))} days more ({address.tls_version}, {_ms(address.tls_s)})"
    )
    if left_days <= 0:
        return Finding(group, "certificate", "fail", f"{text}: it has expired", _MENDS[10])
    if left_days * 86400 < EXPIRES_SOON_S:
        mend = "Ask the provider when it is renewed: when it has expired nothing is sent"
        return Finding(group, "certificate", "warn", text, mend)
    return Finding(group, "certificate", "ok", text)


def _where(address: AddressFacts, facts: EndpointFacts) -> str:
    shown = f"[{address.address}]" if ":" in address.address else address.address
    port = facts.proxy.rpartition(":")[2] if facts.proxy else facts.port
    return f"{shown}:{port}"


def _ms(seconds: float | None) -> str:
    return "?" if seconds is None else f"{seconds * 1e3:.3g} ms"
