"""Events go on to another destination, each in one message: forwarders that run at once, step by
step, and die at any of them. Real Redis, an injected clock."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from contract.test_events import numbers
from contract.test_transitions import ROOMY, Post
from paceline import scripts
from paceline.errors import OutboxFull
from paceline.event_forwarder import EventForwarder, Forwarded
from paceline.message import Message
from paceline.outbox import OutboxStore
from paceline.settings import Events
from support.model import SECOND


class Dead(BaseException):
    """What a kill is to the one it hits."""


class Stepping(redis.Redis):
    """Calls ``before`` ahead of each command, or each pipeline."""

    before: Callable[[], None] = staticmethod(lambda: None)

    def execute_command(self, *args: Any, **options: Any) -> Any:
        self.before()
        return super().execute_command(*args, **options)

    def pipeline(self, *args: Any, **options: Any) -> Any:
        self.before()
        return super().pipeline(*args, **options)


class Two:
    """Source "d" and target "t"; forwarders between them, in batches of 3."""

    def __init__(self, client: redis.Redis, url: str) -> None:
        self.client, self.url = client, url
        self.post = Post(client, **numbers())
        self.target = OutboxStore(client, "t", now_us=lambda: self.post.now)
        self.configure()
        # Or a turn would have one step more when it is the first.
        client.script_load(scripts.source("forward"))
        self._ids = itertools.count()

    def configure(self, **more: Any) -> None:
        self.target.publish_config(repr(more), {}, ROOMY | more, force=True)

    def forwarder(self, client: redis.Redis | None = None, **about: Any) -> EventForwarder:
        stores = [
            OutboxStore(client or self.client, name, now_us=lambda: self.post.now) for name in "dt"
        ]
        patience_s = about.pop("patience_s", 0.0)
        settings = Events(**{"deliver_batch": 3, "deliver_linger_s": 1.0, **about})
        return EventForwarder(*stores, settings, patience_s=patience_s)

    def stepping(self) -> Stepping:
        return Stepping.from_url(self.url, socket_timeout=5.0)  # type: ignore[no-any-return]

    def tell(self, count: int = 1) -> None:
        for _ in range(count):
            self.post.put(f"m{next(self._ids)}")

    def finish(self) -> None:
        """Whatever was begun is done with, and what waits for more has waited."""
        self.post.now += 2 * SECOND
        forwarder = self.forwarder()
        for _ in range(20):
            forwarder.run_once()
            if self.behind() == 0:
                return
        raise AssertionError(f"{self.behind()} events are left")

    def behind(self) -> int:
        state = self.post.store.forward_look()
        return state.total - state.cursor

    def messages(self) -> list[dict[str, Any]]:
        """What the target was given, in the order of the events."""
        found = [json.loads(self.target.payload(i) or b"") for i in self.target.all_ids()]
        return sorted(
            (it["data"] for it in found),
            key=lambda data: [event["seq"] for event in data["events"]] or [0],
        )

    def told(self) -> list[int]:
        return [event["seq"] for data in self.messages() for event in data["events"]]


@pytest.fixture
def two(redis_client: redis.Redis, redis_url: str) -> Iterator[Two]:
    the_two = Two(redis_client, redis_url)
    yield the_two
    assert the_two.post.sound()
    assert the_two.target.census().sound


# -- alone ----------------------------------------------------------------------------------


def test_full_batches_go_at_once_and_the_rest_when_it_has_waited(two: Two) -> None:
    forwarder = two.forwarder()
    two.tell(7)
    assert forwarder.run_once() == Forwarded(6, 2, 0, 0.25)
    assert forwarder.run_once().messages == 0
    assert two.behind() == 1
    two.post.now += SECOND
    assert forwarder.run_once().events == 1
    assert [[e["seq"] for e in data["events"]] for data in two.messages()] == [
        [1, 2, 3], [4, 5, 6], [7],
    ]  # fmt: skip
    assert forwarder.run_once() == Forwarded(next_s=0.25)
    assert not two.client.hexists("{d}:evf", "ends")


def test_only_the_kinds_that_are_asked_for_go_and_the_others_hold_nothing_up(two: Two) -> None:
    forwarder = two.forwarder(deliver_kinds=("cancelled",))
    two.tell(5)
    assert forwarder.run_once().messages == 0
    assert two.behind() == 0
    two.post.store.cancel(["m1", "m2", "m3", "m4"])
    two.post.now += 2 * SECOND
    assert forwarder.run_once().events == 4
    assert {(e["kind"], e["id"]) for data in two.messages() for e in data["events"]} == {
        ("cancelled", f"m{n}") for n in range(1, 5)
    }
    assert two.behind() == 0


def test_an_entry_of_many_messages_is_divided(two: Two) -> None:
    two.post.put_many("x", 200)
    two.finish()
    assert two.told() == list(range(1, 201))
    assert {len(data["events"]) for data in two.messages()} == {3, 2}


def test_one_turn_looks_at_no_more_than_it_may(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paceline.event_forwarder._MOST", 20)
    two.post.put_many("x", 50)
    two.tell(30)
    two.post.store.cancel(["x1"])
    two.tell(29)
    rare = two.forwarder(deliver_kinds=("cancelled",))
    turns = [rare.run_once() for _ in range(4)]
    assert turns == [Forwarded(next_s=0.0)] * 4
    assert two.forwarder().run_once() == Forwarded(18, 6, 0, 0.0)
    assert (two.behind(), two.told()) == (12, list(range(81, 99)))
    two.tell(20)
    # One that it wants is not waited with until there are three.
    two.post.store.cancel(["x2"])
    two.tell(29)
    turns = [rare.run_once() for _ in range(2)]
    assert turns == [Forwarded(next_s=0.0), Forwarded(1, 1, 0, 0.0)]


def test_what_was_told_before_it_was_forwarded_goes_too_as_far_as_it_is_there(two: Two) -> None:
    two.tell(10)
    two.client.xtrim("{d}:ev", maxlen=4, approximate=False)
    two.client.hset("{d}:n", "events_trimmed", 6)
    two.finish()
    assert two.told() == [7, 8, 9, 10]
    assert "events_unforwarded" not in two.post.store.census().counters


# -- several, and deaths ----------------------------------------------------------------------


class Walker:
    """A forwarder's turn in a thread of its own, which stops ahead of each command."""

    def __init__(self, two: Two, client: Stepping) -> None:
        self._go, self._here = threading.Semaphore(0), threading.Semaphore(0)
        self.over = self._dies = False
        client.before = self._stop
        # What is there goes at once: so the plans of two that saw unlike numbers are unlike.
        self._forwarder = two.forwarder(client, deliver_linger_s=0.0)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._here.acquire(timeout=5)

    def _stop(self) -> None:
        self._here.release()
        self._go.acquire()
        if self._dies:
            raise Dead

    def _run(self) -> None:
        try:
            self._forwarder.run_once()
        except Dead:
            return
        finally:
            self.over = True
            self._here.release()

    def step(self) -> None:
        """One command."""
        if not self.over:
            self._go.release()
            assert self._here.acquire(timeout=5)

    def die(self) -> None:
        """Ahead of the command at which it stands."""
        self._dies = True
        self.step()
        self._thread.join(5)


