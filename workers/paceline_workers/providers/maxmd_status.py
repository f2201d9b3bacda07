"""MaxMD's GetMessageStatus: what became of each recipient of a message that was sent.

::

    GET …/message-rest/api/message/GetMessageStatus/{smtpId}
    → {"smtpId", "recipients": [{"email", "status"}]}

That it gives each recipient's status is documented, its shape is not: so whatever names somebody
and a state is understood, and anything else is no answer. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

import msgspec

from paceline_workers.outcome import Reply

__all__ = ["read_status", "sibling"]

_MOST = 300
_WHO = ("email", "recipient", "address", "to")
_STATE = ("status", "state", "messageStatus", "deliveryStatus")


def sibling(smtp_id: str) -> str:
    """What stands in the URL in the place of `Send`. An id such as `<1.a@direct.example>` holds
    characters that a path cannot."""
    return "GetMessageStatus/" + quote(smtp_id, safe="")


def read_status(reply: Reply) -> str | None:
    """`b@direct.example delivered, c@direct.example failed`; None for what cannot be read."""
    if reply.status != 200 or reply.truncated:
        return None
    try:
        body = msgspec.json.decode(reply.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    words = ", ".join(_states(body))
    line = "".join(c if c.isprintable() else "?" for c in " ".join(words.split()))
    if not line:
        return None
    return line if len(line) <= _MOST else line[: _MOST - 1] + "…"


def _states(body: Any) -> Iterator[str]:
    found = body.get("recipients", body) if isinstance(body, dict) else body
    if isinstance(found, dict):
        found = [found]
    if not isinstance(found, list):
        return
    for item in found:
        if not isinstance(item, dict):
            continue
        state = _first(item, _STATE)
        if state:
            yield f"{_first(item, _WHO)} {state}".lstrip()


def _first(item: Mapping[str, Any], names: tuple[str, ...]) -> str:
    """The first of these that is text, whatever the case of its name; "" where none is."""
    lowered = {name.lower(): value for name, value in item.items()}
    for name in names:
        value = lowered.get(name.lower())
        if isinstance(value, str) and value.strip():
            return value.strip()
    return ""
