"""Merged requests under random interleavings, on a real server: after every step the law holds,
every message is where its header says, and none is in two requests; campaigns are paused and
counted. What went on the wire is noted beside it: no message may be in two different requests that
both began, unless an operator replayed it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from contract.test_merged import SHA, member
from contract.test_outbox_model import FixedRun
from contract.test_transitions import ROOMY
from paceline import campaign_desk as desk
from paceline import scripts
from paceline.answers import Settlement
from paceline.audit import DeepAudit
from paceline.merged import Member
from paceline.message import Message
from paceline.outbox import OutboxStore
from paceline.records import Live
from support.model import SECOND

LONG = os.environ.get("PACELINE_HYPOTHESIS") == "long"
BUDGET = settings(
    max_examples=1000 if LONG else 40,
    stateful_step_count=100 if LONG else 50,
    deadline=None,
    database=None,
    phases=(Phase.explicit, Phase.generate, Phase.shrink) if LONG else (Phase.generate,),
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
ENDS = [
    "sent", "sent", "sent", "retry", "retry", "back", "throttled", "split", "opened", "dead",
    "parked",
]  # fmt: skip
some = st.integers(0, 1000)
pause = partial(desk.pause, why="")


class MergedMachine(RuleBasedStateMachine):
    """Two workers; ``held`` is what they believe to hold: (id, nonce), requests among them."""

    client: redis.Redis

    def __init__(self) -> None:
        super().__init__()
        self.client.flushdb()
        self.now = 1_700_000_000 * SECOND
        self.store = OutboxStore(self.client, "d", now_us=lambda: self.now)
        self.pin = FixedRun(self.client)
        self.made = 0
        self.held: list[tuple[str, str]] = []
        self.begun: dict[str, set[str]] = {}  # message -> requests in which it may have been sent
        self.begun_requests: set[str] = set()
        self.replayed: set[str] = set()

    @initialize()
    def opens(self) -> None:
        scripts.load_library(self.client)
        numbers = ROOMY | {
            "merge_most": 50, "merge_ambiguous": "retry", "max_tries": 3, "lease_us": 10 * SECOND,
            "max_age_us": 300 * SECOND, "pace": "fixed",
        }  # fmt: skip
        self.store.publish_config("digest", {}, numbers)
        self.beats()
        self.store.reap("run-0", "daemon")
        self.enqueues(12, None)

    def _name(self, prefix: str) -> str:
        self.made += 1
        return f"{prefix}{self.made:015d}"

    def _pick(self, which: int, requests: bool | None = None) -> tuple[str, str] | None:
        among = [h for h in self.held if requests is None or (h[0][0] == "+") == requests]
        return among[which % len(among)] if among else None

    # -- apps and clocks ----------------------------------------------------------------------

    @rule(
        count=st.integers(1, 6),
        ttl_s=st.sampled_from([None, None, 5, 40]),
        campaign=st.sampled_from(["spring", "spring", None]),
    )
    def enqueues(self, count: int, ttl_s: int | None, campaign: str | None = "spring") -> None:
        expires = None if ttl_s is None else self.now / 1e6 + ttl_s
        messages = [
            Message(id=self._name("m"), destination="d", payload=b"[]", expires=expires,
                    tenant=None if count % 2 else "acme", campaign=campaign)
            for _ in range(count)
        ]  # fmt: skip
        assert set(self.store.enqueue_many(messages)) == {"new"}

    @rule(seconds=st.sampled_from([1, 1, 3, 8, 40]))
    def time_passes(self, seconds: int) -> None:
        for _ in range(seconds):
            self.now += SECOND
            self.store.reap("run-0", "daemon")

    @rule()
    def beats(self) -> None:
        for worker in ("ann", "bob"):
            self.store.slots("beat", worker, 0)

    @rule()
    def promotes_and_expires(self) -> None:
        self.store.promote()
        self.store.expire()

    # -- workers ------------------------------------------------------------------------------

    @rule(count=st.integers(1, 12), worker=st.sampled_from(["ann", "bob"]))
    def takes(self, count: int, worker: str) -> None:
        taken = self.store.take(worker, self._name("n"), count, "any")
        self.held += [(i, taken.nonce) for i in taken.sizes]

    @rule(which=some, count=st.integers(2, 8), twice=st.booleans())
    def freezes(self, which: int, count: int, twice: bool) -> None:
        """As the merger does: of one tenant and campaign, whatever became of them since they were
        taken."""
        loose = [h for h in self.held if h[0][0] != "+"]
        if not loose:
            return
        start = which % len(loose)
        members: list[Member] = []
        like: tuple[bytes, bytes] | None = None
        for message_id, nonce in loose[start : start + count]:
            value: Any = self.client.get(f"{{d}}:m:{message_id}")
            if not value or value[:2] not in (b"PR", b"PL"):
                continue
            end = 60 + value[56]
            its = (value[60:end], value[end : end + value[57]])
            like = its if like is None else like
            if its == like and message_id not in {it.id for it in members}:
                members.append(member(message_id, nonce, value))
        if like is None:
            return
        tenant, campaign = like
        request = self._name("r")
        for _ in range(2 if twice else 1):
            changed = self.store.freeze(
                "ann",
                request,
                b"BODY",
                members,
                priority="normal",
                tenant=tenant.decode(),
                campaign=campaign.decode(),
            )
            if changed:
                assert changed <= {it.id for it in members}
                self.held = [h for h in self.held if h[0] not in changed]
                return
        gone = {(it.id, it.nonce) for it in members}
        self.held = [h for h in self.held if h not in gone] + [("+" + request, request)]

    @rule(which=some)
    def begins(self, which: int) -> None:
        one = self._pick(which)
        if one is None:
            return
        self.now += SECOND // 20
        members = self.store.members(one[0][1:]) if one[0][0] == "+" else [one[0]]
        paused = bool(members) and self._paused(one[0], members[0])
        permit = self.store.begin(self.pin, *one)  # type: ignore[arg-type]
        assert not (paused and permit.verdict == "go")
        if permit.verdict == "gone":
            self.held.remove(one)
        if permit.verdict != "go":
            return
        name = one[0]
        self.begun_requests |= {name} if name[0] == "+" else set()
        for message_id in members:
            self.begun.setdefault(message_id, set()).add(name)

    @rule(which=some, action=st.sampled_from(ENDS), charge=st.booleans(), twice=st.booleans())
    def settles(self, which: int, action: Any, charge: bool, twice: bool) -> None:
        one = self._pick(which, None if action not in ("split", "opened") else True)
        if one is None or (
            action != "back" and one[0] not in {n for b in self.begun.values() for n in b}
        ):
            return
        settlement = Settlement(
            id=one[0], nonce=one[1], action=action, charge=charge, delay_s=1.0, begun_us=self.now,
            record={"outcome": action},
        )  # fmt: skip
        words = {self.store.settle([settlement])[0] for _ in range(2 if twice else 1)}
        assert words <= {"ok", "repeat", "late", "won", "duplicate", "gone"}
        members = self.store.members(one[0][1:]) if one[0][0] == "+" else []
        if action in ("split", "opened") and "ok" in words:
            self.held += [(i, one[1]) for i, _ in self.store.fetch_members(one[0][1:], one[1])]
        if action in ("split", "throttled", "back"):
            # Told not to have been processed: they may go in another request.
            for message_id in members or [one[0]]:
                self.begun.get(message_id, set()).discard(one[0])
        if action in ("opened",):
            self.replayed.update(members)
        self.held.remove(one)

    def _paused(self, name: str, message_id: str) -> bool:
        """Whether it must not begin: of a paused campaign, and no request that has begun before."""
        [seen] = self.store.look([message_id])
        spring = seen is not None and isinstance(seen[0], Live) and seen[0].campaign == "spring"
        begun = name[0] == "+" and name in self.begun_requests
        return spring and not begun and bool(self.client.hexists("{d}:cp", "spring"))

    # -- operators ----------------------------------------------------------------------------

    @rule(what=st.sampled_from(["pause", "resume", "resume", "cancel"]), whole=st.booleans())
    def works_a_campaign(self, what: str, whole: bool) -> None:
        if what == "cancel":
            desk.cancel(self.store, "spring")
        elif whole:
            {"pause": pause, "resume": desk.resume}[what](self.store, "spring", who="eve")
        else:
            getattr(self.store, f"{what}_campaign")("spring")

    @rule(which=some)
    def cancels(self, which: int) -> None:
        if self.made:
            self.store.cancel([f"m{1 + which % self.made:015d}"])

    @rule(which=some, what=st.sampled_from(["replay", "drop", "attest"]))
    def works_the_shelves(self, which: int, what: str) -> None:
        ids = [f"m{1 + (which + n) % max(1, self.made):015d}" for n in range(4)]
        words = getattr(self.store, what)(ids)
        if what == "replay":
            self.replayed.update(i for i, word in zip(ids, words, strict=True) if word == "ready")

    @rule()
    def purges(self) -> None:
        self.store.purge(3)

    # -- what must hold -----------------------------------------------------------------------

    @invariant()
    def nothing_is_lost_or_miscounted(self) -> None:
        if not self.made:
            return
        census = self.store.census()
        assert census.sound, census.law
        for known in desk.listed(self.store):
            ends = sum(known.totals[t] for t in ("sent", "expired", "cancelled", "dropped"))
            assert known.totals["accepted"] == ends + known.live
            counted = desk.look(self.store, known.name)
            assert sum(counted.states.values()) == known.live
            assert not (counted.pause and not counted.under_way and self._ready_of_spring())
        found = DeepAudit(self.store, rest=lambda _: None).run()
        assert found.sound, found.faults

    def _ready_of_spring(self) -> list[str]:
        """Those in their places that may not be there while it is paused: requests may."""
        places: Any = self.client.keys("{d}:r:*")
        waiting = [i.decode() for place in places for i in self.client.zrange(place, 0, -1)]
        heads: Any = self.client.mget([f"{{d}}:m:{i}" for i in waiting] or ["none"])
        found = zip(waiting, heads, strict=False)
        return [i for i, head in found if i[0] != "+" and b"spring" in head[60:75]]

    @invariant()
    def no_message_began_in_two_requests(self) -> None:
        for message_id, requests in self.begun.items():
            if message_id not in self.replayed:
                merged = {name for name in requests if name[0] == "+"}
                assert len(merged) < 2, f"{message_id} went out in {merged}"


@pytest.mark.timeout(1800 if LONG else 180)
def test_merged_requests_keep_the_law(redis_session: redis.Redis) -> None:
    assert hashlib.sha1(b"[]").digest() == SHA
    machine: Callable[[], MergedMachine] = type(
        "Bound", (MergedMachine,), {"client": redis_session}
    )
    run_state_machine_as_test(machine, settings=BUDGET)  # type: ignore[no-untyped-call]
