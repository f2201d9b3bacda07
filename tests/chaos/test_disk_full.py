"""The disk of the append-only file full: Redis ends, `paceline up` starts it again and again, and
when there is room, sending goes on with all that was accepted."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.stack import Producer, Stack, mono_ns
from support.wait import until

RESUME_S = 15.0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MB."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a small file system")
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode:  # root of a container may not
        pytest.skip(f"cannot mount a small file system: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError as error:
                assert error.errno == errno.ENOSPC  # noqa: PT017 - that is how it ends


@pytest.mark.long
@pytest.mark.needs("mount")
@pytest.mark.timeout(180)
def test_a_full_disk_stops_sending_until_there_is_room(small_disk: Path, tmp_path: Path) -> None:
    with Stack(
        tmp_path, rate=80.0, up=True, data=small_disk / "data", more="lease_s = 4.0"
    ) as stack:
        producer = Producer(stack, per_s=60)
        producer.start()
        stack.wait_arrivals(100)
        _fill(small_disk / "ballast")
        until(lambda: producer.outages > 0, 20, "a producer is told")
        until(
            lambda: stack.log_of("up").count("the embedded server has ended") > 1,
            30,
            "it is started again, in vain",
        )
        stack.wait_quiet(2.0)
        (small_disk / "ballast").unlink()
        back = mono_ns()
        assert stack.wait_arrival_after(back, RESUME_S) < RESUME_S
        producer.halt()
        stack.wait_done(60)
        assert [p.poll() for p in stack.daemon_processes] == [None]
        assert '"event": "ended"' not in stack.log_of("up"), "a process ended"
        stack.check_accounts()
