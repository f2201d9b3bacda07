"""Talking to the sink: its control endpoint, and requests behind Paceline's back (plants)."""

from __future__ import annotations

import http.client
from collections.abc import Iterable
from typing import Any

import msgspec

from paceline.errors import PacelineError
from paceline.sink.record import Arrival

_TIMEOUT_S = 30.0


class SinkClient:
    """``address`` is host:port. Raises OSError, http.client.HTTPException, PacelineError."""

    def __init__(self, address: str) -> None:
        self._address = address

    @property
    def url(self) -> str:
        """``http://host:port``."""
        return f"http://{self._address}"

    def report(self) -> dict[str, Any]:
        """The sink's report."""
        report: dict[str, Any] = msgspec.json.decode(self._control("GET", "report"))
        return report

    def arrivals(self) -> list[Arrival]:
        """All arrivals, by time."""
        decoder = msgspec.json.Decoder(Arrival)
        return list(decoder.decode_lines(self._control("GET", "arrivals")))

    def reset(self) -> None:
        """Nothing has arrived yet, and arrivals are numbered from 0 again."""
        self._control("POST", "reset", b"{}")

    def be_well(self) -> None:
        """No faults, no latency any more."""
        self._control("POST", "faults", b'{"faults": "", "latency": ""}')

    def post(self, requests: Iterable[tuple[str, bytes]]) -> None:
        """Messages (id, body), one after the other over one connection, as a provider's client
        would send them."""
        link = http.client.HTTPConnection(self._address, timeout=_TIMEOUT_S)
        try:
            for its_id, body in requests:
                headers = {"Content-Type": "application/json", "Paceline-Message-Id": its_id}
                link.request("POST", "/message-rest/api/message/Send", body, headers)
                link.getresponse().read()
        finally:
            link.close()

    def _control(self, method: str, what: str, body: bytes | None = None) -> bytes:
        link = http.client.HTTPConnection(self._address, timeout=_TIMEOUT_S)
        try:
            link.request(method, f"/_sink/{what}", body)
            response = link.getresponse()
            answer = response.read()
        finally:
            link.close()
        if response.status != 200:
            raise PacelineError(f"the sink answered {response.status}: {answer[:300]!r}")
        return answer
