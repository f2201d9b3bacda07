"""One process of the rehearsal: its start, its log, its CPU time, its orderly end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from paceline.errors import PacelineError

_TAIL_LINES = 15
_TAIL_BYTES = 16_000


class PartFailed(PacelineError):
    """A process could not start, or ended by itself; its last log lines are in the text."""


class Part:
    """A child process in a session of its own (Ctrl-C reaches only the parent, which stops all in
    order), with its output in a file. Raises OSError when it cannot be started."""

    def __init__(
        self, name: str, command: Sequence[str], environ: Mapping[str, str], log: Path
    ) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603 - our own command line
                command,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def check(self) -> None:
        """Raises PartFailed when it has ended."""
        code = self._process.poll()
        if code is not None:
            raise PartFailed(f"{self.name} ended with code {code}{self.tail()}")

    def tail(self) -> str:
        """The log's last lines, indented, for an error's text. Raises OSError."""
        with self.log.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - _TAIL_BYTES))
            lines = log.read().decode("utf-8", "replace").splitlines()[-_TAIL_LINES:]
        return "".join(f"\n  {line}" for line in lines) or "; it wrote nothing"

    def ask_to_stop(self) -> None:
        """SIGTERM, unless it has ended."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def await_end(self, grace_s: float) -> int:
        """Its exit code; SIGKILL when it outlives the grace (then the code is -9)."""
        try:
            return self._process.wait(grace_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


def cpu_s(pid: int) -> float | None:
    """CPU seconds, user and system, that a process has used; None where there is no such process,
    or the system does not tell."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return None if Path("/proc/self").exists() else _cpu_s_by_ps(pid)
    # The name, in parentheses, may hold anything; utime and stime are fields 14 and 15.
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _cpu_s_by_ps(pid: int) -> float | None:
    """Where there is no /proc (macOS)."""
    command = ["/bin/ps", "-o", "time=", "-p", str(pid)]
    try:
        done = subprocess.run(  # noqa: S603 - a number is all that is put in
            command, capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return parse_ps_time(done.stdout.strip())


def parse_ps_time(text: str) -> float | None:
    """Seconds of ps's ``[[days-]hours:]minutes:seconds[.hundredths]``; None for anything else."""
    found = re.fullmatch(r"(?:(?:(\d+)-)?(\d+):)?(\d+):(\d+(?:\.\d+)?)", text)
    if found is None:
        return None
    days, hours, minutes, seconds = (float(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def machine_ticks() -> tuple[int, int]:
    """(stolen by the host, all) CPU ticks of this machine since its boot; (0, 0) where the system
    does not tell. See proc(5), /proc/stat."""
    try:
        line = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0]
    except OSError:
        return 0, 0
    fields = [int(field) for field in line.split()[1:9]]
    return (fields[7], sum(fields)) if len(fields) == 8 else (0, 0)


def stolen_since(before: tuple[int, int]) -> float:
    """The part (0 to 1) of all CPU time since then that the host gave to others."""
    stolen, total = machine_ticks()
    return (stolen - before[0]) / (total - before[1]) if total > before[1] else 0.0
