"""The producers' side, against a real Redis."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
import redis

from paceline import Outbox
from paceline.answers import Settlement
from paceline.client import AHEAD, PIPELINE, Receipt
from paceline.embedded import EmbeddedServer
from paceline.errors import (
    DuplicateConflict,
    InvalidMessage,
    MessageTooLarge,
    NotPossible,
    OutboxFull,
    PacelineError,
    PayloadError,
    RedisUnavailable,
    UnknownDestination,
    UnknownMessage,
)
from paceline.message import Message
from paceline.outbox import new_nonce
from support.published import MAXMD_PAYLOAD, published
from support.servers import command_calls
from support.wait import until


@pytest.fixture
def outbox(redis_url: str) -> Iterator[Outbox]:
    with Outbox.from_url(redis_url) as it:
        yield it


def _send_one(client: redis.Redis, message_id: str, action: str = "sent") -> None:
    """Takes and settles one message, as a worker would."""
    store = published(client)
    store.slots("beat", "w")
    nonce = new_nonce()
    store.take("w", nonce, 500, "any")
    store.settle(
        [
            Settlement(
                id=message_id,
                nonce=nonce,
                action=action,  # type: ignore[arg-type]
                provider_id="prov-1",
                record={"outcome": "rejected", "reason": "because"},
            )
        ]
    )


def test_a_sent_message_is_known_until_the_end(outbox: Outbox, redis_client: redis.Redis) -> None:
    published(redis_client)
    receipt = outbox.send("web", {"n": 1}, priority="high", tenant="t1", campaign="c1")
    assert receipt.status == "new"
    status = outbox.status("web", receipt.id)
    assert (status.state, status.final, status.priority) == ("ready", False, "high")
    assert (status.tenant, status.campaign, status.payload_bytes) == ("t1", "c1", len(b'{"n":1}'))
    _send_one(redis_client, receipt.id)
    status = outbox.status("web", receipt.id)
    assert (status.state, status.final, status.provider_id) == ("sent", True, "prov-1")


def test_the_same_message_again_changes_nothing(outbox: Outbox, redis_client: redis.Redis) -> None:
    store = published(redis_client)
    assert outbox.send("web", {"n": 1}, id="one").status == "new"
    assert outbox.send("web", {"n": 1}, id="one").status == "already"
    with pytest.raises(DuplicateConflict, match="'one'"):
        outbox.send("web", {"n": 2}, id="one")
    assert store.census().law["accepted"] == 1
    _send_one(redis_client, "one")
    assert outbox.send("web", {"n": 1}, id="one").status == "already"
    with pytest.raises(DuplicateConflict):
        outbox.send("web", {"n": 2}, id="one")


def test_ready_json_passes_byte_for_byte(outbox: Outbox, redis_client: redis.Redis) -> None:
    store = published(redis_client)
    payload = b'{ "big": 1152921504606846977, "none": [], "u": "\\u00e4" }'
    receipt = outbox.send("web", payload)
    assert store.payload(receipt.id) == payload


def test_send_many_answers_each_in_order(outbox: Outbox, redis_client: redis.Redis) -> None:
    published(redis_client, more="max_payload_bytes = 1000")
    published(redis_client, "mail", "maxmd")
    answers = outbox.send_many(
        [
            Outbox.message("web", {"n": 1}, id="a"),
            Outbox.message("web", {"n": "x" * 2000}, id="b"),
            Outbox.message("nowhere", {"n": 3}, id="c"),
            Outbox.message("mail", {"sender": "a@b.example"}, id="d"),
            Outbox.message("mail", MAXMD_PAYLOAD, id="e"),
            Outbox.message("web", {"n": 9}, id="a"),
            Outbox.message("web", {"n": 4}, id="f", expires=1.0),
        ]
    )
    kinds = [a.status if not isinstance(a, PacelineError) else type(a) for a in answers]
    assert kinds == [
        "new",
        MessageTooLarge,
        UnknownDestination,
        PayloadError,
        "new",
        DuplicateConflict,
        InvalidMessage,
    ]
    assert "recipients" in str(answers[3])
    assert "expires" in str(answers[6])
    assert "mail, web" in str(answers[2])


def test_many_large_messages_in_one_call(outbox: Outbox, redis_client: redis.Redis) -> None:
    store = published(redis_client)
    messages = [Outbox.message("web", {"x": "y" * 1_000_000}, id=f"m{n}") for n in range(12)]
    answers = outbox.send_many(iter(messages))
    assert [a.id for a in answers if not isinstance(a, PacelineError)] == [m.id for m in messages]
    assert store.census().law["ready"] == 12


def _numbered(count: int, cut: Callable[[int], None] = lambda _: None) -> Iterator[Message]:
    """Messages m0, m1, …; ``cut`` hears of each number before its message is made."""
    for n in range(count):
        cut(n)
        yield Outbox.message("web", {"n": n}, id=f"m{n}", campaign="c", priority="bulk")


def _ids(answers: Iterable[object]) -> list[str]:
    return [a.id for a in answers if isinstance(a, Receipt)]


def test_a_stream_answers_in_order_and_reads_only_so_far_ahead(
    outbox: Outbox, redis_client: redis.Redis
) -> None:
    store = published(redis_client)
    most, made = 0, 0
    calls = command_calls(redis_client).get("fcall", 0)

    def cut(number: int) -> None:
        nonlocal made
        made = number + 1

    for seen, answer in enumerate(outbox.send_stream(_numbered(3000, cut))):
        assert isinstance(answer, Receipt)
        assert answer.id == f"m{seen}"
        most = max(most, made - seen)
    assert most <= (AHEAD + 2) * PIPELINE
    # One command a piece, each written once: a fsync covers PIPELINE messages.
    assert command_calls(redis_client)["fcall"] - calls == 3000 / PIPELINE
    assert store.census().law["ready"] == 3000
    assert [i.decode() for i in redis_client.zrange("{web}:r:2:", 0, -1)] == [
        f"m{n}" for n in range(3000)
    ]


def test_what_is_refused_in_a_stream_hinders_no_other(
    outbox: Outbox, redis_client: redis.Redis
) -> None:
    published(redis_client, more="max_messages = 900")
    published(redis_client, "mail", "maxmd")
    source = [
        Outbox.message("mail" if n % 3 == 0 else "web", MAXMD_PAYLOAD, id=f"m{n}")
        for n in range(1500)
    ]
    source[10] = Outbox.message("mail", {"sender": "a@b.example"}, id="m10")
    source[400] = Outbox.message("nowhere", [], id="m400")
    answers = list(outbox.send_stream(source))
    kinds = [type(answer) for answer in answers]
    assert (kinds[10], kinds[400]) == (PayloadError, UnknownDestination)
    assert [n for n, kind in enumerate(kinds) if kind is OutboxFull] == [
        n for n in range(1500) if n % 3 and n != 10 and n != 400
    ][900:]
    assert _ids(answers) == [f"m{n}" for n, kind in enumerate(kinds) if kind is Receipt]


def test_a_connection_that_breaks_under_a_stream_costs_nothing(
    outbox: Outbox, redis_client: redis.Redis
) -> None:
    store = published(redis_client)

    def cut(number: int) -> None:
        if number % 700 == 699:  # a piece is under way, and another half made
            redis_client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    answers = list(outbox.send_stream(_numbered(3000, cut)))
    assert _ids(answers) == [f"m{n}" for n in range(3000)]
    assert store.census().law["accepted"] == 3000
    assert [i.decode() for i in redis_client.zrange("{web}:r:2:", 0, -1)] == _ids(answers)


def test_what_the_source_raises_comes_after_the_answers_that_are_due(
    outbox: Outbox, redis_client: redis.Redis
) -> None:
    store = published(redis_client)

    def cut(number: int) -> None:
        if number == 777:
            raise OSError("the disk is gone")

    answers: list[object] = []
    with pytest.raises(OSError, match="the disk"):
        answers.extend(outbox.send_stream(_numbered(1000, cut)))
    assert _ids(answers) == [f"m{n}" for n in range(777)]
    assert store.census().law["ready"] == 777


def test_what_is_under_way_when_redis_refuses_a_call_is_done_when_it_is_told(
    outbox: Outbox, redis_client: redis.Redis
) -> None:
    published(redis_client)
    redis_client.set("{web}:r:0:", "somebody else's")

    def source() -> Iterator[Message]:
        for n in range(1000):
            if n == 2 * PIPELINE - 1:
                # The first piece is done, and Redis lets the second wait.
                until(lambda: bool(redis_client.exists("{web}:m:m0")), 10, "the first piece")
                redis_client.client_pause(200, all=False)
            priority = "high" if n == 100 else "normal"
            yield Outbox.message("web", [], id=f"m{n}", priority=priority)

    with pytest.raises(PacelineError, match="WRONGTYPE"):
        outbox.send_many(source())
    known = [n for n in range(1000) if redis_client.exists(f"{{web}}:m:m{n}")]
    assert known == [n for n in range(2 * PIPELINE) if n != 100]
    redis_client.delete("{web}:r:0:")
    again = outbox.send_many(Outbox.message("web", [], id=f"m{n}") for n in range(1000))
    assert [n for n, a in enumerate(again) if isinstance(a, Receipt) and a.status == "new"] == [
        100, *range(2 * PIPELINE, 1000)
    ]  # fmt: skip


def test_a_stream_left_early_leaves_the_connection_usable(
    outbox: Outbox, redis_client: redis.Redis
) -> None:
    published(redis_client)
    stream = outbox.send_stream(_numbered(3000))
    assert _ids([next(stream)]) == ["m0"]
    stream.close()
    # The same connection, or what waits on it would be read as the answer to this.
    assert outbox.send("web", 1, id="after") == Receipt("after", "new")
    assert _ids(outbox.send_stream(_numbered(3000))) == [f"m{n}" for n in range(3000)]


def test_a_stream_may_send_by_the_same_outbox_while_it_is_read(
    outbox: Outbox, redis_client: redis.Redis
) -> None:
    store = published(redis_client)
    receipts = outbox.send_stream(
        _numbered(600, lambda n: outbox.send("web", n, id=f"other{n}") and None)
    )
    assert len(_ids(receipts)) == 600
    assert store.census().law["ready"] == 1200


def test_a_stream_is_told_when_redis_goes_and_may_be_repeated(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path) as server, Outbox.from_url(server.url, timeout_s=1.0) as outbox:
        with redis.Redis.from_url(server.url) as client:
            published(client)
        seen: list[object] = []
        source = _numbered(3000, lambda n: server.kill() if n == 1300 else None)
        with pytest.raises(RedisUnavailable):
            seen.extend(outbox.send_stream(source))
        assert 0 < len(seen) < 1300
        server.start()
        answers = outbox.send_many(_numbered(3000))
        assert _ids(answers) == [f"m{n}" for n in range(3000)]
        # Each answer that was given holds.
        assert {a.status for a in answers[: len(seen)] if isinstance(a, Receipt)} == {"already"}


def test_wait_returns_when_it_is_sent(outbox: Outbox, redis_client: redis.Redis) -> None:
    published(redis_client)
    outbox.send("web", {"n": 1}, id="one")
    sender = threading.Timer(0.1, _send_one, (redis_client, "one"))
    sender.start()
    assert outbox.wait("web", "one", timeout_s=10).state == "sent"
    sender.join()


def test_wait_returns_a_dead_letter_with_its_reason(
    outbox: Outbox, redis_client: redis.Redis
) -> None:
    published(redis_client)
    outbox.send("web", {"n": 1}, id="one")
    _send_one(redis_client, "one", "dead")
    status = outbox.wait("web", "one", timeout_s=10)
    assert (status.state, status.history[0]["reason"]) == ("dead", "because")


def test_wait_gives_up_in_time(outbox: Outbox, redis_client: redis.Redis) -> None:
    published(redis_client)
    outbox.send("web", {"n": 1}, id="one")
    start = time.monotonic()
    with pytest.raises(TimeoutError, match="still ready"):
        outbox.wait("web", "one", timeout_s=0.2)
    assert 0.2 <= time.monotonic() - start < 5


def test_cancel_says_what_it_could_do(outbox: Outbox, redis_client: redis.Redis) -> None:
    store = published(redis_client)
    for name in ("ready", "begun", "done"):
        outbox.send("web", {"n": 1}, id=name)
    assert outbox.cancel("web", "ready") is True
    store.slots("beat", "w")
    nonce = new_nonce()
    store.take("w", nonce, 10, "any")
    from paceline.scripts import Pinned

    pinned = Pinned(redis_client)
    now_s = time.monotonic()
    while store.begin(pinned, "begun", nonce).verdict != "go":
        assert time.monotonic() - now_s < 5
    pinned.close()
    assert outbox.cancel("web", "begun") is False
    assert outbox.status("web", "begun").cancel_asked
    store.settle([Settlement(id="done", nonce=nonce, action="sent")])
    with pytest.raises(NotPossible, match="sent"):
        outbox.cancel("web", "done")
    with pytest.raises(NotPossible, match="is cancelled"):
        outbox.cancel("web", "ready")
    with pytest.raises(UnknownMessage, match="never"):
        outbox.cancel("web", "never")
    with pytest.raises(UnknownDestination, match="Known: web"):
        outbox.cancel("wed", "ready")


def test_unknown_names_are_told_apart(outbox: Outbox, redis_client: redis.Redis) -> None:
    published(redis_client)
    with pytest.raises(UnknownMessage, match="'nope'"):
        outbox.status("web", "nope")
    with pytest.raises(UnknownDestination, match="Known: web"):
        outbox.status("wed", "nope")
    with pytest.raises(InvalidMessage, match="id"):
        outbox.status("web", "a b")


def test_a_full_outbox_refuses_and_keeps_what_it_has(
    outbox: Outbox, redis_client: redis.Redis
) -> None:
    store = published(redis_client, more="max_messages = 2")
    outbox.send("web", 1, id="a")
    outbox.send("web", 2, id="b")
    with pytest.raises(OutboxFull, match="max_messages"):
        outbox.send("web", 3, id="c")
    assert outbox.send("web", 2, id="b").status == "already"
    assert store.census().law["ready"] == 2


def test_a_full_redis_is_an_error_of_ours(outbox: Outbox, redis_client: redis.Redis) -> None:
    published(redis_client)
    outbox.send("web", 1, id="a")
    redis_client.config_set("maxmemory", "1mb")
    with pytest.raises(OutboxFull, match="no memory left"):
        outbox.send("web", 2, id="b")


def test_an_unreachable_redis_is_told_within_seconds() -> None:
    with (
        Outbox.from_url("redis://127.0.0.1:1/0", timeout_s=1.0) as outbox,
        pytest.raises(RedisUnavailable, match="Connection refused"),
    ):
        outbox.send("web", {"n": 1})


def test_a_repeated_enqueue_outlives_a_restart_of_redis(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path) as server:
        with redis.Redis.from_url(server.url) as client:
            published(client)
        with Outbox.from_url(server.url) as outbox:
            outbox.send("web", 1, id="a")
            server.kill()
            with pytest.raises(RedisUnavailable):
                outbox.send("web", 2, id="b")
            server.start()
            assert outbox.send("web", 2, id="b").status in ("new", "already")
            assert outbox.status("web", "a").state == "ready"


def test_a_receipt_brings_the_providers_advice(outbox: Outbox, redis_client: redis.Redis) -> None:
    published(redis_client, "sp", "sparkpost")
    small, large = outbox.send("sp", SPARKPOST), outbox.send("sp", LARGE)
    assert small.warnings == ()
    assert [line[:11] for line in large.warnings] == ["over 100 KB"]
    again = outbox.send("sp", LARGE, id=large.id)
    assert (again.status, again.warnings) == ("already", large.warnings)


def test_what_a_provider_cannot_express_is_refused_at_once(
    outbox: Outbox, redis_client: redis.Redis
) -> None:
    for provider in ("maxmd", "sparkpost", "mailgun"):
        published(redis_client, provider, provider)
        assert outbox.send(provider, EMAIL).status == "new"
    with_headers = {"email": {**EMAIL["email"], "headers": {"X-A": "b"}}}
    for provider in ("sparkpost", "mailgun"):
        assert outbox.send(provider, with_headers).status == "new"
    with pytest.raises(PayloadError, match=r"payload\.email\.headers"):
        outbox.send("maxmd", with_headers)


EMAIL = {
    "email": {"from": "a@b.example", "to": ["c@b.example"], "subject": "s", "text": "t"},
}
SPARKPOST = {
    "recipients": [{"address": "c@b.example"}],
    "content": {"from": "a@b.example", "subject": "s", "text": "t"},
}
LARGE = {**SPARKPOST, "content": {"from": "a@b.example", "subject": "s", "text": "t" * 102_400}}
