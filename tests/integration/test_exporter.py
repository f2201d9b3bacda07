"""The exporter as Prometheus sees it: real runs, real scrapes, Redis away, addresses taken."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.exceptions
from prometheus_client.parser import text_string_to_metric_families
from rq import Queue

from paceline.answers import Settlement
from paceline.connect import connect
from paceline.embedded import EmbeddedServer
from paceline.exporter import service
from paceline.exporter.catalogue import CATALOGUE
from paceline.exporter.flight import Flight, Overdue
from paceline.exporter.server import THREADS, AddressTaken
from paceline.exporter.service import Exporter
from paceline.lifecycle import Loop
from paceline.listen import Listen
from paceline.outbox import OutboxStore
from support.cli import Cli, open_outbox, put, shelve, take
from support.prometheus import Prometheus, scrape_config
from support.servers import frozen
from support.stack import DESTINATION, Stack
from support.wait import until

ROOT = Path(__file__).parents[2]
ANY = Listen("127.0.0.1", 0)
CERTIFICATE = "paceline_certificate_expiry_timestamp_seconds"
#: The sink speaks no TLS (tests/unit/test_network.py sees the certificate), and has no endpoints
#: (tests/unit/test_exporter_samples.py).
ELSEWHERE = {CERTIFICATE, "paceline_endpoints", "paceline_endpoints_disabled_total"}
#: Retries soon enough for a test; idle connections that stay to be looked at.
QUICK = (
    f"connection_idle_s = 600\n[destinations.{DESTINATION}.retry]\nfirst_s = 0.05\ncap_s = 0.1\n"
)


def get(url: str, method: str = "GET") -> tuple[int, str]:
    """(status, body)."""
    request = urllib.request.Request(url, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


class Scrape:
    """One scrape; ``samples`` are (name, labels, value)."""

    def __init__(self, url: str) -> None:
        self.status, self.text = get(url)
        self.samples = [
            (s.name, s.labels, s.value)
            for family in text_string_to_metric_families(self.text)
            for s in family.samples
        ]
        self.names = set(re.findall(r"^# TYPE (\S+)", self.text, re.MULTILINE))

    def value(self, name: str, **labels: str) -> float:
        """The sum over the samples that have these labels; there is one at least."""
        found = [v for n, have, v in self.samples if n == name and labels.items() <= have.items()]
        assert found, f"{name} {labels} is not there"
        return sum(found)


@contextmanager
def exporter_of(server: EmbeddedServer) -> Iterator[str]:
    """An exporter in this process; its base URL."""
    client = connect(server.url, timeout_s=1.0, connect_timeout_s=0.8)
    exporter = Exporter(client, ANY, insist=True)
    exporter.start()
    try:
        yield f"http://{exporter.address}"
    finally:
        exporter.stop()


def absent_by_the_page() -> set[str]:
    """Metrics whose line says when they are absent."""
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    return {
        name
        for line in page.splitlines()
        if line.startswith("| `") and "absent" in line
        for name in re.findall(r"`(paceline_\w+)`", line.split("|")[1])
    }


# -- a real run -----------------------------------------------------------------------------------


def wait_told(run: Stack) -> None:
    """Until heartbeats have told of open connections, and the replica is there."""
    wanted = {"paceline_tcp_rtt_seconds", "paceline_redis_replication_lag_bytes"}
    until(lambda: wanted <= Scrape(run.metrics_url()).names, 20, f"{wanted} are there", 0.1)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A run with retries and resets behind it, one message for later, paused; Redis with a replica
    and its latency monitor on. Tests may send more, and leave it paused, with two workers."""
    folder = tmp_path_factory.mktemp("run")
    with ExitStack() as exits:
        run = Stack(
            folder, rate=400.0, exporter="127.0.0.1:0", faults="500:5%,reset_after:2%", more=QUICK
        )
        exits.enter_context(run)
        replica = exits.enter_context(EmbeddedServer(folder / "replica"))
        with connect(replica.url) as client:
            host, _, port = run.server.url.removeprefix("redis://").partition("/")[0].partition(":")
            client.execute_command("REPLICAOF", host, port)
        run.client.config_set("latency-monitor-threshold", "1")
        run.send(200)
        run.wait_done(60)
        later = run.store.redis_now_us() / 1e6 + 3600
        run.outbox.send(DESTINATION, {"text": "later"}, id="later", not_before=later)
        run.store.hold("pause", why="test")
        wait_told(run)
        yield run


