"""What `paceline health worker` makes of the workers that Redis knows."""

from __future__ import annotations

from typing import Any

import pytest

from paceline.census import WorkerSeen
from paceline.cli.health import judge_workers, reached_at
from paceline.errors import PacelineError
from paceline.listen import Listen

HERE, HOST = "box/boot/pid:[1]", "box"


def _seen(*, live: bool = True, **facts: Any) -> WorkerSeen:
    facts = {"machine": HERE, "host": HOST, "pid": 7, **facts}
    left = 5.0 if live else -33.0
    return WorkerSeen(id="box-7", live=live, lease_left_s=left, slots=4, facts=facts)


def _judge(*seen: WorkerSeen, pid: int | None = None, space: str = HERE) -> str:
    return judge_workers(seen, pid=pid, space=space, host=HOST)


def test_a_live_worker_of_this_machine_is_well() -> None:
    assert _judge(_seen()) == "box-7 is live, with 4 connections"
    assert _judge(_seen(live=False), _seen()) == "box-7 is live, with 4 connections"


@pytest.mark.parametrize(
    "elsewhere",
    [_seen(machine="box/boot/pid:[2]"), _seen(machine="other/boot/pid:[1]")],
    ids=["another container", "another host"],
)
def test_a_worker_elsewhere_does_not_count(elsewhere: WorkerSeen) -> None:
    with pytest.raises(PacelineError, match="a worker on box is not registered"):
        _judge(elsewhere)


def test_one_process_can_be_asked_for() -> None:
    assert _judge(_seen(pid=7), pid=7)
    with pytest.raises(PacelineError, match="process 8 is not registered"):
        _judge(_seen(pid=7), pid=8)


def test_a_lapsed_lease_is_told_with_its_age() -> None:
    with pytest.raises(PacelineError, match="lapsed 33 s ago"):
        _judge(_seen(live=False))


def test_where_the_platform_names_no_process_space_the_host_decides() -> None:
    assert _judge(_seen(machine=""), space="")
    with pytest.raises(PacelineError, match="not registered"):
        _judge(_seen(machine="", host="other"), space="")


@pytest.mark.parametrize(
    ("listens", "reached"),
    [("0.0.0.0", "127.0.0.1:9108"), ("::", "[::1]:9108"), ("10.1.2.3", "10.1.2.3:9108")],
)
def test_all_addresses_are_reached_at_loopback(listens: str, reached: str) -> None:
    assert str(reached_at(Listen(listens, 9108))) == reached
