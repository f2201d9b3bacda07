"""The command line. Each command is in the module named in COMMANDS, imported when it is used.

Exit codes: 0 done; 1 it failed, or what was asked about is not sound; 2 wrong usage or
configuration; 3 Redis is not available; 130 interrupted.
"""

from __future__ import annotations

import importlib
import logging
import sys
from typing import Final

import click

from paceline.errors import (
    ConfigError,
    ConfigMismatch,
    MissingExtra,
    PacelineError,
    RedisUnavailable,
)
from paceline.version import __version__

EXIT_FAILED, EXIT_USAGE, EXIT_REDIS, EXIT_INTERRUPTED = 1, 2, 3, 130

#: Command -> (module, attribute, summary). One line a command; the order is that of --help. The
#: summary stands here too, so that --help need not import what the commands import (redis alone
#: takes 100 ms); a test compares it with the command's own.
COMMANDS: Final[dict[str, tuple[str, str, str]]] = {
    "up": ("paceline.cli.processes", "up", "Run everything on this machine."),
    "daemon": (
        "paceline.cli.processes",
        "daemon",
        "Run scheduler, reaper and exporter of all destinations.",
    ),
    "scheduler": ("paceline.cli.processes", "scheduler", "Run the scheduler alone."),
    "exporter": ("paceline.cli.processes", "exporter", "Serve the metrics alone, for Prometheus."),
    "worker": ("paceline.cli.processes", "worker", "Run one worker process."),
    "send": ("paceline.cli.send", "send", "Hand over the messages of a JSON Lines file."),
    "plan": (
        "paceline.cli.plan",
        "plan",
        "When a large mailing must start, or when it is done.",
    ),
    "status": ("paceline.cli.look", "status", "What waits, why, and when it will be done."),
    "top": ("paceline.cli.top", "top", "Watch the destinations, second by second."),
    "doctor": ("paceline.cli.doctor", "doctor", "Check what sending rests on, and how to mend it."),
    "health": (
        "paceline.cli.health",
        "health",
        "Whether this machine's worker or daemon is well: exit code 0 or 1, and why.",
    ),
    "show": ("paceline.cli.look", "show", "What became of one message."),
    "events": (
        "paceline.cli.events",
        "events",
        "What happens to the messages of a destination, one line an event.",
    ),
    "audit": ("paceline.cli.look", "audit", "Account for every message."),
    "rate": ("paceline.cli.rate", "rate", "Show the rate of a destination, or set it live."),
    "pause": ("paceline.cli.control", "pause", "Let nothing more go out for a while."),
    "resume": ("paceline.cli.control", "resume", "Lift pauses, holds and drains."),
    "hold": ("paceline.cli.control", "hold", "Stop sending because of the provider."),
    "drain": ("paceline.cli.control", "drain", "Take nothing new, finish what waits."),
    "cancel": ("paceline.cli.control", "cancel", "Cancel messages by id."),
    "campaign": (
        "paceline.cli.campaign",
        "campaign",
        "Campaigns: list, show, pause, resume, cancel.",
    ),
    "purge": ("paceline.cli.control", "purge", "Drop everything that waits."),
    "dead": ("paceline.cli.shelves", "dead", "Dead letters: list, replay, drop."),
    "parked": ("paceline.cli.shelves", "parked", "Messages of unknown fate: list, settle."),
    "endpoints": (
        "paceline.cli.endpoints",
        "endpoints",
        "Endpoints of a destination that has many: list, add, import, remove, enable.",
    ),
    "acl": (
        "paceline.cli.acl",
        "acl",
        "Print users for Redis's ACL file, each with the least rights.",
    ),
    "sink": ("paceline.sink.command", "sink_command", "Run a local provider simulator."),
    "bench": ("paceline.bench.command", "bench", "What a message costs, beside others."),
    "rehearse": ("paceline.rehearsal.command", "rehearse", "Rehearse a load against the sink."),
}


class _LazyGroup(click.Group):
    def list_commands(self, _: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, _: click.Context, cmd_name: str) -> click.Command | None:
        place = COMMANDS.get(cmd_name)
        if place is None:
            return None
        command = getattr(importlib.import_module(place[0]), place[1])
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, _: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, place[2]) for name, place in COMMANDS.items()])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="paceline")
def cli() -> None:
    """Durable, paced sending: apps push messages into Redis, Paceline delivers them.

    \b
    First steps:
      paceline up --config paceline.toml      everything on this machine
      paceline send DEST messages.jsonl       hand messages over
      paceline status                         what waits, and why

    The configuration is one TOML file: --config, or PACELINE_CONFIG, or ./paceline.toml.
    PACELINE_REDIS_URL overrides its Redis.
    """


def run() -> int:
    """Runs the command line and returns its exit code; errors are one clear message on stderr."""
    try:
        result = cli(standalone_mode=False)
    except click.exceptions.Abort:
        sys.stderr.write("interrupted\n")
        return EXIT_INTERRUPTED
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (ConfigError, MissingExtra) as error:
        return _fail(error, EXIT_USAGE)
    except RedisUnavailable as error:
        return _fail(error, EXIT_REDIS)
    except PacelineError as error:
        return _fail(error, EXIT_FAILED)
    return result if isinstance(result, int) else 0


def _fail(error: PacelineError, code: int) -> int:
    """Tells a person in words; a program that reads the logs in a line of theirs."""
    logs = sys.modules.get("paceline.logs")
    if logs is not None and logs.started() and not sys.stderr.isatty():
        event = "config_mismatch" if isinstance(error, ConfigMismatch) else "failed"
        logging.getLogger("paceline").error("%s", error, extra={"event": event})
    else:
        sys.stderr.write(f"paceline: {error}\n")
    return code
