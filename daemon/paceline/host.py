"""Which process, on which machine: enough to tell a dead worker from one that is only silent."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any


@cache
def machine() -> str:
    """Names the process-id space: host name, boot, and pid namespace (containers on one host have
    pids of their own). Empty where the platform does not tell: then nobody here is judged dead."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        space = Path("/proc/self/ns/pid").readlink()
    except OSError:
        return ""
    return f"{socket.gethostname()}/{boot}/{space}"


def started(pid: int) -> str:
    """When the process started (clock ticks since boot), "" when there is none: pids come again."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()
    # A zombie runs no more: it holds no socket and writes nothing.
    return "" if fields[0] in "ZX" else fields[19]


def _is_hidden(pid: int) -> bool:
    """Whether a process exists that /proc does not show (hidepid: those of other users)."""
    if Path(f"/proc/{pid}").exists():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def identity() -> dict[str, Any]:
    """This process, as others see it in a worker's facts."""
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "machine": machine(),
        "started": started(os.getpid()),
    }


def is_known_dead(facts: Mapping[str, Any]) -> bool:
    """Whether the process of these facts ran on this machine and runs no more."""
    here, pid = machine(), facts.get("pid")
    if not here or facts.get("machine") != here or not facts.get("started"):
        return False
    if not isinstance(pid, int) or pid <= 0:
        return False
    now = started(pid)
    return now != str(facts["started"]) and (bool(now) or not _is_hidden(pid))


def memory_bytes() -> int:
    """Resident memory of this process; 0 where the platform does not tell."""
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    except OSError:
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
