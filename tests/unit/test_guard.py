"""Which addresses the guard lets through, by hand-written examples of every class and its bounds;
what the configuration says of it, and what a refusal means for a message."""

from __future__ import annotations

from ipaddress import IPv4Address, ip_network

import pytest

from paceline.errors import ConfigError
from paceline.guard import Guard, guard_of, parse_networks, refusal
from paceline.settings import Destination
from paceline.settings_file import loads
from paceline.settings_guard import default_guard
from paceline_workers.outcome import GUARDED, Failure, Kind, dispose, judge_failure

# First and last of each network are refused by this name; what lies next to it, as given.
NETS = [
    # network, name, the address before, why (None: let through), the address after, why
    ("0.0.0.0/8", "this network", None, None, "1.0.0.0", None),
    ("10.0.0.0/8", "private", "9.255.255.255", None, "11.0.0.0", None),
    ("100.64.0.0/10", "carrier-grade NAT", "100.63.255.255", None, "100.128.0.0", None),
    ("127.0.0.0/8", "loopback", "126.255.255.255", None, "128.0.0.0", None),
    ("169.254.0.0/16", "link-local", "169.253.255.255", None, "169.255.0.0", None),
    ("172.16.0.0/12", "private", "172.15.255.255", None, "172.32.0.0", None),
    ("192.0.0.0/24", "IETF protocol assignments", "191.255.255.255", None, "192.0.1.0", None),
    ("192.0.2.0/24", "documentation", "192.0.1.255", None, "192.0.3.0", None),
    ("192.88.99.0/24", "reserved", "192.88.98.255", None, "192.88.100.0", None),
    ("192.168.0.0/16", "private", "192.167.255.255", None, "192.169.0.0", None),
    ("198.18.0.0/15", "benchmarking", "198.17.255.255", None, "198.20.0.0", None),
    ("198.51.100.0/24", "documentation", "198.51.99.255", None, "198.51.101.0", None),
    ("203.0.113.0/24", "documentation", "203.0.112.255", None, "203.0.114.0", None),
    ("224.0.0.0/4", "multicast", "223.255.255.255", None, "240.0.0.0", "reserved"),
    ("240.0.0.0/4", "reserved", "239.255.255.255", "multicast", None, None),
    ("::/96", "IPv4-compatible", None, None, "::1:0:0", "not global unicast"),
    ("::ffff:0:0:0/96", "IPv4-translated", "::fffe:ffff:ffff:ffff", "not global unicast",
     "::ffff:1:0:0", "not global unicast"),
    ("64:ff9b:1::/48", "local NAT64", "64:ff9b:0:ffff:ffff:ffff:ffff:ffff", "not global unicast",
     "64:ff9b:2::", "not global unicast"),
    ("100::/64", "discard-only", "ff:ffff::", "not global unicast", "100:0:0:1::",
     "not global unicast"),
    ("2001:db8::/32", "documentation", "2001:db7:ffff::", None, "2001:db9::", None),
    ("3fff::/20", "documentation", "3ffe:ffff::", None, "3fff:1000::", None),
    ("fc00::/7", "unique local", "fbff:ffff::", "not global unicast", "fe00::",
     "not global unicast"),
    ("fe80::/10", "link-local", "fe7f:ffff::", "not global unicast", "fec0::", "site-local"),
    ("fec0::/10", "site-local", "febf:ffff::", "link-local", "ff00::", "multicast"),
    ("ff00::/8", "multicast", "feff:ffff::", "site-local", None, None),
]  # fmt: skip

