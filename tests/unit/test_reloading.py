"""What a reload may change, what it makes anew for it, and what it says."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from paceline.cli.common import Setup, read_setup
from paceline.cli.hangup import Hangup
from paceline.config_digest import digest
from paceline.errors import ConfigError, ConfigMismatch, RedisUnavailable
from paceline.reloading import changed, check_destination, check_settings
from paceline.settings import Destination
from paceline.settings_file import loads
from paceline.standing import GRACE_S, Standing
from paceline.supervisor import Child, Supervisor
from paceline_workers import recipe
from paceline_workers.recipe import recipe_of
from support.wait import until

TABLE = '[destinations.web]\nprovider = "http"\nurl = "https://api.example/"\n'


def _web(more: str = "") -> Destination:
    return loads(TABLE + more).destinations["web"]


# -- what may change ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('[redis]\nurl = "redis://other"\n', "redis.url"),
        ('[redis]\nappendfsync = "everysec"\n', "redis.appendfsync"),
        ('[exporter]\nlisten = "off"\n', "exporter.listen"),
    ],
)
def test_what_stands_on_a_connection_or_an_address_stays(text: str, key: str) -> None:
    with pytest.raises(ConfigError, match="needs a restart") as caught:
        check_settings(loads(TABLE), loads(text + TABLE))
    assert [problem.key for problem in caught.value.problems] == [key]
    check_settings(loads(text + TABLE), loads(text + TABLE + "rate = 7"))


def test_a_destinations_provider_and_lease_stay() -> None:
    login = 'username = "u"\npassword = "p"\nlease_s = 9'
    other = loads(TABLE.replace('"http"', '"maxmd"') + login).destinations["web"]
    with pytest.raises(ConfigError) as caught:
        check_destination(_web(), other)
    assert [p.key for p in caught.value.problems] == [
        "destinations.web.provider",
        "destinations.web.lease_s",
    ]
    check_destination(_web(), _web("rate = 7\nconnections = 3"))


def test_what_changed_is_told_by_its_keys_alone() -> None:
    before = _web('headers = { X = "hunter2" }')
    assert changed(before, before) == []
    now = loads(TABLE.replace("api", "www") + 'headers = { X = "hunter3" }\nrate = 7')
    assert changed(before, now.destinations["web"]) == ["url", "rate", "headers"]


# -- what is made anew --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "same"),
    [
        ("rate = 7", True),
        ('username = "u"\npassword = "p"', True),
        ('headers = { X = "1" }', True),
        ("retry = { first_s = 7 }", True),
        ('outcomes = { 409 = "retry" }', True),
        ("burst = 1000", True),
        ("burst = 8", False),  # fewer connections may be used beside it
        ("connections = 9", False),
        ("read_timeout_s = 7", False),
        ("connection_max_requests = 7", False),
        ('id_header = "X-Id"', False),
        ("gzip_from_bytes = 7", False),
        ('ca_file = "/nowhere"', False),
        ('proxy = "http://proxy.example:3128"', False),
    ],
)
def test_an_engine_stays_where_it_would_be_the_same(more: str, same: bool) -> None:
    assert (recipe_of(_web(), {}) == recipe_of(_web(more), {})) is same


def test_a_webhooks_keys_are_replaced_without_new_connections() -> None:
    def hook(secrets: str) -> Destination:
        text = TABLE.replace('"http"', '"webhook"') + f"secrets = {secrets}"
        return loads(text).destinations["web"]

    old, both = hook('[{ env = "A" }]'), hook('[{ env = "B" }, { env = "A" }]')
    assert recipe_of(old, {}) == recipe_of(both, {})
    assert digest(old) == digest(both), "hosts may differ while keys are replaced"
    assert changed(old, both) == ["secrets"]


def test_what_is_in_a_file_or_a_secret_may_change_under_its_name(tmp_path: Path) -> None:
    ca, password = tmp_path / "ca.pem", tmp_path / "password"
    ca.write_text("one")
    password.write_text("one")
    it = _web(
        f'ca_file = "{ca}"\nproxy = "http://proxy.example:3128"\nproxy_username = "u"\n'
        f'proxy_password = {{ file = "{password}" }}'
    )
    first = recipe_of(it, {})
    ca.write_text("two")
    second = recipe_of(it, {})
    password.write_text("two")
    third = recipe_of(it, {})
    assert len({repr(r.proxy) for r in (first, second, third)}) == 1, "a secret is shown"
    assert first != second
    assert second != third
    assert third == recipe_of(it, {})


def test_a_key_nobody_has_thought_of_asks_for_a_new_engine() -> None:
    names = {field.name for field in fields(Destination)}
    known = recipe._OF_THE_PROFILE | recipe._OF_REDIS | {"proxy_username", "proxy_password"}
    assert set(recipe_of(_web(), {}).keys) == names - known


# -- a process that is left behind --------------------------------------------------------------


def test_it_says_so_after_a_moment_and_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "paceline.test")
    now = [100.0]
    standing = Standing(logging.getLogger("paceline.test"), lambda: now[0])
    error = ConfigMismatch("web", "rate is 7 there, 90 here")

    def after(seconds: float) -> int:
        now[0] += seconds
        standing.bad(error)
        return len(caplog.records)

    assert [after(0), after(GRACE_S - 0.1), after(0.1), after(299), after(1)] == [0, 0, 1, 1, 2]
    assert "rate is 7 there, 90 here" in caplog.records[0].getMessage()
    standing.good("web")
    standing.good("web")
    assert len(caplog.records) == 3
    assert after(0) == 3, "another time, another moment"
    # A reload of all at once is no news.
    standing.good("web")
    assert len(caplog.records) == 3


# -- the signal ---------------------------------------------------------------------------------


@pytest.fixture
def setup(tmp_path: Path) -> Iterator[Setup]:
    before = signal.getsignal(signal.SIGHUP)
    at = tmp_path / "paceline.toml"
    at.write_text(TABLE)
    yield read_setup(at, tmp_path)
    signal.signal(signal.SIGHUP, before)


def _hang_up() -> None:
    os.kill(os.getpid(), signal.SIGHUP)


def test_the_file_is_read_at_each_signal(setup: Setup, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "paceline.reload")
    rates: list[float] = []

    def apply(fresh: Setup) -> str:
        rates.append(fresh.settings.destinations["web"].rate)
        if rates[-1] == 13:
            raise RedisUnavailable("gone")
        if rates[-1] == 14:
            raise ZeroDivisionError("oh")
        return "well"

    assert setup.source is not None
    hangup = Hangup(setup, lambda: None)
    _hang_up()  # before anybody can answer: it is kept
    until(lambda: hangup._came, 5, "it came")
    assert rates == []
    hangup.serve(apply)
    for count, text in enumerate(
        [TABLE, TABLE + "rate = 7", "no toml", TABLE + "rate = 13", TABLE + "rate = 14",
         '[redis]\nurl = "redis://other"\n' + TABLE, TABLE + "rate = 8"], 1,
    ):  # fmt: skip
        if count > 1:
            setup.source.write_text(text)
            _hang_up()
        until(lambda count=count: len(caplog.records) == count, 5, "it is told")
    assert rates == [90, 7, 13, 14, 8]
    events = [record.event for record in caplog.records]  # type: ignore[attr-defined]
    assert events == [
        "reloaded", "reloaded", "reload_refused", "reload_refused", "defect", "reload_refused",
        "reloaded",
    ]  # fmt: skip
    assert all("\n" not in record.getMessage() for record in caplog.records)


def test_where_the_terminal_has_gone_it_stops(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, stopped = [True], []
    monkeypatch.setattr("paceline.cli.hangup._has_terminal", lambda: there[0])
    Hangup(setup, lambda: stopped.append(1)).serve(lambda _: "well")
    there[0] = False
    _hang_up()
    until(lambda: stopped == [1], 5, "it stops")


def test_under_nohup_it_does_not(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    there, applied = [True], []
    monkeypatch.setattr("paceline.cli.hangup._has_terminal", lambda: there[0])
    signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def apply(_: Setup) -> str:
        applied.append(1)
        return "well"

    Hangup(setup, lambda: applied.append(2)).serve(apply)
    there[0] = False
    _hang_up()
    until(lambda: applied == [1], 5, "it is reloaded")


ON_A_TERMINAL = """
import fcntl, os, pathlib, sys, termios, threading
from paceline.cli.common import read_setup
from paceline.cli.hangup import Hangup
fcntl.ioctl(0, termios.TIOCSCTTY)
at, over = pathlib.Path(sys.argv[1]), threading.Event()
setup = read_setup(at, at.parent)
Hangup(setup, over.set).serve(lambda _: at.with_suffix(".reloaded").touch() or "")
at.with_suffix(".up").touch()
while not over.wait(0.01):
    pass
