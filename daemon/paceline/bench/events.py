"""What do delivery events cost? The same destination twice on one server, with all events and
without, in turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from paceline.bench.child import BenchFailed
from paceline.bench.contest import order, run_once
from paceline.bench.figures import Run
from paceline.bench.lines import Dialect
from paceline.bench.plan import EVENTS, STANDARD, WARM_UP, WORKERS, Fsync, Plan
from paceline.bench.progress import Teller
from paceline.bench.sink import BenchSink
from paceline.bench.stage import BenchStage

_ALL = Dialect(more=('events = { kinds = "all" }',))


def measure_events(
    plan: Plan, folder: Path, fsync: Fsync, sink: BenchSink, tell: Teller
) -> Sequence[Run]:
    """All pairs, on a server of their own. Raises as ``BenchStage``."""
    names = (STANDARD, EVENTS)
    workers = dict.fromkeys(names, WORKERS[STANDARD])
    found: list[Run] = []
    with BenchStage(
        folder / f"{fsync}-events", fsync, sink.url, workers, dialects={EVENTS: _ALL}
    ) as stage:
        for name in names:
            run_once(stage, sink, name, 0, min(WARM_UP, plan.messages))
        tell.stage(f"{fsync}: {plan.pairs} pairs with events and without", 2 * plan.pairs)
        for pair in range(1, plan.pairs + 1):
            for name in order(names, pair):
                found.append(run_once(stage, sink, name, pair, plan.messages))
                tell.step()
        _check(stage, {STANDARD: 0, EVENTS: 2})
    return found


def _check(stage: BenchStage, told_of_each: Mapping[str, int]) -> None:
    """Accepted and sent, or nothing: figures of events that nobody wrote are worth nothing."""
    for name, each in told_of_each.items():
        census = stage.lines[name].store.census()
        told, sent = census.counters.get("events", 0), census.law["sent"]
        if told != each * sent:
            raise BenchFailed(f"{name} sent {sent:,} messages, and told {told:,} events")