ONES = [
    ("169.254.169.254", "metadata service"),
    ("169.254.169.253", "link-local"),
    ("169.254.170.2", "metadata service"),
    ("100.100.100.200", "metadata service"),
    ("192.0.0.192", "metadata service"),
    ("168.63.129.16", "metadata service"),
    ("168.63.129.15", None),
    ("168.63.129.17", None),
    ("fd00:ec2::254", "metadata service"),
    ("fd20:ce::254", "metadata service"),
    ("fd00:ec2::23", "unique local"),
    ("0.0.0.0", "unspecified"),
    ("::", "unspecified"),
    ("::1", "loopback"),
    ("::2", "IPv4-compatible"),
    ("127.0.0.1", "loopback"),
    ("127.0.0.2", "loopback"),
    ("255.255.255.255", "broadcast"),
    # IPv4 addresses in IPv6's forms.
    ("::ffff:127.0.0.1", "loopback"),
    ("::ffff:7f00:1", "loopback"),
    ("::ffff:0.0.0.0", "unspecified"),
    ("::ffff:10.0.0.1", "private"),
    ("::ffff:169.254.169.254", "metadata service"),
    ("::ffff:8.8.8.8", None),
    ("::127.0.0.1", "IPv4-compatible"),
    ("::8.8.8.8", "IPv4-compatible"),
    ("::ffff:0:127.0.0.1", "IPv4-translated"),
    ("64:ff9b::127.0.0.1", "NAT64 to loopback"),
    ("64:ff9b::10.0.0.1", "NAT64 to private"),
    ("64:ff9b::169.254.169.254", "NAT64 to metadata service"),
    ("64:ff9b::", "NAT64 to unspecified"),
    ("64:ff9b::8.8.8.8", None),
    ("64:ff9b::ffff:ffff", "NAT64 to broadcast"),
    ("64:ff9b::1:0:0", "not global unicast"),
    ("64:ff9b:1::8.8.8.8", "local NAT64"),
    ("2002:7f00:1::", "6to4 to loopback"),
    ("2002:7f00:1:ffff:ffff:ffff:ffff:ffff", "6to4 to loopback"),
    ("2002:a00:1::1", "6to4 to private"),
    ("2002:c0a8:101::1", "6to4 to private"),
    ("2002:808:808::1", None),
    ("2001:ffff::", None),
    ("2003::", None),
    # Server 65.54.227.120, client 192.0.2.45 and 8.8.8.8, written inverted (RFC 4380, 4).
    ("2001:0:4136:e378:8000:63bf:3fff:fdd2", "Teredo to documentation"),
    ("2001:0:4136:e378:8000:63bf:f7f7:f7f7", None),
    ("2001:0:a00:1:8000:63bf:f7f7:f7f7", "Teredo to private"),
    ("2001:0:4136:e378:8000:63bf:80ff:fffe", "Teredo to loopback"),
    ("2001:1::1", "IETF protocol assignments"),
    ("2001:2::1", "IETF protocol assignments"),
    ("2001:10::1", "IETF protocol assignments"),
    ("2001:1ff:ffff::", "IETF protocol assignments"),
    ("2001:200::", None),
    # All else that is not handed out.
    ("1fff:ffff::", "not global unicast"),
    ("2000::", None),
    ("3fff:ffff::", None),
    ("4000::", "not global unicast"),
    ("5f00::1", "not global unicast"),
    # Scope ids, and what is no plain address: connecting to it would look it up once more.
    ("fe80::1%eth0", "scope id"),
    ("2606:4700::1111%1", "scope id"),
    ("::ffff:8.8.8.8%1", "scope id"),
    ("2130706433", "no address"),
    ("0x7f.1", "no address"),
    ("0177.0.0.1", "no address"),
    ("127.1", "no address"),
    ("127.0.0.1 ", "no address"),
    ("8.8.8.8\n", "no address"),
    ("localhost", "no address"),
    ("", "no address"),
    # Public ones.
    ("8.8.8.8", None),
    ("1.1.1.1", None),
    ("93.184.215.14", None),
    ("2606:4700:4700::1111", None),
    ("2a00:1450:4001:82f::200e", None),
]


