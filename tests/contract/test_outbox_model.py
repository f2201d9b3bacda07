"""The outbox in Lua, on a real server, against the model: random interleavings, compared after
every step in every container and counter.

What goes wrong in life goes wrong here: answers are lost and calls repeated, leases run out,
clocks step, the reaper sleeps, Redis changes its run_id, workers settle batches they have lost.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from contract.redis_snapshot import snapshot
from paceline import intake, scripts
from paceline.answers import Settlement, Taken
from paceline.errors import PacelineError
from paceline.message import Message
from paceline.outbox import OutboxStore
from support.model import NO_NONCE, SECOND, Model

START_US = 1_700_000_000 * SECOND
NUMBERS: dict[str, int | float | str] = {
    "rate": 20, "burst": 9, "connections": 4, "reserve": 2, "lease_us": 10 * SECOND,
    "max_age_us": 120 * SECOND, "record_us": 86_400 * SECOND, "max_payload": 100, "max_count": 14,
    "max_bytes": 150, "max_tries": 2, "retry_first_us": SECOND, "on_ambiguous": "retry",
    "throttle_first_us": SECOND, "throttle_cap_us": 5 * SECOND, "pace": "fixed",
    "probe_us": 3 * SECOND, "probe_wait_us": 2 * SECOND,
}  # fmt: skip
LONG = os.environ.get("PACELINE_HYPOTHESIS") == "long"
BUDGET = settings(
    max_examples=3000 if LONG else 120,
    stateful_step_count=120 if LONG else 50,
    deadline=None,
    database=None,
    report_multiple_bugs=False,
    phases=(Phase.explicit, Phase.generate, Phase.shrink) if LONG else (Phase.generate,),
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)

ids = st.integers(0, 23).map(lambda n: f"m{n}")
workers = st.sampled_from(["ann", "bob"])
lanes = st.sampled_from(["high", "any", "any"])
any_of = st.integers(0, 1000)
twice = st.booleans()
few = st.sampled_from([1, 2, 500])
ACTIONS = [
    "sent", "sent", "retry", "unavailable", "dead", "parked", "back", "throttled", "quota", "held",
]  # fmt: skip
#: What results of these actions may say of the provider's health.
HEALTH = {"sent": "g", "retry": "oob", "unavailable": "u", "dead": "gob", "parked": "ob"}


class FixedRun:
    """In `Pinned`'s place: a run_id of the test's choice, the client's own connection."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        self.run_id = "run-0"

    def ready(self) -> str:
        return self.run_id

    def execute_command(self, *args: Any) -> Any:
        return self.client.execute_command(*args)

    def execute_many(self, commands: Any) -> list[Any]:
        pipe = self.client.pipeline(transaction=False)
        for command in commands:
            pipe.execute_command(*command)  # type: ignore[no-untyped-call]
        return pipe.execute(raise_on_error=False)


