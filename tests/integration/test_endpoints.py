"""Many endpoints behind one destination, the whole way: real Redis, real workers, receivers that
verify, hang and refuse."""

from __future__ import annotations

import base64
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from standardwebhooks import Webhook as Receiver

from paceline.endpoint_keys import EndpointKeys
from paceline.endpoint_registry import EndpointRegistry
from paceline.endpoints import Endpoint
from paceline.events import Event
from paceline.settings import Destination
from paceline.settings_file import loads
from support.line import NAME, QUICK, Line
from support.peers import OK, Peer, Talk
from support.wait import until

MASTER = b"k" * 32


def hooks(folder: Path, more: str = "", connections: int = 20) -> Destination:
    (folder / "secret").write_text("whsec_" + base64.b64encode(MASTER).decode())
    return loads(
        f'[destinations.{NAME}]\nprovider = "webhook"\nrate = 500\nburst = 300\n'
        f'connections = {connections}\nsecrets = [{{ file = "{folder / "secret"}" }}]\n'
        f'guard_allow = ["127.0.0.1"]\nread_timeout_s = 2\n{more}\n'
        f'[destinations.{NAME}.endpoints]\n[destinations.{NAME}.events]\nkinds = "all"\n{QUICK}'
    ).destinations[NAME]


class Receivers:
    """Endpoints by the paths of one listener. What comes to /hang is never answered, what comes to
    /gone is told 410; at most how many were under way at once is noted for each path."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.under_way: dict[str, int] = {}
        self.most: dict[str, int] = {}
        self.fail: set[str] = set()
        self.release = threading.Event()

    def talk(self, _peer: Peer, talk: Talk) -> None:
        while request := talk.read_request():
            head, _, body = request.partition(b"\r\n\r\n")
            first, *fields = head.decode().split("\r\n")
            path = first.split(" ")[1]
            headers = dict(field.split(": ", 1) for field in fields)
            with self.lock:
                self.requests.append((path, {k.lower(): v for k, v in headers.items()}, body))
                self.under_way[path] = self.under_way.get(path, 0) + 1
                self.most[path] = max(self.most.get(path, 0), self.under_way[path])
            if path == "/hang":
                self.release.wait(20)
                return
            with self.lock:
                self.under_way[path] -= 1
                bad = path in self.fail
            if path == "/gone":
                talk.send(b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n")
            else:
                talk.send(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n" if bad else OK)

    def count(self, path: str) -> int:
        with self.lock:
            return sum(it[0] == path for it in self.requests)


@pytest.fixture
def receivers() -> Iterator[tuple[Receivers, Peer]]:
    them = Receivers()
    with Peer(them.talk) as peer:
        yield them, peer
        them.release.set()


def register(line: Line, peer: Peer, **paths: str) -> EndpointRegistry:
    registry = EndpointRegistry(line.store)
    registry.put(
        {n: Endpoint(url=f"http://127.0.0.1:{peer.port}{p}") for n, p in paths.items()}, "test"
    )
    return registry


def test_each_goes_to_its_own_endpoint_signed_for_it(
    redis_url: str, tmp_path: Path, receivers: tuple[Receivers, Peer]
) -> None:
    them, peer = receivers
    with Line(redis_url, hooks(tmp_path)) as line:
        register(line, peer, acme="/acme?v=1", zeta="/zeta")
        line.send({"to": "acme"}, id="a", endpoint="acme")
        line.send({"to": "zeta"}, id="z", endpoint="zeta", key="order-7")
        line.wait_done()
    assert {path for path, _, _ in them.requests} == {"/acme?v=1", "/zeta"}
    keys = EndpointKeys([MASTER], None, "")
    for path, headers, body in them.requests:
        name = path[1:5]
        assert Receiver(keys.texts(name)[0]).verify(body, headers) == {"to": name}


def test_what_hangs_and_what_is_down_does_not_keep_the_others_waiting(
    redis_url: str, tmp_path: Path, receivers: tuple[Receivers, Peer]
) -> None:
    them, peer = receivers
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nobody = closed.getsockname()[1]
    with Line(redis_url, hooks(tmp_path, connections=8)) as line:
        registry = register(line, peer, well="/well", **{f"hang{n}": "/hang" for n in range(30)})
        registry.put({"down": Endpoint(url=f"http://127.0.0.1:{nobody}/")})
        line.send({}, id="first", endpoint="well")
        line.wait("sent", "first")
        # More that hangs than there are connections, and before all the rest.
        for n in range(90):
            line.send({}, id=f"h-{n}", endpoint=f"hang{n % 30}")
        line.send({}, id="d", endpoint="down")
        until(lambda: them.count("/hang") >= 2, 5, "some hang")
        for n in range(20):
            line.send({}, id=f"w-{n}", endpoint="well")
        until(lambda: them.count("/well") == 21, 1.5, "the well one has all of its own")
        # A quarter at least is never theirs.
        assert them.most["/hang"] <= 6
        assert line.status("d").state in ("scheduled", "ready", "leased", "begun")
        line.outbox.cancel(NAME, "d")
        line.store.purge(1000)


def test_at_most_four_at_a_time_and_one_after_the_other_by_key(
    redis_url: str, tmp_path: Path, receivers: tuple[Receivers, Peer]
) -> None:
    them, peer = receivers
    with Line(redis_url, hooks(tmp_path), workers=2) as line:
        register(line, peer, acme="/acme", zeta="/zeta")
        for n in range(16):
            line.send({"n": n}, id=f"a-{n}", endpoint="acme")
            line.send({"n": n}, id=f"z-{n}", endpoint="zeta", key="k")
        line.wait_done()
        assert them.most["/acme"] <= 4
        assert them.most["/zeta"] == 1
        order = [body for path, _, body in them.requests if path == "/zeta"]
        assert order == [b'{"n":%d}' % n for n in range(16)]


def test_gone_is_disabled_with_an_event_and_the_destination_goes_on(
    redis_url: str, tmp_path: Path, receivers: tuple[Receivers, Peer]
) -> None:
    them, peer = receivers
    with Line(redis_url, hooks(tmp_path)) as line:
        registry = register(line, peer, gone="/gone", well="/well")
        line.send({}, id="g", endpoint="gone")
        line.wait("dead", "g")
        line.send({}, id="w", endpoint="well")
        line.wait("sent", "w")
        [seen] = registry.look(["gone"])
        assert seen is not None
        assert (seen.state, seen.why) == ("disabled", "endpoint is gone")
        told: list[Event] = list(line.outbox.events(NAME, start="first", block_s=0.1))
        assert ("endpoint_disabled", "gone") in [(it.kind, it.id) for it in told]
        line.store.drop(["g"])
    assert them.count("/gone") == 1


def test_an_address_that_changes_holds_for_what_waits(
    redis_url: str, tmp_path: Path, receivers: tuple[Receivers, Peer]
) -> None:
    them, peer = receivers
    them.fail.add("/old")
    with Line(redis_url, hooks(tmp_path)) as line:
        registry = register(line, peer, acme="/old")
        line.send({}, id="a", endpoint="acme")
        until(lambda: registry.look(["acme"])[0].state == "waiting", 5, "it is left alone")
        register(line, peer, acme="/new")
        line.wait("sent", "a", timeout_s=4)
    assert them.count("/new") == 1


def test_no_private_address_is_connected_to_however_it_is_registered(
    redis_url: str, tmp_path: Path, receivers: tuple[Receivers, Peer]
) -> None:
    them, peer = receivers
    to = hooks(tmp_path)
    closed = loads(
        f'[destinations.{NAME}]\nprovider = "webhook"\n'
        f'secrets = [{{ file = "{tmp_path / "secret"}" }}]\n[destinations.{NAME}.endpoints]\n'
    ).destinations[NAME]
    assert to.guard == closed.guard == "public"
    with Line(redis_url, closed) as line:
        register(line, peer, acme="/acme")
        line.send({}, id="a", endpoint="acme")
        found = line.wait("dead", "a")
        assert "not a public address" in str(found.history[-1]["reason"])
        line.store.drop(["a"])
    assert not them.requests
