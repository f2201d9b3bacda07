"""A table of what became of each message, kept from a destination's delivery events.

    python consumer.py partner --database deliveries.sqlite3

An event is acknowledged when the next one is asked for, and the table is committed before that: so
each is in it, however often this process is killed. One that comes again finds its own row, by
(id, kind, attempt).
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import sqlite3
import sys
import time
from contextlib import closing
from types import FrameType

from paceline import Event, Outbox, PacelineError
from paceline.errors import RedisUnavailable

logger = logging.getLogger("deliveries")

#: How soon an idle consumer sees that it is to stop, in seconds; and how soon it tries again when
#: Redis is away.
IDLE_S = 0.5

TABLES = """
CREATE TABLE IF NOT EXISTS happened (
    id TEXT NOT NULL, kind TEXT NOT NULL, attempt INTEGER NOT NULL,
    at REAL NOT NULL, seq INTEGER NOT NULL, status INTEGER, provider_id TEXT, reason TEXT,
    PRIMARY KEY (id, kind, attempt)
) WITHOUT ROWID;
CREATE VIEW IF NOT EXISTS became AS
    SELECT id, kind, attempt, at, MAX(seq) AS seq, status, provider_id, reason
    FROM happened GROUP BY id;
"""

# What has no attempt (accepted, cancelled, ...) is 0, for NULL is equal to nothing. The same thing
# may happen again, such as a second replay: the row then tells of the last time.
BOOK = """
INSERT INTO happened (id, kind, attempt, at, seq, status, provider_id, reason)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id, kind, attempt) DO UPDATE SET
    at = excluded.at, seq = excluded.seq, status = excluded.status,
    provider_id = excluded.provider_id, reason = excluded.reason
WHERE excluded.seq > seq
"""


def book(table: sqlite3.Connection, event: Event) -> None:
    """Puts the event into the table, and commits it."""
    with table:
        table.execute(
            BOOK,
            (event.id, event.kind, event.attempt or 0, event.at, event.seq, event.status,
             event.provider_id, event.reason),
        )  # fmt: skip


class Consumer:
    """Reads until ``stop``, which a signal may call at any moment."""

    def __init__(self, outbox: Outbox, table: sqlite3.Connection) -> None:
        self._outbox, self._table = outbox, table
        self._stopping = False

    def stop(self, _signal: int = 0, _frame: FrameType | None = None) -> None:
        self._stopping = True

    def run(self, destination: str, group: str, name: str) -> None:
        """Outlives Redis. Raises PacelineError for what waiting does not mend."""
        while not self._stopping:
            try:
                self._read(destination, group, name)
            except RedisUnavailable as error:
                logger.warning("%s", error)
                time.sleep(IDLE_S)

    def _read(self, destination: str, group: str, name: str) -> None:
        for event in self._outbox.events(destination, group, consumer=name, block_s=IDLE_S):
            if self._stopping:
                return  # not booked, so not acknowledged: it comes again
            book(self._table, event)


def keep(url: str, database: str, destination: str, group: str, name: str) -> None:
    """Keeps the table until SIGTERM or SIGINT."""
    with closing(sqlite3.connect(database, timeout=30)) as table, Outbox.from_url(url) as outbox:
        table.execute("PRAGMA journal_mode = WAL")
        table.execute("PRAGMA synchronous = FULL")  # an event is acknowledged once it is on disk
        table.executescript(TABLES)
        consumer = Consumer(outbox, table)
        signal.signal(signal.SIGTERM, consumer.stop)
        signal.signal(signal.SIGINT, consumer.stop)
        consumer.run(destination, group, name)


def main() -> None:
    parser = argparse.ArgumentParser(description="Keeps a table of what became of each message.")
    parser.add_argument("destination")
    parser.add_argument("--database", default="deliveries.sqlite3")
    parser.add_argument("--group", default="deliveries", help="consumers of one divide the events")
    parser.add_argument(
        "--name", default=socket.gethostname(),
        help="its own, and the same after a restart: what it had not finished comes again at once",
    )  # fmt: skip
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    url = os.environ.get("PACELINE_REDIS_URL", "redis://127.0.0.1:6379/0")
    try:
        keep(url, args.database, args.destination, args.group, args.name)
    except PacelineError as error:
        sys.exit(str(error))
    except sqlite3.Error as error:
        sys.exit(f"{args.database}: {error}")


if __name__ == "__main__":
    main()
