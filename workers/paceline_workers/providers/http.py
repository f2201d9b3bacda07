"""Any JSON API: method, headers and body passed through; what a reply means is configuration.

The payload's bytes are the request's body, untouched; or its fields are a form. Judged in this
order:

1. The first of `rules` that fits the status and the body: its outcome.
2. `outcomes` names the exact status ("409"): that outcome.
3. `success.statuses` holds the status: sent, if the body holds what `success.body` asks for.
   Another value there is the provider saying no: rejected. Nothing readable there: ambiguous. With
   `items` each message is judged by its own item of the reply.
4. `outcomes` names the class ("4xx").
5. The general table; but a 2xx that is not in `success.statuses` is ambiguous.

A Retry-After that came with a status named by `rules` or `outcomes` is kept as the least wait.

Merged (`merge.array`), payloads that are equal in all but the one element of an array share a body
with all their elements; or, with "", the body is an array of the payloads, also of a single one.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Literal

import msgspec

from paceline.backoff import RetryPolicy
from paceline.errors import PayloadError
from paceline.payloads import check
from paceline.settings import DEFAULT_SUCCESS, ItemsRule, ReplyRule, SuccessRule
from paceline_workers.outcome import (
    EXCERPT_BYTES,
    Kind,
    Outcome,
    Reply,
    judge_status,
    status_kind,
)
from paceline_workers.providers.base import Portion, RenderedRequest
from paceline_workers.providers.form import FORM, urlencoded
from paceline_workers.providers.splice import Splicer

__all__ = ["JsonApi", "MergingJsonApi", "basic_authorization"]

_MISSING: Any = object()

_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ARRAY = msgspec.json.Decoder(list[msgspec.Raw])
_TEXT = msgspec.json.Decoder(str)


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
        rules: Mapping[str, ReplyRule] = MappingProxyType({}),
        items: ItemsRule | None = None,
        body: Literal["json", "form"] = "json",
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
        self._rules = tuple(rules.items())
        self._items = items
        self._form = body == "form"
        own_type = any(
            name.lower() == "content-type" and value != "application/json"
            for name, value in headers.items()
        )
        if self._form and not own_type:
            self._headers["Content-Type"] = FORM
        self._max_payload_bytes = max_payload_bytes

    def __repr__(self) -> str:
        return f"JsonApi({self._method})"

    def render(self, message_id: str, payload: bytes) -> RenderedRequest:
        """The request: the payload is its body, or its fields are. Raises PayloadError (also
        MessageTooLarge)."""
        check("http", payload, max_payload_bytes=self._max_payload_bytes)
        return self._request(message_id, _form_of(payload) if self._form else payload)

    def _request(self, key: str, body: bytes) -> RenderedRequest:
        headers = self._headers.copy()
        if self._id_header:
            headers[self._id_header] = key
        if self._key != "off":
            # The draft wants a quoted string (RFC 9651 §3.3.3), real providers the bare one. An
            # id holds no character that would need escaping.
            headers["Idempotency-Key"] = f'"{key}"' if self._key == "quoted" else key
        return RenderedRequest(self._method, headers, body)

    def judge(self, reply: Reply, now: float) -> Outcome:
        """See the top of the file."""
        outcome = self._judge(reply, now, 1)
        if not outcome.parts:
            return outcome
        part = outcome.parts[0]
        return replace(part, status=outcome.status, retry_after_s=outcome.retry_after_s)

    def _judge(self, reply: Reply, now: float, count: int) -> Outcome:
        general = judge_status(reply, now)
        status = str(reply.status)
        for name, rule in self._rules:
            if _fits(rule, reply):
                return _configured(general, Kind(rule.outcome), f"by the rule {name!r}")
        if status in self._exact:
            return _configured(general, self._exact[status])
        if status_kind(reply.status, self._success_statuses) is not None:
            return self._judge_success(reply, count)
        configured = status_kind(reply.status, self._classes)
        if configured is not None:
            return _configured(general, configured)
        if general.kind is Kind.SENT:
            reason = f"{general.reason}, which is not in success.statuses"
            return replace(general, kind=Kind.AMBIGUOUS, reason=reason)
        return general

    def _judge_success(self, reply: Reply, count: int) -> Outcome:
        rule = self._success
        kind, reason = Kind.SENT, f"HTTP {reply.status}"
        provider_id = reply.header(rule.id_header) if rule.id_header is not None else None
        parts: tuple[Outcome, ...] = ()
        # Most APIs are judged by their status alone: their bodies are not worth parsing.
        if rule.pointer is not None or rule.id_pointer is not None or self._items is not None:
            body = _decoded(reply)
            if rule.pointer is not None:
                kind, said = _compare(_at(body, rule.pointer), rule.equals)
                reason += f", {rule.pointer or 'body'} {said}"
            if kind is Kind.SENT and rule.id_pointer is not None:
                provider_id = _as_id(_at(body, rule.id_pointer))
            if kind is Kind.SENT and self._items is not None:
                parts = _item_outcomes(self._items, body, count)
                if not parts:
                    kind = Kind.AMBIGUOUS
                    reason += f", and not {count} items at {self._items.pointer or 'the top'}"
                elif any(part.kind is not Kind.SENT for part in parts):
                    kind = parts[0].kind if len({part.kind for part in parts}) == 1 else kind
                    failed = sum(part.kind is not Kind.SENT for part in parts)
                    reason += f", {failed} of {count} not taken"
        return Outcome(
            kind=kind,
            reason=reason,
            status=reply.status,
            provider_id=(provider_id or None) if kind is Kind.SENT else None,
            body=reply.body[:EXCERPT_BYTES],
            parts=parts,
        )


class MergingJsonApi(JsonApi):
    """The `http` profile where `merge.array` says how many messages go in one request."""

    def __init__(self, *, array: str, **more: Any) -> None:
        super().__init__(**more)
        self._splicer = Splicer(array) if array else None

    def render(self, message_id: str, payload: bytes) -> RenderedRequest:
        """As JsonApi's; but where bodies are arrays, the array of this payload."""
        request = super().render(message_id, payload)
        if self._splicer is None:
            return replace(request, body=self.join((), [payload]))
        return request

    def portion(self, payload: bytes) -> Portion | None:
        """The element, and the body around it; None where there are several, or none."""
        if self._splicer is None:
            check("http", payload)
            return Portion((), payload)
        split = self._splicer.split(payload)
        return None if split is None else Portion(*split)

    def join(self, shared: tuple[bytes, ...], parts: Sequence[bytes]) -> bytes:
        """The body with all of them."""
        before, after = shared or (b"[", b"]")
        return b"".join((before, b",".join(parts), after))

    def render_merged(self, request_id: str, body: bytes) -> RenderedRequest:
        """The request from its body."""
        return self._request(request_id, body)

    def judge_merged(self, reply: Reply, now: float, count: int) -> Outcome:
        """As `judge`; with `items`, each message by its own."""
        return self._judge(reply, now, count)


