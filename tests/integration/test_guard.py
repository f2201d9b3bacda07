"""The guard on real connections: what it refuses sees no connection at all, whatever the resolver
says and when; what becomes of the message."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from paceline.audit import DeepAudit
from paceline.doctor.endpoint_probe import probe_all
from paceline.guard import Guard, parse_networks
from paceline.proxy import Proxy
from paceline_workers.outcome import GUARDED, Kind, judge_failure
from paceline_workers.runtime import WorkerRuntime
from paceline_workers.transports.connection import Connector
from paceline_workers.transports.pool import Retirement
from support.line import Line, destination
from support.peers import OK, Peer, answers
from support.rig import Rig

PUBLIC = Guard()
V4, V6 = int(socket.AF_INET), int(socket.AF_INET6)


def _has_ipv6() -> bool:
    """Containers often have none: then nothing can be connected to there anyway."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


class Trap:
    """Listens on one port of several of this host's addresses, and accepts nothing: what has been
    connected to waits in the listener, even where it was closed again at once."""

    def __init__(self) -> None:
        self._socks = [socket.socket(socket.AF_INET), socket.socket(socket.AF_INET)]
        self._socks[0].bind(("127.0.0.1", 0))
        self.port = int(self._socks[0].getsockname()[1])
        self._socks[1].bind(("127.0.0.2", self.port))
        if _has_ipv6():
            self._socks.append(socket.socket(socket.AF_INET6))
            self._socks[2].bind(("::1", self.port))
        for sock in self._socks:
            sock.listen()

    def sprung(self) -> bool:
        """Whether anybody has connected."""
        return bool(select.select(self._socks, [], [], 0)[0])

    def close(self) -> None:
        for sock in self._socks:
            sock.close()


def test_the_trap_sees_a_connection_that_is_closed_at_once() -> None:
    """Or all that is below would prove nothing."""
    for address in ("127.0.0.1", "127.0.0.2", *(["::1"] if _has_ipv6() else [])):
        one = Trap()
        socket.create_connection((address, one.port)).close()
        assert one.sprung(), address
        one.close()


@pytest.fixture(scope="module")
def trap() -> Iterator[Trap]:
    one = Trap()
    yield one
    one.close()


@pytest.fixture
def made() -> Iterator[list[Rig]]:
    rigs: list[Rig] = []
    yield rigs
    for one in rigs:
        one.close()


def _rig(made: list[Rig], *urls: str, guard: Guard = PUBLIC, **more: Any) -> Rig:
    made.append(Rig(*urls, guard=guard, **more))
    return made[-1]


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "127.0.0.2", "[::1]", "localhost", "[::ffff:127.0.0.1]", "[::ffff:7f00:2]",
        "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "017700000001", "127.1", "0.0.0.0",
        "0", "[::]", "[::127.0.0.1]",
    ],
)  # fmt: skip
def test_not_even_a_connection_to_what_is_refused(made: list[Rig], trap: Trap, host: str) -> None:
    """With the system's own resolver, which takes all of these forms."""
    one = _rig(made, f"http://{host}:{trap.port}/")
    failure = one.failure()
    assert (failure.phase, failure.cause, failure.unreceived) == ("connect", GUARDED, True)
    assert failure.detail.startswith("not a public address: ")
    assert judge_failure(failure).kind is Kind.REJECTED
    assert one.gates == 0, "a permit was drawn"
    assert not trap.sprung()


@pytest.mark.parametrize(
    ("family", "address"),
    [(V4, "localhost"), (V4, "2130706433"), (V4, "0x7f.1"), (V4, "127.1"), (V6, "::1%lo")],
)
def test_nothing_is_looked_up_a_second_time(
    made: list[Rig], trap: Trap, family: int, address: str
) -> None:
    """``socket.connect`` would resolve each of these itself."""
    one = _rig(made, f"http://api.example:{trap.port}/", resolver=lambda *_: [(family, address)])
    assert one.failure().cause == GUARDED
    assert not trap.sprung()


