"""The command: see the package."""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rampage.deeds import Deeds, Done, as_data, settled
from rampage.intake import Ledger, Producer
from rampage.judge import judge
from rampage.plan import Deed, Whom
from rampage.report import report
from rampage.scene import FAULTS, MORE, Scene
from soak.trend import Trend, count_grows, memory_grows, trend
from soak.watch import MB, Watch
from support.wait import until

PER_S, TOGETHER = 100.0, 5
EVERY_S = 60.0
_RECORD_TTL_S = 600
#: Redis is killed rarely, so that its memory is seen over a long life as well.
_REDIS_EVERY, _REDIS_FIRST = 20, 4
_WARM_UP_S, _WARM_UP_SHARE = 660.0, 0.3
_LEAST_SAMPLES = 6
_DRAIN_S = 120.0
#: None that leaves a dead letter: those are kept until somebody drops them.
_FAULTS = FAULTS.replace("422:0.1%,", "").replace("503:0.3%", "503:0.5%")


def main() -> int:
    """1 where something is wrong."""
    parser = argparse.ArgumentParser(prog="python -m soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--report", type=Path, help="where to write the JSON")
    given = parser.parse_args()
    # So that what was started is stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    found = run(given.seed, given.minutes * 60)
    if given.report:
        given.report.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    _tell(found)
    return 1 if found["wrong"] else 0


def kills(seed: int) -> Iterator[Deed]:
    """Without end; never of an elder, which is the last of its kind."""
    rng = random.Random(f"soak {seed}")
    number = 0
    while True:
        whom: Whom = rng.choices(("worker", "daemon", "exporter"), (6, 3, 1))[0]
        if number % _REDIS_EVERY == _REDIS_FIRST:
            whom = "redis"
        yield Deed("kill", whom, rng.randrange(2) if whom == "worker" else 0, 0.0, 0.0)
        number += 1


def run(seed: int, seconds: float) -> dict[str, Any]:
    """All of it; ``seconds`` are those of the load."""
    began_s = time.monotonic()
    done: list[Done] = []
    more = f"record_ttl_s = {_RECORD_TTL_S}{MORE}"
    with tempfile.TemporaryDirectory() as folder, Scene(
        Path(folder), seed=seed, workers=3, daemons=2, rate=150.0, connections=9,
        latency="20-60ms", faults=_FAULTS, more=more, spare_exporter=True,
    ) as scene:  # fmt: skip
        path = Path(folder) / "ledger.jsonl"
        ledger = Ledger(path)
        watch = Watch(scene, path)
        producer = Producer(scene.outbox_url, ledger, PER_S, f"s{seed}", TOGETHER)
        producer.start()
        watch.start()
        hands = Deeds(scene, ledger, f"s{seed}")
        for number, deed in enumerate(kills(seed), 1):
            next_s = min(watch.began_s + number * EVERY_S, watch.began_s + seconds)
            time.sleep(max(0.0, next_s - time.monotonic()))
            if time.monotonic() >= watch.began_s + seconds:
                break
            done.append(hands.do(deed))
            _tell_deed(done[-1])
            if watch.failure or producer.failure:
                break
        producer.halt()
        until(lambda: settled(scene), _DRAIN_S, "nothing is unfinished", 0.1)
        watch.halt()
        ledger.close()
        accounts = judge(scene, path, done, watch.facts, of_all_causes=False)
    found = report(seed, time.monotonic() - began_s, [accounts], [as_data(it) for it in done])
    grown = growth(watch, seconds)
    found["wrong"] += [f"grows: {name}: {it}" for name, it in grown.items() if it["grows"]]
    reached = round(found["acknowledged"] / seconds, 1)
    return {"minutes": seconds / 60, "per_s": reached, **found, "growth": grown}


def growth(watch: Watch, seconds: float) -> dict[str, dict[str, Any]]:
    """Of each process that lived long enough, and of Redis's data: what each figure did after the
    warm-up. Only an elder's is judged; the sink keeps all it has seen."""
    warm_s = min(_WARM_UP_S, seconds * _WARM_UP_SHARE)
    found = {}
    for (name, pid), samples in watch.series.items():
        later = [(at_s, seen) for at_s, seen in samples if warm_s <= at_s <= seconds]
        # One that was started under way has a warm-up of its own.
        later = [(a, s) for a, s in later if a >= samples[0][0] + min(60.0, warm_s)]
        if len(later) < _LEAST_SAMPLES:
            continue
        judged = name in ("worker 2", "daemon 1", "exporter 1", "redis")
        memory = trend([(at_s, seen.rss_bytes / MB) for at_s, seen in later])
        row = found[f"{name}, rss MB, pid {pid}"] = _row(memory, judged and memory_grows(memory))
        if judged:
            row["each_minute"] = _each_minute([(at_s, it.rss_bytes / MB) for at_s, it in samples])
            for what in ("fds", "threads"):
                counted = trend([(at_s, float(getattr(seen, what))) for at_s, seen in later])
                found[f"{name}, {what}, pid {pid}"] = _row(counted, count_grows(counted))
    points = [(at_s, it) for at_s, it in watch.redis if warm_s <= at_s <= seconds]
    if len(points) >= _LEAST_SAMPLES:
        used = trend([(at_s, it["used_memory"] / MB) for at_s, it in points])
        row = found["redis, used_memory MB"] = _row(used, memory_grows(used))
        row["each_minute"] = _each_minute(
            [(at_s, it["used_memory"] / MB) for at_s, it in watch.redis]
        )
        keys = trend([(at_s, it["keys"]) for at_s, it in points])
        found["redis, keys"] = _row(keys, False)
    return found


def _row(it: Trend, grows: bool) -> dict[str, Any]:
    return {
        "hours": round(it.hours, 3),
        "first": round(it.first, 2),
        "last": round(it.last, 2),
        "slope_per_hour": round(it.slope, 2),
        "growth": round(it.growth, 2),
        "grows": grows,
    }


def _each_minute(samples: Sequence[tuple[float, float]]) -> list[float]:
    """The first value of each minute of a life, its warm-up too: what a line cannot show."""
    found: dict[int, float] = {}
    for at_s, value in samples:
        found.setdefault(int(at_s // 60), round(value, 2))
    return list(found.values())


def _tell_deed(done: Done) -> None:
    text = f"{done.at_s:7.1f} s {done.deed:20} recovered in {done.recovery_s:.2f} s"
    print(text, file=sys.stderr, flush=True)


def _tell(found: dict[str, Any]) -> None:
    for name, it in found["growth"].items():
        print(
            f"  {name}: {it['first']:g} to {it['last']:g}, {it['slope_per_hour']:+g} an hour",
            file=sys.stderr,
        )
    for words in found["wrong"]:
        print(f"  {words}", file=sys.stderr)
    print(
        f"{'WRONG' if found['wrong'] else 'ok'}: {found['minutes']:g} minutes at "
        f"{found['per_s']:g}/s: {found['acknowledged']:,} messages, {found['kills']} kills, "
        f"{found['lost']} lost, {found['duplicates']} duplicates, "
        f"{found['unexplained']} unexplained",
        file=sys.stderr,
    )


if __name__ == "__main__":
    sys.exit(main())