def test_every_metric_is_there(stack: Stack) -> None:
    scrape = Scrape(stack.metrics_url())
    assert scrape.status == 200
    assert scrape.names - set(CATALOGUE) == set()
    assert set(CATALOGUE) - scrape.names == ELSEWHERE
    assert absent_by_the_page() >= ELSEWHERE


def test_where_nothing_happened_only_what_the_page_says_is_absent(
    durable_server: EmbeddedServer,
) -> None:
    with connect(durable_server.url) as client:
        open_outbox(client)
        OutboxStore(client, "api").slots("leave", "w1")
        with exporter_of(durable_server) as base:
            names = Scrape(f"{base}/metrics").names
    assert names <= set(CATALOGUE)
    assert set(CATALOGUE) - names <= absent_by_the_page()
    assert "paceline_requests_total" not in names


@pytest.mark.needs("promtool")
def test_promtool_has_no_complaint(stack: Stack) -> None:
    text = Scrape(stack.metrics_url()).text
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_figures_are_those_of_redis_and_of_the_sink(stack: Stack) -> None:
    scrape = Scrape(stack.metrics_url())
    census = stack.store.census()
    ours = {"destination": DESTINATION}
    sent = len(stack.accepted)
    assert scrape.value("paceline_messages_total", event="sent", **ours) == sent >= 200
    assert scrape.value("paceline_messages", state="scheduled", **ours) == 1
    arrived = stack.arrivals()
    answered = scrape.value("paceline_requests_total", status="200")
    assert answered == sent == sum(1 for a in arrived if a["status"] == 200)
    failed = scrape.value("paceline_requests_total", status="500")
    assert failed == sum(1 for a in arrived if a["status"] == 500) > 0
    assert scrape.value("paceline_requests_total") == census.counters["permits"]
    assert scrape.value("paceline_retries_total") == census.counters["retried"] > 0
    assert scrape.value("paceline_api_latency_seconds_count") >= sent
    assert scrape.value("paceline_delivery_seconds_count") == sent
    assert scrape.value("paceline_workers", state="live") == 2
    assert scrape.value("paceline_worker_memory_bytes") > 2 * 10e6
    assert scrape.value("paceline_closed", reason="paused") == 1
    assert scrape.value("paceline_closed") == 1
    assert scrape.value("paceline_closed_seconds") == float("inf")
    assert 3000 < scrape.value("paceline_next_due_seconds") <= 3600
    assert scrape.value("paceline_redis_durable") == 1
    assert scrape.value("paceline_law_difference") == 0
    assert scrape.value("paceline_up") == 1


def test_connection_totals_outlive_their_worker_and_are_exact(stack: Stack) -> None:
    url = stack.metrics_url()

    def opened() -> float:
        return Scrape(url).value("paceline_connections_opened_total")

    def closed() -> float:
        return Scrape(url).value("paceline_connections_closed_total")

    def seen_by_the_sink() -> int:
        with urllib.request.urlopen(f"http://{stack.sink_address}/_sink/connections") as reply:
            return len(reply.read().splitlines())

    until(lambda: opened() == seen_by_the_sink() > 0, 10, "heartbeats have told", 0.1)
    before = opened()
    first, second = stack.worker_processes
    first.send_signal(signal.SIGTERM)
    assert first.wait(20) == 0
    second.kill()
    second.wait()
    assert opened() == before
    left_open = before - closed()  # by the one that was killed
    stack.worker_processes[:] = [stack.start_worker(), stack.start_worker()]
    stack.wait_live(2)
    stack.store.hold("resume")
    stack.send(50, prefix="again")
    until(lambda: stack.store.census().law["sent"] == len(stack.accepted), 30, "all are sent")
    # They close what they have open after their last heartbeat, and tell it in their farewell.
    for worker in stack.worker_processes:
        worker.terminate()
    assert [worker.wait(20) for worker in stack.worker_processes] == [0, 0]
    assert opened() == seen_by_the_sink() > before
    assert closed() == opened() - left_open
    stack.worker_processes[:] = [stack.start_worker(), stack.start_worker()]
    stack.wait_live(2)
    stack.send(20, prefix="once-more")
    until(lambda: stack.store.census().law["sent"] == len(stack.accepted), 30, "all are sent")
    stack.store.hold("pause", why="test")
    wait_told(stack)


