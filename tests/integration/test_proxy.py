"""The way to a provider through a proxy: what the proxy sees, and what its refusals mean."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from paceline.errors import ConfigError
from paceline.proxy import Proxy, proxy_of
from paceline.settings_file import loads
from paceline_workers.outcome import Kind, judge_failure
from paceline_workers.transports.pool import Retirement
from support.peers import OK, Peer, answers, make_certificate, server_context
from support.proxy import ForwardProxy
from support.rig import Rig

BASIC = "Basic dXNlcjpwYXNzd29yZA=="  # user:password


@pytest.fixture
def made() -> Iterator[list[Rig]]:
    rigs: list[Rig] = []
    yield rigs
    for one in rigs:
        one.close()


def _through(made: list[Rig], proxy: ForwardProxy, url: str, login: str = "", **more: Any) -> Rig:
    made.append(Rig(url, proxy=Proxy(proxy.host, proxy.port, login), **more))
    return made[-1]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("ca"), "api.example")


@pytest.mark.needs("openssl")
def test_https_goes_through_a_tunnel_that_hides_all_but_the_name(
    made: list[Rig], certificate: Path
) -> None:
    with (
        Peer(answers(OK), tls=server_context(certificate)) as provider,
        ForwardProxy(login="user:password", leads=("127.0.0.1", provider.port)) as proxy,
    ):
        # Only the proxy can resolve this name.
        one = _through(made, proxy, "https://api.example/send", BASIC, ca_file=str(certificate))
        for _ in range(3):
            assert one.post(b'{"a":1}').status_code == 200
        assert proxy.asked == [
            b"CONNECT api.example:443 HTTP/1.1\r\nHost: api.example:443\r\n"
            b"Proxy-Authorization: " + BASIC.encode()
        ], "one tunnel carries all requests, and shows the proxy nothing else"
        assert len(provider.requests) == 3
        first = provider.requests[0]
        assert first.startswith(b"POST /send HTTP/1.1\r\nHost: api.example\r\n")
        assert b"roxy" not in first, "what is for the proxy has gone to the provider"
        assert one.gates == 3


@pytest.mark.needs("openssl")
def test_the_certificate_is_the_providers_also_in_a_tunnel(
    made: list[Rig], certificate: Path
) -> None:
    with (
        Peer(answers(OK), tls=server_context(certificate)) as provider,
        ForwardProxy(leads=("127.0.0.1", provider.port)) as proxy,
    ):
        one = _through(made, proxy, "https://other.example/", ca_file=str(certificate))
        assert one.failure().cause == "tls"
        assert provider.requests == []


def test_plain_http_is_given_to_the_proxy_with_its_whole_url(made: list[Rig]) -> None:
    with Peer(answers(OK)) as provider, ForwardProxy(login="user:password") as proxy:
        url = f"http://127.0.0.1:{provider.port}/send?k=v"
        one = _through(made, proxy, url, BASIC)
        for _ in range(3):
            assert one.post(b'{"a":1}').status_code == 200
        first = proxy.asked[0].split(b"\r\n")
        assert first[0] == b"POST %s HTTP/1.1" % url.encode()
        assert f"Host: 127.0.0.1:{provider.port}".encode() in first
        assert f"Proxy-Authorization: {BASIC}".encode() in first
        assert proxy.peer.accepted == 1, "the connection to the proxy is kept"
        assert all(it.endswith(b'{"a":1}') for it in provider.requests)


@pytest.mark.parametrize("url", ["https://api.example/", "http://api.example/"])
def test_a_proxy_that_wants_credentials_holds_the_destination(made: list[Rig], url: str) -> None:
    """As the provider's own 401: it will say so to every message, and messages must not pay."""
    with ForwardProxy(login="user:password") as proxy:
        one = _through(made, proxy, url)
        if url.startswith("http:"):
            # The answer came to a request, and is judged by its status (outcome.py: held).
            assert one.post().status_code == 407
            return
        failure = one.failure()
    assert (failure.phase, failure.cause, failure.unreceived) == ("connect", "proxy-auth", True)
    outcome = judge_failure(failure)
    assert outcome.kind is Kind.HELD
    assert outcome.reason.startswith("proxy-auth: proxy 127.0.0.1:")
    assert outcome.reason.endswith("answered 407 Proxy Authentication Required")
    assert one.gates == 0