@pytest.mark.parametrize(("network", "name", "before", "why", "after", "why_after"), NETS)
def test_the_bounds_of_each_network(
    network: str, name: str, before: str | None, why: str | None, after: str | None,
    why_after: str | None,
) -> None:  # fmt: skip
    net = ip_network(network)
    inside = {net[0], net[1], net[net.num_addresses // 2], net[-2], net[-1]}
    words = {refusal(str(address)) for address in inside}
    assert name in words
    # The only ones with a name of their own.
    assert words <= {name, "unspecified", "loopback", "broadcast"}
    if before is not None:
        assert refusal(before) == why
    if after is not None:
        assert refusal(after) == why_after


@pytest.mark.parametrize(("address", "why"), ONES)
def test_addresses_one_by_one(address: str, why: str | None) -> None:
    assert refusal(address) == why


@pytest.mark.parametrize("form", ["mapped", "NAT64", "6to4", "Teredo"])
@pytest.mark.parametrize("address", [str(ip_network(row[0])[-1]) for row in NETS if "." in row[0]])
def test_every_refused_ipv4_address_is_refused_in_every_form(form: str, address: str) -> None:
    bits = int(IPv4Address(address))
    written = {
        "mapped": f"::ffff:{address}",
        "NAT64": f"64:ff9b::{address}",
        "6to4": f"2002:{bits >> 16:x}:{bits & 0xFFFF:x}::1",
        "Teredo": f"2001:0:808:808::{bits >> 16 ^ 0xFFFF:x}:{bits & 0xFFFF ^ 0xFFFF:x}",
    }[form]
    word = refusal(address)
    assert word is not None
    assert refusal(written) == (word if form == "mapped" else f"{form} to {word}")


def test_what_is_allowed_is_let_through_and_its_neighbours_are_not() -> None:
    guard = Guard(parse_networks(["10.1.0.0/16", "127.0.0.1", "::1", "fd12::/16"]))
    for address in ("10.1.0.0", "10.1.255.255", "127.0.0.1", "::1", "fd12::7", "8.8.8.8"):
        assert guard.refusal(address) is None, address
    for address in ("10.0.255.255", "10.2.0.0", "127.0.0.2", "fd13::1", "169.254.169.254", "::"):
        assert guard.refusal(address) is not None, address


def test_an_allowed_ipv4_address_is_allowed_as_mapped_but_not_behind_a_translator() -> None:
    """Mapped is the same host by the same way; whose 10.1.0.7 a translator reaches, who knows?"""
    guard = Guard(parse_networks(["10.1.0.0/16"]))
    assert guard.refusal("::ffff:10.1.0.7") is None
    assert guard.refusal("64:ff9b::10.1.0.7") == "NAT64 to private"
    assert guard.refusal("2002:a01:7::1") == "6to4 to private"
    named = Guard(parse_networks(["64:ff9b::10.1.0.0/112", "::ffff:127.0.0.1"]))
    assert named.refusal("64:ff9b::10.1.0.7") is None
    assert named.refusal("::ffff:127.0.0.1") is None
    assert named.refusal("127.0.0.1") == "loopback"


def test_no_allowance_is_for_a_scope_id() -> None:
    assert Guard(parse_networks(["fe80::/10"])).refusal("fe80::1%eth0") == "scope id"
    with pytest.raises(ValueError, match="scope id"):
        parse_networks(["fe80::1%eth0"])


# -- configuration ------------------------------------------------------------------------------


def _loaded(more: str = "", url: str = "https://api.example/") -> Destination:
    text = f'[destinations.d]\nprovider = "http"\nurl = "{url}"\n{more}'
    return loads(text).destinations["d"]


def _problems(more: str, url: str = "https://api.example/") -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        _loaded(more, url)
    return {
        it.key.removeprefix("destinations.d."): f"{it.problem}. {it.mend}"
        for it in caught.value.problems
    }


PUBLIC = 'guard = "public"\n'


def test_the_guard_is_off_but_for_webhooks() -> None:
    assert guard_of(_loaded()) is None
    assert [default_guard(name) for name in ("maxmd", "sparkpost", "mailgun", "http")] == [
        "off"
    ] * 4
    assert default_guard("webhook") == "public"


def test_the_guard_as_configured() -> None:
    it = _loaded(PUBLIC + 'guard_allow = ["10.1.0.0/16", "::1"]')
    guard = guard_of(it)
    assert guard is not None
    assert guard.refusal("10.1.2.3") is None
    assert guard.refusal("10.2.2.3") == "private"
    public = it.public()
    assert (public["guard"], public["guard_allow"]) == ("public", ["10.1.0.0/16", "::1"])


@pytest.mark.parametrize(
    "entry", ["10.1.2.3/16", "10.0.0.0/33", "localhost", "0x7f.1", "fe80::1%1"]
)
def test_what_is_no_network_is_named(entry: str) -> None:
    found = _problems(PUBLIC + f'guard_allow = ["127.0.0.1", "{entry}"]')
    assert list(found) == ["guard_allow[1]"]
    assert found["guard_allow[1]"].startswith("is no network")


def test_an_allowance_without_the_guard_means_nothing() -> None:
    assert "means nothing" in _problems('guard_allow = ["127.0.0.1"]')["guard_allow"]


def test_the_guard_and_a_proxy_exclude_each_other_and_it_is_said_why() -> None:
    found = _problems(PUBLIC + 'proxy = "http://proxy.example:3128"')
    assert list(found) == ["guard"]
    assert "the proxy looks the name up and connects" in found["guard"]
    assert _loaded('guard = "off"\nproxy = "http://proxy.example:3128"').proxy


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        ("127.0.0.1", "127.0.0.1 (loopback)"),
        ("2130706433", "127.0.0.1 (loopback)"),
        ("0x7f.1", "127.0.0.1 (loopback)"),
        ("0177.0.0.1", "127.0.0.1 (loopback)"),
        ("127.1", "127.0.0.1 (loopback)"),
        ("0xa9fea9fe", "169.254.169.254 (metadata service)"),
        ("[::1]", "::1 (loopback)"),
        ("[::ffff:10.0.0.1]", "::ffff:10.0.0.1 (private)"),
        ("[fe80::1%25eth0]", "fe80::1%25eth0 (scope id)"),
    ],
)
def test_a_url_that_names_a_refused_address_is_no_configuration(host: str, shown: str) -> None:
    found = _problems(PUBLIC, f"https://{host}/")
    assert list(found) == ["url"]
    assert shown in found["url"]
    assert guard_of(_loaded(url=f"https://{host}/")) is None


def test_a_url_with_an_address_that_is_let_through() -> None:
    assert _loaded(PUBLIC, "https://8.8.8.8/").guard == "public"
    assert _loaded(PUBLIC, "https://[2606:4700:4700::1111]/").guard == "public"
    assert _loaded(PUBLIC + 'guard_allow = ["127.0.0.1"]', "https://0x7f.1/").guard == "public"


# -- what a refusal means -----------------------------------------------------------------------


def test_a_refusal_is_a_dead_letter_and_no_sign_of_the_providers_health() -> None:
    detail = "not a public address: 127.0.0.1 (loopback)"
    outcome = judge_failure(Failure("connect", GUARDED, True, detail))
    assert (outcome.kind, outcome.outage, outcome.health) == (Kind.REJECTED, False, "")
    it = _loaded()
    for suspect in (False, True):
        decision = dispose(outcome, 0, it.retry, 0.5, suspect=suspect)
        assert (decision.action, decision.reason) == ("dead", f"guarded: {detail}")
