"""The ledger: what is written is what is read, with the hashes that the other witnesses make."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from paceline.backoff import POLICIES
from paceline.rehearsal.ledger import Ledger, Refusal, read
from paceline_workers.providers.maxmd import MaxMD

PAYLOAD = (
    '{"sender":"a@d.example","recipients":[{"email":"b@d.example","type":"TO"}],'
    '"subject":"Grüße","body":"x"}'
).encode()


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path, "user", "pass")
    entry = ledger.entry("a", "good", PAYLOAD, 1.5)
    refusal = Refusal("b", "refused", "payload.subject: missing", 2.5)
    ledger.write([entry, refusal])
    ledger.close()
    ledger.close()
    assert read(path) == ([entry], [refusal])


def test_its_hashes_are_those_of_the_request_and_of_the_payload(tmp_path: Path) -> None:
    profile = MaxMD(username='us"er', password="pä$$", policy=POLICIES["maxmd"])
    ledger = Ledger(tmp_path / "ledger.jsonl", 'us"er', "pä$$")
    entry = ledger.entry("a", "good", PAYLOAD, 0.0)
    ledger.close()
    body = profile.render("a", PAYLOAD).body
    assert entry.body == hashlib.sha256(body).hexdigest()[:16]
    assert entry.sha1 == hashlib.sha1(PAYLOAD).hexdigest()


def test_an_old_ledger_is_never_written_over(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_text("old")
    with pytest.raises(FileExistsError):
        Ledger(path, "user", "pass")
    assert path.read_text() == "old"
