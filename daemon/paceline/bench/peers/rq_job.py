"""The job of RQ alone: one message, one call."""

from __future__ import annotations

from typing import Any

import requests

_session = requests.Session()


def post(url: str, message: dict[str, Any]) -> None:
    """Posts one message on the process's Session. Raises requests.RequestException."""
    _session.post(url, json=message).raise_for_status()
