"""A local provider simulator: answers like a provider, fails as asked, records every arrival.

It stands alone (nothing of the rest of Paceline is imported) so that it can bear witness. Start
with ``SinkThread`` inside a test, or ``python -m paceline.sink`` as a process of its own.
"""

from __future__ import annotations

from paceline.sink.faults import FaultSpecError
from paceline.sink.record import Arrival
from paceline.sink.report import Report
from paceline.sink.settings import SinkSettings
from paceline.sink.spec import SpecError
from paceline.sink.thread import SinkThread

__all__ = ["Arrival", "FaultSpecError", "Report", "SinkSettings", "SinkThread", "SpecError"]
