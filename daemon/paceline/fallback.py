"""How much of a destination's flow goes to the one it falls back to: decided here. Pure.

The rule is GOV.UK Notify's for two providers of the same messages: 50 errors within 60 s, or
answers 15% slower than usual for 15 minutes, while the other is well, move 10 points of 100 of the
flow to the other, at most once a minute; after 15 quiet minutes they move back, 10 a minute. Slow
enough that a lone burst of errors costs little, and that no two providers are swung between.

A `Watch` remembers what was seen of one destination: totals that only grow, so what lies between
two looks is what happened meanwhile. `decide` compares two watches. Times are unix seconds of
Redis's clock, and nothing here asks for the time: whoever looks brings it along.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from paceline.census import Census
from paceline.rates import observations

__all__ = ["Decision", "Lean", "Look", "Policy", "Watch", "decide", "lean_of", "look_at"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The rule's figures. Times in seconds.

    errors, errors_s    so many bad results within so long are trouble
    slower              so many times the usual response time is slow,
    slow_s, slow_spans  where it is so in each of the last slow_spans spans of slow_s
    usual_s             what is usual is told by so long before them
    step, apart_s       points of 100 that move at once; and no sooner again
    quiet_s             without trouble for so long: back
    bad_share, few_bad  from such a part of bad results within errors_s a destination is not well;
                        fewer than few_bad prove nothing
    few_answers         a span with fewer answers proves nothing
    """

    errors: int = 50
    errors_s: float = 60.0
    slower: float = 1.15
    slow_s: float = 60.0
    slow_spans: int = 15
    usual_s: float = 86_400.0
    step: int = 10
    apart_s: float = 60.0
    quiet_s: float = 900.0
    bad_share: float = 0.05
    few_bad: int = 3
    few_answers: int = 10


@dataclass(frozen=True, slots=True)
class Look:
    """One destination at one moment. ``good``, ``bad``, ``answers`` and ``spent_s`` (the sum of the
    response times) are totals since ever; ``closed`` is all that closes it now."""

    at_s: float
    good: int
    bad: int
    answers: int = 0
    spent_s: float = 0.0
    closed: frozenset[str] = frozenset()


def look_at(census: Census) -> Look:
    """What a census tells of it."""
    n = census.counters
    return Look(
        at_s=census.now_us / 1e6,
        good=n.get("good", 0),
        bad=n.get("bad", 0),
        answers=observations(census.histogram, "api"),
        spent_s=census.histogram.get("api:sum", 0.0) / 1e6,
        closed=_closed(census.gate, census.now_us),
    )


def _closed(gate: Mapping[str, str], now_us: int) -> frozenset[str]:
    """A pause and a hold can stand together; and the breaker is open between its probes too."""
    words = set()
    for what, name in (("paused", "pause_until"), (gate.get("hold_kind", "held"), "hold_until")):
        until = float(gate.get(name, "0"))
        if until == -1 or until > now_us:
            words.add(what)
    if "breaker" in gate:
        words.add("breaker")
    return frozenset(words)


