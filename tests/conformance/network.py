"""Network namespaces: each worker with an address, a port space and a TCP stack of its own, as on a
host of its own. They meet on a bridge, on which Redis and the sink listen."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

#: For benchmarks between networks (RFC 2544): in nobody's use.
_RANGE = "198.18"


@dataclass(frozen=True)
class Networks:
    """``host``: the address on the bridge; ``names``: of the namespaces."""

    host: str
    names: tuple[str, ...]

    def within(self, place: int) -> tuple[str, ...]:
        """What to put before a command that is to run in one of them."""
        return ("ip", "netns", "exec", self.names[place % len(self.names)])

    def ends(self, place: int) -> tuple[str, str]:
        """The link of one of them: its device within, and the one on the bridge."""
        bridge = self.names[place].partition("-")[0]
        return f"{bridge}i{place}", f"{bridge}o{place}"


@contextlib.contextmanager
def networks(count: int) -> Iterator[Networks | None]:
    """``count`` namespaces, gone afterwards; None where this machine does not permit them."""
    token = secrets.token_hex(3)
    bridge = f"pl{token}"
    subnet = f"{_RANGE}.{secrets.randbelow(256)}"
    made = Networks(f"{subnet}.254", tuple(f"pl{token}-{n}" for n in range(count)))
    with contextlib.ExitStack() as undo:
        try:
            if shutil.which("ip") is None or _ip("-4", "addr", "show", "to", f"{subnet}.0/24"):
                found = None
            else:
                _make(made, bridge, subnet, undo)
                found = made
        except subprocess.CalledProcessError:
            undo.close()
            found = None
        yield found


def _make(made: Networks, bridge: str, subnet: str, undo: contextlib.ExitStack) -> None:
    _ip("link", "add", bridge, "type", "bridge")
    undo.callback(_ip, "link", "del", bridge)
    _ip("addr", "add", f"{made.host}/24", "dev", bridge)
    _ip("link", "set", bridge, "up")
    for place, name in enumerate(made.names):
        outer, inner = f"{bridge}o{place}", f"{bridge}i{place}"
        _ip("netns", "add", name)
        undo.callback(_ip, "netns", "del", name)
        _ip("link", "add", outer, "type", "veth", "peer", "name", inner)
        undo.callback(_forget, outer)
        _ip("link", "set", inner, "netns", name)
        _ip("link", "set", outer, "master", bridge, "up")
        within = ("-n", name)
        _ip(*within, "addr", "add", f"{subnet}.{place + 1}/24", "dev", inner)
        _ip(*within, "link", "set", inner, "up")
        _ip(*within, "link", "set", "lo", "up")
    # Not only named: a program runs there and sees its own address.
    _run(*made.within(0), "ip", "addr", "show")


def _forget(link: str) -> None:
    """A namespace takes its links along, later than it goes itself."""
    with contextlib.suppress(subprocess.CalledProcessError):
        _ip("link", "del", link)


def _ip(*words: str) -> str:
    return _run("ip", *words)


def _run(*words: str) -> str:
    done = subprocess.run(words, check=True, capture_output=True, text=True, timeout=20)
    return done.stdout
