"""What goes on record of an attempt, without what nobody is to read there."""

from __future__ import annotations

from collections.abc import Mapping

from paceline.hidden import hide_secrets_of
from paceline.log_veil import Veil
from paceline.redaction import Redaction
from paceline.settings import Destination

__all__ = ["Covering"]


class Covering:
    """A provider's words, and ours about a message, may quote credentials (an error page that shows
    the request) and fields of the payload that the configuration names."""

    def __init__(self, destination: Destination, environ: Mapping[str, str]) -> None:
        self._veil = Veil()
        self._redaction = Redaction(destination.redact)
        self.add(destination, environ)

    def add(self, destination: Destination, environ: Mapping[str, str]) -> None:
        """Secrets that were read anew; the old ones stay covered."""
        hide_secrets_of(self._veil, destination, environ)

    def __call__(self, text: str, payload: bytes | None) -> str:
        """``payload``: what the text may quote; None where that is the payloads of many."""
        return self._redaction.cover(self._veil.cover_known(text), payload)
