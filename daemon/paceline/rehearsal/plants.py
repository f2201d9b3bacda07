"""Faults planted on purpose, each of which the verdict must find and name (``--plant``).

lost         one accepted message's key is deleted, behind the outbox's back
unexplained  one message that was accepted is posted to the sink once more, without Paceline
law          a counter of the conservation law is raised by one
excess       more requests than the agreed rate and burst allow reach the sink at once; they carry
             the id of a message that the provider rejects, so that nothing else is wrong
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import msgspec

from paceline import keys
from paceline.outbox import OutboxStore
from paceline.rehearsal.payloads import Draft
from paceline.rehearsal.plan import DESTINATION, Plan
from paceline.rehearsal.stage import Stage


def before_intake(plan: Plan, store: OutboxStore) -> None:
    """For ``lost`` the destination is paused: the message must still be in its place."""
    if "lost" in plan.plants:
        store.hold("pause", why="a loss is being planted", who="rehearsal")


def after_intake(plan: Plan, store: OutboxStore, drafts: Sequence[Draft]) -> None:
    """Plants what is planted among waiting messages."""
    if "lost" in plan.plants:
        victim = next(draft for draft in reversed(drafts) if draft.kind == "good")
        store.client.delete(keys.message(DESTINATION, victim.id))
        store.hold("resume", who="rehearsal")


def after_senders(plan: Plan, stage: Stage, drafts: Sequence[Draft]) -> None:
    """Plants what is planted when the senders have stopped."""
    if "law" in plan.plants:
        stage.store.client.hincrby(keys.key(DESTINATION, "n"), "sent", 1)
    if "unexplained" in plan.plants:
        stage.sink.be_well()
        seen = Counter(arrival.id for arrival in stage.sink.arrivals())
        once = next(draft for draft in drafts if draft.kind == "good" and seen[draft.id] == 1)
        stage.sink.post([(once.id, _body(stage, once))])
    if "excess" in plan.plants:
        stage.sink.be_well()
        rejected = next(draft for draft in drafts if draft.kind == "bad-address")
        body = _body(stage, rejected)
        stage.sink.post([(rejected.id, body)] * math.ceil(2 * (plan.burst + plan.rate)))


def _body(stage: Stage, draft: Draft) -> bytes:
    credentials = {"username": stage.username, "password": stage.password}
    return (
        b'{"authentication":' + msgspec.json.encode(credentials) + b',"message":'
    ) + draft.payload + b"}"  # fmt: skip