def test_healthy_and_ready_are_two_things(stack: Stack) -> None:
    base = stack.metrics_url().removesuffix("/metrics")
    assert get(f"{base}/healthz") == (200, "ok\n")
    assert get(f"{base}/readyz") == (200, "ok\n")
    assert get(f"{base}/metrics", "HEAD") == (200, "")
    status, said = get(f"{base}/")
    assert (status, "/metrics" in said) == (404, True)
    assert get(f"{base}/metrics", "POST")[0] == 501
    with frozen(stack.server):
        status, said = get(f"{base}/readyz")
        assert status == 503
        assert "Redis does not answer" in said.splitlines()
        assert get(f"{base}/healthz") == (200, "ok\n")
    until(lambda: get(f"{base}/readyz")[0] == 200, 30, "it is ready again", 0.1)


@pytest.mark.needs("prometheus")
def test_a_real_prometheus_reads_it(stack: Stack, tmp_path: Path) -> None:
    address = stack.metrics_url().removeprefix("http://").removesuffix("/metrics")
    with Prometheus(tmp_path, scrape_config(address)) as prometheus:
        prometheus.wait_for_scrape()
        assert prometheus.value("up") == 1
        assert prometheus.value("paceline_up") == 1
        census = stack.store.census()
        sent = prometheus.value('paceline_messages_total{destination="web",event="sent"}')
        assert sent == census.law["sent"] >= 200
        p99 = "histogram_quantile(0.99, sum by (le) (paceline_api_latency_seconds_bucket))"
        assert 0 < prometheus.value(p99) < 60
        assert prometheus.value("sum(paceline_closed)") == 1
        kinds = prometheus.api("targets/metadata")
        told = {entry["metric"]: entry["type"] for entry in kinds}
        assert told == {n: m.kind for n, m in CATALOGUE.items() if n not in ELSEWHERE}


# -- a scrape writes nothing ----------------------------------------------------------------------


def populate(client: redis.Redis) -> None:
    """Messages in every state, a batch out, counters, and what RQ leaves behind when it dies."""
    store = open_outbox(client)
    put(store, "done")
    nonce = take(store, 1)
    store.settle(
        [Settlement(id="done", nonce=nonce, action="sent", latency_s=0.04, label="sent:200")]
    )
    shelve(store, "dead", "no such box", "lost-cause")
    shelve(store, "parked", "ambiguous: reset", "unknown-fate")
    put(store, "out")
    take(store, 1)
    put(store, "waits")
    put(store, "later", delay_s=4e9)
    store.release("any", 100, 60.0, "invitation")
    client.sadd("rq:queues", "rq:queue:paceline.api")
    client.sadd("rq:workers", "rq:worker:dead")
    client.sadd("rq:workers:paceline.api", "rq:worker:dead")
    client.rpush("rq:queue:paceline.api", "gone-job")
    client.hset("rq:job:stale", mapping={"origin": "paceline.api", "status": "started"})
    client.zadd("rq:wip:paceline.api", {"stale:exec": 1_000_000, "gone:exec": 1_000_000})
    client.zadd("rq:failed:paceline.api", {"stale": 1_000_000})


def everything(client: redis.Redis) -> dict[bytes, tuple[Any, Any]]:
    """Each key's value as Redis serialises it, and when it expires."""
    names = sorted(client.scan_iter(count=1000))
    return {
        name: (client.dump(name), client.execute_command("PEXPIRETIME", name)) for name in names
    }


def test_a_thousand_scrapes_write_nothing(durable_server: EmbeddedServer) -> None:
    with connect(durable_server.url) as client, exporter_of(durable_server) as base:
        populate(client)
        before = everything(client)
        assert len(before) > 20
        with ThreadPoolExecutor(4) as threads:
            found = set(threads.map(lambda _: Scrape(f"{base}/metrics").status, range(1000)))
        assert found == {200}
        assert everything(client) == before
        # The planted entries are such as RQ would have cleaned up, had anybody asked it.
        assert Queue("paceline.api", connection=client).started_job_registry.count == 0
        assert everything(client) != before


#: Commands of which the second word says what they do.
CONTAINERS = ("CLIENT", "CONFIG", "LATENCY")


