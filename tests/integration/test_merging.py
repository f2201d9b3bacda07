"""Many messages in one request, the whole way: outbox, worker, a strict simulator of the
provider."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from paceline import campaign_desk
from paceline.audit import DeepAudit
from paceline.sink.record import Arrival
from paceline.sink.thread import SinkThread
from support.line import NAME, QUICK, Line, destination
from support.wait import until

KEY = 'api_key = "k"\n'


def merge_table(most: int = 50, linger_s: float = 0.05, more: str = "") -> str:
    return f"{QUICK}[destinations.{NAME}.merge]\nmost = {most}\nlinger_s = {linger_s}\n{more}"


def sparkpost(sink: SinkThread, most: int = 50, linger_s: float = 0.05, more: str = KEY) -> Any:
    url = f"{sink.url}/api/v1/transmissions"
    return destination(url, "sparkpost", more, merge_table(most, linger_s))


def mailgun(sink: SinkThread) -> Any:
    return destination(f"{sink.url}/v3/mg.example/messages", "mailgun", KEY, merge_table())


def native(number: int, template: str = "t", **recipient: Any) -> dict[str, Any]:
    return {
        "recipients": [{"address": f"u{number}@example.com", **recipient}],
        "content": {"template_id": template},
    }


def neutral(number: int) -> dict[str, Any]:
    return {
        "email": {
            "from": "shop@example.com",
            "to": [f"u{number}@example.com"],
            "subject": "Hello {{name}}",
            "text": "Dear {{name}}",
            "substitution": {"name": f"Somebody {number}"},
        }
    }


def send(line: Line, payloads: Sequence[Any]) -> list[str]:
    """All of them in one call, so that they can be taken together; their ids m-0, m-1, …"""
    messages = [
        line.outbox.message(NAME, payload, id=f"m-{n}") for n, payload in enumerate(payloads)
    ]
    for answer in line.outbox.send_many(messages):
        assert not isinstance(answer, Exception), answer
    return [message.id for message in messages]


def states(line: Line, ids: Sequence[str]) -> Counter[str]:
    return Counter(line.status(i).state for i in ids)


def sound(line: Line) -> bool:
    return line.store.census().sound and DeepAudit(line.store).run().sound


def accepted_once(sink: SinkThread, count: int) -> bool:
    report = sink.report()
    return (report.recipients, report.repeated_recipients) == (count, {})


def by_key(arrivals: Sequence[Arrival]) -> dict[str, list[Arrival]]:
    found: dict[str, list[Arrival]] = {}
    for arrival in arrivals:
        found.setdefault(arrival.key or "", []).append(arrival)
    return found


def test_a_request_is_of_one_campaign_and_waits_with_it(redis_url: str) -> None:
    """Both mailings have the same content; the paused one is merged, or not, but never begins."""
    with (
        SinkThread(profile="sparkpost", recipients=True) as sink,
        Line(redis_url, sparkpost(sink, 50)) as line,
    ):
        line.store.pause_campaign("autumn")
        mixed = [
            line.outbox.message(
                NAME, native(n), id=f"m-{n}", campaign="spring" if n % 2 else "autumn"
            )
            for n in range(100)
        ]
        line.outbox.send_many(mixed)
        until(lambda: line.outbox.campaign(NAME, "spring").totals["sent"] == 50, 30, "spring")
        assert line.outbox.campaign(NAME, "autumn").states["paused"] == 50
        campaign_desk.resume(line.store, "autumn", who="eve")
        line.wait_done()
        assert accepted_once(sink, 100)
        assert [line.outbox.campaign(NAME, c).live for c in ("spring", "autumn")] == [0, 0]
        assert len(sink.arrivals()) < 12
        assert sound(line)


def test_a_mailing_goes_in_few_requests_and_each_message_has_its_own_end(redis_url: str) -> None:
    with (
        SinkThread(profile="sparkpost", recipients=True) as sink,
        Line(redis_url, sparkpost(sink, 50)) as line,
    ):
        ids = send(line, [native(n) for n in range(200)])
        line.wait_done()
        assert accepted_once(sink, 200)
        assert len(sink.arrivals()) < 12
        assert max(arrival.recipients for arrival in sink.arrivals()) == 50
        assert states(line, ids) == {"sent": 200}
        first = line.status("m-0")
        assert first.provider_id == line.status("m-1").provider_id is not None
        assert sound(line)


@pytest.mark.parametrize("profile", ["sparkpost", "mailgun"])
def test_neutral_mails_are_merged_with_their_own_values(redis_url: str, profile: str) -> None:
    with SinkThread(profile=profile, recipients=True) as sink:
        to = sparkpost(sink) if profile == "sparkpost" else mailgun(sink)
        with Line(redis_url, to) as line:
            send(line, [neutral(n) for n in range(100)])
            line.wait_done()
            assert accepted_once(sink, 100)
            assert len(sink.arrivals()) < 10
            assert sink.report().exposed_recipients == 0


def test_what_differs_in_more_than_the_recipient_goes_apart(redis_url: str) -> None:
    with (
        SinkThread(profile="sparkpost", recipients=True) as sink,
        Line(redis_url, sparkpost(sink)) as line,
    ):
        send(line, [native(n, template=f"t{n % 3}") for n in range(60)])
        line.wait_done()
        assert accepted_once(sink, 60)
        assert len(sink.arrivals()) >= 3
        assert {line.status(f"m-{n}").provider_id for n in (0, 3, 6)} != {
            line.status(f"m-{n}").provider_id for n in (1, 4, 7)
        }


def test_two_mails_to_one_address_go_in_two_requests(redis_url: str) -> None:
    with SinkThread(profile="sparkpost") as sink, Line(redis_url, sparkpost(sink)) as line:
        send(line, [native(7), native(8), native(7)])
        line.wait_done()
        assert sorted(arrival.recipients for arrival in sink.arrivals()) == [1, 2]


def test_an_ambiguous_one_goes_again_whole_with_the_same_bytes_and_key(redis_url: str) -> None:
    with (
        SinkThread(profile="sparkpost", recipients=True, script=["reset_after"]) as sink,
        Line(redis_url, sparkpost(sink)) as line,
    ):
        ids = send(line, [native(n) for n in range(50)])
        line.wait_done()
        tries = [found for found in by_key(sink.arrivals()).values() if len(found) > 1]
        assert len(tries) == 1
        assert len({arrival.sha256 for arrival in tries[0]}) == 1
        assert [arrival.accepted for arrival in tries[0]] == [True, False]
        assert accepted_once(sink, 50)
        assert states(line, ids) == {"sent": 50}
        history = next(h for i in ids if (h := line.status(i).history))
        assert [attempt["outcome"] for attempt in history] == ["ambiguous", "sent"]
        assert history[0]["members"] == tries[0][0].recipients
        assert sound(line)


def test_an_ambiguous_one_without_a_key_is_parked_member_by_member(redis_url: str) -> None:
    with (
        SinkThread(profile="mailgun", recipients=True, script=["reset_after"]) as sink,
        Line(redis_url, mailgun(sink)) as line,
    ):
        ids = send(line, [neutral(n) for n in range(30)])
        line.wait_done()
        parked = [i for i in ids if line.status(i).state == "parked"]
        assert len(parked) == sink.arrivals()[0].recipients > 1
        assert accepted_once(sink, 30)
        assert "may have been sent" in line.status(parked[0]).history[-1]["reason"]
        assert set(line.store.attest(parked)) == {"sent"}
        assert sound(line)


def test_a_key_conflict_after_an_ambiguous_attempt_sends_nothing_again(redis_url: str) -> None:
    script = ["reset_after", "row=409/1600"]
    with (
        SinkThread(profile="sparkpost", recipients=True, script=script) as sink,
        Line(redis_url, sparkpost(sink, most=20)) as line,
    ):
        ids = send(line, [native(n) for n in range(20)])
        line.wait_done()
        assert accepted_once(sink, 20)
        dead = [i for i in ids if line.status(i).state == "dead"]
        assert len(dead) == sink.arrivals()[0].recipients
        assert "key" in line.status(dead[0]).history[-1]["reason"]
        assert sound(line)


def test_one_that_spoils_a_request_is_found_and_the_others_are_sent(redis_url: str) -> None:
    with (
        SinkThread(profile="sparkpost", recipients=True) as sink,
        Line(redis_url, sparkpost(sink, most=64)) as line,
    ):
        payloads = [native(n) for n in range(64)]
        payloads[17] = native(17, unknown_field=1)  # the simulator refuses the whole call
        ids = send(line, payloads)
        line.wait_done()
        assert accepted_once(sink, 63)
        assert [i for i in ids if line.status(i).state == "dead"] == ["m-17"]
        # At most two requests for each halving, after the first groups.
        assert len(sink.arrivals()) <= 5 + 2 * 6
        assert line.store.census().law["sent"] == 63
        assert sound(line)


@pytest.mark.parametrize(("profile", "row"), [("sparkpost", "413"), ("mailgun", "large-batches")])
def test_one_that_is_too_large_goes_in_two(redis_url: str, profile: str, row: str) -> None:
    fault = row if row == "large-batches" else f"row={row}"
    with SinkThread(profile=profile, recipients=True, script=[fault]) as sink:
        to = sparkpost(sink) if profile == "sparkpost" else mailgun(sink)
        with Line(redis_url, to) as line:
            ids = send(line, [neutral(n) for n in range(40)])
            line.wait_done()
            assert accepted_once(sink, 40)
            assert states(line, ids) == {"sent": 40}
            assert sound(line)


def test_a_member_cancelled_while_it_waits_for_others_is_not_sent(redis_url: str) -> None:
    with (
        SinkThread(profile="sparkpost", recipients=True) as sink,
        Line(redis_url, sparkpost(sink, most=100, linger_s=0.8)) as line,
    ):
        ids = send(line, [native(n) for n in range(20)])
        merger = line.workers[0].runtime.engine.sender.merger
        assert merger is not None
        until(lambda: len(merger) == 20, 5, "all wait for more of their kind", 0.01)
        assert line.status("m-3").state == "leased"
        assert line.outbox.cancel(NAME, "m-3")
        line.wait_done()
        assert accepted_once(sink, 19)
        assert states(line, ids) == {"sent": 19, "cancelled": 1}
        assert sound(line)


def test_a_member_cancelled_on_the_wire_is_told_so_and_goes_with_the_others(
    redis_url: str,
) -> None:
    with (
        SinkThread(profile="sparkpost", recipients=True, script=["hang:for=1s"]) as sink,
        Line(redis_url, sparkpost(sink, most=20)) as line,
    ):
        send(line, [native(n) for n in range(20)])
        sink.wait_begun(1)
        until(lambda: line.status("m-0").state == "begun", 5, "it is on the wire", 0.01)
        assert not line.outbox.cancel(NAME, "m-0")
        line.wait_done()
        assert line.status("m-0").state == "sent"


def test_results_for_each_member_are_each_members_end(redis_url: str) -> None:
    with SinkThread(profile="postmark") as sink:
        more = """
