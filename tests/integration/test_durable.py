"""``send(…, durable=…)``: what a replica has, and what is said where it has it not."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from paceline import Outbox, Receipt
from paceline.embedded import EmbeddedServer
from paceline.errors import NotReplicated, PacelineError, RedisUnavailable
from support.cli import CliHere
from support.published import MAXMD_PAYLOAD, published
from support.servers import connect, frozen
from support.wait import until

DESTINATION = "web"
BRIEFLY_S = 0.15


class Pair:
    """A master and its replica."""

    def __init__(self, master: EmbeddedServer, replica: EmbeddedServer) -> None:
        self.master, self.replica = master, replica
        self.client = connect(master.url)
        until(self._online, 10, "the replica follows")
        published(self.client)

    def _online(self) -> bool:
        info = self.client.info("replication")
        return info.get("slave0", {}).get("state") == "online"

    def outbox(self, patience_s: float = 4.0) -> Outbox:
        return Outbox.from_url(self.master.url, timeout_s=10.0, replica_timeout_s=patience_s)

    def has(self, message_id: str) -> bool:
        with connect(self.replica.url) as there:
            return bool(there.exists(f"{{{DESTINATION}}}:m:{message_id}"))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("pair")
    # At once, not after five seconds in which more replicas might come.
    at_once = {"repl-diskless-sync-delay": "0"}
    with EmbeddedServer(folder / "master", appendfsync="everysec", extra=at_once) as master:
        follow = {"replicaof": f"127.0.0.1 {master.port}"}
        with EmbeddedServer(folder / "replica", appendfsync="everysec", extra=follow) as replica:
            yield Pair(master, replica)


def _send(outbox: Outbox, message_id: str, durable: int | str = "replica") -> Receipt:
    return outbox.send(DESTINATION, MAXMD_PAYLOAD, id=message_id, durable=durable)  # type: ignore[arg-type]


def test_a_durable_send_returns_when_the_replica_has_it(pair: Pair) -> None:
    with pair.outbox() as outbox:
        assert _send(outbox, "a").status == "new"
        assert pair.has("a")


def test_without_the_replica_it_says_that_the_message_was_taken(pair: Pair) -> None:
    with pair.outbox(BRIEFLY_S) as outbox, frozen(pair.replica):
        with pytest.raises(NotReplicated, match=r"'b'.* was taken, but only 0 of 1") as caught:
            _send(outbox, "b")
        assert (caught.value.wanted, caught.value.found) == (1, 0)
        assert outbox.status(DESTINATION, "b").state == "ready"
    with pair.outbox(BRIEFLY_S) as outbox, pytest.raises(NotReplicated, match="of 2"):
        _send(outbox, "b", durable=2)


def test_a_repeated_send_is_not_taken_for_replicated_because_it_wrote_nothing(pair: Pair) -> None:
    with frozen(pair.replica):
        for _ in range(2):
            # On a connection of its own each time, which has written nothing yet.
            with pair.outbox(BRIEFLY_S) as outbox, pytest.raises(NotReplicated):
                _send(outbox, "c")
    with pair.outbox() as outbox:
        assert _send(outbox, "c").status == "already"
    assert pair.has("c")


def test_of_many_each_is_told_for_itself(pair: Pair) -> None:
    messages = [Outbox.message(DESTINATION, MAXMD_PAYLOAD, id=f"d-{n}") for n in range(600)]
    with pair.outbox() as outbox:
        with frozen(pair.replica), pair.outbox(BRIEFLY_S) as impatient:
            answers = impatient.send_many(messages[:2], durable="replica")
        assert [type(answer) for answer in answers] == [NotReplicated] * 2
        answers = outbox.send_many(messages, durable="replica")
    words = [answer if isinstance(answer, PacelineError) else answer.status for answer in answers]
    assert words == ["already"] * 2 + ["new"] * 598


def test_a_connection_lost_while_waiting_has_all_said_again(pair: Pair) -> None:
    """WAIT alone, said again on a new connection, would speak of nothing that was written."""
    found: list[Receipt] = []
    client = pair.client
    with pair.outbox() as outbox:
        _send(outbox, "e")  # connects, and learns the destination's rules
        sender = threading.Thread(target=lambda: found.append(_send(outbox, "f")))
        with frozen(pair.replica):
            sender.start()
            until(lambda: client.info("clients")["blocked_clients"] > 0, 5, "it waits")
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            until(lambda: client.info("clients")["blocked_clients"] > 0, 5, "it waits again")
        sender.join(10)
    assert [receipt.status for receipt in found] == ["already"]


def test_a_redis_that_takes_no_writes_is_told_as_not_available(pair: Pair) -> None:
    client: redis.Redis = pair.client
    with pair.outbox() as outbox:
        client.config_set("min-replicas-to-write", "2")
        try:
            with pytest.raises(RedisUnavailable, match="takes no writes now: NOREPLICAS"):
                _send(outbox, "g")
        finally:
            client.config_set("min-replicas-to-write", "0")
        assert _send(outbox, "g").status == "new"
    read_only = pytest.raises(RedisUnavailable, match=r"takes no writes now: .*read only replica")
    with Outbox.from_url(pair.replica.url) as there, read_only:
        _send(there, "i")


def test_the_command_stops_and_tells_which_lines(pair: Pair, tmp_path: Path) -> None:
    config = tmp_path / "paceline.toml"
    config.write_text(
        f'[destinations.{DESTINATION}]\nprovider = "http"\nurl = "https://h.example/"\n'
    )
    # The client's patience is two fifths of that.
    cli = CliHere(f"{pair.master.url}?socket_timeout=0.3", config)
    patient = CliHere(pair.master.url, config)
    file = tmp_path / "lines.jsonl"
    lines = [{"id": f"k-{n}", "payload": MAXMD_PAYLOAD} for n in range(1, 502)]
    file.write_text("\n".join(json.dumps(line) for line in lines))
    command = ("send", DESTINATION, str(file), "--durable", "replica")
    with frozen(pair.replica):
        stopped = cli(*command, "--json")
        assert stopped.code == 1
        told = stopped.json
        assert "'k-500' of 'web' was taken, but only 0 of 1" in told["stopped"]
        # One piece was under way already.
        assert told["accepted_lines"] == told["unreplicated_lines"] == [[1, 500]]
        assert (told["accepted"], told["not_tried"], told["refused"]) == (500, 1, [])
        in_words = cli(*command[:-1], "2")
    assert (in_words.code, in_words.out) == (1, "0 messages accepted by web, 500 accepted before\n")
    assert "stopped: message 'k-500' of 'web' was taken, but only 0 of 2" in in_words.err
    assert "accepted, and stay so: 500 messages: lines 1–500" in in_words.err
    assert "of these not known to be with 2 replicas yet: 500 messages: lines 1–500" in in_words.err
    assert "not accepted: 1 message" in in_words.err
    assert "To go on, give the same command again" in in_words.err
    again = patient(*command, "--json")
    assert (again.code, again.json["accepted"], again.json["already"]) == (0, 1, 500)
    assert again.json["unreplicated_lines"] == []
    assert pair.has("k-501")
    pair.client.acl_setuser(
        "waitless", True, passwords=["+pw"], keys=["*"], categories=["+@all"], commands=["-wait"]
    )
    url = f"redis://waitless:pw@127.0.0.1:{pair.master.port}"
    waitless = CliHere(url, config)(*command, "--json")
    assert (waitless.code, "permissions to run" in waitless.json["stopped"]) == (1, True)
    assert waitless.json["accepted_lines"] == waitless.json["unreplicated_lines"] == [[1, 500]]
    for nonsense in ("disk", "0", "-1", "1.5", "٣", "1000"):
        refused = cli(*command[:-1], nonsense)
        assert refused.code == 2, nonsense
        assert "Write server (what Redis itself promises), replica" in refused.err


@pytest.mark.parametrize("patience_s", [None, 60.0])
def test_a_replica_is_not_waited_for_beyond_the_time_out(
    pair: Pair, patience_s: float | None
) -> None:
    """Or the connection's own time-out would come first, and nobody knew what was taken."""
    impatient = Outbox.from_url(pair.master.url, timeout_s=0.4, replica_timeout_s=patience_s)
    with impatient as outbox, frozen(pair.replica), pytest.raises(NotReplicated):
        _send(outbox, f"k-{patience_s}")


@pytest.mark.parametrize("durable", ["disk", -1, True, 1.5])
def test_nonsense_is_refused(pair: Pair, durable: object) -> None:
    with pair.outbox() as outbox, pytest.raises(ValueError, match="durable is"):
        _send(outbox, "j", durable=durable)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="above 0"):
        Outbox(pair.client, replica_timeout_s=0)
