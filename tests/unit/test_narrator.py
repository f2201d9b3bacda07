"""What the logs tell of outcomes, and that they quote neither the provider nor the message."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from paceline.answers import Settlement
from paceline_workers.narrator import tell


def settlement(action: Any, label: str, **record: Any) -> Settlement:
    outcome = label.partition(":")[0]
    return Settlement(
        id="m-1",
        nonce="n" * 16,
        action=action,
        delay_s=2.0,
        why="HTTP 400: no such box bob@example.org",
        label=label,
        record={
            "outcome": outcome, "action": action, "reason": "no such box bob@example.org",
            "status": None, "attempt": 3, "worker": "w-1", "response": "bob@example.org", **record,
        },
    )  # fmt: skip


def told(caplog: pytest.LogCaptureFixture, it: Settlement) -> logging.LogRecord | None:
    caplog.set_level(logging.INFO, "paceline.outcome")
    caplog.clear()
    tell("web", it)
    assert len(caplog.records) <= 1
    return caplog.records[0] if caplog.records else None


@pytest.mark.parametrize(
    ("action", "label", "record", "event", "level", "cause"),
    [
        ("dead", "rejected:400", {"status": 400}, "dead_letter", "WARNING", "400"),
        ("dead", "rejected:payload", {}, "dead_letter", "WARNING", "payload"),
        ("parked", "ambiguous:reset", {}, "parked", "WARNING", "reset"),
        ("retry", "retry:refused", {}, "retry", "INFO", "refused"),
        ("retry", "ambiguous:500", {"status": 500}, "ambiguous", "WARNING", "500"),
        ("unavailable", "unavailable:503", {"status": 503}, "retry", "INFO", "503"),
        ("throttled", "throttled:429", {"status": 429}, "closed", "WARNING", "429"),
        ("held", "held:401", {"status": 401}, "closed", "ERROR", "401"),
    ],
)
def test_outcomes_that_matter(
    caplog: pytest.LogCaptureFixture,
    action: str,
    label: str,
    record: dict[str, Any],
    event: str,
    level: str,
    cause: str,
) -> None:
    found = told(caplog, settlement(action, label, **record))
    assert found is not None
    fields = found.__dict__
    assert (fields["event"], found.levelname, fields["cause"]) == (event, level, cause)
    assert (fields["destination"], fields["worker"]) == ("web", "w-1")
    assert (fields["message_id"], fields["attempt"]) == ("m-1", 3)
    assert "m-1" in found.getMessage()
    if status := record.get("status"):
        assert f"HTTP {status}" in found.getMessage()
    assert "bob" not in found.getMessage()
    assert "bob" not in str([fields.get(name) for name in ("cause", "status")])


@pytest.mark.parametrize("action", ["sent", "back"])
def test_of_the_ordinary_nothing(caplog: pytest.LogCaptureFixture, action: str) -> None:
    assert told(caplog, settlement(action, "sent:200", status=200)) is None


def test_a_certificate_that_is_not_accepted(caplog: pytest.LogCaptureFixture) -> None:
    reason = "tls: [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: has expired"
    found = told(caplog, settlement("retry", "retry:tls", reason=reason))
    assert found is not None
    assert (found.__dict__["event"], found.levelname) == ("certificate", "ERROR")
    assert "paceline doctor web" in found.getMessage()
    other = told(caplog, settlement("retry", "retry:tls", reason="tls: wrong version number"))
    assert other is not None
    assert other.__dict__["event"] == "retry"


def test_a_settlement_without_record_or_label(caplog: pytest.LogCaptureFixture) -> None:
    found = told(caplog, Settlement(id="m-1", nonce="n" * 16, action="dead"))
    assert found is not None
    assert found.__dict__["cause"] == "dead"
