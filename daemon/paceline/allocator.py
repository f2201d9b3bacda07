"""glibc's malloc, told what a process of many threads in one interpreter wants of it.

By itself it gives each thread an arena of its own (mallopt(3), ``M_ARENA_MAX``), against a
contention that the interpreter's lock rules out here; and once a large block was freed it takes the
next one from the heap (``M_MMAP_THRESHOLD``, which moves by itself), where any small block above it
keeps the pages. So each sender thread comes to hold what its largest answer ever took, one after
another, over an hour: it looks like a leak (docs/decisions/one-arena.md).
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping

# Of malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_BYTES = 128 * 1024  # glibc's own value of both, before they move

#: What an operator may have set instead (mallopt(3)); a tunable may be any of them.
_THEIRS = ("MALLOC_ARENA_MAX", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")


def use_one_arena(environ: Mapping[str, str]) -> bool:
    """To be called before the process starts its first thread. Returns whether it was done: not
    where the environment says how it is to be, and not where malloc is not glibc's."""
    if any(name in environ for name in _THEIRS):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    wanted = ((_M_ARENA_MAX, 1), (_M_MMAP_THRESHOLD, _BYTES), (_M_TRIM_THRESHOLD, _BYTES))
    return all(mallopt(what, value) == 1 for what, value in wanted)
