"""Logs: one JSON line an event, with ids and causes; payloads and secrets never.

What an event is and which fields it has is in docs/diagnosis.md. Fields are given as logging's
``extra``: ``log.warning("…", extra={"event": "lease_lost", "destination": …})``.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

from paceline.log_pace import PacedHandler
from paceline.log_veil import Veil, trace

#: In the order in which they are written, after the message.
FIELDS = (
    "event", "destination", "worker", "message_id", "attempt", "cause", "status", "repeated",
)  # fmt: skip


class JsonFormatter(logging.Formatter):
    """``{"time", "level", "logger", "message", …FIELDS that there are, "error"?}``; times are RFC
    3339 in UTC. ``veil`` covers secrets; ``whose`` fields are added where a record lacks them."""

    def __init__(self, veil: Veil | None = None) -> None:
        super().__init__()
        self.veil = veil or Veil()
        self.whose: dict[str, str] = {}

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self.veil.cover(_message(record)),
        }
        for field in FIELDS:
            value = getattr(record, field, None)
            if value is None:
                value = self.whose.get(field)
            if value is not None:
                line[field] = value if isinstance(value, int) else self.veil.cover(str(value))
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = self.veil.cover(trace(record.exc_info[1], record.exc_info[2]))
        return json.dumps(line, ensure_ascii=False)


class _LineHandler(logging.StreamHandler[TextIO]):
    """Writes lines. logging's own way of telling that a line failed prints its arguments."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Tells of a defect of ours by its place alone. A stream that is closed or full loses the
        line: there is nowhere else."""
        error = sys.exc_info()[1]
        if error is None or isinstance(error, OSError) or self.stream.closed:
            return
        at = f"{record.pathname}:{record.lineno}"
        line = {"level": "error", "logger": __name__, "message": f"a line of {at} was lost"}
        with contextlib.suppress(OSError):
            self.stream.write(json.dumps({**line, "error": type(error).__name__}) + "\n")


_formatter = JsonFormatter()


def start(stream: TextIO, level: int) -> None:
    """This process logs to ``stream`` from now on, at most one line a second for each cause."""
    lines = _LineHandler(stream)
    lines.setFormatter(_formatter)
    root = logging.getLogger()
    for handler in root.handlers:
        handler.close()
    root.handlers[:] = [PacedHandler(lines)]
    root.setLevel(level)
    # urllib3 logs the path of each request, with its query.
    for name in ("rq", "urllib3"):
        logging.getLogger(name).setLevel(logging.WARNING)


def started() -> bool:
    """Whether this process logs."""
    return any(isinstance(handler, PacedHandler) for handler in logging.getLogger().handlers)


def identify(**whose: str) -> None:
    """``destination`` and ``worker`` of every line of this process, where it names no other."""
    _formatter.whose.update(whose)


def veil() -> Veil:
    """What covers this process's secrets."""
    return _formatter.veil


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError):
        # A defect of ours. The wording alone: the arguments may be anything.
        return f"{record.msg} (with arguments that do not fit)"
