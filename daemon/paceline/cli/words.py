"""Times, spans and numbers as people read them. Pure."""

from __future__ import annotations

from datetime import datetime


def in_words(seconds: float) -> str:
    """A span of time for people: ``45 ms``, ``12.3 s``, ``3m 20s``, ``2h 14m``, ``3d 4h``."""
    if seconds < 1:
        return f"{seconds * 1e3:.3g} ms"
    if seconds < 60:
        return f"{seconds:.3g} s"
    whole = round(seconds)
    for unit, size, lesser, step in (
        ("d", 86400, "h", 3600),
        ("h", 3600, "m", 60),
        ("m", 60, "s", 1),
    ):
        if whole >= size:
            count, rest = divmod(whole, size)
            return f"{count}{unit} {rest // step}{lesser}" if rest // step else f"{count}{unit}"
    return f"{whole} s"


def local_time(unix_s: float) -> str:
    """A moment in the local time zone, with its offset; one that no calendar has as its number."""
    return calendar_time(unix_s) or f"{unix_s:g}"


def calendar_time(unix_s: float) -> str | None:
    """The same; None where no calendar has it."""
    try:
        return datetime.fromtimestamp(unix_s).astimezone().strftime("%Y-%m-%d %H:%M:%S %z")
    except (OverflowError, ValueError, OSError):
        return None


def count_of(n: int, one: str, many: str = "") -> str:
    """``1 message``, ``1,200 messages``."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def excerpt(text: str, most: int) -> str:
    """One line of at most ``most`` characters; what a terminal would act on is shown as '?'."""
    line = "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))
    return line if len(line) <= most else line[: most - 1] + "…"
