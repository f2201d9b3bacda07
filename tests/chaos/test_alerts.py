"""Every alert fires when its cause is there, and only then; every panel shows something.

One run, watched by a real Prometheus: first nothing is wrong, then one thing after another. The
tests judge what was recorded. Times in the rules are shortened as support/watched.py says.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from paceline import Outbox
from paceline.embedded import binary_path
from paceline.endpoint_registry import EndpointRegistry
from paceline.endpoints import Endpoint
from paceline.outbox import OutboxStore
from support.peers import Peer, answers, make_certificate, server_context
from support.stack import DESTINATION, Stack
from support.wait import until
from support.watched import DEPLOY, Watched, watched

pytestmark = [
    pytest.mark.needs("prometheus", "openssl"),
    pytest.mark.timeout(240),
]

ALERTS = [
    rule["alert"]
    for group in yaml.safe_load((DEPLOY / "prometheus/alerts.rules.yml").read_text())["groups"]
    for rule in group["rules"]
]
PANELS = [
    panel
    for panel in json.loads((DEPLOY / "grafana/dashboards/paceline.json").read_text())["panels"]
    if panel["type"] != "row"
]
RATE = 40
UNSURE = b"HTTP/1.1 504 Gateway Timeout\r\nContent-Length: 0\r\n\r\n"
TLS, HOOKS = "secure", "hooks"


@dataclass
class Story:
    """What was seen: alerts firing while all was well, and those that fired when provoked."""

    run: Watched
    while_well: set[str] = field(default_factory=set)
    fired: set[str] = field(default_factory=set)
    too_early: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def expect(self, cause: str, *names: str) -> None:
        """These fire now. A failure is kept for the test of that alert: the others go on."""
        try:
            self.run.wait_firing(*names)
        except AssertionError as error:
            self.missing |= dict.fromkeys(set(names) - self.run.firing(), f"{cause}: {error}")
        self.fired |= self.run.firing()

    def not_yet(self, cause: str, *names: str) -> None:
        """None of these fires before its cause is there."""
        self.too_early |= dict.fromkeys(set(names) & self.run.firing(), cause)


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("alerts")
    certificate = make_certificate(folder)  # ends in two days
    with Peer(answers(UNSURE), tls=server_context(certificate)) as unsure:
        more = f"""
max_messages = 1000
lease_s = 3.0
events = {{ kinds = "all" }}
[destinations.{DESTINATION}.retry]
first_s = 0.5
cap_s = 1.0
max_retries = 1
[destinations.{TLS}]
provider = "http"
url = "https://localhost:{unsure.port}/send"
ca_file = "{certificate}"
[destinations.{TLS}.retry]
on_ambiguous = "park"
[destinations.{HOOKS}]
provider = "webhook"
secrets = ["whsec_{"a" * 32}"]
[destinations.{HOOKS}.endpoints]
in_flight = 2
"""
        stack = {"rate": RATE, "burst": 60, "connections": 4, "latency": "5-20ms", "more": more}
        with watched(folder, **stack) as run, Replica(run.stack, folder):
            story = Story(run)
            for chapter in CHAPTERS:
                chapter(story)
            yield story


def _all_is_well(story: Story) -> None:
    story.run.stack.client.config_set("latency-monitor-threshold", "1")
    story.run.stack.send(150, "well")
    story.run.stack.wait_done(30)
    story.run.evaluations()
    story.while_well = story.run.firing()


def _a_provider_that_fails(story: Story) -> None:
    run = story.run
    story.not_yet(
        "the provider is well", "PacelineDeadLetters", "PacelineParked", "PacelineProviderFailing",
        "PacelineAmbiguous", "PacelineCertificateExpiring", "PacelineEndpointsDisabled",
    )  # fmt: skip
    registry = EndpointRegistry(OutboxStore(run.stack.client, HOOKS))
    registry.put({"acme": Endpoint(url="https://acme.example/hooks")})
    registry.disable(["acme"], "by hand")
    worker = ("paceline", "worker", TLS, "--config", str(run.stack.config))
    run.stack._spawn("worker", *worker)
    run.stack.outbox.send_many([Outbox.message(TLS, {"n": n}, id=f"u-{n}") for n in range(5)])
    # What is bad stays under a quarter of the results, and so the pace stays what it is.
    run.play(faults="422:20%,500:10%,reset_after:5%", seed=3)
    run.stack.send(150, "bad")
    story.expect(
        "a provider that fails, parks, shows a certificate near its end; an endpoint disabled",
        "PacelineDeadLetters", "PacelineParked", "PacelineProviderFailing", "PacelineAmbiguous",
        "PacelineCertificateExpiring", "PacelineEndpointsDisabled",
    )  # fmt: skip
    run.play(faults="")


def _a_frozen_worker(story: Story) -> None:
    run = story.run
    run.stack.wait_done(40)
    story.not_yet("no worker froze", "PacelineWorkerSilent", "PacelineDuplicates")
    run.play(latency="700ms")
    run.stack.send(20, "frozen")
    frozen = until(lambda: _frozen_on_the_wire(run.stack), 20, "a worker stops on the wire")
    story.expect("a frozen worker", "PacelineWorkerSilent")
    # The other one has sent what it had on the wire, by the time that it reads the answers.
    run.stack.wait_done(40)
    frozen.send_signal(signal.SIGCONT)
    story.expect("it woke, and its answers had come", "PacelineDuplicates")


def _frozen_on_the_wire(stack: Stack) -> subprocess.Popen[bytes] | None:
    """A worker stopped while it had requests on the wire, by the outbox's own account."""
    found = stack.store.look(list(stack.accepted))
    begun = {it[3] for it in found if it is not None and it[0].state == "begun"}
    for process in stack.worker_processes:
        if stack.worker_id(process) not in begun:
            continue
        process.send_signal(signal.SIGSTOP)
        found = stack.store.look(list(stack.accepted))
        if any(it and it[0].state == "begun" and it[3] == stack.worker_id(process) for it in found):
            return process
        process.send_signal(signal.SIGCONT)
    return None


