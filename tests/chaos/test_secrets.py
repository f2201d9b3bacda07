"""A run with every kind of trouble and a secret in every place that has one: afterwards none is
found in Redis, logs, metrics, command lines, or in what the commands print.

Environments of processes are left out: that is where a secret that is not in a file is handed over,
and they can be read by the same user and root alone, as the process's memory can.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import quote

import pytest
import redis

from paceline import Outbox
from paceline.connect import connect
from paceline.embedded import EmbeddedServer
from paceline.outbox import OutboxStore
from paceline.sink.thread import SinkThread
from support.cli import CliHere
from support.mails import neutral
from support.peers import Peer, Talk
from support.proxy import ForwardProxy
from support.wait import until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

PLANTED = {
    name: f"pl4nted-{name}-s3cret"
    for name in ("redis", "user", "password", "apikey", "header", "query", "proxyuser", "proxypw",
                 "basic", "envheader", "fileheader", "payload")
}  # fmt: skip
SIGNING = base64.b64encode(b"pl4nted-signing-key-of-32-bytes!").decode()
#: No secret: where it is planted and not found, secrets would not be found either.
CANARY = b"pl4nted-canaries-s3cret"
#: They are credentials only together with a password; alone each may be any word, and is shown.
_NO_SECRETS = ("user", "proxyuser")


def _spellings() -> Iterator[bytes]:
    for name, value in PLANTED.items():
        if name not in _NO_SECRETS:
            yield value.encode()
            yield base64.b64encode(value.encode())[:-4]
    yield SIGNING.rstrip("=").encode()
    for pair in (("user", "password"), ("proxyuser", "proxypw"), ("user", "basic")):
        yield base64.b64encode(":".join(PLANTED[name] for name in pair).encode()).rstrip(b"=")
    yield base64.b64encode(f"api:{PLANTED['apikey']}".encode()).rstrip(b"=")


def _echo(_: Peer, it: Talk) -> None:
    """Refuses each request with an error page that shows it."""
    while request := it.read_request():
        head = b"HTTP/1.1 400 No\r\nContent-Length: %d\r\n\r\n" % len(request)
        it.send(head + request)


def _toml(p: dict[str, str], url: str, sink: str, echo: str, proxy: str, file: Path) -> str:
    quick = "first_s = 0.05\ncap_s = 0.1\nmax_retries = 1\nwait_503_s = [0.05, 0.1]\n"
    return f"""
