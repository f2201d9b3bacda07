"""What happens to the link of a network namespace: cut, deaf, dumb, slow. Needs root and tc."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from typing import Literal

from conformance.network import Networks

#: cut   nothing comes through any more
#: deaf  what is sent into the namespace is lost; what it sends arrives
#: dumb  what the namespace sends is lost; what is sent to it arrives
#: slow  64 kbit/s in each direction
Trouble = Literal["cut", "deaf", "dumb", "slow"]
_LOST = ("blackhole",)
_SLOW = ("tbf", "rate", "64kbit", "burst", "4kb", "latency", "500ms")


@contextlib.contextmanager
def troubled(networks: Networks, place: int, trouble: Trouble) -> Iterator[None]:
    """The link of the namespace number ``place`` is in trouble within the block."""
    inner, outer = networks.ends(place)
    within = ("ip", "netns", "exec", networks.names[place])
    how = _SLOW if trouble == "slow" else _LOST
    ends = []
    if trouble != "dumb":
        ends.append(("tc", "qdisc", "{}", "dev", outer, "root"))
    if trouble != "deaf":
        ends.append((*within, "tc", "qdisc", "{}", "dev", inner, "root"))
    with contextlib.ExitStack() as undo:
        for end in ends:
            subprocess.run([word.format("add") for word in end] + list(how), check=True)
            undo.callback(subprocess.run, [word.format("del") for word in end], check=True)
        yield