def test_monitor_shows_no_command_that_writes(durable_server: EmbeddedServer) -> None:
    with connect(durable_server.url) as client, exporter_of(durable_server) as base:
        populate(client)
        client.script_flush()  # so that the script's text is sent, too
        shown: list[str] = []
        listening = threading.Event()

        def listen() -> None:
            with connect(durable_server.url) as watcher, watcher.monitor() as monitor:
                listening.set()
                for command in monitor.listen():
                    if "over-now" in command["command"]:
                        return
                    words = command["command"].upper().split()
                    shown.append("|".join(words[: 2 if words[0] in CONTAINERS else 1]))

        watching = threading.Thread(target=listen, daemon=True)
        watching.start()
        assert listening.wait(10)
        for _ in range(5):
            assert Scrape(f"{base}/metrics").value("paceline_up") == 1
            assert get(f"{base}/readyz")[0] == 200
        client.echo("over-now")
        watching.join(10)
        assert not watching.is_alive()
        # Connecting names the client; the rest is what a scrape asks.
        names = sorted(set(shown) - {"CLIENT|SETINFO", "CLIENT|SETNAME"})
        assert {"EVAL_RO", "EVALSHA_RO", "HGETALL", "INFO"} <= set(names)
        known: Any = client.execute_command("COMMAND INFO", *names)
        flags = {name: {_text(f) for f in _flags(known, name)} for name in names}
        assert all(flags.values()), f"unknown commands: {flags}"
        writers = [n for n in names if flags[n] & {"write", "may_replicate"}]
        assert writers == []


def _flags(reply: Any, name: str) -> Any:
    if isinstance(reply, dict):
        return reply[name.lower()]["flags"]
    return next(entry[2] for entry in reply if entry and _text(entry[0]) == name.lower())


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


# -- Redis away -----------------------------------------------------------------------------------


AWAY = {"paceline_up", "paceline_redis_up", "paceline_build_info"}
LAST = "paceline_last_read_timestamp_seconds"


def test_redis_away_is_told_and_nothing_invented(durable_server: EmbeddedServer) -> None:
    with connect(durable_server.url) as client:
        populate(client)
    with exporter_of(durable_server) as base:
        before = Scrape(f"{base}/metrics")
        assert before.value("paceline_up") == 1
        durable_server.stop()
        away = Scrape(f"{base}/metrics")
        assert (away.status, away.names) == (200, AWAY | {LAST})
        assert away.value("paceline_up") == away.value("paceline_redis_up") == 0
        assert away.value(LAST) == before.value(LAST)
        assert get(f"{base}/readyz") == (503, "Redis does not answer\n")
        durable_server.start()
        again = Scrape(f"{base}/metrics")
        assert again.value("paceline_up") == 1
        assert again.names == before.names
        assert again.value(LAST) > before.value(LAST)


def test_a_frozen_redis_does_not_keep_prometheus_waiting(durable_server: EmbeddedServer) -> None:
    with connect(durable_server.url) as client:
        populate(client)
    with exporter_of(durable_server) as base, frozen(durable_server):
        socket_s = urllib.request.urlopen(f"{base}/metrics", timeout=6)
        with socket_s as reply:
            text = reply.read().decode()
        assert "paceline_up 0.0" in text
        assert "paceline_messages" not in text
        # Ten at once wait together, not one after the other.
        with ThreadPoolExecutor(10) as threads:
            waits = [threads.submit(Scrape, f"{base}/metrics") for _ in range(10)]
            found = [wait.result(timeout=8).value("paceline_up") for wait in waits]
        assert found == [0.0] * 10


def test_a_damaged_destination_does_not_hide_the_others(durable_server: EmbeddedServer) -> None:
    with connect(durable_server.url) as client:
        populate(client)
        client.sadd("paceline:destinations", "bad")
        client.set("{bad}:gate", "no hash")
    with exporter_of(durable_server) as base:
        scrape = Scrape(f"{base}/metrics")
    assert scrape.value("paceline_up") == 0
    assert scrape.value("paceline_redis_up") == 1
    assert scrape.value("paceline_messages", destination="api", state="dead") == 1


