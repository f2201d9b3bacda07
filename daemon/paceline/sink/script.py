"""Faults by script: a list played in order of arrival, or lists per message id. No clock.

As JSON::

    ["ok", "503*3", "reset_after"]                      by order of arrival
    {"id-7": ["503", "ok"], "id-9": ["500*"],           by message id and occurrence
     "*": ["ok*10", "429:retry_after=2"]}               all other arrivals, in order

``*N`` repeats an entry N times, a closing ``*`` for ever. Where a script has come to its end it
says nothing, and the random faults decide.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from paceline.sink.faults import Fault, FaultSpecError, parse_fault

_REPEAT = re.compile(r"(.*?)\*(\d*)\Z", re.DOTALL)
EVERYONE = "*"


class _Track:
    """One list being played."""

    def __init__(self, entries: Sequence[str], where: str) -> None:
        self._steps: list[tuple[Fault, int | None]] = []
        for number, entry in enumerate(entries, 1):
            if not isinstance(entry, str):
                raise FaultSpecError(f"{where}: entry {number} is not a text but {entry!r}")
            repeat = _REPEAT.match(entry)
            text, times = (repeat[1], repeat[2]) if repeat else (entry, "1")
            try:
                self._steps.append((parse_fault(text), int(times) if times else None))
            except FaultSpecError as exc:
                raise FaultSpecError(f"{where}: entry {number}: {exc}") from exc
        self._step = 0
        self._played = 0

    def faults(self) -> list[Fault]:
        return [fault for fault, _ in self._steps]

    def play(self) -> Fault | None:
        while self._step < len(self._steps):
            fault, times = self._steps[self._step]
            if times is None or self._played < times:
                self._played += 1
                return fault
            self._step += 1
            self._played = 0
        return None


class Script:
    """A script at its place. ``play`` moves it on.

    Raises FaultSpecError when built from entries that cannot be read.
    """

    def __init__(self, entries: Sequence[str] | Mapping[str, Sequence[str]]) -> None:
        self._tracks: dict[str, _Track] = {}
        if isinstance(entries, Mapping):
            for message_id, track in entries.items():
                self._tracks[message_id] = _Track(
                    _list(track, message_id), f'script "{message_id}"'
                )
        else:
            self._tracks[EVERYONE] = _Track(_list(entries, None), "script")

    def faults(self) -> list[Fault]:
        """Every fault it may play."""
        return [fault for track in self._tracks.values() for fault in track.faults()]

    def play(self, message_id: str | None) -> Fault | None:
        """The next fault for this id (or for all), or None where the script is silent."""
        track = self._tracks.get(message_id) if message_id is not None else None
        if track is None:
            track = self._tracks.get(EVERYONE)
        return track.play() if track is not None else None


def _list(entries: object, message_id: str | None) -> Sequence[str]:
    if not isinstance(entries, list | tuple):
        where = "script" if message_id is None else f'script "{message_id}"'
        raise FaultSpecError(f'{where}: expected a list of faults such as ["503", "ok"]')
    return entries


def load_script(path: Path) -> list[str] | dict[str, list[str]]:
    """The script in a JSON file, checked. Raises FaultSpecError, OSError."""
    try:
        entries: list[str] | dict[str, list[str]] = json.loads(path.read_text("utf-8"))
        Script(entries)
    except ValueError as exc:
        raise FaultSpecError(f"script file {path}: {exc}") from exc
    return entries
