"""The message that every contestant sends: a JSON object of 1,000 bytes. Pure."""

from __future__ import annotations

PAYLOAD_BYTES = 1000
_FIRST = 1_000_000
_TEXT = "y" * (PAYLOAD_BYTES - len('{"n":1000000,"text":""}'))


def payload(number: int) -> dict[str, object]:
    """The message of that number (below 9,000,000); as compact JSON it is PAYLOAD_BYTES long."""
    return {"n": _FIRST + number, "text": _TEXT}
