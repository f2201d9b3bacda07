"""The worker's own record of what it puts on the wire. (That it misses nothing, whatever kills the
worker: tests/chaos/test_conformance.py.)"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, cast

import pytest

from paceline.errors import ConfigError
from paceline.settings_file import loads
from paceline_workers.runtime import WorkerRuntime
from paceline_workers.trace import WireTrace
from paceline_workers.transports.adapter import GatedRequest


class FakeLink:
    """As much of a Link as a trace looks at."""

    requests = 0


def _write(trace: WireTrace, link: FakeLink, headers: dict[str, str]) -> None:
    link.requests += 1
    request = GatedRequest("POST", "http://x/", headers, b"", lambda: 0.0)
    trace(request, cast("Any", link))


def test_a_line_has_the_moment_the_connection_and_the_id(tmp_path: Path) -> None:
    trace = WireTrace(tmp_path / "trace", "Paceline-Message-Id")
    one, two = FakeLink(), FakeLink()
    before = time.monotonic_ns()
    for link, message_id in ((one, "a"), (two, "b"), (one, "c")):
        _write(trace, link, {"Paceline-Message-Id": message_id})
    after = time.monotonic_ns()
    lines = [line.split(" ") for line in (tmp_path / "trace").read_text().splitlines()]
    assert [(number, message_id) for _, number, message_id in lines] == [
        ("1", "a"), ("2", "b"), ("1", "c"),
    ]  # fmt: skip
    times = [int(line[0]) for line in lines]
    assert before <= times[0] <= times[1] <= times[2] <= after


def test_several_workers_may_write_to_one_file(tmp_path: Path) -> None:
    traces = [WireTrace(tmp_path / "trace", "") for _ in range(2)]
    for trace in traces * 2:
        _write(trace, FakeLink(), {"Paceline-Message-Id": "a"})
    lines = (tmp_path / "trace").read_text().splitlines()
    assert [line.split(" ")[1:] for line in lines] == [
        ["1", "-"], ["1", "-"], ["2", "-"], ["2", "-"],
    ]  # fmt: skip


def test_a_full_disk_ends_the_trace_and_not_the_sending(caplog: pytest.LogCaptureFixture) -> None:
    trace = WireTrace(Path("/dev/full"), "")
    for _ in range(3):
        _write(trace, FakeLink(), {})
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_a_file_that_cannot_be_opened_is_an_error_that_names_the_option(tmp_path: Path) -> None:
    text = '[destinations.web]\nprovider = "http"\nurl = "http://127.0.0.1:9/"\n'
    destination = loads(text).destinations["web"]
    with pytest.raises(ConfigError, match=r"--trace-wire.*No such file"):
        WorkerRuntime(destination, "redis://127.0.0.1:1/0", {}, trace_wire=tmp_path / "no" / "f")
