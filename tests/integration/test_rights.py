"""Every role does its work under the ACL file that `paceline acl` prints, and is refused nothing.

The processes themselves run under it in every test that uses support.stack.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from rq.job import Job
from rq.queue import Queue
from rq.serializers import JSONSerializer

from paceline import Outbox
from paceline.audit import DeepAudit
from paceline.connect import connect
from paceline.dispatch import Dispatcher
from paceline.embedded import EmbeddedServer
from paceline.endpoint_registry import EndpointRegistry
from paceline.endpoints import Endpoint
from paceline.errors import NotPossible, PacelineError, UnknownMessage
from paceline.exporter.reading import read
from paceline.outbox import OutboxStore, new_nonce
from paceline.rights import ROLES, hash_of
from paceline.scheduler import Scheduler
from paceline.scripts import Pinned
from paceline.settings import Events
from paceline.settings_endpoints import Endpoints
from paceline_workers.worker import PacelineWorker
from support.cli import CliHere, open_outbox, put, shelve
from support.rights import Guarded
from support.wait import until

ROOT = Path(__file__).parents[2]
TOML = """
[destinations.api]
provider = "http"
url = "http://127.0.0.1:9/none"
"""
#: An operator's day; each must succeed.
DAY: tuple[str, ...] = (
    "send api -",
    "status",
    "status --json",
    "audit",
    "audit --deep",
    "show api m1",
    "show api m1 --payload",
    "show api d1 --json",
    "plan api --count 10",
    "rate api",
    "rate api 5 --reason test",
    "rate api reset",
    "pause api --reason test",
    "resume api",
    "hold api --reason test",
    "drain api",
    "resume api",
    "cancel api m1",
    "dead list api",
    "dead replay api d1",
    "dead drop api --all",
    "parked list api",
    "parked settle api p1 --as sent",
    "events api --from 10m",
    "campaign list api",
    "campaign show api c",
    "campaign pause api c --reason test",
    "campaign resume api c",
    "campaign cancel api c --yes",
    "endpoints list hooks",
    "endpoints remove hooks acme",
    "purge api --yes",
)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Guarded:
    return Guarded(tmp_path_factory.mktemp("rights") / "acl", ["api", "hooks"])


@pytest.fixture(scope="module")
def server(guarded: Guarded, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    folder = tmp_path_factory.mktemp("guarded")
    with EmbeddedServer(folder, appendfsync="everysec", extra=guarded.options) as it:
        yield it


@pytest.fixture
def client(server: EmbeddedServer, guarded: Guarded) -> Iterator[redis.Redis]:
    """Of one who may do all. Nobody may have been refused anything when a test is over."""
    with connect(server.url) as it:
        it.flushall()
        it.acl_log_reset()
        yield it
        assert guarded.refused(server.url) == []


@pytest.fixture
def store(client: redis.Redis) -> OutboxStore:
    hooks = open_outbox(client, "hooks", provider="webhook", endpoints=Endpoints())
    EndpointRegistry(hooks).put({"acme": Endpoint(url="https://acme.example/x")}, who="test")
    return open_outbox(client, "api", events=Events(kinds=("accepted", "sent", "cancelled")))


def test_an_operators_day(
    store: OutboxStore, server: EmbeddedServer, guarded: Guarded, tmp_path: Path
) -> None:
    config = tmp_path / "paceline.toml"
    config.write_text(TOML, encoding="utf-8")
    cli = CliHere(guarded.url(server.url, "operator"), config)
    shelve(store, "dead", "code 2", "d1", "d2")
    shelve(store, "parked", "reset", "p1")
    put(store, "in-campaign", campaign="c")
    for line in DAY:
        done = cli(*line.split(), stdin='{"payload": {}, "id": "m1"}\n')
        assert done.code == 0, (line, done.out, done.err)
    told = cli("doctor").out
    assert "user 'operator' may do all that is needed" in told, told


def test_an_app_hands_over_and_asks(
    store: OutboxStore, server: EmbeddedServer, guarded: Guarded, client: redis.Redis
) -> None:
    client.script_flush()
    with Outbox.from_url(guarded.url(server.url, "app")) as app:
        app.send("api", {"n": 1}, id="a", campaign="c", ttl_s=60)
        app.send("api", {"n": 2}, id="b", delay_s=60, priority="bulk", tenant="t")
        app.send("hooks", {"n": 1}, id="h", endpoint="acme", key="k")
        assert app.status("api", "b").state == "scheduled"
        read_now = app.events("api", start="first", block_s=0, group="g", consumer="me")
        assert {event.id for event in read_now} == {"a", "b"}
        assert app.destinations() == ["api", "hooks"]


@contextmanager
def _scheduling(*stores: OutboxStore) -> Iterator[None]:
    """A daemon's scheduler for each; without a live worker nothing is released."""
    stop = threading.Event()

    def schedule(store: OutboxStore) -> None:
        scheduler = Scheduler(store, Dispatcher(store.client, store.destination), 100)
        while not stop.is_set():
            scheduler.wait(scheduler.run_once())

    threads = [threading.Thread(target=schedule, args=(it,)) for it in stores]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for store, thread in zip(stores, threads, strict=True):
            store.client.lpush(f"{store.tag}:wake", "1")
            thread.join(10)


