"""Reckoned from censuses: rates between two, latencies from histograms, the bucket. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from paceline.census import BOUNDS_US, Census


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Events a second over ``over_s`` seconds of Redis's clock; latencies of that time alone, None
    where nothing was observed."""

    over_s: float
    accepted: float
    sent: float
    requests: float
    retried: float
    ambiguous: float
    duplicates: float
    dead: float
    api_p50_s: float | None
    api_p99_s: float | None

    @property
    def grows(self) -> float:
        """How much more comes in than goes out, a second."""
        return self.accepted - self.sent


def between(before: Census, after: Census) -> Rates | None:
    """The rates; None where there are none: no time passed, or the totals went back, for Redis
    came back with older data."""
    over_s = (after.now_us - before.now_us) / 1e6
    gains = {name: total - totals(before)[name] for name, total in totals(after).items()}
    if over_s <= 0 or any(gain < 0 for gain in gains.values()):
        return None
    latencies = gained(before.histogram, after.histogram)
    return Rates(
        over_s=over_s,
        api_p50_s=percentile_s(latencies, "api", 0.5),
        api_p99_s=percentile_s(latencies, "api", 0.99),
        **{name: gain / over_s for name, gain in gains.items()},
    )


def totals(census: Census) -> dict[str, int]:
    """Monotonic totals, under the names that Rates has."""
    n = census.counters
    return {
        "accepted": census.law["accepted"] + census.law["moved_in"],
        "sent": census.law["sent"],
        "requests": n.get("permits", 0),
        "retried": n.get("retried", 0),
        "ambiguous": ambiguous(census),
        "duplicates": n.get("duplicates", 0),
        "dead": n.get("died", 0),
    }


def ambiguous(census: Census) -> int:
    """Attempts whose fate is unknown: by their outcome, or because their worker fell silent."""
    judged = sum(v for label, v in census.outcomes.items() if label.startswith("ambiguous"))
    return judged + census.counters.get("ambiguous_reaped", 0)


def gained(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """What the slots of a histogram gained; nothing where one went back."""
    gains = {key: value - before.get(key, 0.0) for key, value in after.items()}
    return {} if any(gain < 0 for gain in gains.values()) else gains


def permits_now(census: Census, run_id: str | None) -> float:
    """What the bucket holds at the census's time, as ``lua/begin.lua`` would reckon for one who
    reached the Redis ``run_id``: a missing bucket is empty, and so is one of a Redis that has
    restarted since."""
    gate = census.gate
    if "level" not in gate or "at" not in gate:
        return 0.0
    level = float(gate["level"])
    if gate.get("run") != run_id:
        return min(level, 0.0)
    since = max(float(gate["at"]), float(gate.get("fill_from", 0)))
    gained = max(0.0, census.now_us - since) * census.rate / 1e6
    return min(float(gate.get("k", 0)), level + gained)


def observations(histogram: Mapping[str, float], name: str) -> int:
    """How many were observed."""
    return round(sum(count for _, count in _slots(histogram, name)))


def percentile_s(histogram: Mapping[str, float], name: str, share: float) -> float | None:
    """The latency that ``share`` of the observations do not exceed, read off the histogram's
    slots (linear within one); None without observations."""
    slots = _slots(histogram, name)
    wanted = share * sum(count for _, count in slots)
    passed = 0.0
    for top_us, count in slots:
        if count and passed + count >= wanted:
            below_us = max((bound for bound in BOUNDS_US if bound < top_us), default=0.0)
            if top_us == float("inf"):
                return below_us / 1e6
            return (below_us + (top_us - below_us) * (wanted - passed) / count) / 1e6
        passed += count
    return None


def _slots(histogram: Mapping[str, float], name: str) -> list[tuple[float, float]]:
    """(upper bound us, count) of the slots that hold any, in order."""
    return sorted(
        (float(slot), count)
        for key, count in histogram.items()
        if (slot := key.removeprefix(f"{name}:")) != key and slot != "sum"
    )
