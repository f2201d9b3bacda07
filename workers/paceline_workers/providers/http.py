"""Any JSON API: method, headers and body passed through; what a reply means is configuration.

The payload's bytes are the request's body, untouched. Judged in this order:

1. `outcomes` names the exact status ("409"): that outcome.
2. `success.statuses` holds the status: sent, if the body holds what `success.body` asks for.
   Another value there is the provider saying no: rejected. Nothing readable there: ambiguous.
3. `outcomes` names the class ("4xx").
4. The general table; but a 2xx that is not in `success.statuses` is ambiguous.

A Retry-After that came with a status named by `outcomes` is kept as the least wait.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Literal

import msgspec

from paceline.backoff import RetryPolicy
from paceline.payloads import check
from paceline.settings import DEFAULT_SUCCESS, SuccessRule
from paceline_workers.outcome import (
    EXCERPT_BYTES,
    Kind,
    Outcome,
    Reply,
    judge_status,
    status_kind,
)
from paceline_workers.providers.base import RenderedRequest

__all__ = ["JsonApi", "basic_authorization"]

_MISSING: Any = object()


class JsonApi:
    """The `http` profile. `headers` are revealed; `repr` does not show them."""

    name = "http"

    def __init__(
        self,
        *,
        policy: RetryPolicy,
        method: str = "POST",
        headers: Mapping[str, str] = MappingProxyType({}),
        id_header: str = "",
        idempotency_key: Literal["bare", "quoted", "off"] = "bare",
        success: SuccessRule = DEFAULT_SUCCESS,
        outcomes: Mapping[str, str] = MappingProxyType({}),
        max_payload_bytes: int | None = None,
    ) -> None:
        self.policy = policy
        self._method = method
        self._headers = dict(headers)
        self._id_header = id_header
        # A key in the configured headers wins: it is the operator's word for this account.
        own_key = any(name.lower() == "idempotency-key" for name in headers)
        self._key = "off" if own_key else idempotency_key
        self._success = success
        self._success_statuses = dict.fromkeys(success.statuses, Kind.SENT)
        self._exact = {s: Kind(o) for s, o in outcomes.items() if not s.endswith("xx")}
        self._classes = {s: Kind(o) for s, o in outcomes.items() if s.endswith("xx")}
        self._max_payload_bytes = max_payload_bytes

    def __repr__(self) -> str:
        return f"JsonApi({self._method})"

    def render(self, message_id: str, payload: bytes) -> RenderedRequest:
        """The request: the payload is its body. Raises PayloadError (also MessageTooLarge)."""
        check("http", payload, max_payload_bytes=self._max_payload_bytes)
        headers = self._headers.copy()
        if self._id_header:
            headers[self._id_header] = message_id
        if self._key != "off":
            # The draft wants a quoted string (RFC 9651 §3.3.3), real providers the bare one. An
            # id holds no character that would need escaping.
            headers["Idempotency-Key"] = f'"{message_id}"' if self._key == "quoted" else message_id
        return RenderedRequest(self._method, headers, payload)

    def judge(self, reply: Reply, now: float) -> Outcome:
        """See the top of the file."""
        general = judge_status(reply, now)
        status = str(reply.status)
        if status in self._exact:
            return _configured(general, self._exact[status])
        if status_kind(reply.status, self._success_statuses) is not None:
            return self._judge_success(reply)
        configured = status_kind(reply.status, self._classes)
        if configured is not None:
            return _configured(general, configured)
        if general.kind is Kind.SENT:
            reason = f"{general.reason}, which is not in success.statuses"
            return replace(general, kind=Kind.AMBIGUOUS, reason=reason)
        return general

    def _judge_success(self, reply: Reply) -> Outcome:
        rule = self._success
        kind, reason = Kind.SENT, f"HTTP {reply.status}"
        provider_id: str | None = None
        # Most APIs are judged by their status alone: their bodies are not worth parsing.
        if rule.pointer is not None or rule.id_pointer is not None:
            body = _decoded(reply)
            if rule.pointer is not None:
                kind, said = _compare(_at(body, rule.pointer), rule.equals)
                reason += f", {rule.pointer or 'body'} {said}"
            if kind is Kind.SENT and rule.id_pointer is not None:
                provider_id = _as_id(_at(body, rule.id_pointer))
        return Outcome(
            kind=kind,
            reason=reason,
            status=reply.status,
            provider_id=provider_id,
            body=reply.body[:EXCERPT_BYTES],
        )


def basic_authorization(username: str, password: str) -> str:
    """The value of `Authorization` for HTTP Basic (RFC 7617, in UTF-8)."""
    pair = f"{username}:{password}".encode()
    return "Basic " + base64.b64encode(pair).decode("ascii")


def _configured(general: Outcome, kind: Kind) -> Outcome:
    return replace(general, kind=kind, reason=f"{general.reason}, {kind} by configuration")


def _decoded(reply: Reply) -> Any:
    if reply.truncated:
        return _MISSING
    try:
        return msgspec.json.decode(reply.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _MISSING


def _at(document: Any, pointer: str) -> Any:
    """The value a JSON pointer (RFC 6901) leads to, or _MISSING."""
    value = document
    for token in pointer.split("/")[1:]:
        key = token.replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict):
            value = value.get(key, _MISSING)
        elif isinstance(value, list):
            index = key.isascii() and key.isdigit() and (key == "0" or key[0] != "0")
            value = value[int(key)] if index and int(key) < len(value) else _MISSING
        else:
            return _MISSING
    return value


def _compare(found: Any, wanted: Any) -> tuple[Kind, str]:
    if found is _MISSING:
        return Kind.AMBIGUOUS, "cannot be read"
    # In Python True == 1; in JSON they are two answers.
    if found == wanted and isinstance(found, bool) == isinstance(wanted, bool):
        return Kind.SENT, "as wanted"
    return Kind.REJECTED, f"is {repr(found)[:200]}"


def _as_id(value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        return None
    return str(value)
