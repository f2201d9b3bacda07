"""What the two recorders wrote: the workers, as they write a first byte, and the sink, as it reads
one. Both in CLOCK_MONOTONIC of this machine."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conformance.case import Case

if TYPE_CHECKING:
    from conformance.mischief import Mischief


@dataclass(frozen=True)
class Evidence:
    """Of one case.

    starts_ns, arrivals_ns   sorted
    delays_ns                from a start to its arrival, sorted
    unexplained              arrivals that no worker's record has: the recorder misses something
    from_ns                  where the span that is judged for its use begins
    backlog                  messages unfinished at its end: with none, there was nothing to use
    cores                    processors used, by whom, where none was killed
    """

    case: Case
    starts_ns: Sequence[int]
    arrivals_ns: Sequence[int]
    delays_ns: Sequence[int]
    unexplained: Sequence[str]
    from_ns: int
    backlog: int
    law: Any
    sound: bool
    apart: bool
    cores: Mapping[str, float]
    deeds: Sequence[str]
    counts: Mapping[str, int]


def collect(
    case: Case, traces: Path, arrivals: Sequence[Mapping[str, Any]], mischief: Mischief, *,
    backlog: int, law: Any, sound: bool, apart: bool, cores: Mapping[str, float],
) -> Evidence:  # fmt: skip
    """Reads the records and matches one with the other, message by message."""
    starts_of: dict[str, list[int]] = defaultdict(list)
    for path in sorted(traces.iterdir()):
        for line in path.read_text("ascii").splitlines():
            moment, _, name = line.split(" ")
            starts_of[name].append(int(moment))
    for starts in starts_of.values():
        starts.sort()
    delays, unexplained = [], []
    seen = Counter[str]()
    for arrival in arrivals:
        message_id, arrived_ns = str(arrival["id"]), int(arrival["mono_ns"])
        seen[message_id] += 1
        starts = starts_of.get(message_id, [])
        place = bisect_right(starts, arrived_ns)
        if place < seen[message_id]:
            unexplained.append(f"{message_id} at {arrived_ns}")
        else:
            delays.append(arrived_ns - starts[place - 1])
    return Evidence(
        case=case,
        starts_ns=sorted(at_ns for starts in starts_of.values() for at_ns in starts),
        arrivals_ns=sorted(int(a["mono_ns"]) for a in arrivals),
        delays_ns=sorted(delays),
        unexplained=unexplained,
        from_ns=round(mischief.began_s * 1e9),
        backlog=backlog,
        law=law,
        sound=sound,
        apart=apart,
        cores=cores,
        deeds=list(mischief.done),
        counts=mischief.counts,
    )
