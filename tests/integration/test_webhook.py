"""Webhooks the whole way: real Redis, real worker, receivers that verify."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from email import message_from_bytes
from pathlib import Path

import pytest
from standardwebhooks import Webhook as Receiver

from paceline.errors import PayloadError
from paceline.settings import Destination
from paceline.sink.thread import SinkThread
from paceline_workers.providers.table import Row
from paceline_workers.providers.webhook import TABLE
from support.counter import Counter
from support.line import QUICK, Line, destination
from support.peers import OK, Peer, Talk
from support.wait import until

EVENT = {"type": "user.created", "data": {"name": "Zoë"}}


def new_key() -> str:
    return "whsec_" + base64.b64encode(os.urandom(32)).decode()


def webhook(url: str, *keys: Path, tables: str = QUICK) -> Destination:
    secrets = ", ".join(f'{{ file = "{key}" }}' for key in keys)
    more = f'secrets = [{secrets}]\nguard_allow = ["127.0.0.1"]\n'
    return destination(url, "webhook", more, tables)


def kept(folder: Path, name: str) -> tuple[Path, str]:
    key = new_key()
    (folder / name).write_text(key + "\n")
    return folder / name, key


def read(request: bytes) -> tuple[dict[str, str], bytes]:
    head, _, body = request.partition(b"\r\n\r\n")
    return dict(message_from_bytes(head.partition(b"\r\n")[2])), body


@pytest.fixture(scope="module")
def counter() -> Iterator[Counter]:
    with Counter("webhook") as at:
        yield at


@pytest.mark.parametrize("row", TABLE, ids=lambda row: str(row.status))
def test_a_row_over_the_wire(counter: Counter, row: Row) -> None:
    fault = f"redirect={row.status}" if row.status < 400 else f"row={row.status}"
    outcome, reply = counter.send(b'{"a": 1}', "" if row.status == 200 else fault)
    assert reply is not None
    assert (reply.status, outcome.kind, outcome.reason) == (row.status, row.kind, row.says)
    # It came signed, or the sink would have said 401; and no redirect was followed.
    assert (counter.last().path, counter.last().fault != "signature") == ("/hooks", True)
    assert counter.last().accepted is (row.status == 200)


def test_a_500_is_tried_again_with_the_same_id_and_a_fresh_signature(
    redis_url: str, tmp_path: Path
) -> None:
    old_file, old = kept(tmp_path, "old")
    new_file, new = kept(tmp_path, "new")

    def talk(peer: Peer, talk: Talk) -> None:
        while request := talk.read_request():
            first = not peer.requests
            peer.requests.append(request)
            talk.send(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n" if first else OK)

    # A second and more, so that the timestamp is another.
    later = "[destinations.d.retry]\nfirst_s = 1.1\ncap_s = 1.2\njitter = 0\n"
    with Peer(talk) as peer:
        to = webhook(f"http://127.0.0.1:{peer.port}/hooks", new_file, old_file, tables=later)
        with Line(redis_url, to) as line:
            with pytest.raises(PayloadError, match="id: holds a full stop"):
                line.send(EVENT, id="m.1")
            line.send_raw(b'{"a": 1}', "m.2")
            assert "id: holds a full stop" in line.wait("dead", "m.2").history[-1]["reason"]
            line.send(EVENT)
            status = line.wait("sent")
            assert [it["outcome"] for it in status.history] == ["ambiguous", "sent"]
            shared = str(line.client.hgetall("{d}:cfg")) + str(status)
        requests = [read(request) for request in peer.requests]
    assert len(requests) == 2
    for headers, body in requests:
        for key in (old, new):
            assert Receiver(key).verify(body, headers) == EVENT
            assert key[6:] not in shared
        assert headers["webhook-id"] == "m-1"
        assert "Paceline-Message-Id" not in headers
    (first, body), (second, again) = requests
    assert body == again
    assert int(second["webhook-timestamp"]) > int(first["webhook-timestamp"])
    assert first["webhook-signature"] != second["webhook-signature"]


def test_what_is_gone_is_held_and_nothing_is_lost(redis_url: str, tmp_path: Path) -> None:
    file, key = kept(tmp_path, "key")
    with SinkThread(profile="webhook", api_key=key, faults="410") as sink:
        to = webhook(f"{sink.url}/hooks", file)
        with Line(redis_url, to) as line:
            line.send(EVENT)
            until(lambda: line.store.census().closed(), 8, "the destination is held")
            assert line.store.census().closed() == ("held", None, "endpoint is gone")
            sink.set_faults("")
            line.store.hold("resume")
            line.wait("sent")
            assert [arrival.status for arrival in sink.arrivals()] == [410, 200]


def test_a_key_that_the_receiver_does_not_know_holds_until_it_is_replaced(
    redis_url: str, tmp_path: Path
) -> None:
    file, key = kept(tmp_path, "key")
    with SinkThread(profile="webhook", api_key=key) as sink:
        file.write_text(new_key())
        to = webhook(f"{sink.url}/hooks", file)
        with Line(redis_url, to) as line:
            line.send(EVENT)
            until(lambda: line.store.census().closed(), 8, "the destination is held")
            assert sink.arrivals()[0].fault == "signature"
            file.write_text(key)
            said = line.workers[0].runtime.reload(to)
            assert said == "no key changed, secrets were read anew; for the next request"
            line.store.hold("resume")
            line.wait("sent")
            assert [(it.id, it.status) for it in sink.arrivals()] == [("m-1", 401), ("m-1", 200)]
            assert line.workers[0].runtime.engine.pool.counts["opened"] <= 2