def test_an_app_cancels_by_a_wish_that_the_daemon_carries_out(
    store: OutboxStore, server: EmbeddedServer, guarded: Guarded, client: redis.Redis
) -> None:
    nonce, hooks = new_nonce(), OutboxStore(client, "hooks")
    with connect(guarded.url(server.url, "scheduler")) as its:
        stores = [OutboxStore(its, name) for name in ("api", "hooks")]
        with Outbox.from_url(guarded.url(server.url, "app")) as app:
            for name in ("begun", "held"):
                app.send("api", {}, id=name)
            store.slots("beat", "w")
            store.take("w", nonce, 10, "any")
            pinned = Pinned(client)
            until(lambda: store.begin(pinned, "begun", nonce).verdict == "go", 5, "it has begun")
            pinned.close()
            app.send("api", {}, id="ready", campaign="c", ttl_s=60)
            app.send("api", {}, id="later", delay_s=60, priority="bulk", tenant="t")
            app.send("hooks", {}, id="h", endpoint="acme", key="k")
            with pytest.raises(TimeoutError, match="no daemon of 'api' answered"):
                app.cancel("api", "held", timeout_s=0)
            store.slots("bye", "w")
            with _scheduling(*stores):
                until(lambda: app.status("api", "held").final, 5, "the wish is carried out")
                began = time.monotonic()
                assert [app.cancel("api", it) for it in ("ready", "later")] == [True, True]
                assert app.cancel("hooks", "h")
                assert not app.cancel("api", "begun")
                assert time.monotonic() - began < 1
            assert app.status("api", "begun").cancel_asked
            assert not app.cancel("api", "begun"), "known without a daemon"
            with pytest.raises(NotPossible, match="is cancelled"):
                app.cancel("api", "ready")
            with pytest.raises(UnknownMessage):
                app.cancel("api", "never")
            told = app.events("api", start="first", block_s=0, kinds=["cancelled"])
            assert [it.id for it in told] == ["held", "ready", "later"]
    for it in (store, hooks):
        assert it.census().sound
        assert DeepAudit(it, rest=lambda _: None).run().sound


def test_a_producer_hands_over_and_no_more(
    store: OutboxStore, server: EmbeddedServer, guarded: Guarded, client: redis.Redis
) -> None:
    with Outbox.from_url(guarded.url(server.url, "producer")) as producer:
        answers = producer.send_many([Outbox.message("api", {}, id=f"m{n}") for n in range(70)])
        assert not [it for it in answers if isinstance(it, Exception)]
        producer.send("api", {}, id="due", delay_s=60, ttl_s=90, priority="high", campaign="c")
        assert producer.send("api", {}, id="m1").status == "already"
        producer.send("hooks", {}, id="h", endpoint="acme")
        with pytest.raises(PacelineError, match="permission"):
            producer.status("api", "m1")
    client.acl_log_reset()


def test_an_exporter_reads(
    store: OutboxStore, server: EmbeddedServer, guarded: Guarded, client: redis.Redis
) -> None:
    with connect(guarded.url(server.url, "exporter")) as eyes:
        client.script_flush()
        for _ in range(2):
            reading = read(eyes)
            assert [census.destination for census in reading.censuses] == ["api", "hooks"]
            assert reading.unread == []
            assert reading.server.appendfsync == "everysec"


@contextmanager
def _working(url: str) -> Iterator[PacelineWorker]:
    stop = threading.Event()
    worker = PacelineWorker(
        "api",
        ["paceline:api:any"],
        connect=lambda: connect(url),
        name="under-rights",
        ready=lambda: True,
        stop_event=stop,
    )
    worker.pop_timeout_s = 0.05
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        yield worker
    finally:
        stop.set()
        thread.join(10)


def test_a_workers_job_that_fails_is_put_on_record(
    store: OutboxStore, server: EmbeddedServer, guarded: Guarded, client: redis.Redis
) -> None:
    queue = Queue("paceline:api:any", connection=client, serializer=JSONSerializer)
    job = queue.enqueue_call("os.getcwd", timeout=-1)
    with _working(guarded.url(server.url, "worker")):

        def failed() -> bool:
            found = Job.fetch(job.id, connection=client, serializer=JSONSerializer)
            return bool(found.get_status() == "failed")

        until(failed, 10, "the job is recorded as failed")


def test_the_command_prints_what_the_suite_runs_under(tmp_path: Path) -> None:
    config, folder = ROOT / "deploy" / "paceline.toml", tmp_path / "passwords"
    cli = CliHere("redis://127.0.0.1:9/0", config)
    template = (ROOT / "deploy" / "redis" / "users.acl").read_text(encoding="utf-8")
    assert cli("acl").out == template, "make it anew: deploy/redis/users.acl"
    missing = cli("acl", "--passwords", str(folder))
    assert missing.code == 2
    assert f"the password in {folder}/worker: No such file" in missing.err
    made = cli("acl", "--passwords", str(folder), "--make").out
    assert made == cli("acl", "--passwords", str(folder)).out
    for role in ROLES:
        at = folder / role
        password = at.read_text(encoding="utf-8").strip()
        assert at.stat().st_mode & 0o777 == 0o600
        assert password not in made
        assert f"user {role} reset on {hash_of(password)} " in made
    shop = cli("acl", "--role", "producer", "--user", "shop", "--destination", "partner").out
    assert [line.split()[:4] for line in shop.splitlines()] == [
        ["user", "default", "off"],
        ["user", "shop", "reset", "off"],
    ]
    assert cli("acl", "--user", "shop").code == 2
    assert cli("acl", "--role", "producer", "--user", "").code == 2
    (folder / "shop").write_text("#" + "A" * 64, encoding="utf-8")
    one = ["acl", "--role", "producer", "--user", "shop"]
    hashed = cli(*one, "--passwords", str(folder), "--make")
    assert (hashed.code, "no SHA-256 of 64 digits 0-9 a-f" in hashed.err) == (2, True)
    assert "remove the file and give --make" in hashed.err
    assert cli("acl", "--make").code == 2
    nowhere = cli("acl", "--passwords", str(config / "x"), "--make")
    assert (nowhere.code, "the folder: cannot be made: Not a directory" in nowhere.err) == (2, True)
    assert cli("acl", "--destination", "nowhere").code == 1