def _a_provider_that_takes_less(story: Story) -> None:
    run, store = story.run, story.run.stack.store
    story.not_yet("it takes the whole rate", "PacelinePaceLow")
    # Its burst lets the first refusals be few of the requests: it does not fail, it takes less.
    run.play(limit="16,30", latency="5-20ms")
    run.stack.send(150, "less")
    until(lambda: store.census().counters.get("throttles", 0), 20, "the provider refused the rate")
    story.expect("a provider that takes less than half of the rate", "PacelinePaceLow")
    run.play(limit=None)


def _gates_that_close(story: Story) -> None:
    run, store = story.run, story.run.stack.store
    story.not_yet("open", "PacelineHeld", "PacelineClosedLong", "PacelineBreakerOpen")
    run.play(next={"count": 1, "fault": "401"})
    run.stack.send(60, "gates")
    story.expect("credentials refused", "PacelineHeld")
    with _out_of_reach(run.stack):
        store.hold("resume")
        until(lambda: "breaker" in store.census().gate, 20, "the breaker opens")
        store.hold("pause", for_s=3600, why="a test")
        story.expect("an outage, a forgotten pause", "PacelineBreakerOpen", "PacelineClosedLong")
    store.hold("resume")


@contextmanager
def _out_of_reach(stack: Stack) -> Iterator[None]:
    """The provider refuses connections meanwhile."""

    def tell(down: bool) -> None:
        control.request("POST", "/_sink/faults", json.dumps({"down": down}))
        control.getresponse().read()

    # One connection for both words: a second one would be refused.
    with closing(HTTPConnection(stack.sink_address, timeout=10)) as control:
        tell(True)
        yield
        tell(False)


def _a_slow_provider(story: Story) -> None:
    run = story.run
    run.stack.wait_done(40)
    story.not_yet("a quick provider", "PacelineRateUnderused", "PacelineOutboxNearlyFull")
    run.play(latency="700ms")
    # 4 connections, each for 0.7 s: a seventh of the rate.
    run.stack.send(880, "slow")
    story.expect("too few connections", "PacelineRateUnderused", "PacelineOutboxNearlyFull")


def _nobody_works(story: Story) -> None:
    run = story.run
    story.not_yet("all at work", "PacelineNoWorker", "PacelineBacklogStuck", "PacelineNoDaemon")
    run.stack.signal_workers(signal.SIGKILL)
    for daemon in run.stack.daemon_processes:
        daemon.kill()
    story.expect("all killed", "PacelineNoWorker", "PacelineBacklogStuck", "PacelineNoDaemon")