def test_a_redis_that_hides_its_settings_is_read_all_the_same(
    durable_server: EmbeddedServer,
) -> None:
    with connect(durable_server.url) as client:
        populate(client)
        client.acl_setuser("eyes", enabled=True, nopass=True, keys=["*"], channels=["*"],
                           commands=["+@all", "-config", "-latency"])  # fmt: skip
        authority = durable_server.url.removeprefix("redis://")
        own = connect(f"redis://eyes:any@{authority}", timeout_s=1.0)
        exporter = Exporter(own, ANY, insist=True)
        exporter.start()
        scrape = Scrape(f"http://{exporter.address}/metrics")
        exporter.stop()
    assert scrape.value("paceline_up") == 1
    assert scrape.value("paceline_redis_info", appendfsync="") == 1
    assert not {"paceline_redis_durable", "paceline_redis_fsync_seconds"} & scrape.names


# -- clients and addresses ------------------------------------------------------------------------


def test_silent_clients_do_not_keep_a_scrape_out(durable_server: EmbeddedServer) -> None:
    with connect(durable_server.url) as client:
        populate(client)
    with exporter_of(durable_server) as base, ExitStack() as exits:
        host, _, port = base.removeprefix("http://").partition(":")
        silent = [
            exits.enter_context(socket.create_connection((host, int(port)))) for _ in range(THREADS)
        ]
        silent[1].sendall(b"GET /metrics HTTP/1.1\r\n")
        assert Scrape(f"{base}/metrics").value("paceline_up") == 1
        # The one that had been there longest made room, and no other.
        silent[0].settimeout(10)
        assert silent[0].recv(1) == b""
        assert select.select(silent[1:], [], [], 0)[0] == []
        threads = [t for t in threading.enumerate() if "process_request_thread" in t.name]
        assert len(threads) <= THREADS


def test_one_flight_for_all_and_nobody_waits_for_ever() -> None:
    go, begun = threading.Event(), []

    def call() -> int:
        begun.append(1)
        go.wait(30)
        return 7

    flight = Flight(call, 0.05)
    with ThreadPoolExecutor(5) as threads:
        waits = [threads.submit(flight.ask) for _ in range(5)]
        assert all(isinstance(wait.exception(30), Overdue) for wait in waits)
    assert begun == [1]
    go.set()
    patient = Flight(call, 30)
    assert patient.ask() == patient.ask() == 7
    assert len(begun) == 3


def test_a_loop_that_ended_or_hangs_is_no_healthy_process(durable_server: EmbeddedServer) -> None:
    stopping = threading.Event()
    ended: Loop[int] = Loop("ended", lambda: 1, lambda _: None, stopping)
    fails = threading.Event()

    def step() -> int:
        if fails.is_set():
            raise redis.exceptions.ConnectionError("away")
        return 1

    turning: Loop[int] = Loop("turning", step, lambda _: None, threading.Event())
    loops: list[Loop[Any]] | None = None
    client = connect(durable_server.url)
    exporter = Exporter(client, ANY, insist=True)
    exporter.start(lambda: loops)
    base = f"http://{exporter.address}"
    try:
        assert get(f"{base}/healthz")[0] == 200
        assert get(f"{base}/readyz") == (503, "it is starting or stopping\n")
        turning.start()
        loops = [turning]
        until(lambda: get(f"{base}/readyz")[0] == 200, 10, "its first turn")
        fails.set()
        until(lambda: get(f"{base}/readyz")[0] == 503, 10, "a turn that fails")
        assert get(f"{base}/readyz")[1] == "turning: Redis does not answer\n"
        assert get(f"{base}/healthz")[0] == 200
        turning.turned_s -= 100
        stopping.set()
        ended.start()
        assert ended.join(10)
        loops = [ended]
        assert get(f"{base}/healthz") == (503, "ended: its thread has ended\n")
    finally:
        turning._stopping.set()
        exporter.stop()