at.with_suffix(".stopped").touch()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's terminals")
def test_a_real_terminal_that_is_closed(tmp_path: Path) -> None:
    at = tmp_path / "paceline.toml"
    at.write_text(TABLE)
    master, slave = os.openpty()
    command = [sys.executable, "-c", ON_A_TERMINAL, str(at)]
    with subprocess.Popen(command, stdin=slave, start_new_session=True) as process:
        os.close(slave)
        try:
            until(at.with_suffix(".up").exists, 10, "it has a terminal")
            process.send_signal(signal.SIGHUP)
            until(at.with_suffix(".reloaded").exists, 5, "the terminal is there: it is reloaded")
            os.close(master)
            until(at.with_suffix(".stopped").exists, 5, "the terminal has gone: it stops")
        finally:
            process.kill()


CHILD = """
import signal, sys, pathlib
at = pathlib.Path(sys.argv[1])
at.with_suffix(".up").touch()
while not at.with_suffix(".go").exists():
    pass
signal.signal(signal.SIGHUP, lambda *_: at.with_suffix(".hup").touch())
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
signal.pause()
"""


def test_a_child_that_has_no_handler_yet_gets_it_later(tmp_path: Path) -> None:
    at = tmp_path / "child"
    child = Child("it", [sys.executable, "-c", CHILD, str(at)], 0.1)
    supervisor = Supervisor([[child]], os.environ)
    supervisor.run_once()
    try:
        until(at.with_suffix(".up").exists, 5, "it runs, without a handler")
        assert supervisor.send(signal.SIGHUP) == 1
        at.with_suffix(".go").touch()
        until(at.with_suffix(".hup").exists, 5, "the signal waited for it")
        assert child.process is not None
        assert child.process.poll() is None
        assert signal.SIGHUP not in signal.pthread_sigmask(signal.SIG_BLOCK, set())
    finally:
        supervisor._stop_all()
    assert supervisor.send(signal.SIGHUP) == 0
