"""The loop that everybody writes first: ``python -m paceline.bench.peers.naive URL COUNT``."""

from __future__ import annotations

import sys

import requests

from paceline.bench.body import payload
from paceline.bench.meter import Meter


def main() -> None:
    """Posts, one after the other, on one Session. Raises requests.RequestException."""
    url, count = sys.argv[1], int(sys.argv[2])
    with requests.Session() as session, Meter(count):
        for number in range(count):
            session.post(url, json=payload(number)).raise_for_status()


if __name__ == "__main__":
    main()