[redis]
url = "{url}"
[exporter]
listen = "127.0.0.1:0"
[destinations.maxmd]
provider = "maxmd"
url = "{echo}/Send?key={p["query"]}"
username = "{p["user"]}"
password = "{p["password"]}"
headers = {{ X-A = "{p["header"]}", X-B = {{ env = "ENV_HEADER" }}, X-C = {{ file = "{file}" }} }}
redact = ["/body"]
[destinations.maxmd.retry]
{quick}
[destinations.mailgun]
provider = "mailgun"
url = "http://provider.example/v3/d/messages"
api_key = "{p["apikey"]}"
proxy = "{proxy}"
proxy_username = "{p["proxyuser"]}"
proxy_password = "{p["proxypw"]}"
allow_plain_http = true
connect_timeout_s = 0.4
[destinations.hook]
provider = "webhook"
url = "https://{echo.partition("://")[2]}/x?token={p["query"]}"
guard_allow = ["127.0.0.1"]
connect_timeout_s = 0.4
secrets = ["whsec_{SIGNING}"]
[destinations.hook.retry]
{quick}
[destinations.api]
provider = "http"
url = "{sink}/x?key={p["query"]}"
username = "{p["user"]}"
password = "{p["basic"]}"
[destinations.api.retry]
{quick}
[destinations.api.events]
kinds = "all"
"""


class _Stage:
    """Redis with a password, providers, a daemon, a worker for each destination."""

    def __init__(self, folder: Path, exits: ExitStack) -> None:
        self.folder = folder
        # In a packed dump nothing is found.
        plain = {"rdbcompression": "no"}
        self.server = exits.enter_context(EmbeddedServer(folder / "redis", extra=plain))
        self._open = connect(self.server.url)
        password = PLANTED["redis"]
        self._open.config_set("requirepass", password)
        exits.callback(self._open_again)
        self.url = self.server.url.replace("://", f"://:{quote(password)}@")
        self.client = exits.enter_context(connect(self.url))
        faults = (
            "401:2%,500:20%,503:10%,reset_after:10%,garbage=html:10%,redirect=302:2%:location=/x"
        )
        sink = exits.enter_context(SinkThread(profile="http", faults=faults, seed=5))
        echo = exits.enter_context(Peer(_echo))
        proxy = exits.enter_context(ForwardProxy(login="other:login"))
        file = folder / "header"
        file.write_text(PLANTED["fileheader"] + "\n")
        text = _toml(PLANTED, self.url, sink.url, echo.url, proxy.url, file)
        self.config = folder / "paceline.toml"
        self.config.write_text(text)
        self.text = text
        self.processes: list[subprocess.Popen[bytes]] = []
        exits.callback(self.stop)
        self.processes.append(self._start("daemon"))
        until(lambda: self.store("api").census().config, 15, "configured")
        self.processes += [
            self._start("worker", name) for name in ("maxmd", "mailgun", "hook", "api")
        ]

    def _open_again(self) -> None:
        # Who started the server knows no password to stop it with.
        with connect(self.url) as client:
            client.config_set("requirepass", "")

    def _start(self, *command: str) -> subprocess.Popen[bytes]:
        log = (self.folder / f"{'-'.join(command)}.log").open("wb")
        process = subprocess.Popen(
            [sys.executable, "-m", "paceline", *command, "-v", "--config",
             str(self.config)],
            stdout=log, stderr=log, stdin=subprocess.DEVNULL,
            env={**os.environ, "ENV_HEADER": PLANTED["envheader"]},
        )  # fmt: skip
        log.close()
        return process

    def stop(self) -> None:
        """All at once."""
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait(20)

    def store(self, name: str) -> OutboxStore:
        return OutboxStore(self.client, name)

    def logs(self) -> bytes:
        return b"".join(at.read_bytes() for at in self.folder.glob("*.log"))

    def reload(self, text: str, saying: str) -> None:
        """By all of them, and refused by all."""
        self.config.write_text(text)
        for process in self.processes:
            process.send_signal(signal.SIGHUP)
        until(lambda: self.logs().count(saying.encode()) >= len(self.processes), 15, saying)


def _metrics(stage: _Stage) -> bytes:
    [line] = [one for one in stage.logs().split(b"\n") if b"metrics on http" in one][:1]
    at = line.split(b"metrics on ")[1].split(b'"')[0].split()[0].decode()
    with urllib.request.urlopen(at) as reply:
        return bytes(reply.read())


def test_no_planted_secret_is_found(tmp_path: Path) -> None:
    with ExitStack() as exits:
        stage = _Stage(tmp_path, exits)
        with Outbox.from_url(stage.url) as outbox:
            body = {"sender": "a@d.example", "recipients": [{"email": "b@d.example", "type": "TO"}],
                    "subject": "s", "body": PLANTED["payload"]}  # fmt: skip
            for n in range(3):
                outbox.send("maxmd", body, id=f"m-{n}")
                outbox.send("mailgun", neutral(), id=f"m-{n}")
                outbox.send("hook", {}, id=f"m-{n}")
            for n in range(40):
                outbox.send("api", {"n": n}, id=f"m-{n}")
        counts = lambda name: stage.store(name).census().law  # noqa: E731
        until(lambda: counts("maxmd")["dead"] == 3, 20, "refused, with an echo")
        until(lambda: stage.store("mailgun").census().closed(), 20, "the proxy holds it")
        until(lambda: stage.store("hook").attempts("m-0"), 20, "TLS failed")
        until(lambda: counts("api")["sent"] > 5 or stage.store("api").census().closed(), 20, "sent")
        stage.reload(stage.text + "\n[redis2]\nx = 1\n", "reload_refused")
        found = {
            "metrics": _metrics(stage),
            "logs": stage.logs(),
            "titles": b"".join(
                Path(f"/proc/{process.pid}/{name}").read_bytes()
                for process in stage.processes
                for name in ("cmdline", "comm")
            ),
            "printed": _printed(stage),
        }
        # Payloads are kept to be sent: the one that is planted in one is looked for elsewhere.
        found["redis"] = b"".join(
            stage.client.dump(key) or b""
            for key in stage.client.scan_iter(count=1000)
            if b":m:" not in key
        )
        stage.config.write_text(stage.text)
        _plant_canaries(stage.client)
        stage.client.save()
    found["logs"] += stage.logs()
    for where, text in found.items():
        assert text, where
        hits = [one for one in _spellings() if one in text]
        assert not hits, (where, hits, text[max(0, text.find(hits[0]) - 300) :][:700])
    written = {at.name: at.read_bytes() for at in (tmp_path / "redis").rglob("*") if at.is_file()}
    assert {"dump.rdb", "server.log", "appendonly.aof.1.incr.aof"} <= set(written)
    for name, text in written.items():
        hits = [one for one in _spellings() if one != PLANTED["payload"].encode() and one in text]
        assert not hits, (name, hits)
        if name.endswith((".incr.aof", "dump.rdb")):
            assert text.count(CANARY) == 2 * len(_KINDS), (name, "would not be found")


#: Commands that write a value, which comes last, of each kind that Redis has.
_KINDS = ("SET k", "HSET k f", "RPUSH k", "SADD k", "ZADD k 1", "XADD k * f")


def _plant_canaries(client: redis.Redis) -> None:
    """In each kind of value, alone and within what would be packed."""
    for place, kind in enumerate(_KINDS):
        for size, value in (("short", CANARY), ("long", b"pl4nted- -s3cret " * 200 + CANARY)):
            command = kind.replace(" k", f" canary:{place}:{size}").split()
            client.execute_command(*command, value)


def _printed(stage: _Stage) -> bytes:
    cli = CliHere(stage.url, stage.config)
    stage.config.write_text(stage.text)
    commands = [
        ("status", "--json"), ("status", "maxmd"), ("show", "maxmd", "m-0"),
        ("show", "maxmd", "m-0", "--json"), ("show", "maxmd", "m-0", "--payload"),
        ("dead", "list", "maxmd"), ("dead", "list", "maxmd", "--json"), ("audit", "--deep"),
        ("doctor", "--json"), ("plan",), ("health", "daemon"), ("rate", "api"),
    ]  # fmt: skip
    printed = [cli(*command) for command in commands]
    assert json.loads(printed[4].out)["body"] == "***"
    return "".join(one.out + one.err for one in printed).encode()
