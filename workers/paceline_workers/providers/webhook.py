"""Webhooks to one endpoint, signed as Standard Webhooks 1.0 has it.

The payload's bytes are the body. A message has one id over all its tries, in `webhook-id`; the
timestamp, and with it the signature, is of the attempt: it is taken when the request is rendered,
and between that and the wire lies the wait for a permit, of seconds where receivers allow minutes.

Webhooks are delivered at least once: what may have been received is sent again, with the id by
which a receiver knows it, for three days.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from paceline.backoff import RetryPolicy
from paceline.payloads import check
from paceline_workers.outcome import Kind, Outcome, Reply
from paceline_workers.providers.base import RenderedRequest
from paceline_workers.providers.table import Row, Table
from paceline_workers.providers.webhook_signer import Signer
from paceline_workers.providers.webhook_table import GONE, TABLE

__all__ = ["TABLE", "Webhook"]


class Webhook:
    """The profile. `headers` are revealed; `repr` shows neither them nor the keys.

    `wall_s`: unix seconds, for the timestamps.
    """

    name = "webhook"

    def __init__(
        self,
        *,
        signer: Signer,
        wall_s: Callable[[], float],
        policy: RetryPolicy,
        headers: Mapping[str, str] = MappingProxyType({}),
        max_payload_bytes: int | None = None,
        table: Sequence[Row] = TABLE,
    ) -> None:
        self.policy = policy
        self._signer = signer
        self._wall_s = wall_s
        self._headers = dict(headers)
        self._max_payload_bytes = max_payload_bytes
        self._table = Table(table)

    def __repr__(self) -> str:
        return "Webhook()"

    def render(self, message_id: str, payload: bytes) -> RenderedRequest:
        """The request of this attempt. Raises PayloadError (also MessageTooLarge; also for an id
        that cannot be signed)."""
        check("webhook", payload, max_payload_bytes=self._max_payload_bytes, message_id=message_id)
        signed = self._signer.headers(message_id, int(self._wall_s()), payload)
        return RenderedRequest("POST", {**self._headers, **signed}, payload)

    def judge(self, reply: Reply, now: float) -> Outcome:
        """By its status; what a receiver writes in its body is its own affair."""
        outcome = self._table.judge(reply, GONE if reply.status == 410 else "", now)
        if (
            outcome.kind is Kind.THROTTLED
            and reply.status in (502, 504)
            and self.policy.on_ambiguous == "park"
        ):
            # A proxy that lost its back end does not know what that has done.
            return replace(outcome, kind=Kind.AMBIGUOUS)
        return outcome
