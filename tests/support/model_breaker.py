"""The breaker as a small model: when results open it, what its probe decides.

Written from docs/pacing.md, not from the Lua. Results are kept with their moment; only `shown`
knows how Redis writes them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

SECOND = 1_000_000
WINDOW_US = 10 * SECOND
STEP_US = SECOND // 5


@dataclass(frozen=True)
class Result:
    """``letter`` g, u, o or b, at so many fifths of a second; silence for over 10 s before it."""

    letter: str
    fifth: int
    after_silence: bool


class Breaker:
    """``gate`` and ``n`` are the model's own; what Redis keeps of the breaker is written there."""

    def __init__(self, gate: dict[str, Any], n: Counter[str]) -> None:
        self.gate, self.n = gate, n
        self.results: list[Result] = []

    @property
    def is_open(self) -> bool:
        return "breaker" in self.gate

    def suspects(self, now: int) -> bool:
        """Whether what an outage says costs nothing."""
        return self.is_open or self.gate.get("suspect", 0) > now

    def judge(self, now: int, cfg: dict[str, Any], s: Any, tenant: str) -> None:
        """One settlement that counted; ``s`` has id, action and health."""
        if s.health:
            self.n["good" if s.health == "g" else "bad"] += 1
        if self.is_open:
            if self.gate.get("probe") == s.id:
                self._probed(now, cfg, s)
        elif s.health and not self._own_trouble(s.health, tenant):
            self._record(now, s.health)
            if s.health != "g":
                self._look(now, cfg)
            elif self.gate.get("suspect", 0) > now:
                last = self._window()[-10:]
                if 2 * sum(r.letter != "g" for r in last) < len(last):
                    del self.gate["suspect"]

    def _own_trouble(self, letter: str, tenant: str) -> bool:
        """A tenant whose last was bad too, while another's was good, is in trouble alone."""
        last = self.gate.get("bad_tenant")
        if letter == "g":
            if last is not None and last != tenant:
                self.gate["others_good"] = 1
            return False
        if tenant and last == tenant and "others_good" in self.gate:
            return True
        self.gate["bad_tenant"] = tenant
        self.gate.pop("others_good", None)
        return False

    def refusals(self) -> int:
        """503s within the last 20 results."""
        return sum(r.letter == "u" for r in self.results[-20:])

    def forget(self) -> None:
        """The breaker closed, or an operator lifted it."""
        self.results.clear()
        for name in ("breaker", "probe", "suspect", "res"):
            self.gate.pop(name, None)

    def _record(self, now: int, letter: str) -> None:
        silent = "res_at" in self.gate and now - self.gate["res_at"] > WINDOW_US
        self.results.append(Result(letter, now // STEP_US, silent))
        self.gate["res_at"] = now
        # A mark of silence takes a place of its own among the hundred.
        while len(self.shown()) > 200:
            first = self.results.pop(0)
            if first.after_silence and len(self.shown()) < 200:
                raise AssertionError("a cut between a mark and its result: make the runs shorter")
        self.gate["res"] = self.shown()

    def shown(self) -> str:
        """As Redis keeps them."""
        return "".join(
            ("||" if r.after_silence else "") + r.letter + chr(48 + r.fifth % 64)
            for r in self.results
        )

    def _look(self, now: int, cfg: dict[str, Any]) -> None:
        window = self._window()
        bad = sum(r.letter != "g" for r in window)
        last = window[-10:]
        if len(last) >= 3 and 2 * sum(r.letter != "g" for r in last) >= len(last):
            self.gate["suspect"] = now + WINDOW_US
        run: list[Result] = []
        for r in reversed(self.results):
            if r.letter == "g":
                break
            run.append(r)
        # Silence counts where something came before it.
        gaps = any(r.after_silence for r in run)
        enough = max(3, min(10, cfg["connections"]))
        if (
            (len(run) >= 20 and self._span(run) >= SECOND)
            or (len(run) >= 5 and gaps)
            or (len(window) >= enough and bad >= 0.7 * len(window))
        ):
            self.gate["breaker"] = now
            self.gate.pop("probe", None)
            self._hold(now + cfg["probe_us"])
            self.n["breaker_opened"] += 1

    def _window(self) -> list[Result]:
        """The results of the last ten seconds without silence, oldest first."""
        found: list[Result] = []
        age_us, later = 0, None
        for r in reversed(self.results):
            if later is not None:
                age_us += (later - r.fifth) % 64 * STEP_US
            if age_us > WINDOW_US:
                break
            later = r.fifth
            found.insert(0, r)
            if r.after_silence:
                break
        return found

    @staticmethod
    def _span(run: list[Result]) -> int:
        """Of a run, newest first, in us; silence ends the counting."""
        span_us = 0
        for later, earlier in pairwise(run):
            if later.after_silence:
                break
            span_us += (later.fifth - earlier.fifth) % 64 * STEP_US
        return span_us

    def _hold(self, until: int) -> None:
        old = self.gate.get("hold_until", 0)
        if old != -1 and until > old:
            self.gate.update(hold_until=until, hold_kind="breaker")

    def _probed(self, now: int, cfg: dict[str, Any], s: Any) -> None:
        self.gate.pop("probe", None)
        if s.health == "g" or s.action in ("throttled", "quota", "held"):
            self.forget()
            if self.gate.get("hold_kind") == "breaker":
                self.gate.pop("hold_kind")
                self.gate.pop("hold_until")
            self.n["breaker_closed"] += 1
        elif not s.health:
            if self.gate.get("hold_kind") == "breaker":
                self.gate["hold_until"] = now
        else:
            if self.gate.get("hold_kind") == "breaker":
                self.gate["hold_until"] = 0
            self._hold(max(now + SECOND, self.gate.get("probe_at", now) + cfg["probe_us"]))