@dataclass(slots=True)
class Watch:
    """What is remembered of one destination, at most ``usual_s`` and the spans after it."""

    policy: Policy
    _recent: deque[Look] = field(default_factory=deque)
    _spans: deque[Look] = field(default_factory=deque)
    #: Where the usual begins: what was counted before the memory's first span.
    _origin: tuple[int, float] = (0, 0.0)
    _since_s: float = 0.0

    def see(self, look: Look) -> None:
        """Remembers it. Where totals went back, Redis came back with older data, or its clock
        stepped back: then memory begins anew."""
        last = self._recent[-1] if self._recent else None
        if last is None or not _follows(last, look):
            self._recent.clear()
            self._spans.clear()
            self._origin, self._since_s = (0, 0.0), look.at_s
        self._recent.append(look)
        while self._recent[0].at_s < look.at_s - self.policy.errors_s:
            self._recent.popleft()
        if not self._spans or look.at_s - self._spans[-1].at_s >= self.policy.slow_s:
            self._remember_span(look)

    def _remember_span(self, look: Look) -> None:
        self._spans.append(look)
        kept_s = self.policy.usual_s + self.policy.slow_s * self.policy.slow_spans
        while self._spans[0].at_s < look.at_s - kept_s:
            gone = self._spans.popleft()
            self._origin = (gone.answers, gone.spent_s)

    @property
    def closed(self) -> frozenset[str]:
        """All that closes it now."""
        return self._recent[-1].closed if self._recent else frozenset()

    @property
    def errors(self) -> int:
        """Bad results within errors_s."""
        return self._recent[-1].bad - self._recent[0].bad if self._recent else 0

    @property
    def well(self) -> bool:
        """Open, and nearly all results good. A wait that a 429 asks for is no illness."""
        if self.closed - {"throttled"}:
            return False
        if not self._recent:
            return True
        good = self._recent[-1].good - self._recent[0].good
        few = self.errors < self.policy.few_bad
        return few or self.errors < self.policy.bad_share * (good + self.errors)

    @property
    def known(self) -> bool:
        """Whether it was watched for long enough for silence to mean something."""
        return bool(self._recent) and (
            self._recent[-1].at_s - self._since_s >= self.policy.errors_s
        )

    def trouble(self) -> str:
        """What is wrong with it, for people; "" for nothing that moves weight."""
        if "breaker" in self.closed:
            return "its breaker is open"
        # At a high rate fifty are few.
        if self.errors >= self.policy.errors and not self.well:
            return f"{self.errors} errors within {self.policy.errors_s:g} s"
        return self._slowness()

    def _slowness(self) -> str:
        """Slow in each of the last spans; one bad minute, or one late answer, is not enough."""
        policy = self.policy
        if len(self._spans) <= policy.slow_spans:
            return ""
        spans = [self._spans[n] for n in range(-policy.slow_spans - 1, 0)]
        usual_s = _mean_s(*self._origin, spans[0], policy.few_answers * policy.slow_spans)
        if usual_s is None:
            return ""
        for before, after in pairwise(spans):
            mean_s = _mean_s(before.answers, before.spent_s, after, policy.few_answers)
            if mean_s is None or mean_s <= policy.slower * usual_s:
                return ""
        now_s = _mean_s(spans[0].answers, spans[0].spent_s, spans[-1], 1) or 0.0
        return f"answers take {now_s * 1e3:.3g} ms, usually {usual_s * 1e3:.3g} ms"


def _follows(last: Look, look: Look) -> bool:
    return (
        look.at_s >= last.at_s
        and look.good >= last.good
        and look.bad >= last.bad
        and look.answers >= last.answers
    )


def _mean_s(answers: int, spent_s: float, until: Look, least: int) -> float | None:
    """The mean response time from these totals to those; None for fewer than ``least`` answers."""
    count = until.answers - answers
    return (until.spent_s - spent_s) / count if count >= max(1, least) else None


@dataclass(frozen=True, slots=True)
class Lean:
    """What Redis keeps: points of 100 that go to the other now; when that was changed last, and
    when there was trouble last (0: never)."""

    share: int = 0
    at_s: float = 0.0
    loud_at_s: float = 0.0


def lean_of(gate: Mapping[str, str], to: str) -> Lean:
    """From the gate's fields; a share that was meant for another destination is none."""
    if gate.get("fb_to") != to:
        return Lean()
    return Lean(
        share=int(gate.get("fb_share", "0")),
        at_s=float(gate.get("fb_at", "0")) / 1e6,
        loud_at_s=float(gate.get("fb_loud_at", "0")) / 1e6,
    )


@dataclass(frozen=True, slots=True)
class Decision:
    """The share that is wanted, and why it changes ("" where it does not). ``loud``: there is
    trouble now, so that the time without it begins anew."""

    share: int
    loud: bool
    why: str = ""


def decide(lean: Lean, one: Watch, other: Watch, now_s: float) -> Decision:
    """What the share of ``one``'s flow that goes to ``other`` is to be.

    A destination that an operator paused, or that is held for one to look at, keeps its share:
    there is nothing to learn of it.
    """
    policy = one.policy
    trouble = one.trouble()
    loud = bool(trouble) or not one.well
    if now_s - lean.at_s < policy.apart_s or "paused" in one.closed:
        return Decision(lean.share, loud)
    if trouble and lean.share < 100 and other.well:
        return Decision(min(100, lean.share + policy.step), loud, trouble)
    quiet_s = now_s - lean.loud_at_s
    if lean.share > 0 and not loud and one.known and quiet_s >= policy.quiet_s:
        why = f"quiet for {policy.quiet_s / 60:g} min"
        return Decision(max(0, lean.share - policy.step), loud, why)
    return Decision(lean.share, loud)
