"""Versions agree on a configuration that does not use what one of them does not know."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from paceline import config_digest
from paceline.config_digest import base, differences, digest, distinct, shared_copy
from paceline.settings import Destination, Endpoints
from paceline.settings_file import loads

#: Each key's default when it was new. Keys are added, nothing here is ever changed: where a default
#: is to be another one, what it was goes to FORMER_DEFAULTS.
FIRST_DEFAULTS: dict[str, Any] = {
    "rate": 90.0,
    "burst": 150,
    "connections": 10,
    "effective_connections": 10,
    "reserve": 5,
    "pace": "adaptive",
    "probe_after_s": 30.0,
    "bytes_per_s": 0,
    "fallback": None,
    "fallback_provider": None,
    "tenants": {},
    "batch": 100,
    "connect_timeout_s": 5.0,
    "read_timeout_s": 30.0,
    "total_timeout_s": 35.0,
    "lease_s": 8.0,
    "max_payload_bytes": 4194304,
    "max_messages": 1000000,
    "max_bytes": 4294967296,
    "max_age_s": 259200.0,
    "record_ttl_s": 86400.0,
    "connection_idle_s": 20.0,
    "connection_max_age_s": 900.0,
    "connection_max_requests": 10000,
    "username": False,
    "password": False,
    "headers": [],
    "retry": {
        "first_s": 1.0,
        "factor": 2.0,
        "cap_s": 60.0,
        "max_retries": 5,
        "jitter": 0.2,
        "wait_503_s": [30.0, 60.0],
        "throttle_first_s": 1.0,
        "throttle_cap_s": 60.0,
        "on_ambiguous": "retry",
    },
    "id_header": "Paceline-Message-Id",
    "allow_plain_http": False,
    "guard": "off",
    "guard_allow": [],
    "gzip_from_bytes": 0,
    "redact": [],
    "method": "POST",
    "body": "json",
    "success": {
        "statuses": ["2xx"],
        "pointer": None,
        "equals": None,
        "id_pointer": None,
        "id_header": None,
    },
    "outcomes": {},
    "rules": [],
    "items": None,
    "idempotency_key": "bare",
    "api_key": False,
    "secrets": False,
    "subaccount": None,
    "business_errors": "retry",
    "poll_status_after_s": 0.0,
    "merge": {
        "most": 1,
        "max_bytes": 10485760,
        "linger_s": 0.2,
        "on_ambiguous": "retry",
        "array": None,
    },
    "events": {
        "kinds": [],
        "max_count": 100000,
        "max_age_s": 86400.0,
        "deliver_to": None,
        "deliver_kinds": [],
        "deliver_batch": 100,
        "deliver_linger_s": 1.0,
    },
    "endpoints": None,
}

TEXT = """
[destinations.web]
provider = "http"
url = "https://api.example/v1"
rate = 50
retry = { max_retries = 9 }
[destinations.web.tenants.one]
weight = 2.0
[destinations.web.rules.gone]
status = "410"
outcome = "rejected"
"""


def _web(more: str = "") -> Destination:
    return loads(TEXT.replace("rate = 50", f"rate = 50\n{more}")).destinations["web"]


def test_a_default_that_changes_is_kept_where_versions_compare() -> None:
    now = base(Destination(name="d", provider="http", urls=()))
    for key in ("name", "provider", "urls"):
        del now[key]
    assert now == FIRST_DEFAULTS, "a new key goes into FIRST_DEFAULTS, see there for a changed one"


def test_only_what_differs_counts() -> None:
    assert distinct(_web()) == {
        "name": "web",
        "provider": "http",
        "urls": ["https://api.example/v1"],
        "rate": 50.0,
        "retry": {"max_retries": 9},
        "tenants": {"one": {"weight": 2.0}},
        "rules": [{"name": "gone", "status": "410", "outcome": "rejected"}],
    }
    assert digest(_web()) == digest(_web("burst = 150\nsuccess = { statuses = ['2xx'] }"))
    assert digest(_web()) != digest(_web("burst = 151"))


@pytest.mark.parametrize(
    "line",
    [
        "burst = 151",
        "merge = { most = 10, array = '/to' }",
        "redact = ['/name']",
        "items = { pointer = '/r', success = { pointer = '/c', equals = 0 } }",
    ],
)
def test_what_is_said_counts(line: str) -> None:
    assert digest(_web()) != digest(_web(line))


def test_endpoints_count_even_by_their_defaults() -> None:
    every = [replace(_web(), endpoints=it) for it in (None, Endpoints(), Endpoints(in_flight=5))]
    assert len({digest(it) for it in every}) == 3
    assert distinct(every[2])["endpoints"] == {"in_flight": 5}


def test_a_layout_of_its_own_forbids_to_live_together(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, before = shared_copy(_web()), digest(_web())
    monkeypatch.setattr(config_digest, "LAYOUT", theirs["layout"] + 1)
    assert digest(_web()) != before
    assert differences(theirs, _web()) == "layout is 1 there, 2 here"


def test_a_former_default_still_stands_in_the_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    before = digest(_web())
    monkeypatch.setattr(config_digest, "FORMER_DEFAULTS", {"lease_s": 9.0, "retry.cap_s": 30.0})
    assert distinct(_web())["lease_s"] == 8.0
    assert distinct(_web())["retry"] == {"cap_s": 60.0, "max_retries": 9}
    assert digest(_web()) != before


def test_differences_are_told_and_a_key_nobody_uses_is_none() -> None:
    theirs = json.loads(json.dumps(shared_copy(_web())))
    assert differences(theirs, _web()) == ""
    del theirs["redact"]
    assert differences(theirs, _web()) == ""
    said = differences({**theirs, "novel": 1}, _web("redact = ['/x']\nburst = 151"))
    assert said.split("; ") == [
        "burst is 150 there, 151 here",
        "novel is 1 there, None here",
        "redact is None there, ['/x'] here",
    ]