def basic_authorization(username: str, password: str) -> str:
    """The value of `Authorization` for HTTP Basic (RFC 7617, in UTF-8)."""
    pair = f"{username}:{password}".encode()
    return "Basic " + base64.b64encode(pair).decode("ascii")


def _form_of(payload: bytes) -> bytes:
    """The fields of a JSON object as a form; a field that is an array is repeated."""
    try:
        fields = _OBJECT.decode(payload)
    except msgspec.ValidationError as error:
        raise PayloadError("payload", "is no object, which alone can be a form") from error
    return urlencoded((name, text) for name, value in fields.items() for text in _texts(value))


def _texts(value: msgspec.Raw) -> list[str]:
    """Text as it is meant, all else as it is written: 1.50 is an amount, and an id may have more
    digits than a float."""
    raw = bytes(value)
    items = _ARRAY.decode(raw) if raw.startswith(b"[") else [raw]
    return [_TEXT.decode(one) if one[:1] == b'"' else one.decode() for one in map(bytes, items)]


def _configured(general: Outcome, kind: Kind, why: str = "by configuration") -> Outcome:
    return replace(general, kind=kind, reason=f"{general.reason}, {kind} {why}")


def _fits(rule: ReplyRule, reply: Reply) -> bool:
    if status_kind(reply.status, {rule.status: Kind.SENT}) is None:
        return False
    if rule.text is not None:
        text = reply.body.decode("utf-8", "replace").lower()
        if rule.text.lower() not in text:
            return False
    if rule.pointer is None:
        return True
    return _compare(_at(_decoded(reply), rule.pointer), rule.equals)[0] is Kind.SENT


def _item_outcomes(rule: ItemsRule, body: Any, count: int) -> tuple[Outcome, ...]:
    """One for each message; none where the reply has not an item for each."""
    found = _at(body, rule.pointer)
    if not isinstance(found, list) or len(found) != count:
        return ()
    return tuple(_item_outcome(rule, item) for item in found)


def _item_outcome(rule: ItemsRule, item: Any) -> Outcome:
    kind, said = _compare(_at(item, rule.success), rule.equals)
    reason = f"{rule.success or 'item'} {said}"
    provider_id: str | None = None
    if kind is Kind.SENT:
        if rule.id_pointer is not None:
            provider_id = _as_id(_at(item, rule.id_pointer))
    elif kind is Kind.REJECTED and rule.code_pointer is not None:
        code = _as_id(_at(item, rule.code_pointer))
        if code is not None and code in rule.outcomes:
            kind = Kind(rule.outcomes[code])
            reason += f", {kind} by configuration"
    excerpt = b"" if kind is Kind.SENT else msgspec.json.encode(item)[:EXCERPT_BYTES]
    return Outcome(kind=kind, reason=reason, provider_id=provider_id, body=excerpt)


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
