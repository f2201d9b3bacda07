"""What Linux says of processes: children, memory, descriptors, threads."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Usage:
    """Of one process at one moment."""

    rss_bytes: int
    fds: int
    threads: int


def usage(pid: int) -> Usage | None:
    """None where it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text("utf-8", "replace")
        fds = len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208
    except OSError:
        return None
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    if "VmRSS" not in fields:  # a zombie
        return None
    return Usage(int(fields["VmRSS"].split()[0]) * 1024, fds, int(fields["Threads"]))


def children(parent: int) -> dict[int, list[str]]:
    """Command lines of the processes that it is the parent of, by pid."""
    found = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            stat = (folder / "stat").read_text("utf-8", "replace")
            command = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        state, its_parent = stat.rpartition(")")[2].split()[:2]
        if int(its_parent) == parent and state != "Z":
            found[int(folder.name)] = command.decode("utf-8", "replace").split("\0")
    return found


def is_alive(pid: int) -> bool:
    """Whether such a process runs (a zombie does not)."""
    return usage(pid) is not None


def thread_heaps(pid: int) -> int:
    """How many heaps glibc's malloc has given to threads (arena.c: each takes 64 MiB of addresses,
    at a multiple of that, of which it uses the first part)."""
    size = 64 * 1024**2
    used: dict[int, int] = {}  # by where it ends, where it began
    heaps = 0
    for line in Path(f"/proc/{pid}/maps").read_text("utf-8", "replace").splitlines():
        addresses, rights, _, _, inode = line.split()[:5]
        first, last = (int(it, 16) for it in addresses.split("-"))
        if inode != "0":
            continue
        if rights == "rw-p" and first % size == 0:
            used[last] = first
        elif rights == "---p" and used.get(first) == last - size:
            heaps += 1
    return heaps
