"""prometheus_client's collector: one reading of Redis a scrape, nothing kept between two."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator

from prometheus_client.metrics_core import Metric as Family
from redis.exceptions import RedisError

from paceline.exporter.destination import put_destination
from paceline.exporter.flight import Overdue
from paceline.exporter.reading import Reading
from paceline.exporter.redis_server import put_redis
from paceline.exporter.sheet import Sheet
from paceline.version import __version__

log = logging.getLogger("paceline.exporter")


class Collector:
    """``read()`` raises RedisError or Overdue while Redis is away."""

    def __init__(
        self, read: Callable[[], Reading], wall_s: Callable[[], float] = time.time
    ) -> None:
        self._read = read
        self._wall_s = wall_s
        self._last_read_s: float | None = None

    def collect(self) -> Iterator[Family]:
        """The families of one scrape. Never raises: what could not be read is absent, and
        ``paceline_up`` is 0."""
        sheet = Sheet()
        sheet.put("paceline_build_info", 1, __version__)
        whole = self._fill(sheet)
        if whole:
            self._last_read_s = self._wall_s()
        sheet.put("paceline_up", float(whole))
        if self._last_read_s is not None:
            sheet.put("paceline_last_read_timestamp_seconds", self._last_read_s)
        yield from sheet.families()

    def _fill(self, sheet: Sheet) -> bool:
        """Whether everything could be read."""
        try:
            reading = self._read()
        except (RedisError, Overdue) as error:
            log.debug("Redis does not answer: %s", error)
            sheet.put("paceline_redis_up", 0)
            return False
        sheet.put("paceline_redis_up", 1)
        sheet.put("paceline_read_seconds", reading.took_s)
        put_redis(sheet, reading.server)
        troubles = list(reading.unread)
        for census in reading.censuses:
            try:
                put_destination(sheet, census, reading.run_id)
            except (ValueError, KeyError, TypeError) as error:
                # A field that another program wrote: one destination's damage is not the others'.
                troubles.append(f"{census.destination}: {type(error).__name__}: {error}")
        for trouble in troubles:
            log.warning("cannot be read: %s", trouble)
        return not troubles