headers = { "X-Postmark-Server-Token" = "k" }
"""
        tables = (
            merge_table(more='array = ""\n')
            + f"""
[destinations.{NAME}.items]
pointer = ""
success = {{ pointer = "/ErrorCode", equals = 0 }}
id_pointer = "/MessageID"
"""
        )
        to = destination(f"{sink.url}/email/batch", "http", more, tables)
        with Line(redis_url, to) as line:
            ids = send(
                line,
                [
                    {
                        "From": "a@example.com",
                        "To": f"{'reject-' if n == 5 else ''}u{n}@example.com",
                        "Subject": "s",
                        "TextBody": "t",
                    }
                    for n in range(30)
                ],
            )
            line.wait_done()
            assert states(line, ids) == {"sent": 29, "dead": 1}
            assert line.status("m-5").state == "dead"
            assert line.status("m-5").history[-1]["members"] > 1
            assert line.status("m-6").provider_id
            assert line.status("m-6").provider_id != line.status("m-7").provider_id
            assert sound(line)


def test_paused_while_they_wait_all_go_back_and_go_later(redis_url: str) -> None:
    with (
        SinkThread(profile="sparkpost", recipients=True) as sink,
        Line(redis_url, sparkpost(sink, most=100, linger_s=0.5)) as line,
    ):
        ids = send(line, [native(n) for n in range(20)])
        merger = line.workers[0].runtime.engine.sender.merger
        assert merger is not None
        until(lambda: len(merger) == 20, 5, "all wait for more of their kind", 0.01)
        line.store.hold("pause", who="test")
        until(lambda: line.store.census().law["ready"] == 20, 5, "all are back", 0.02)
        assert sink.arrivals() == []
        line.store.hold("resume", who="test")
        line.wait_done()
        assert accepted_once(sink, 20)
        assert states(line, ids) == {"sent": 20}


def test_a_worker_that_stops_gives_back_what_waits(redis_url: str) -> None:
    with (
        SinkThread(profile="sparkpost") as sink,
        Line(redis_url, sparkpost(sink, most=100, linger_s=30.0)) as line,
    ):
        send(line, [native(n) for n in range(20)])
        merger = line.workers[0].runtime.engine.sender.merger
        assert merger is not None
        until(lambda: len(merger) == 20, 5, "all wait for more of their kind", 0.01)
        stopped = threading.Thread(target=line.workers[0].stop)
        stopped.start()
        stopped.join(10)
        assert line.workers[0].lost == 0
        assert line.store.census().law["ready"] == 20
        assert sink.arrivals() == []
        assert sound(line)


def test_recipients_that_the_provider_left_out_are_on_record(redis_url: str) -> None:
    with (
        SinkThread(profile="sparkpost", recipients=True, script=["row=200/2000"]) as sink,
        Line(redis_url, sparkpost(sink, most=10)) as line,
    ):
        send(line, [native(n) for n in range(10)])
        line.wait_done()
        tried = sink.arrivals()[0]
        [number] = {
            attempt["not_accepted"] for n in range(10) for attempt in line.status(f"m-{n}").history
        }
        assert number >= 1
        assert tried.recipients < 10
        assert line.store.census().outcomes["partial:200"] == 1
