"""Webhooks to many endpoints: each is signed with keys of its own, and stands or falls by itself.

As `Webhook`, but for what would hold a destination: of one endpoint among thousands it is that
one's trouble (`webhook_table.ENDPOINTS`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from types import MappingProxyType

from paceline.backoff import RetryPolicy
from paceline.endpoint_keys import EndpointKeys
from paceline.errors import ConfigError, PayloadError
from paceline_workers.outcome import Outcome, Reply
from paceline_workers.providers.base import RenderedRequest
from paceline_workers.providers.table import Row
from paceline_workers.providers.webhook import Webhook
from paceline_workers.providers.webhook_signer import Signer
from paceline_workers.providers.webhook_table import ENDPOINTS

__all__ = ["WebhookEndpoints"]

#: Files are looked at again after so long.
_FRESH_S = 60.0
_MOST_KNOWN = 10_000


class WebhookEndpoints:
    """The profile. `wall_s`: unix seconds, for the timestamps."""

    name = "webhook"

    def __init__(
        self,
        *,
        keys: EndpointKeys,
        wall_s: Callable[[], float],
        policy: RetryPolicy,
        headers: Mapping[str, str] = MappingProxyType({}),
        max_payload_bytes: int | None = None,
        table: Sequence[Row] = ENDPOINTS,
    ) -> None:
        self.policy = policy
        self._keys = keys
        self._wall_s = wall_s
        self._lock = Lock()
        self._known: OrderedDict[str, tuple[float, Webhook]] = OrderedDict()

        def webhook(signing: Sequence[bytes]) -> Webhook:
            return Webhook(
                signer=Signer(signing),
                wall_s=wall_s,
                policy=policy,
                headers=headers,
                max_payload_bytes=max_payload_bytes,
                table=table,
            )

        self._webhook = webhook
        #: Judges only: of all of them alike.
        self._any = webhook([b"unused"])

    def __repr__(self) -> str:
        return "WebhookEndpoints()"

    def render(self, message_id: str, payload: bytes) -> RenderedRequest:  # noqa: ARG002
        """Raises PayloadError: what goes to an endpoint is rendered by `render_to`."""
        raise PayloadError("endpoint", "missing", "Send it again, to a registered endpoint")

    def render_to(self, endpoint: str, message_id: str, payload: bytes) -> RenderedRequest:
        """The request of this attempt. Raises PayloadError, also where the endpoint has no key."""
        return self._of(endpoint).render(message_id, payload)

    def judge(self, reply: Reply, now: float) -> Outcome:
        """By its status."""
        return self._any.judge(reply, now)

    def _of(self, endpoint: str) -> Webhook:
        now = self._wall_s()
        with self._lock:
            found = self._known.get(endpoint)
            if found is not None and 0.0 <= now - found[0] < _FRESH_S:
                return found[1]
        try:
            made = self._webhook(self._keys.of_endpoint(endpoint))
        except ConfigError as error:
            problem = error.problems[0]
            raise PayloadError(problem.key, problem.problem, problem.mend) from error
        with self._lock:
            self._known[endpoint] = (now, made)
            self._known.move_to_end(endpoint)
            if len(self._known) > _MOST_KNOWN:
                self._known.popitem(last=False)
        return made