def test_a_name_that_is_rebound_is_refused_at_the_next_connection(
    made: list[Rig], trap: Trap
) -> None:
    """Let through first, loopback next. What stands for the public address here is an allowed one:
    tests reach no network."""
    answers_of_dns = [[(V4, "127.0.0.9")], [(V4, "127.0.0.1")], [(V4, "127.0.0.9")]]
    asked: list[str] = []

    def resolver(host: str, _: int) -> list[tuple[int, str]]:
        asked.append(host)
        return answers_of_dns[len(asked) - 1]

    guard = Guard(parse_networks(["127.0.0.9"]))
    with socket.create_server(("127.0.0.9", trap.port)) as public:
        one = _rig(made, f"http://rebound.example:{trap.port}/", guard=guard, resolver=resolver)
        assert one.connectors[0].open().sock.getpeername()[0] == "127.0.0.9"
        assert one.failure().detail == "not a public address: 127.0.0.1 (loopback)"
        assert one.connectors[0].open().sock.getpeername()[0] == "127.0.0.9"
        public.close()
    assert asked == ["rebound.example"] * 3, "one look-up for each connection, and no other"
    assert not trap.sprung()


def test_a_kept_connection_goes_on_and_each_new_one_is_asked_for(
    made: list[Rig], trap: Trap
) -> None:
    """Through the adapter: two requests on the connection that was let through, then a new one."""
    said = ["127.0.0.1"]
    with Peer(answers(OK)) as peer:
        guard = Guard(parse_networks(["127.0.0.1"]))
        one = _rig(
            made,
            f"http://api.example:{peer.port}/",
            guard=guard,
            resolver=lambda *_: [(V4, said[0])],
            retirement=Retirement(max_requests=2),
        )
        assert one.post().status_code == 200
        said[0] = "127.0.0.2"
        assert one.post().status_code == 200, "the connection leads where it was checked"
        assert one.failure().cause == GUARDED
        assert peer.accepted == 1


def test_of_several_addresses_those_that_are_public_are_used(made: list[Rig]) -> None:
    with Peer(answers(OK)) as peer:
        mixed = [(V4, "127.0.0.2"), (V4, "127.0.0.1"), (V6, "::1"), (V4, "10.0.0.1")]
        one = _rig(
            made,
            f"http://api.example:{peer.port}/",
            guard=Guard(parse_networks(["127.0.0.1"])),
            resolver=lambda *_: mixed,
            retirement=Retirement(max_requests=1),
        )
        assert [one.post().status_code for _ in range(4)] == [200] * 4
        assert peer.accepted == 4


def test_a_public_address_that_fails_is_no_matter_of_the_guard(made: list[Rig]) -> None:
    """Or a name with one bad address would burn messages in an outage of the others."""
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    for order in (["127.0.0.1", "10.0.0.1"], ["10.0.0.1", "127.0.0.1"]):
        one = _rig(
            made,
            f"http://api.example:{port}/",
            guard=Guard(parse_networks(["127.0.0.1"])),
            resolver=lambda *_, order=order: [(V4, address) for address in order],
        )
        assert [one.failure().cause for _ in range(2)] == ["refused", "refused"]


def test_many_refused_addresses_are_told_in_one_line(made: list[Rig]) -> None:
    one = _rig(
        made,
        "http://api.example/",
        resolver=lambda *_: [(V4, f"10.0.0.{n}") for n in range(50)],
    )
    detail = one.failure().detail
    assert detail.count("private") == 3
    assert detail.endswith(" and 47 more")


def _by_port(table: dict[int, str]) -> Any:
    return lambda _, port: [(V4, table[port])]


