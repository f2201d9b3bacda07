"""Merged requests under random interleavings, on a real server: after every step the law holds,
every message is where its header says, and none is in two requests. What went on the wire is noted
beside it: no message may be in two different requests that both began, unless an operator replayed
it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
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
from paceline import scripts
from paceline.answers import Settlement
from paceline.audit import DeepAudit
from paceline.merged import Member
from paceline.message import Message
from paceline.outbox import OutboxStore
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

    @rule(count=st.integers(1, 6), ttl_s=st.sampled_from([None, None, 5, 40]))
    def enqueues(self, count: int, ttl_s: int | None) -> None:
        expires = None if ttl_s is None else self.now / 1e6 + ttl_s
        messages = [
            Message(id=self._name("m"), destination="d", payload=b"[]", expires=expires,
                    tenant=None if count % 2 else "acme")
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
        """As the merger does: of one tenant, whatever became of them since they were taken."""
        loose = [h for h in self.held if h[0][0] != "+"]
        if not loose:
            return
        start = which % len(loose)
        members: list[Member] = []
        tenant = None
        for message_id, nonce in loose[start : start + count]:
            value: Any = self.client.get(f"{{d}}:m:{message_id}")
            if not value or value[:2] not in (b"PR", b"PL"):
                continue
            its = value[60 : 60 + value[56]]
            tenant = its if tenant is None else tenant
            if its == tenant and message_id not in {it.id for it in members}:
                members.append(member(message_id, nonce, value))
        if not members:
            return
        request = self._name("r")
        for _ in range(2 if twice else 1):
            changed = self.store.freeze(
                "ann", request, b"BODY", members, priority="normal", tenant=(tenant or b"").decode()
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
        permit = self.store.begin(self.pin, *one)  # type: ignore[arg-type]
        if permit.verdict == "gone":
            self.held.remove(one)
        if permit.verdict != "go":
            return
        name = one[0]
        for message_id in self.store.members(name[1:]) if name[0] == "+" else [name]:
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

    # -- operators ----------------------------------------------------------------------------

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
        found = DeepAudit(self.store, rest=lambda _: None).run()
        assert found.sound, found.faults

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
