"""Every provider's judge, and what must hold of its answer to any reply."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from fuzz.tape import Tape
from paceline.settings import Destination
from paceline.settings_file import load, loads
from paceline_workers.outcome import EXCERPT_BYTES, RETRY_AFTER_CAP_S, Kind, Outcome, Reply
from paceline_workers.providers.base import Profile, as_merging, as_polling
from paceline_workers.providers.registry import build

__all__ = ["judges"]

_NOW = 1_700_000_000.0
_EXAMPLES = Path(__file__).parents[2] / "deploy" / "examples"
_KEY = "whsec_" + "A" * 43 + "="
_CONFIG = f"""
[destinations.maxmd]
provider = "maxmd"
url = "https://h"
username = "u"
password = "pass"
[destinations.sparkpost]
provider = "sparkpost"
url = "https://h"
api_key = "k"
[destinations.mailgun]
provider = "mailgun"
url = "https://h"
api_key = "k"
[destinations.webhook]
provider = "webhook"
url = "https://h"
secrets = ["{_KEY}"]
[destinations.http]
provider = "http"
url = "https://h"
[destinations.endpoints]
provider = "webhook"
secrets = ["{_KEY}"]
[destinations.endpoints.endpoints]
[destinations.form]
provider = "http"
url = "https://h"
body = "form"
[destinations.form.success]
statuses = ["200"]
body = {{ pointer = "/a/0/b", equals = true }}
id_pointer = "/a/0/id"
[destinations.form.rules.yes]
status = "4xx"
text = "DUPLICATE"
outcome = "sent"
"""
_STATUSES = (
    200, 201, 202, 204, 299, 301, 307, 400, 401, 402, 403, 404, 407, 408, 409, 410, 413, 420, 422,
    425, 429, 500, 502, 503, 504, 599, 100, 600, 999, 0,
)  # fmt: skip
_SECRETS = {
    "SENDGRID_AUTHORIZATION": "Bearer SG.x",
    "POSTMARK_SERVER_TOKEN": "t0ken",
    "TWILIO_ACCOUNT_SID": "AC1",
    "TWILIO_AUTH_TOKEN": "t0ken",
    "FCM_AUTHORIZATION": "Bearer x",
}

Yes = Callable[[Reply, Any], bool]


def judges() -> tuple[Mapping[str, Profile], Callable[[bytes], None], Destination]:
    """All profiles by name; the target that judges one reply by each; a destination with
    endpoints."""
    found = dict(loads(_CONFIG).destinations)
    for name in ("postmark", "sendgrid", "twilio"):
        found |= load(_EXAMPLES / f"{name}.toml").destinations
    profiles = {name: build(it, _SECRETS, lambda: _NOW) for name, it in found.items()}

    def judged(data: bytes) -> None:
        reply, count = _reply(data)
        try:
            body = None if reply.truncated else msgspec.json.decode(reply.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            body = None
        for name, profile in profiles.items():
            yes = _YES[name](reply, body)
            _check(name, profile.judge(reply, _NOW), yes, reply)
            merging = as_merging(profile)
            if merging is not None:
                whole = merging.judge_merged(reply, _NOW, count)
                assert len(whole.parts) in (0, count), name
                _check(name, whole, _YES_MERGED.get(name, _YES[name])(reply, body), reply)
                for part in whole.parts:
                    _check(name, part, True, reply)
            polling = as_polling(profile)
            if polling is not None:
                says = polling.read_status(reply)
                assert says is None or (1 <= len(says) <= 300 and says.isprintable())

    return profiles, judged, found["endpoints"]


def _reply(data: bytes) -> tuple[Reply, int]:
    """Of how many members, and status, headers, body."""
    tape = Tape(data)
    count = 1 + tape.number(3)
    status = tape.choice(_STATUSES)
    truncated = tape.number(8) == 7
    headers: dict[str, str] = {}
    while line := tape.line():
        name, _, value = line.decode("latin-1").partition(":")
        headers[name] = value
    return Reply(status, headers, tape.rest(), truncated), count


def _check(name: str, outcome: Outcome, yes: bool, reply: Reply) -> None:
    assert outcome.kind is not Kind.SENT or yes, f"{name} takes {reply.status} for sent"
    assert len(outcome.body) <= EXCERPT_BYTES, name
    # In one line: it stands in the attempt on record, in logs and in lists.
    assert "\n" not in outcome.reason, (name, outcome.reason)
    assert len(outcome.reason) <= 1000, name
    assert outcome.provider_id is None or outcome.kind is Kind.SENT, name
    wait_s = outcome.retry_after_s
    assert wait_s is None or (math.isfinite(wait_s) and 0 <= wait_s <= RETRY_AFTER_CAP_S * 2), name
    # What goes into the record is encoded as JSON.
    msgspec.json.encode([outcome.reason, outcome.provider_id])


def _taken(reply: Reply) -> bool:
    return 200 <= reply.status < 300


def _maxmd(reply: Reply, body: Any) -> bool:
    fine = isinstance(body, dict) and body.get("code") == 0 and body.get("success") is True
    return _taken(reply) and fine


def _sparkpost(reply: Reply, body: Any) -> bool:
    results = body.get("results") if isinstance(body, dict) else None
    return _taken(reply) and isinstance(results, dict) and bool(results)


def _mailgun(reply: Reply, body: Any) -> bool:
    return _taken(reply) and isinstance(body, dict) and bool(body.get("id"))


def _form(reply: Reply, body: Any) -> bool:
    if 400 <= reply.status < 500:
        return b"duplicate" in reply.body.lower()
    try:
        return reply.status == 200 and body["a"][0]["b"] is True
    except (KeyError, IndexError, TypeError):
        # An object with the key "0" is pointed into as well.
        return reply.status == 200 and body is not None


def _postmark(reply: Reply, body: Any) -> bool:
    items = body if isinstance(body, list) else []
    return reply.status == 200 and any(
        isinstance(item, dict) and item.get("ErrorCode") == 0 for item in items
    )


_YES: Mapping[str, Yes] = {
    "maxmd": _maxmd,
    "sparkpost": _sparkpost,
    "mailgun": _mailgun,
    "webhook": lambda reply, _: _taken(reply),
    "endpoints": lambda reply, _: _taken(reply),
    "http": lambda reply, _: _taken(reply),
    "form": _form,
    "postmark": _postmark,
    "sendgrid": lambda reply, _: reply.status == 202,
    "twilio": lambda reply, _: reply.status == 201,
}
_YES_MERGED: Mapping[str, Yes] = {}
