"""The simulators of mail services over real sockets: recipients, keys, rows, and the command."""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from http.client import HTTPConnection, IncompleteRead, RemoteDisconnected
from pathlib import Path
from typing import Any

import pytest

from paceline.sink import SinkThread, SpecError

PATH = "/api/v1/transmissions"
Answer = tuple[int, dict[str, str], bytes]


class Client:
    """One keep-alive connection to a SparkPost."""

    def __init__(self, sink: SinkThread) -> None:
        self.http = HTTPConnection(*sink.address, timeout=10)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def post(self, body: bytes, path: str = PATH, **headers: str) -> Answer:
        given = {"Authorization": "key", "Content-Type": "application/json"}
        given.update({name.replace("_", "-"): value for name, value in headers.items()})
        self.http.request("POST", path, body, given)
        answer = self.http.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()

    def control(self, method: str, what: str, body: object = None) -> tuple[int, Any]:
        self.http.request(method, f"/_sink/{what}", json.dumps(body).encode())
        answer = self.http.getresponse()
        return answer.status, json.loads(answer.read())


def transmission(*addresses: str, text: str = "x") -> bytes:
    content = {"from": "ann@example.com", "subject": "s", "text": text}
    recipients = [{"address": {"email": address}} for address in addresses]
    return json.dumps({"recipients": recipients, "content": content}).encode()


TWO = transmission("bob@example.com", "carl@example.com")


@pytest.fixture
def sink() -> Iterator[SinkThread]:
    with SinkThread(profile="sparkpost", recipients=True) as running:
        yield running


# -- recipients ------------------------------------------------------------------------------------


def test_recipients_are_counted_and_those_accepted_twice_are_named(sink: SinkThread) -> None:
    with Client(sink) as client:
        client.post(TWO)
        client.post(transmission("carl@example.com", "dora@example.com", "reject-e@example.com"))
        client.post(transmission("nobody"))
    assert [(a.accepted, a.recipients) for a in sink.arrivals()] == [
        (True, 2),
        (True, 2),
        (False, 0),
    ]
    report = sink.report()
    assert (report.recipients, report.distinct_recipients) == (4, 3)
    assert report.repeated_recipients == {"carl@example.com": 2}
    sink.reset()
    assert sink.report().recipients == 0
    assert sink.report().repeated_recipients == {}


def test_a_fault_decides_whether_recipients_were_accepted(sink: SinkThread) -> None:
    with Client(sink) as client:
        for fault in ("503", "504:acted=yes", "row=422/1300", "row=200/2000", "liar", "typed"):
            sink.set_faults(fault)
            client.post(TWO)
    assert [a.recipients for a in sink.arrivals()] == [0, 2, 0, 1, 2, 2]
    assert [a.fault for a in sink.arrivals()][2:] == [
        "row=422/1300",
        "row=200/2000",
        "liar=500",
        "typed",
    ]


def test_a_compressed_body_is_read(sink: SinkThread) -> None:
    with Client(sink) as client:
        assert client.post(gzip.compress(TWO), Content_Encoding="gzip")[0] == 200
        assert client.post(TWO, Content_Encoding="gzip")[0] == 415
        assert client.post(gzip.compress(TWO)[:-9], Content_Encoding="gzip")[0] == 415
        assert client.post(TWO, Content_Encoding="br")[0] == 415
        assert client.post(TWO, Content_Encoding="identity")[0] == 200
    assert [(a.fault, a.recipients) for a in sink.arrivals()] == [
        ("ok", 2), ("encoding", 0), ("encoding", 0), ("encoding", 0), ("ok", 2),
    ]  # fmt: skip


def test_a_lean_sink_counts_recipients_too() -> None:
    with SinkThread(profile="sparkpost", validate=False) as sink, Client(sink) as client:
        client.post(transmission(*(f"u{n}@example.com" for n in range(2000))))
        assert sink.report().recipients == 2000
        assert sink.report().repeated_recipients is None


# -- idempotency keys ------------------------------------------------------------------------------


def test_a_request_made_again_after_its_answer_was_lost_is_accepted_once(sink: SinkThread) -> None:
    sink.set_faults(next=(1, "reset_after"))
    with Client(sink) as client:
        with pytest.raises((ConnectionResetError, RemoteDisconnected)):
            client.post(TWO, Idempotency_Key="k-1")
        client.http.close()
        status, headers, again = client.post(TWO, Idempotency_Key="k-1")
        assert (status, headers["X-Idempotent-Replayed"]) == (200, "true")
        assert json.loads(again)["results"]["total_accepted_recipients"] == 2
        assert client.post(TWO, Idempotency_Key="k-1")[2] == again
        status, _, other = client.post(transmission("b@example.com"), Idempotency_Key="k-1")
        assert (status, json.loads(other)["errors"][0]["code"]) == (409, "1600")
    report = sink.report()
    assert (report.recipients, report.repeated_recipients) == (2, {})
    assert [(a.key, a.fault) for a in sink.arrivals()] == [
        ("k-1", "reset_after"),
        ("k-1", "replayed"),
        ("k-1", "replayed"),
        ("k-1", "key_conflict"),
    ]
    assert len({a.sha256 for a in sink.arrivals()[:3]}) == 1


def test_what_failed_undone_may_be_done_under_the_same_key(sink: SinkThread) -> None:
    sink.set_faults(next=(2, "503"))
    with Client(sink) as client:
        assert [client.post(TWO, Idempotency_Key="k")[0] for _ in range(3)] == [503, 503, 200]
    assert sink.report().recipients == 2