def test_two_at_once_in_whatever_order_tell_each_event_once(two: Two) -> None:
    a_client, b_client = two.stepping(), two.stepping()
    # A turn is look, read, plan, enqueue, done. The first to go is called a.
    steps = [set(places) for places in itertools.combinations(range(1, 10), 4)]
    for places in steps:
        two.tell(3)
        a, b = Walker(two, a_client), Walker(two, b_client)
        for at in range(10):
            two.tell()  # so that the two never see the same
            (a if at == 0 or at in places else b).step()
        assert a.over or b.over
        while not (a.over and b.over):
            a.step()
            b.step()
        two.finish()
    assert two.told() == list(range(1, 13 * len(steps) + 1))
    assert all("missed" not in data for data in two.messages())


def test_one_that_dies_anywhere_is_followed_by_another_that_may_die_too(two: Two) -> None:
    client = two.stepping()
    for first, second in itertools.product(range(5), repeat=2):
        two.tell(4)
        for lives in (first, second):
            walker = Walker(two, client)
            for _ in range(lives):
                walker.step()
            two.tell()
            walker.die()
        two.finish()
    assert two.told() == list(range(1, 6 * 25 + 1))


def test_one_that_comes_late_takes_nothing_back(two: Two) -> None:
    two.tell(2)
    late = Walker(two, two.stepping())
    for _ in range(4):
        late.step()
    two.tell()
    two.finish()
    two.tell(2)
    planner = Walker(two, two.stepping())
    for _ in range(3):
        planner.step()
    planner.die()
    late.step()
    assert late.over
    two.tell()
    two.finish()
    assert two.told() == [1, 2, 3, 4, 5, 6]


def test_a_plan_is_left_to_who_made_it_for_a_while(two: Two) -> None:
    two.tell(3)
    walker = Walker(two, two.stepping())
    for _ in range(3):
        walker.step()
    patient = two.forwarder(patience_s=2.0)
    assert patient.run_once().messages == 0
    walker.die()
    two.post.now += 3 * SECOND
    assert patient.run_once().events == 3


# -- trimmed --------------------------------------------------------------------------------


def trim(two: Two, keep: int) -> None:
    two.client.xtrim("{d}:ev", maxlen=keep, approximate=False)


def unforwarded(two: Two) -> int:
    return two.post.store.census().counters.get("events_unforwarded", 0)


