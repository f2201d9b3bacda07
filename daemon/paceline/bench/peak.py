"""The most memory that a process has held."""

from __future__ import annotations

from pathlib import Path

from paceline.bench.child import BenchFailed


def peak_bytes(pid: int) -> int | None:
    """Resident memory at its highest, in bytes, from the process's start on; None where the system
    has no /proc. Raises BenchFailed where there is no such process."""
    if not Path("/proc/self/status").exists():
        return None
    try:
        status = Path(f"/proc/{pid}/status").read_text("utf-8", "replace")
    except OSError as error:
        raise BenchFailed(f"the memory of process {pid} cannot be read: has it ended?") from error
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise BenchFailed(f"the memory of process {pid} cannot be read: has it ended?")