def test_a_key_is_in_progress_until_the_first_request_is_over(sink: SinkThread) -> None:
    sink.set_faults(next=(1, "hang"))
    with Client(sink) as first, Client(sink) as second:
        first.http.request("POST", PATH, TWO, {
            "Authorization": "key", "Content-Type": "application/json", "Idempotency-Key": "k",
        })  # fmt: skip
        sink.wait_begun(1)
        status, _, body = second.post(TWO, Idempotency_Key="k")
        assert (status, json.loads(body)["errors"][0]["code"]) == (409, "1601")
        first.http.close()
        sink.wait_ended(2)
        status, headers, _ = second.post(TWO, Idempotency_Key="k")
        assert (status, headers["X-Idempotent-Replayed"]) == (200, "true")
    assert sink.report().recipients == 2


def test_a_reset_forgets_keys(sink: SinkThread) -> None:
    with Client(sink) as client:
        client.post(TWO, Idempotency_Key="k")
        sink.reset()
        assert "X-Idempotent-Replayed" not in client.post(TWO, Idempotency_Key="k")[1]


# -- rows ------------------------------------------------------------------------------------------


def test_rows_come_over_the_wire(sink: SinkThread) -> None:
    with Client(sink) as client:
        sink.set_faults(script=["row=420/2102", "row=429:retry_after=3", "liar=503", "typed"])
        status, headers, body = client.post(TWO)
        assert (status, json.loads(body)["errors"][0]["code"]) == (420, "2102")
        status, headers, body = client.post(TWO)
        assert (status, headers["Retry-After"]) == (429, "3")
        status, _, body = client.post(TWO)
        assert (status, json.loads(body)["results"]["total_accepted_recipients"]) == (503, 2)
        status, _, body = client.post(TWO)
        assert json.loads(body)["results"]["total_accepted_recipients"] == "2"


def test_a_row_the_profile_does_not_have_is_refused_everywhere(sink: SinkThread) -> None:
    for change in (
        {"faults": "row=418"},
        {"script": ["ok", "large-batches"]},
        {"next": (1, "row=418")},
    ):
        with pytest.raises(SpecError, match="sparkpost has no row"):
            sink.set_faults(**change)  # type: ignore[arg-type]
    with Client(sink) as client:
        status, body = client.control("POST", "faults", {"faults": "row=418"})
        assert status == 400
        assert "nothing was changed" in body["error"]
        assert client.post(TWO)[0] == 200
    for options in ({"faults": "row=418"}, {"script": {"a": ["quota"]}}):
        with pytest.raises(SpecError, match="maxmd has no row"), SinkThread(**options):  # type: ignore[arg-type]
            pass


def test_the_own_limit_speaks_the_providers_language() -> None:
    with SinkThread(profile="mailgun", limit="0.001,1") as sink, Client(sink) as client:
        client.post(b"", "/v3/example.com/messages")
        status, headers, body = client.post(b"", "/v3/example.com/messages")
        assert status == 429
        assert "try again after" in json.loads(body)["message"]
        assert "Retry-After" not in headers
    assert [a.fault for a in sink.arrivals()] == ["authentication", "limit"]


GOOD_MAIL = json.dumps(
    {
        "personalizations": [{"to": [{"email": "bob@example.com"}]}],
        "from": {"email": "ann@example.com"},
        "subject": "s",
        "content": [{"type": "text/plain", "value": "x"}],
    }
).encode()


def test_sendgrids_good_answer_has_headers_and_no_body() -> None:
    with SinkThread(profile="sendgrid", api_key="k") as sink, Client(sink) as client:
        status, headers, answer = client.post(GOOD_MAIL, "/v3/mail/send", Authorization="Bearer k")
        assert (status, answer) == (202, b"")
        assert headers["X-Message-Id"] == "sink-0"
        assert int(headers["X-RateLimit-Remaining"]) < int(headers["X-RateLimit-Limit"])


def test_an_answer_without_a_body_can_be_cut_short_too() -> None:
    with (
        SinkThread(profile="sendgrid", faults="garbage=truncated") as sink,
        Client(sink) as client,
        pytest.raises(IncompleteRead),
    ):
        client.post(GOOD_MAIL, "/v3/mail/send", Authorization="Bearer k")


# -- the command -----------------------------------------------------------------------------------


def test_the_command_runs_a_sparkpost(tmp_path: Path) -> None:
    port_file = tmp_path / "port"
    command = [sys.executable, "-m", "paceline", "sink", "--profile", "sparkpost", "--port", "0"]
    command += ["--port-file", str(port_file), "--api-key", "k", "--recipients"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+) \(profile sparkpost\)", line)
        assert found is not None, line
        http = HTTPConnection("127.0.0.1", int(found[1]), timeout=10)
        headers = {"Authorization": "k", "Content-Type": "application/json"}
        for _ in range(2):
            http.request("POST", PATH, TWO, headers)
            assert http.getresponse().read()
        http.close()
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=10)
    finally:
        process.kill()
    assert re.search(r"recipients: +4, 2 of them more than once\n", out), out
    assert "  bob@example.com: 2 times\n" in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--lean", "--recipients"], "leave out recipients or lean"),
        (["--faults", "row=418"], "sparkpost has no row"),
        (["--profile", "ses"], "sendgrid"),
    ],
)
def test_the_command_says_what_cannot_be(arguments: list[str], says: str) -> None:
    ended = subprocess.run(
        [
            sys.executable,
            "-m",
            "paceline.sink",
            "--profile",
            "sparkpost",
            "--port",
            "0",
            *arguments,
        ],
        capture_output=True,
        text=True,
        timeout=20,
        env={**os.environ, "COLUMNS": "400"},
    )
    assert ended.returncode == 2
    assert says in ended.stderr
    assert "Traceback" not in ended.stderr
