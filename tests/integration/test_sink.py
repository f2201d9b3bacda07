"""The sink over real sockets: what clients see, and what is recorded of them."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.client import HTTPConnection, IncompleteRead
from pathlib import Path
from typing import Any

import pytest

from paceline.sink import Arrival, FaultSpecError, SinkThread, SpecError
from paceline.sink.answers import Request, Verdict
from paceline.sink.profiles import MaxMD

BODY = json.dumps(
    {
        "authentication": {"username": "u", "password": "p"},
        "message": {
            "sender": "a@example.com",
            "recipients": [{"email": "b@example.com", "type": "TO"}],
            "subject": "s",
            "body": "x" * 800,
        },
    }
).encode()


def request(message_id: str | None = None, body: bytes = BODY, extra: str = "") -> bytes:
    name = f"Paceline-Message-Id: {message_id}\r\n" if message_id is not None else ""
    head = (
        f"POST /Send HTTP/1.1\r\nHost: sink\r\nContent-Type: application/json\r\n{name}{extra}"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Client:
    """One keep-alive connection."""

    def __init__(self, sink: SinkThread) -> None:
        self.http = HTTPConnection(*sink.address, timeout=10)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def post(
        self, message_id: str | None = None, body: bytes = BODY, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        if message_id is not None:
            headers["Paceline-Message-Id"] = message_id
        headers.setdefault("Content-Type", "application/json")
        return self.call("POST", "/Send", body, headers)

    def call(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        self.http.request(method, path, body, headers or {})
        answer = self.http.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()

    def change(self, **change: object) -> dict[str, Any]:
        status, _, body = self.call("POST", "/_sink/faults", json.dumps(change).encode())
        answer: dict[str, Any] = json.loads(body)
        assert status == 200, answer
        return answer


def connect(sink: SinkThread) -> socket.socket:
    return socket.create_connection(sink.address, timeout=10)


def read_all(sock: socket.socket) -> bytes:
    parts = []
    while part := sock.recv(65536):
        parts.append(part)
    return b"".join(parts)


@pytest.fixture
def sink() -> Iterator[SinkThread]:
    with SinkThread() as running:
        yield running


# -- arrivals ------------------------------------------------------------------------------------


def test_an_arrival_is_recorded_whole(sink: SinkThread) -> None:
    mono, wall = time.monotonic_ns(), time.time_ns()
    with Client(sink) as client:
        status, _, body = client.post("id-1", Idempotency_Key="other")
        assert (status, json.loads(body)["success"]) == (200, True)
        (arrival,) = sink.arrivals()
        port = client.http.sock.getsockname()[1]
    assert arrival.id == "id-1"
    assert arrival.peer == f"127.0.0.1:{port}"
    assert (arrival.bytes, arrival.path) == (len(BODY), "/Send")
    assert (arrival.fault, arrival.status, arrival.accepted) == ("ok", 200, True)
    assert arrival.sha256 == hashlib.sha256(BODY).hexdigest()[:16]
    assert arrival.answered_ns is not None
    assert mono < arrival.mono_ns < arrival.answered_ns < time.monotonic_ns()
    assert wall <= arrival.wall_ns <= time.time_ns()


def test_the_id_falls_back_to_the_idempotency_key_and_to_null(sink: SinkThread) -> None:
    with Client(sink) as client:
        client.post(Idempotency_Key="bare")
        client.post(Idempotency_Key='"quoted"')
        client.post()
    assert [arrival.id for arrival in sink.arrivals()] == ["bare", "quoted", None]


def test_the_time_is_that_of_the_first_byte(sink: SinkThread) -> None:
    whole = request("slow")
    with connect(sink) as sock:
        sock.sendall(whole[:200])  # the headers and a piece of the body
        sink.wait_begun(1)
        between = time.monotonic_ns()
        sock.sendall(whole[200:])
        sock.recv(4096)
    (arrival,) = sink.arrivals()
    assert arrival.mono_ns < between
    assert arrival.answered_ns is not None
    assert arrival.answered_ns > between


def test_bodies_of_many_megabytes_pass(sink: SinkThread) -> None:
    body = BODY.replace(b"xxx", b"x" * 9_000_000, 1)
    with Client(sink) as client:
        assert client.post("big", body)[0] == 200
    (arrival,) = sink.arrivals()
    assert arrival.bytes == len(body)
    assert arrival.sha256 == hashlib.sha256(body).hexdigest()[:16]
    assert arrival.accepted


def test_chunked_bodies_and_expect_continue(sink: SinkThread) -> None:
    with connect(sink) as sock:
        sock.sendall(
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        assert sock.recv(4096).startswith(b"HTTP/1.1 100 ")
        for piece in (BODY[:300], BODY[300:]):
            sock.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
        sock.sendall(b"0\r\n\r\n")
        assert sock.recv(4096).startswith(b"HTTP/1.1 200 ")
    (arrival,) = sink.arrivals()
    assert (arrival.bytes, arrival.accepted) == (len(BODY), True)


def test_a_request_that_never_ends_is_on_record(sink: SinkThread) -> None:
    with connect(sink) as sock:
        sock.sendall(b"POST /Send HTTP/1.1\r\nPaceline-")
    with connect(sink) as sock:
        sock.sendall(request("half")[:300])
    arrivals = sink.wait_ended(2)
    assert sorted(arrival.id or "" for arrival in arrivals) == ["", "half"]
    assert {(a.fault, a.accepted, a.status) for a in arrivals} == {("incomplete", False, None)}


def test_what_is_not_http_is_refused_and_on_record(sink: SinkThread) -> None:
    with connect(sink) as sock:
        sock.sendall(b"\x16\x03\x01\x02\x00\x01\x00 a TLS hello")
        assert read_all(sock).startswith(b"HTTP/1.1 400 ")
    (arrival,) = sink.wait_ended(1)
    assert (arrival.fault, arrival.status, arrival.accepted) == ("bad_http", 400, False)


def test_pipelined_requests_are_answered_in_order() -> None:
    with SinkThread(profile="http", latency="1-10ms") as sink, connect(sink) as sock:
        wanted = 20
        sock.sendall(b"".join(request(f"id-{n}", b"{}") for n in range(wanted)))
        sink.wait_ended(wanted)
        answer = b""
        while answer.count(b'"ok":true') < wanted:
            answer += sock.recv(65536)
        numbers = re.findall(rb"sink-(\d+)", answer)
        assert [int(number) for number in numbers] == list(range(wanted))


def test_other_methods_are_answered_405(sink: SinkThread) -> None:
    with Client(sink) as client:
        status, headers, _ = client.call("GET", "/Send")
    assert (status, headers["Allow"]) == (405, "POST")
    assert not sink.arrivals()[0].accepted


def test_connection_close_is_honoured(sink: SinkThread) -> None:
    with connect(sink) as sock:
        sock.sendall(request("last", extra="Connection: close\r\n"))
        assert b"Connection: close" in read_all(sock)


# -- faults --------------------------------------------------------------------------------------


def test_reset_before_strikes_before_the_body_and_is_never_accepted(sink: SinkThread) -> None:
    sink.set_faults("reset_before")
    with connect(sink) as sock:
        head, _, _ = request("id-1").partition(b"\r\n\r\n")
        sock.sendall(head + b"\r\n\r\n")  # not one byte of the body
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
    with connect(sink) as sock:
        sock.sendall(request("id-2"))
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
    arrivals = sink.wait_ended(2)
    assert [(a.fault, a.accepted, a.status) for a in arrivals] == [
        ("reset_before", False, None),
        ("reset_before", False, None),
    ]


def test_reset_after_reads_the_body_acts_and_resets(sink: SinkThread) -> None:
    sink.set_faults("reset_after")
    with connect(sink) as sock:
        sock.sendall(request("id-1"))
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
    (arrival,) = sink.wait_ended(1)
    assert (arrival.fault, arrival.accepted, arrival.status) == ("reset_after", True, None)
    assert arrival.sha256 == hashlib.sha256(BODY).hexdigest()[:16]


@pytest.mark.parametrize(("fault", "accepted"), [("eof_before", False), ("eof_after", True)])
def test_eof_is_a_clean_end(sink: SinkThread, fault: str, accepted: bool) -> None:
    sink.set_faults(fault)
    with connect(sink) as sock:
        sock.sendall(request("id-1", BODY + b" " * 2_000_000))  # more than one read
        assert sock.recv(1) == b"", "FIN, and not RST"
    (arrival,) = sink.wait_ended(1)
    assert (arrival.fault, arrival.accepted, arrival.status) == (fault, accepted, None)


def test_a_status_with_retry_after_and_body(sink: SinkThread) -> None:
    with Client(sink) as client:
        sink.set_faults("429:retry_after=2:body=%7B%7D")
        status, headers, body = client.post("a")
        assert (status, headers["Retry-After"], body) == (429, "2", b"{}")
        sink.set_faults("503:retry_after=date+60")
        status, headers, _ = client.post("b")
        assert status == 503
        assert headers["Retry-After"].endswith(" GMT")
        assert headers["Retry-After"] != headers["Date"]
        sink.set_faults("504:acted=yes")
        assert client.post("c")[0] == 504
    assert [(a.fault, a.status, a.accepted) for a in sink.arrivals()] == [
        ("429", 429, False),
        ("503", 503, False),
        ("504", 504, True),
    ]


def test_hang_acts_and_never_answers(sink: SinkThread) -> None:
    sink.set_faults("hang")
    with connect(sink) as sock:
        sock.sendall(request("id-1"))
        (open_one,) = sink.wait_begun(1)
        assert open_one.answered_ns is None
        assert sink.report().open == 1
    (arrival,) = sink.wait_ended(1)
    assert (arrival.fault, arrival.accepted, arrival.status) == ("hang", True, None)


def test_hang_may_answer_late(sink: SinkThread) -> None:
    sink.set_faults("hang:for=50ms")
    with Client(sink) as client:
        assert client.post("id-1")[0] == 200
    (arrival,) = sink.arrivals()
    assert arrival.answered_ns is not None
    assert arrival.answered_ns - arrival.mono_ns >= 49_000_000
    assert (arrival.fault, arrival.accepted, arrival.status) == ("hang", True, 200)


def test_drip_answers_byte_by_byte(sink: SinkThread) -> None:
    sink.set_faults("drip:every=1ms")
    with connect(sink) as sock:
        sock.sendall(request("id-1", extra="Connection: close\r\n"))
        reads = []
        while part := sock.recv(4096):
            reads.append(part)
    assert len(reads) > 50
    assert json.loads(b"".join(reads).partition(b"\r\n\r\n")[2])["success"] is True
    (arrival,) = sink.wait_ended(1)
    assert (arrival.fault, arrival.accepted, arrival.status) == ("drip", True, 200)


def test_a_drip_given_up_is_accepted_without_a_status(sink: SinkThread) -> None:
    sink.set_faults("drip:every=20ms")
    with connect(sink) as sock:
        sock.sendall(request("id-1"))
        assert sock.recv(1) == b"H"
    (arrival,) = sink.wait_ended(1)
    assert (arrival.accepted, arrival.status, arrival.answered_ns) == (True, None, None)


def test_close_answers_and_then_ends_without_warning(sink: SinkThread) -> None:
    sink.set_faults("close")
    with connect(sink) as sock:
        sock.sendall(request("id-1"))
        answer = read_all(sock)
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert b"Connection: close" not in answer
    (arrival,) = sink.wait_ended(1)
    assert (arrival.accepted, arrival.status) == (True, 200)


@pytest.mark.parametrize("code", [1, 2, 3, 4, 999])
def test_business_errors_come_in_a_200(sink: SinkThread, code: int) -> None:
    sink.set_faults(f"business={code}")
    with Client(sink) as client:
        status, _, body = client.post("id-1")
    answer = json.loads(body)
    assert (status, answer["code"], answer.get("success", False)) == (200, code, False)
    assert ("success" in answer) == (code != 999)
    assert not sink.arrivals()[0].accepted


@pytest.mark.parametrize("form", ["html", "empty", "binary"])
def test_garbage_is_an_unreadable_200(sink: SinkThread, form: str) -> None:
    sink.set_faults(f"garbage={form}")
    with Client(sink) as client:
        status, _, body = client.post("id-1")
    assert status == 200
    with pytest.raises(ValueError):
        json.loads(body)
    assert sink.arrivals()[0].accepted


def test_truncated_garbage_ends_early(sink: SinkThread) -> None:
    sink.set_faults("garbage=truncated")
    with Client(sink) as client, pytest.raises(IncompleteRead):
        client.post("id-1")
    (arrival,) = sink.wait_ended(1)
    assert (arrival.accepted, arrival.status) == (True, None)


def test_redirect_and_huge(sink: SinkThread) -> None:
    with Client(sink) as client:
        sink.set_faults("redirect=307:location=/x")
        status, headers, _ = client.post("a")
        assert (status, headers["Location"]) == (307, "/x")
        sink.set_faults("huge=3MB")
        status, _, body = client.post("b")
        assert len(body) == 3_000_000
        assert json.loads(body)["code"] == 0
    assert [a.accepted for a in sink.arrivals()] == [False, True]


def test_what_the_provider_refuses_it_does_not_act_on_even_where_a_fault_follows(
    sink: SinkThread,
) -> None:
    sink.set_faults("hang:for=1ms")
    with Client(sink) as client:
        assert json.loads(client.post("bad", b"{}")[2]) == {"code": 999, "message": "error"}
        sink.set_faults("")
        client.post("bad", b"{}")
    assert [(a.fault, a.accepted) for a in sink.arrivals()] == [
        ("hang", False),
        ("malformed", False),
    ]


def fates(arrivals: list[Arrival]) -> dict[str | None, list[str]]:
    met: dict[str | None, list[str]] = {}
    for arrival in arrivals:
        met.setdefault(arrival.id, []).append(arrival.fault)
    return met


def test_the_same_seed_gives_the_same_faults_in_any_order_over_any_connections() -> None:
    ids = [f"id-{n}" for n in range(60)] * 2
    seen = []
    for connections in (1, 3):
        order = ids.copy()
        random.Random(connections).shuffle(order)
        with SinkThread(profile="http", faults="503:30%,business=3:20%", seed=7) as sink:

            def send(mine: list[str], sink: SinkThread = sink) -> None:
                with Client(sink) as client:
                    for message_id in mine:
                        client.post(message_id, b"{}")

            threads = [
                threading.Thread(target=send, args=(order[n::connections],))
                for n in range(connections)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            seen.append(fates(sink.arrivals()))
    assert seen[0] == seen[1]
    assert len({tuple(fate) for fate in seen[0].values()}) >= 6


def test_a_script_by_id_and_latency() -> None:
    script = {"id-7": ["503", "ok"]}
    with SinkThread(script=script, latency="30ms") as sink, Client(sink) as client:
        assert [client.post(i)[0] for i in ("id-7", "id-8", "id-7", "id-7")] == [503, 200, 200, 200]
        for arrival in sink.arrivals():
            assert arrival.answered_ns is not None
            assert arrival.answered_ns - arrival.mono_ns >= 29_000_000


# -- limit, control, up and down -------------------------------------------------------------------


def test_the_own_limit_answers_429_and_uses_up_no_draw() -> None:
    script = {"a": ["500", "502"]}
    with SinkThread(limit="0.001,1", script=script) as sink, Client(sink) as client:
        assert client.post("a")[0] == 500
        status, headers, _ = client.post("a")
        assert status == 429
        assert int(headers["Retry-After"]) > 900
        sink.set_faults(limit="")
        assert client.post("a")[0] == 502, "the script went on where it was"
    assert [a.fault for a in sink.arrivals()] == ["500", "limit", "502"]


def test_the_control_endpoint_is_not_an_arrival_and_its_connections_do_not_count(
    sink: SinkThread,
) -> None:
    with Client(sink) as control, Client(sink) as client:
        client.post("a")
        client.post("a")
        sink.set_faults("503")
        client.post("b")
        status, _, body = control.call("GET", "/_sink/report")
        report = json.loads(body)
        assert status == 200
        assert (report["arrivals"], report["accepted"], report["distinct_ids"]) == (3, 2, 2)
        assert [a["fault"] for a in report["duplicates"]["a"]] == ["ok", "ok"]
        assert report["faults"] == {"503": 1, "ok": 2}
        assert report["connections"]["opened"] == 1
        assert report["connections"]["max_open"] == 1
        assert report["connections"]["requests_per_connection"] == {
            "min": 3,
            "median": 3.0,
            "max": 3,
        }
        lines = control.call("GET", "/_sink/arrivals?since=1")[2].splitlines()
        assert [json.loads(line)["id"] for line in lines] == ["a", "b"]
        (line,) = control.call("GET", "/_sink/connections")[2].splitlines()
        assert json.loads(line)["requests"] == 3
        assert control.call("POST", "/_sink/reset")[0] == 200
        assert json.loads(control.call("GET", "/_sink/report")[2])["arrivals"] == 0
        client.post("c")
        assert [a.seq for a in sink.arrivals()] == [0]


def test_faults_change_live_all_or_nothing(sink: SinkThread) -> None:
    with Client(sink) as client:
        answer = client.change(next={"count": 2, "fault": "429:retry_after=2"}, latency="1ms")
        assert (answer["next"], answer["latency"]) == (2, "1ms")
        assert [client.post(str(n))[0] for n in range(3)] == [429, 429, 200]
        bad = json.dumps(
            {"faults": "500", "seed": 9, "next": {"count": 1, "fault": "foo"}}
        ).encode()
        status, _, body = client.call("POST", "/_sink/faults", bad)
        assert status == 400
        assert 'unknown kind "foo"' in json.loads(body)["error"]
        in_force = client.change()
        assert (in_force["latency"], in_force["faults"], in_force["seed"]) == ("1ms", "", 0)
        for path, method, expected in [
            ("/_sink/nothing", "GET", 404),
            ("/_sink/report", "POST", 405),
            ("/_sink/arrivals?x", "GET", 400),
        ]:
            assert client.call(method, path)[0] == expected
        assert client.call("POST", "/_sink/faults", b'{"fault": "503"}')[0] == 400
    with pytest.raises(FaultSpecError):
        sink.set_faults("foo")


def test_down_refuses_and_up_serves_again_on_the_same_port(sink: SinkThread) -> None:
    with Client(sink) as control, connect(sink) as sock:
        sock.sendall(request("a"))
        assert sock.recv(4096).startswith(b"HTTP/1.1 200 ")
        assert control.change(down=True)["down"] is True
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
        with pytest.raises(ConnectionRefusedError):
            connect(sink)
        with socket.socket() as thief, pytest.raises(OSError):
            thief.bind(sink.address)  # the port is kept
        assert control.change(down=False)["down"] is False
        with Client(sink) as client:
            assert client.post("b")[0] == 200
        for _ in range(3):  # at once, with the change of hands still under way
            sink.down(keep_connections=True)
            sink.up()
        with Client(sink) as client:
            assert client.post("c")[0] == 200


def test_down_for_a_time_comes_up_by_itself(sink: SinkThread) -> None:
    sink.down(0.05)
    deadline = time.monotonic() + 5
    while True:
        try:
            connect(sink).close()
            break
        except ConnectionRefusedError:
            assert time.monotonic() < deadline


def test_a_failed_start_is_raised_where_the_sink_was_asked_for(sink: SinkThread) -> None:
    with pytest.raises(OSError), SinkThread(port=sink.address[1]):
        pass
    with pytest.raises(SpecError), SinkThread(profile="nobody"):
        pass


# -- connections -----------------------------------------------------------------------------------


def test_the_highest_number_open_at_once(sink: SinkThread) -> None:
    for _ in range(5):  # one after the other: never two
        with Client(sink) as client:
            client.post("a")
    assert sink.report().connections.max_open == 1
    clients = [Client(sink) for _ in range(4)]
    for client in clients:
        client.post("b")
    for client in clients:
        client.http.close()
    sink.wait_closed()
    connections = sink.report().connections
    assert (connections.opened, connections.max_open, connections.open) == (9, 4, 0)


def test_idle_connections_are_closed_by_the_server() -> None:
    with SinkThread(idle_s=0.05) as sink, connect(sink) as sock:
        sock.sendall(request("a"))
        assert read_all(sock).startswith(b"HTTP/1.1 200 ")
        sink.wait_closed()


def test_a_client_that_resets_in_the_middle_leaves_a_record(sink: SinkThread) -> None:
    sink.set_faults(latency="5s")
    with connect(sink) as sock:
        sock.sendall(request("a"))
        sink.wait_begun(1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    (arrival,) = sink.wait_ended(1)
    assert (arrival.fault, arrival.accepted, arrival.status) == ("ok", True, None)


# -- the process -----------------------------------------------------------------------------------


def test_the_process_records_prints_its_report_and_ends_cleanly(tmp_path: Path) -> None:
    port_file, record = tmp_path / "port", tmp_path / "arrivals.jsonl"
    command = [sys.executable, "-m", "paceline.sink", "--port", "0", "--port-file", str(port_file)]
    command += ["--record", str(record), "--faults", "503:50%", "--seed", "7", "--json"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        found = re.fullmatch(r"sink: listening on http://(.+):(\d+) \(profile maxmd\)\n", line)
        assert found
        assert port_file.read_text().strip() == f"{found[1]}:{found[2]}"
        http = HTTPConnection(found[1], int(found[2]), timeout=10)
        statuses = []
        for n in range(20):
            http.request(
                "POST",
                "/Send",
                BODY,
                {"Content-Type": "application/json", "Paceline-Message-Id": f"id-{n}"},
            )
            answer = http.getresponse()
            answer.read()
            statuses.append(answer.status)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=10)
    http.close()
    assert (process.returncode, err) == (0, "")
    assert set(statuses) == {200, 503}
    report = json.loads(out)
    assert report["answered"] == {str(s): statuses.count(s) for s in (200, 503)}
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    assert [(a["id"], a["status"]) for a in lines] == [
        (f"id-{n}", status) for n, status in enumerate(statuses)
    ]
    assert not port_file.exists()


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--faults", "foo:1%"], 2, "'--faults'.*unknown kind \"foo\"; allowed: "),
        (["--latency", "50"], 2, "'--latency'.*\"50\" is not a duration"),
        (["--record", "/no/such/folder/f"], 1, "cannot open the record file /no/such/folder/f"),
        (["--host", "192.0.2.1"], 1, "cannot listen on 192.0.2.1:0.*choose another"),
        (["--port-file", "/no/such/folder/f"], 1, "cannot write the port file"),
    ],
)
def test_the_process_says_what_is_wrong_and_how_to_mend_it(
    arguments: list[str], code: int, says: str
) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "paceline.sink", "--port", "0", *arguments],
        capture_output=True,
        text=True,
        timeout=20,
        env={**os.environ, "COLUMNS": "400"},
    )
    assert ended.returncode == code
    assert re.search(says, ended.stderr), ended.stderr
    assert "Traceback" not in ended.stderr


def test_the_record_reaches_the_file_while_the_sink_runs(tmp_path: Path) -> None:
    path = tmp_path / "arrivals.jsonl"
    with SinkThread(record=path) as sink, Client(sink) as client:
        client.post("a")
        deadline = time.monotonic() + 0.5
        while not path.read_bytes():
            assert time.monotonic() < deadline, "flushed at least every 200 ms"
        assert json.loads(path.read_text())["id"] == "a"


def test_who_asks_for_arrivals_finds_them_in_the_file_too(tmp_path: Path) -> None:
    path = tmp_path / "arrivals.jsonl"
    with SinkThread(record=path) as sink, Client(sink) as client:
        for number in range(20):
            client.post(f"m{number}")
            with urllib.request.urlopen(f"{sink.url}/_sink/arrivals?since=9999"):
                assert len(path.read_text().splitlines()) == number + 1


def test_a_record_that_cannot_be_written_stops_the_sink_loudly() -> None:
    def post_until_it_breaks() -> None:
        with SinkThread(record=Path("/dev/full")) as sink, Client(sink) as client:
            client.post("a")
            sink.wait_closed()  # the sink ends by itself

    with pytest.raises(OSError, match="No space left"):
        post_until_it_breaks()


def test_what_a_stopped_sink_saw_can_still_be_read() -> None:
    with SinkThread() as sink, Client(sink) as client:
        client.post("a")
        sink.stop()
        assert [arrival.id for arrival in sink.wait_ended(1)] == ["a"]
        assert sink.report().arrivals == 1
        with pytest.raises(TimeoutError):
            sink.wait_ended(2)
        with pytest.raises(ConnectionRefusedError):
            connect(sink)


def test_a_reset_forgets_what_is_still_open(sink: SinkThread) -> None:
    sink.set_faults("hang")
    with connect(sink) as sock:
        sock.sendall(request("a"))
        sink.wait_begun(1)
        sink.reset()
    sink.wait_closed()
    assert sink.arrivals() == []


class Broken(MaxMD):
    def judge(self, request: Request, /) -> Verdict:
        raise ZeroDivisionError("a mistake in the sink")


def test_a_mistake_inside_stops_the_sink_and_is_raised_at_the_end() -> None:
    def post_to_a_broken_sink() -> None:
        with SinkThread() as sink, Client(sink) as client:
            sink._sink.profile = Broken()
            with pytest.raises(ConnectionError):
                client.post("a")
            sink._thread.join(10)
            assert not sink._thread.is_alive(), "it stops by itself"

    with pytest.raises(ZeroDivisionError, match="mistake"):
        post_to_a_broken_sink()