@pytest.mark.parametrize(
    ("said", "detail"),
    [
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno", "answered 403 Forbidden"),
        (b"HTTP/1.0 502 Bad Gateway\r\n\r\n", "answered 502 Bad Gateway"),
        (b"HTTP/1.1 302\r\nLocation: /\r\n\r\n", "answered 302"),
        (b"220 smtp.example ESMTP\r\n\r\n", "does not answer in HTTP"),
        (b"HTTP/1.1 200 OK\r\n\r\n220 what", "more than its answer"),
        (b"HTTP/1.1 200 OK\r\n", "without an answer"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000, "no end within 65536 bytes"),
    ],
)
def test_a_proxy_that_refuses_is_a_failure_to_connect(
    made: list[Rig], said: bytes, detail: str
) -> None:
    with ForwardProxy(refuses=said) as proxy:
        one = _through(made, proxy, "https://api.example/")
        failure = one.failure()
    assert (failure.phase, failure.cause, failure.unreceived) == ("connect", "proxy", True)
    assert detail in failure.detail
    outcome = judge_failure(failure)
    assert (outcome.kind, outcome.outage) == (Kind.RETRY, True)
    assert one.gates == 0, "a permit was drawn for a tunnel that never was"


def test_a_proxy_that_says_nothing_is_given_up(made: list[Rig]) -> None:
    with ForwardProxy(silent=True) as proxy:
        failure = _through(made, proxy, "https://api.example/", connect_s=0.2).failure()
    assert (failure.phase, failure.cause) == ("connect", "proxy-timeout")


def test_a_proxy_that_is_not_there(made: list[Rig]) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        gone = ForwardProxy()
        gone.port = sock.getsockname()[1]
    one = _through(made, gone, "https://api.example/")
    assert one.failure().cause == "refused"


def test_all_addresses_of_a_proxys_name_are_used(made: list[Rig]) -> None:
    asked = []

    def resolver(host: str, port: int) -> list[tuple[int, str]]:
        asked.append((host, port))
        return [(int(socket.AF_INET), f"127.0.0.{n}") for n in (1, 2)]

    with Peer(answers(OK)) as provider, ForwardProxy(host="127.0.0.2") as proxy:
        made.append(
            Rig(
                f"http://127.0.0.1:{provider.port}/",
                proxy=Proxy("proxies.example", proxy.port),
                resolver=resolver,
                retirement=Retirement(900, 1, 20),
            )
        )
        assert [made[-1].post().status_code for _ in range(4)] == [200] * 4
        assert asked == [("proxies.example", proxy.port)] * 4


# -- from the configuration ---------------------------------------------------------------------

CONFIGURED = """
[destinations.web]
provider = "http"
url = "https://api.example/"
proxy = "http://proxy.example:3128"
"""


def test_a_proxy_from_the_configuration() -> None:
    it = loads(CONFIGURED).destinations["web"]
    assert proxy_of(it, {}) == Proxy("proxy.example", 3128)
    login = 'proxy_username = "user"\nproxy_password = { env = "PW" }\n'
    it = loads(CONFIGURED + login).destinations["web"]
    found = proxy_of(it, {"PW": "password"})
    assert found == Proxy("proxy.example", 3128, BASIC)
    assert BASIC not in repr(found)
    assert found is not None
    assert found.shown == "proxy.example:3128"


def test_a_proxy_whose_secrets_cannot_be_used() -> None:
    login = 'proxy_username = "us:er"\nproxy_password = { env = "PW" }\n'
    with pytest.raises(ConfigError) as caught:
        proxy_of(loads(CONFIGURED + login).destinations["web"], {})
    assert [p.key for p in caught.value.problems] == [
        "destinations.web.proxy_password",
        "destinations.web.proxy_username",
    ]