@pytest.fixture
def taken() -> Iterator[socket.socket]:
    """Somebody else's listener."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener


def address_of(sock: socket.socket) -> str:
    return "{}:{}".format(*sock.getsockname())


CONFIG = '[destinations.d]\nprovider = "http"\nurl = "http://127.0.0.1:9/"\n'


@pytest.mark.parametrize("command", ["exporter", "daemon", "up"])
def test_an_address_that_is_taken_is_named(
    command: str, taken: socket.socket, redis_url: str, tmp_path: Path
) -> None:
    (tmp_path / "paceline.toml").write_text(
        CONFIG + f'[exporter]\nlisten = "{address_of(taken)}"\n'
    )
    done = Cli(redis_url, tmp_path)(command)
    assert done.code == 2
    assert address_of(taken) in done.err
    assert "already in use" in done.err
    assert "--listen" in done.err


@pytest.mark.parametrize("text", ["9108", "127.0.0.1:99999", "nowhere.invalid:1"])
def test_an_address_that_is_none_is_named(text: str, redis_url: str, tmp_path: Path) -> None:
    (tmp_path / "paceline.toml").write_text(CONFIG)
    done = Cli(redis_url, tmp_path)("exporter", "--listen", text)
    assert done.code == 2
    assert text.partition(":")[0] in done.err


def test_switched_off_there_is_nothing_to_export(redis_url: str, tmp_path: Path) -> None:
    cli = Cli(redis_url, tmp_path)
    cli.env["PACELINE_EXPORTER_LISTEN"] = "off"
    done = cli("exporter")
    assert done.code == 2
    assert "off" in done.err


def test_under_a_supervisor_sending_goes_on_and_the_address_is_tried_again(
    taken: socket.socket, redis_url: str, tmp_path: Path
) -> None:
    (tmp_path / "paceline.toml").write_text(CONFIG)
    cli = Cli(redis_url, tmp_path)
    cli.env["PACELINE_PARENT"] = str(os.getpid())
    address = address_of(taken)
    with connect(redis_url) as client, cli.popen("daemon", "--listen", address) as process:
        try:
            store = OutboxStore(client, "d")
            until(lambda: store.census().daemons == 1, 15, "the daemon works", 0.05)
            taken.close()
            until(lambda: _answers(address), 20, "the address is free, and taken by it", 0.1)
            assert Scrape(f"http://{address}/metrics").value("paceline_up") == 1
        finally:
            process.terminate()
            _, said = process.communicate(timeout=20)
    assert process.returncode == 0
    lines = [json.loads(line) for line in said.decode().splitlines()]
    warnings = [line for line in lines if address in line["message"] and line["level"] == "warning"]
    assert len(warnings) == 1


def test_an_address_is_tried_until_it_is_free(
    taken: socket.socket,
    durable_server: EmbeddedServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(service, "_AGAIN_S", 0.02)
    caplog.set_level("DEBUG", "paceline.exporter")
    host, port = taken.getsockname()
    exporter = Exporter(connect(durable_server.url), Listen(host, port, named=False), insist=False)
    exporter.start()
    try:
        until(lambda: caplog.text.count("still taken") >= 2, 10, "it is tried again")
        assert exporter.address is None
        taken.close()
        until(lambda: _answers(f"{host}:{port}"), 10, "it listens there")
        assert caplog.text.count("cannot listen") == 1
    finally:
        exporter.stop()
    assert not _answers(f"{host}:{port}")


def _answers(address: str) -> bool:
    try:
        return get(f"http://{address}/healthz")[0] == 200
    except OSError:
        return False


def test_it_binds_the_address_it_is_given_and_frees_it(durable_server: EmbeddedServer) -> None:
    with exporter_of(durable_server) as base:
        port = int(base.rpartition(":")[2])
        # Another loopback address, same port: free, unless it listened on all of them.
        with socket.socket() as other:
            other.bind(("127.0.0.2", port))
        client = connect(durable_server.url)
        second = Exporter(client, Listen("127.0.0.1", port), insist=True)
        with pytest.raises(AddressTaken):
            second.start()
        client.close()
    client = connect(durable_server.url)
    third = Exporter(client, Listen("127.0.0.1", port), insist=True)
    third.start()
    assert get(f"http://127.0.0.1:{port}/healthz")[0] == 200
    third.stop()


def test_it_needs_no_redis_to_start_and_no_destination(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"redis://{address_of(closed)}/0"
        with Cli(url, tmp_path).popen("exporter", "--listen", "127.0.0.1:0") as process:
            try:
                assert process.stderr is not None
                told = json.loads(process.stderr.readline())["message"]
                scrape = Scrape(told.split()[-1])
                assert (scrape.status, scrape.names) == (200, AWAY)
                assert scrape.value("paceline_redis_up") == 0
            finally:
                process.terminate()
                process.wait(20)
        assert process.returncode == 0