def test_a_message_is_given_up_only_where_every_url_is_refused(made: list[Rig]) -> None:
    with Peer(answers(OK)) as peer:
        allowed = Guard(parse_networks(["127.0.0.1"]))
        table = {1: "10.0.0.1", 2: "10.0.0.2", peer.port: "127.0.0.1"}
        both = _rig(made, "http://a.example:1/", "http://b.example:2/", resolver=_by_port(table))
        assert both.failure().cause == GUARDED
        one_bad = _rig(
            made,
            "http://a.example:1/",
            f"http://b.example:{peer.port}/",
            guard=allowed,
            resolver=_by_port(table),
        )
        assert [one_bad.post().status_code for _ in range(30)] == [200] * 30
    # The good one goes down, and long since the other has been left.
    one_bad.pool.set_limit(0)
    one_bad.pool.set_limit(2)
    outcomes = [judge_failure(one_bad.failure()) for _ in range(30)]
    assert {outcome.kind for outcome in outcomes} == {Kind.RETRY}
    assert all(outcome.outage for outcome in outcomes)


def test_a_guard_beside_a_proxy_is_not_built() -> None:
    with pytest.raises(ValueError, match="proxy"):
        Connector(
            "https://api.example/",
            connect_timeout_s=1.0,
            read_timeout_s=1.0,
            proxy=Proxy("127.0.0.1", 3128, ""),
            guard=PUBLIC,
        )


def test_doctor_connects_to_nothing_that_is_refused(trap: Trap) -> None:
    [facts] = probe_all(
        [f"http://localhost:{trap.port}/"], connect_timeout_s=5, ca_file=None, guard=PUBLIC
    )
    assert {address.guarded for address in facts.addresses} == {"loopback"}
    assert not trap.sprung()


# -- the whole way ------------------------------------------------------------------------------


def test_the_message_is_a_dead_letter_and_the_destination_stays_open(redis_url: str) -> None:
    """More of them than would open a breaker; the next one is sent, at full pace, when the name
    leads to a public address again."""
    said = ["127.0.0.2"]

    def with_dns(runtime: WorkerRuntime) -> None:
        for connector in runtime.engine.pool._connectors:
            connector._resolver = lambda *_: [(V4, said[0])]

    with (
        Peer(answers(OK)) as peer,
        socket.create_server(("127.0.0.2", peer.port)) as private,
        Line(
            redis_url,
            destination(
                f"http://api.example:{peer.port}/",
                more='guard = "public"\nguard_allow = ["127.0.0.1"]\nallow_plain_http = true',
            ),
            change=with_dns,
        ) as line,
    ):
        for number in range(30):
            line.send({"a": number}, id=f"m-{number}")
        for number in range(30):
            line.wait("dead", f"m-{number}")
        [attempt] = line.status("m-7").history
        assert attempt["reason"] == "guarded: not a public address: 127.0.0.2 (loopback)"
        assert (attempt["outcome"], attempt["attempt"]) == ("rejected", 0), "a permit was drawn"
        census = line.store.census()
        told = {"res", "breaker", "hold_until", "suspect", "pace", "conc"} & set(census.gate)
        assert told == set(), "what was never asked of the provider speaks of its health"
        assert (census.law["dead"], census.outcomes) == (30, {"rejected:guarded": 30})
        assert not select.select([private], [], [], 0)[0], "somebody connected"
        said[0] = "127.0.0.1"
        line.send({"a": 30}, id="m-30")
        line.wait("sent", "m-30")
        assert peer.accepted == 1


def test_the_members_of_a_merged_request_are_dead_letters_too(redis_url: str, trap: Trap) -> None:
    to = destination(
        f"http://localhost:{trap.port}/",
        more='guard = "public"',
        tables='[destinations.d.merge]\nmost = 8\narray = ""',
    )
    with Line(redis_url, to) as line:
        messages = [line.outbox.message("d", {"a": n}, id=f"m-{n}") for n in range(8)]
        line.outbox.send_many(messages)
        for number in range(8):
            line.wait("dead", f"m-{number}")
            last = line.status(f"m-{number}").history[-1]
            assert last["reason"].startswith("guarded: not a public address: ")
        census = line.store.census()
        assert (census.law["dead"], census.gate.keys() & {"res", "breaker"}) == (8, set())
        assert DeepAudit(line.store).run().sound
        # As one, for no half of it would fare better; it was merged, or this would show nothing.
        assert sum(census.outcomes.values()) < 8
    assert not trap.sprung()