def test_what_is_trimmed_away_before_is_counted_and_told(two: Two) -> None:
    forwarder = two.forwarder()
    two.tell(3)
    forwarder.run_once()
    two.tell(10)
    trim(two, 4)
    assert forwarder.run_once() == Forwarded(3, 1, 6, 0.25)
    two.post.now += SECOND
    forwarder.run_once()
    assert [data.get("missed") for data in two.messages()] == [None, 6, None]
    two.tell(5)
    trim(two, 0)
    assert forwarder.run_once() == Forwarded(0, 1, 5, 0.25)
    assert two.messages()[0] == {"destination": "d", "events": [], "missed": 5}
    assert unforwarded(two) == 11
    two.tell(3)
    assert forwarder.run_once().events == 3


@pytest.mark.parametrize(
    ("steps", "told", "missed"), [(3, [4, 5, 6], 1), (4, [1, 2, 3, 4, 5, 6], 0)]
)
def test_what_is_trimmed_away_under_a_plan_is_missed_only_where_it_was_not_enqueued(
    two: Two, steps: int, told: list[int], missed: int
) -> None:
    two.tell(2)
    two.finish()
    two.tell(4)
    walker = Walker(two, two.stepping())
    for _ in range(steps):
        walker.step()
    walker.die()
    trim(two, 3)
    two.finish()
    assert [seq for seq in two.told() if seq > 2 or len(told) > 3] == told
    assert (unforwarded(two), two.behind()) == (missed, 0)


def test_events_turned_off_and_on_again_go_on_from_there(two: Two) -> None:
    two.tell(3)
    two.finish()
    two.post.store.publish_config("off", {}, two.post.numbers | {"events": ""}, force=True)
    assert two.client.hget("{d}:evf", "entry") is None
    two.post.store.publish_config("on", {}, two.post.numbers, force=True)
    # Another stream, whose entries may begin before where the last one ended.
    two.client.hset("{d}:evf", "entry", "99999999999999-0")
    two.tell(3)
    two.finish()
    assert two.told() == [1, 2, 3, 4, 5, 6]


def test_numbers_that_a_redis_with_lost_data_gives_again_are_other_events(two: Two) -> None:
    two.tell(3)
    two.finish()
    ours = [name for name in two.client.scan_iter("{d}:*") if name != b"{d}:cfg"]
    two.client.delete(*ours)
    two.tell(3)
    two.finish()
    assert [[event["id"] for event in data["events"]] for data in two.messages()] in (
        [["m0", "m1", "m2"], ["m3", "m4", "m5"]],
        [["m3", "m4", "m5"], ["m0", "m1", "m2"]],
    )


# -- the target refuses -----------------------------------------------------------------------


def test_a_full_target_loses_nothing_and_is_told_of_once(
    two: Two, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "paceline.forwarder")
    two.configure(max_count=2)
    two.tell(12)
    forwarder = two.forwarder()
    assert forwarder.run_once() == Forwarded(6, 2, 0, 1.0)
    assert forwarder.run_once() == Forwarded(next_s=1.0)
    with pytest.raises(OutboxFull):
        two.target.enqueue(Message(id="x", destination="t", payload=b"1"))
    assert two.behind() == 6
    two.configure()
    forwarder.run_once()
    two.finish()
    assert two.told() == list(range(1, 13))
    assert [record.event for record in caplog.records] == ["forward_refused", "forward_back"]  # type: ignore[attr-defined]


def test_what_is_refused_between_two_that_are_taken_goes_later_as_it_was_planned(two: Two) -> None:
    two.tell(3)
    for n in range(3):
        two.post.put(f"{n}" * 128)
    two.tell(2)
    two.configure(max_bytes=800)
    two.post.now += 2 * SECOND
    assert two.forwarder().run_once() == Forwarded(3, 1, 0, 1.0)
    assert two.told() == [1, 2, 3, 7, 8]
    two.configure()
    two.tell()
    two.finish()
    assert two.told() == list(range(1, 10))


def test_what_somebody_else_wrote_into_the_stream_is_passed_over(two: Two) -> None:
    forged = {"kind": "sent", "ids": "x", "n": 1, "at": 1}
    for seq in [50] * 25:
        two.client.xadd("{d}:ev", {**forged, "seq": seq})
    two.tell(2)
    two.client.xadd("{d}:ev", {**forged, "seq": 1})
    two.tell()
    two.finish()
    assert (two.told(), unforwarded(two)) == ([1, 2, 3], 0)


def test_a_target_that_drains_or_is_not_there_yet_is_waited_for(two: Two) -> None:
    two.tell(3)
    two.target.hold("drain")
    assert two.forwarder().run_once().messages == 0
    two.target.hold("resume")
    two.client.rename("{t}:cfg", "away")
    assert two.forwarder().run_once().messages == 0
    two.client.rename("away", "{t}:cfg")
    assert two.forwarder().run_once().events == 3