def _redis_in_trouble(story: Story) -> None:
    run, client = story.run, story.run.stack.client
    causes = (
        "PacelineLawBroken", "PacelineDurabilityWeakened", "PacelineRedisMemoryHigh",
        "PacelineEventsLost", "PacelineRedisLost", "PacelineRedisEvicting", "PacelineRedisDown",
    )  # fmt: skip
    story.not_yet("Redis is well", *causes)
    client.hincrby(f"{{{DESTINATION}}}:n", "accepted", 1)
    client.config_set("appendfsync", "everysec")
    client.config_set("maxmemory", int(client.info("memory")["used_memory"] * 1.1))
    client.set(f"{{{DESTINATION}}}:ev", "not a stream any more")
    run.stack.store.cancel(list(run.stack.accepted)[-1:])
    # As a reaper says it that had seen more than there is.
    run.stack.store.lose("the run before", run.stack.store.census().law["accepted"] + 3, 0)
    story.expect("changed by hand", *causes[:5])
    client.config_set("maxmemory-policy", "allkeys-random")
    client.config_set("maxmemory", int(client.info("memory")["used_memory"] * 0.95))
    for number in range(50):
        client.set(f"junk-{number}", b"x" * 1000)
    story.expect("eviction allowed, and needed", "PacelineRedisEvicting")
    run.stack.server.stop()
    story.expect("Redis stopped", "PacelineRedisDown")


def _nobody_watches(story: Story) -> None:
    story.not_yet("the exporter answers", "PacelineExporterDown")
    story.run.exporter.kill()
    story.expect("the exporter killed", "PacelineExporterDown")


class Replica:
    """A replica of the stack's Redis, so that there is a lag to show."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        port = re.search(r":(\d+)(?:/|$)", stack.server.url)
        assert port is not None
        place = folder / "replica"
        place.mkdir()
        self._command = [
            str(binary_path()), "--port", "0", "--unixsocket", str(place / "sock"),
            "--dir", str(place), "--save", "", "--replicaof", f"127.0.0.1 {port[1]}",
        ]  # fmt: skip

    def __enter__(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


CHAPTERS = (
    _all_is_well,
    _a_provider_that_fails,
    _a_frozen_worker,
    _a_provider_that_takes_less,
    _gates_that_close,
    _a_slow_provider,
    _nobody_works,
    _redis_in_trouble,
    _nobody_watches,
)


# -- the tests ----------------------------------------------------------------------------------


def test_no_alert_fires_while_all_is_well(story: Story) -> None:
    assert story.while_well == set()


@pytest.mark.parametrize("name", ALERTS)
def test_the_alert_fires_when_its_cause_is_there_and_not_before(story: Story, name: str) -> None:
    assert story.missing.get(name) is None
    assert name in story.fired
    assert name not in story.too_early, f"fired while: {story.too_early.get(name)}"


def _substituted(expression: str, destination: str = ".*") -> str:
    return expression.replace("$destination", destination).replace("$__rate_interval", "4s")


@pytest.mark.parametrize("panel", PANELS, ids=lambda p: f"{p['id']} {p['title']}")
def test_every_expression_of_the_panel_gives_data(story: Story, panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        assert story.run.ever(_substituted(target["expr"])), target["expr"]


def test_a_destination_that_matches_nothing_is_no_error(story: Story) -> None:
    for panel in PANELS:
        for target in panel["targets"]:
            found = story.run.ever(_substituted(target["expr"], "no-such-one"))
            assert "destination=~" not in target["expr"] or found == []


def test_the_preview_draws_every_panel(story: Story) -> None:
    span = ("--minutes", str((time.time() - story.run.started_s) / 60), "--rate-interval", "4s")
    command = (
        sys.executable,
        DEPLOY / "grafana/preview.py",
        "--prometheus",
        story.run.prometheus.url,
    )
    done = subprocess.run([*command, *span], capture_output=True, text=True, check=True)
    words = [element.text for element in ElementTree.fromstring(done.stdout).iter() if element.text]
    assert {panel["title"] for panel in PANELS} <= set(words)
    assert "No data" not in words
