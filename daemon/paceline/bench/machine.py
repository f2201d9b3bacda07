"""On what a bench ran: figures without it mean nothing."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Machine:
    """``load`` are the load averages at the start; ``stolen`` the part (0 to 1) of the CPU time of
    the run that the host gave to others; ``server`` is Redis's name and version."""

    cpus: int
    model: str
    kernel: str
    python: str
    server: str
    load: tuple[float, float, float]
    stolen: float = 0.0


def cpus() -> int:
    """CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def model() -> str:
    """The processor's name."""
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        return _sysctl() or platform.processor() or platform.machine()
    return platform.machine()


def _sysctl() -> str:
    """As macOS names it; "" elsewhere."""
    try:
        done = subprocess.run(
            ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"],
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


def look(server: str) -> Machine:
    """The machine as it is now."""
    return Machine(
        cpus=cpus(),
        model=model(),
        kernel=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=f"{platform.python_implementation()} {platform.python_version()}",
        server=server,
        load=os.getloadavg(),
    )
