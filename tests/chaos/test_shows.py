"""The shows (tests/shows), shortened: what must hold however busy the machine is.

Bars that a busy machine may miss (shares of a rate, milliseconds) are lower here; `make shows` has
the true ones.
"""

from __future__ import annotations

import http.client
import math
from collections.abc import Sequence
from pathlib import Path

import pytest

from shows import high, outage, steady, tenants, unknown_limit
from shows.figures import Figure
from support.nginx import Nginx
from support.wait import until


def _values(figures: Sequence[Figure]) -> dict[str, float]:
    return {f.name: f.value for f in figures if not isinstance(f.value, str)}


@pytest.mark.needs("nginx")
def test_nginx_refuses_what_is_over_its_limit(tmp_path: Path) -> None:
    """The referee itself: what it admits, and that another limit is in force at once."""
    with Nginx(tmp_path, rate=1, burst=5) as nginx:
        assert [_post(nginx) for _ in range(8)] == [200] * 6 + [429] * 2
        nginx.limit(1000, 50)
        until(lambda: _post(nginx) == 200, 2, "admitted again")
        assert [r.status for r in nginx.requests()][:8] == [200] * 6 + [429] * 2


def _post(nginx: Nginx) -> int:
    connection = http.client.HTTPConnection(nginx.address, timeout=5)
    connection.request("POST", "/", b"{}")
    status = connection.getresponse().status
    connection.close()
    return status


@pytest.mark.long
@pytest.mark.needs("nginx")
def test_at_the_configured_rate_nginx_refuses_nothing(tmp_path: Path) -> None:
    found = _values(steady.run(tmp_path, 8.0, seed=1))
    assert found["workers killed"] >= 1
    assert found["requests refused (429)"] == 0
    assert found["requests answered otherwise"] == 0
    assert found["law's difference, messages"] == 0
    assert found["use of the rate"] > 0.5


@pytest.mark.long
@pytest.mark.needs("nginx")
def test_a_lower_limit_is_found(tmp_path: Path) -> None:
    with unknown_limit.start(tmp_path, seed=1) as stack:
        seen, from_ms, to_ms = unknown_limit.under_limit(stack, 6.0, 4.0)
        found = _values(unknown_limit.judge(seen, from_ms, to_ms))
        assert stack.store.census().law["dead"] == 0
    assert found["refused before it"] > 0, "the limit was never met"
    assert found["requests refused (429), part of all"] < 0.1
    assert found["use of the true limit"] > 0.6


@pytest.mark.long
def test_high_messages_pass_a_queue_of_bulk(tmp_path: Path) -> None:
    """Behind the queue they would wait for more than a minute."""
    found = _values(high.run(tmp_path, 4.0, seed=1))
    assert found["of high ones"] > 10
    assert found["send() called to first byte, ms, median"] < 1000
    assert found["bulk, of what the provider lets through"] > 0.1
    assert found["law's difference, messages"] == 0


def test_equal_tenants_are_served_equally_beside_a_large_one(tmp_path: Path) -> None:
    found = _values(tenants.run(tmp_path, 2.0, seed=1))
    assert found["Jain's index of the equal ones"] > 0.9
    assert found["law's difference, messages"] == 0
    # The large one is not served more than they are while they are active.
    assert found["sent meanwhile by the big one, of one share"] < 1.5


def test_an_outage_costs_no_message_more_than_one_attempt() -> None:
    found = _values(outage.run_one("refused", 60.0, seed=1, rate=30.0))
    assert found["refused: attempts of one message, most"] == 1
    assert found["refused: dead letters"] == 0
    assert found["refused: of those it hit, unsent at the end"] == 0
    assert found["refused: law's difference, messages"] == 0
    assert found["refused: full rate again after, s"] < math.inf