class OutboxMachine(RuleBasedStateMachine):
    """One destination "d". `leases` is every (id, nonce) ever handed out."""

    client: redis.Redis

    def __init__(self) -> None:
        super().__init__()
        self.client.flushdb()
        self.now = START_US
        self.store = OutboxStore(self.client, "d", now_us=lambda: self.now)
        self.pin = FixedRun(self.client)
        self.model = Model()
        self.leases: list[tuple[str, str]] = []
        self.nonces: list[str] = []
        self.invitations: list[str] = [""]
        self.renewed: dict[str, int] = {}
        self.permits: list[int] = []
        self.stepped = False
        self.largest_k = 0
        self.made = 0

    @initialize()
    def opens(self) -> None:
        self._publish("one", NUMBERS, force=False)
        for worker in ("ann", "bob"):
            self.beats("beat", worker, 0)
        self.store.reap("run-0", "daemon-1")
        self.model.reap(self.now, "run-0", "daemon-1", 500)
        for n, priority in enumerate(["normal", "high", "bulk", "normal", "normal", "bulk"]):
            self.enqueues(f"m{n}", b"[]", priority, f"t{n % 2}", None, None, n == 0)

    def _name(self, prefix: str) -> str:
        self.made += 1
        return f"{prefix}{self.made}"

    def _both(self, call: Callable[[], Any], expected: Any, again: bool) -> Any:
        """Calls; where `again`, the answer was lost on the way and the call is repeated."""
        answer = call()
        assert answer == expected
        if again:
            call()
        return answer

    # -- time -------------------------------------------------------------------------------

    @rule(us=st.sampled_from([1, 1000, 20_000, 100_000, 500_000, 1_900_000]))
    def time_passes(self, us: int) -> None:
        self.now += us

    @precondition(lambda self: self.made % 3 == 0)
    @rule(us=st.sampled_from([2_100_000, 11_000_000, 130_000_000, -1000, -3_000_000, -15_000_000]))
    def the_clock_jumps(self, us: int) -> None:
        self.now += us
        self.stepped |= us < 0
        if us < 0:
            # A lease is a length of time, not a date: what was left of it is left of it.
            self.renewed = {nonce: until + us for nonce, until in self.renewed.items()}

    @precondition(lambda self: self.made % 2 == 0)
    @rule(seconds=st.sampled_from([1, 4, 11]))
    def time_passes_while_the_reaper_looks_on(self, seconds: int) -> None:
        for _ in range(seconds):
            self.now += SECOND
            self.reaps("daemon-1", 500)

    @rule()
    def redis_is_another_process(self) -> None:
        self.pin.run_id = self._name("run-")

    # -- intake -----------------------------------------------------------------------------

    @rule(
        message_id=ids,
        payload=st.sampled_from([b"[]", b'{"n":1152921504606846976}', b"\x00\xff" * 10]),
        priority=st.sampled_from(["high", "normal", "normal", "bulk"]),
        tenant=st.sampled_from([None, "t1", "t2"]),
        not_before_s=st.sampled_from([None, None, None, -1, 1, 5]),
        expires_s=st.sampled_from([None, None, None, 0, 1, 20]),
        again=twice,
    )
    def enqueues(
        self, message_id: str, payload: bytes, priority: Any, tenant: str | None,
        not_before_s: int | None, expires_s: int | None, again: bool,
    ) -> None:  # fmt: skip
        seconds = self.now / 1e6
        message = Message(
            id=message_id,
            destination="d",
            payload=payload,
            priority=priority,
            tenant=tenant,
            not_before=None if not_before_s is None else seconds + not_before_s,
            expires=None if expires_s is None else seconds + expires_s,
        )
        self._both(lambda: self._enqueue(message), self.model.enqueue(self.now, message), again)

    @rule(
        several=st.lists(
            st.tuples(ids, st.sampled_from([b"[]", b"\xff" * 30]),
                      st.sampled_from(["high", "normal", "bulk"]),
                      st.sampled_from([None, "t1", "t2"]),
                      st.sampled_from([None, None, -1, 5]), st.sampled_from([None, None, 0, 20])),
            min_size=2,
            max_size=8,
        ),
        alike=st.booleans(),
        together=st.booleans(),
        again=twice,
    )  # fmt: skip
    def enqueues_many(
        self, several: list[tuple[Any, ...]], alike: bool, together: bool, again: bool
    ) -> None:
        """In one call; an id may come twice in it. ``alike``: all with the options of the first;
        ``together``: by the function of the library before."""
        seconds = self.now / 1e6
        messages = [
            Message(
                id=message_id, destination="d", payload=payload, priority=priority, tenant=tenant,
                not_before=None if not_before_s is None else seconds + not_before_s,
                expires=None if expires_s is None else seconds + expires_s,
            )
            for (message_id, payload, *options) in several
            for priority, tenant, not_before_s, expires_s in [several[0][2:] if alike else options]
        ]  # fmt: skip

        def call() -> list[str]:
            if together:
                replies = self.store._send_together(messages)
                answers = [intake.answer(r, m) for r, m in zip(replies, messages, strict=True)]
            else:
                answers = self.store.enqueue_many(messages)
            return [a if isinstance(a, str) else type(a).__name__ for a in answers]

        self._both(call, [self.model.enqueue(self.now, m) for m in messages], again)

    def _enqueue(self, message: Message) -> str:
        try:
            return self.store.enqueue(message)
        except PacelineError as error:
            return type(error).__name__

    # -- scheduler --------------------------------------------------------------------------

    @rule(lane=lanes, largest=st.sampled_from([1, 3, 20]), again=twice)
    def a_scheduler_releases(self, lane: Any, largest: int, again: bool) -> None:
        name = self._name("i")
        expected = self.model.release(self.now, lane, largest, 5 * SECOND, name)

        def call() -> tuple[int, str]:
            released = self.store.release(lane, largest, 5.0, name)
            return released.count, released.why

        self._both(call, expected, again)
        if expected[0]:
            self.invitations.append(name)

    @rule(most=few)
    def promotes(self, most: int) -> None:
        count, next_us = self.model.promote(self.now, most)
        answer = self.store.promote(most)
        assert answer == (count, None if next_us is None else pytest.approx(next_us / 1e6))

    @rule(most=few)
    def expires(self, most: int) -> None:
        assert self.store.expire(most) == self.model.expire(self.now, most)

    @rule(daemon=st.sampled_from(["daemon-1", "daemon-2"]), most=few)
    def reaps(self, daemon: str, most: int) -> None:
        renewed = {
            nonce: set(self.model.batches[nonce].ids)
            for nonce, until in self.renewed.items()
            if until > self.now and nonce in self.model.batches
        }
        answer = self.store.reap(self.pin.run_id, daemon, most)
        assert answer == self.model.reap(self.now, self.pin.run_id, daemon, most)
        for nonce, its_ids in renewed.items():
            assert {i.decode() for i in self.client.smembers(f"{{d}}:b:{nonce}")} == its_ids

    # -- workers ----------------------------------------------------------------------------

    @rule(op=st.sampled_from(["beat"] * 6 + ["leave", "bury"]), worker=workers,
          open_connections=st.integers(0, 4))  # fmt: skip
    def beats(self, op: Any, worker: str, open_connections: int) -> None:
        if op == "bury":
            for nonce, batch in self.model.batches.items():
                if batch.worker == worker:
                    self.renewed.pop(nonce, None)
        share = self.store.slots(op, worker, open_connections)
        expected = self.model.beat(self.now, op, worker, open_connections)
        assert (share.allowance, share.live_workers, share.bucket) == expected
        assert share.rate == NUMBERS["rate"]
        self.largest_k = max(self.largest_k, share.bucket)

    @rule(worker=workers, count=st.integers(1, 25), lane=lanes, invited=any_of, again=twice)
    def takes(self, worker: str, count: int, lane: Any, invited: int, again: bool) -> None:
        self.made += 1
        nonce = f"nonce-{self.made:010d}"
        invitation = self.invitations[invited % len(self.invitations)]
        expected = self.model.take(self.now, worker, nonce, count, lane, invitation)

        def call() -> tuple[str, list[str]]:
            taken = self.store.take(worker, nonce, count, lane, invitation)
            return taken.status, list(taken.sizes)

        answer = self._both(call, expected, False)
        if again and answer[1]:
            # The same batch, though the order of its tenants may be another.
            assert set(call()[1]) == set(answer[1])
        taken = Taken(answer[0], nonce, dict.fromkeys(answer[1], 0))
        for leased in self.store.fetch(taken):
            assert leased.payload == self.model.held[leased.id].payload
        self.leases += [(i, nonce) for i in answer[1]]
        self.nonces.append(nonce)
        self.renewed[nonce] = self.now + 10 * SECOND

    def _lease(self, which: int) -> tuple[str, str]:
        """Mostly one that is live; now and then one lost to another batch, or long gone."""
        held = self.model.held
        live = [(m.id, m.nonce) for m in self.model.in_state("leased", "begun")]
        lost = [(i, nonce) for i, nonce in self.leases if i in held and held[i].nonce != nonce]
        leases = {0: self.leases, 1: lost or self.leases}.get(which % 4, live or self.leases)
        return leases[which // 4 % len(leases)] if leases else (f"m{which % 24}", NO_NONCE)

    @rule(which=any_of, again=twice, more=st.lists(any_of, max_size=3))
    def begins(self, which: int, again: bool, more: Sequence[int] = ()) -> None:
        """One message, perhaps twice, and others that ask in the same call."""
        asks = [self._lease(which)] * (1 + again) + [self._lease(other) for other in more]
        _, permits = self.store.turn(
            self.pin,  # type: ignore[arg-type]
            [],
            [(message_id, nonce, 100) for message_id, nonce in asks],
        )
        assert isinstance(permits, list)
        for permit, (message_id, nonce) in zip(permits, asks, strict=True):
            expected = self.model.begin(self.now, message_id, nonce, self.pin.run_id)
            if permit.verdict in ("go", "wait"):
                assert permit.wait_s is not None
                shown = (permit.verdict, pytest.approx(expected[1], abs=1))
                assert shown == (expected[0], round(permit.wait_s * 1e6))
            else:
                assert (permit.verdict, permit.what) == expected
            if permit.verdict == "go":
                assert (permit.begun_us, permit.attempt) == (self.now, expected[2])
                self.permits.append(self.now + round((permit.wait_s or 0) * 1e6))

    @rule(worker=workers, count=st.integers(1, 4), begun=st.integers(0, 4),
          actions=st.lists(st.sampled_from(ACTIONS), max_size=3), again=twice)  # fmt: skip
    def a_worker_works(
        self, worker: str, count: int, begun: int, actions: list[str], again: bool
    ) -> None:
        self.beats("beat", worker, 1)
        self.takes(worker, count, "any", 0, False)
        for _ in range(begun):
            self.now += 50_000
            self.begins(4 * (self.now // 50_000 % 97) + 2, False)
        self.settles([(4 * n + 2, a, n != 1, 0, 10_000, True) for n, a in enumerate(actions)],
                     again)  # fmt: skip

    @rule(
        items=st.lists(
            st.tuples(
                any_of, st.sampled_from(ACTIONS), st.booleans(), st.sampled_from([0, 2, 7]),
                st.sampled_from([None, 0, 50_000, 3_000_000]), st.booleans(),
            ),
            min_size=1,
            max_size=4,
        ),
        again=twice,
    )  # fmt: skip
    def settles(self, items: list[tuple[Any, ...]], again: bool) -> None:
        settlements = []
        for which, action, charge, delay_s, begun_ago, noted in items:
            message_id, nonce = self._lease(which)
            settlements.append(
                Settlement(
                    id=message_id, nonce=nonce, action=action, charge=charge, delay_s=delay_s,
                    why="because", record={"outcome": action} if noted else None,
                    provider_id="provider-é" if noted else "",
                    latency_s=None if begun_ago is None else begun_ago / 1e6,
                    label="label" if charge else "",
                    begun_us=0 if begun_ago is None else self.now - begun_ago,
                    health=HEALTH.get(action, " ")[which % len(HEALTH.get(action, " "))].strip(),
                )
            )  # fmt: skip
        expected = self.model.settle(self.now, settlements)
        self._both(lambda: self.store.settle(settlements), expected, again)

    @rule(
        worker=workers,
        probes=st.lists(st.sampled_from(["g", "o", "u", "", "held", "nobody"]), max_size=3),
        step_us=st.sampled_from([1000, 400_000, 2_600_000, 10_100_000]),
        again=twice,
    )
    def an_outage(self, worker: str, probes: list[str], step_us: int, again: bool) -> None:
        """All that is taken fails, and then perhaps probes, each with its own end."""
        for n in range(14 - len(self.model.held)):
            self.enqueues(f"m{self.made * 5 % 24 + n}", b"[]", "normal", "t1", None, None, False)
        self.beats("beat", worker, 1)
        self.takes(worker, 6, "any", 0, False)
        for message_id, nonce in self.leases[-6:]:
            self.now += step_us
            self._settle_as(message_id, nonce, "dead" if again else "retry", "o", again)
        for letter in probes:
            self.now += 3_100_000
            self.beats("beat", worker, 1)
            self.promotes(500)
            before = len(self.leases)
            self.takes(worker, 3, "any", 0, again)
            for message_id, nonce in self.leases[before:]:
                if letter == "nobody":
                    continue
                self.begins(4 * self.leases.index((message_id, nonce)), again)
                action = {"g": "sent", "": "back", "held": "held"}.get(letter, "unavailable")
                self._settle_as(message_id, nonce, action, letter[:1].strip("h"), again)

    def _settle_as(
        self, message_id: str, nonce: str, action: Any, health: Any, again: bool
    ) -> None:
        settlements = [
            Settlement(id=message_id, nonce=nonce, action=action, charge=True, delay_s=2.0,
                       health=health, begun_us=self.now - 1000)
        ]  # fmt: skip
        expected = self.model.settle(self.now, settlements)
        self._both(lambda: self.store.settle(settlements), expected, again)

    @precondition(lambda self: self.nonces)
    @rule(chosen=st.lists(any_of, min_size=1, max_size=3), again=twice)
    def renews(self, chosen: list[int], again: bool) -> None:
        nonces = sorted({self.nonces[i % len(self.nonces)] for i in chosen})
        expected = self.model.renew(self.now, nonces)
        self._both(lambda: self.store.renew(nonces), expected, again)
        self.renewed.update((n, self.now + 10 * SECOND) for n in nonces if n not in expected)

    # -- operators --------------------------------------------------------------------------

    @rule(which=any_of, again=twice, how=st.sampled_from(["script", "function", "wish"]))
    def cancels(self, which: int, again: bool, how: str) -> None:
        begun = [m.id for m in self.model.in_state("begun")]
        anyone = begun if begun and which % 3 == 0 else [*self.model.held, "nobody", "m1"]
        chosen = [anyone[which % len(anyone)], anyone[-1]]
        if how == "function":
            chosen = chosen[:1]
            end = self.model.ended.get(chosen[0])
            [expected] = self.model.cancel(self.now, chosen)
            expected = "already" if end and end.state == "cancelled" else expected
            self._both(lambda: self.store.ask_to_cancel(chosen[0]), expected, again)
            return
        expected = self.model.cancel(self.now, chosen)
        if how == "script":
            self._both(lambda: self.store.cancel(chosen), expected, again)
            return
        self.client.zadd("{d}:cx", dict.fromkeys(chosen, self.now))
        self.promotes(500)

    @rule(what=st.sampled_from(["replay", "drop", "attest"]), which=st.lists(any_of, min_size=1,
          max_size=3), again=twice)  # fmt: skip
    def deals_with_the_dead(self, what: str, which: list[int], again: bool) -> None:
        shelved = [*self.model.shelved] * 3 + [*self.model.held] + ["nobody"]
        chosen = [shelved[n % len(shelved)] for n in which]
        expected = getattr(self.model, what)(self.now, chosen)
        self._both(lambda: getattr(self.store, what)(chosen), expected, again)

    @precondition(lambda self: self.made % 11 == 0)
    @rule(most=few)
    def purges(self, most: int) -> None:
        assert self.store.purge(most) == self.model.purge(self.now, most)

    @rule(op=st.sampled_from(["pause", "hold", "drain", "resume", "resume", "resume"]),
          for_s=st.sampled_from([None, 1.0, 4.0]))  # fmt: skip
    def an_operator_holds(self, op: Any, for_s: float | None) -> None:
        until = -1 if for_s is None else self.now + round(for_s * 1e6)
        assert self.store.hold(op, for_s=for_s) == self.model.hold(self.now, op, until)

    @precondition(lambda self: self.made % 5 == 0)
    @rule(digest=st.sampled_from(["one", "two"]), force=st.booleans())
    def a_process_publishes_its_configuration(self, digest: str, force: bool) -> None:
        ambiguous = "park" if digest == "two" else "retry"
        self._publish(digest, NUMBERS | {"on_ambiguous": ambiguous}, force=force)

    def _publish(self, digest: str, numbers: dict[str, Any], *, force: bool) -> None:
        status, version, _ = self.store.publish_config(digest, {"d": digest}, numbers, force=force)
        expected = self.model.publish_config(self.now, digest, numbers, force=force)
        assert (status, version) == expected
        self.largest_k = max(self.largest_k, self.model.gate["k"])

    # -- after every step -------------------------------------------------------------------

    @invariant()
    def redis_and_the_model_agree(self) -> None:
        expected, found = self.model.snapshot(), snapshot(self.client, "d")
        for gate in (expected["gate"], found["gate"]):
            for name in ("throttles", "bulk_owed"):
                if not gate.get(name):
                    gate.pop(name, None)
            for name in ("level", "rel_level"):
                if name in gate:
                    gate[name] = pytest.approx(gate[name], abs=1e-6) if (
                        gate is expected["gate"]) else gate[name]  # fmt: skip
        for part, value in expected.items():
            assert found[part] == value, f"{part}: Redis {found[part]!r}, model {value!r}"

    @invariant()
    def every_message_is_accounted_for(self) -> None:
        if self.model.cfg:
            census = self.store.census()
            assert census.sound, census.law
            leased = [i for batch in self.model.batches.values() for i in batch.ids]
            assert len(leased) == len(set(leased)) == census.law["leased"]

    @invariant()
    def no_window_holds_more_than_the_bucket(self) -> None:
        """As long as no clock stepped back: at most K + r·w permits in any window w."""
        if self.stepped:
            return
        lowest = float("inf")
        for place, us in enumerate(sorted(self.permits)):
            served = us * NUMBERS["rate"] / 1e6  # type: ignore[operator]
            lowest = min(lowest, place - served)
            assert place + 1 - served - lowest <= self.largest_k + 1e-3


def test_any_interleaving_leaves_redis_as_the_model_says(redis_client: redis.Redis) -> None:
    scripts.load_library(redis_client)

    @seed(20_261_122)
    class Machine(OutboxMachine):
        client = redis_client

    run_state_machine_as_test(Machine, settings=BUDGET)
