"""``python -m paceline.sink``."""

from __future__ import annotations

from paceline.sink.command import sink_command

if __name__ == "__main__":
    sink_command(prog_name="python -m paceline.sink")
