"""What ``top`` shows: one row a destination, and the details where they are few."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from paceline.cli import explain
from paceline.cli.look import eta_words, status_text
from paceline.cli.samples import Sample
from paceline.cli.words import in_words

#: Up to so many destinations are told in full below the table.
_FEW = 1
_COLUMNS = (
    "destination", "ready", "later", "out", "sent/s", "requests/s", "p50", "p99", "oldest",
    "done in", "workers", "conns", "retried", "ambig.", "dupl.", "dead",
)  # fmt: skip
_CLOSED_STYLES = {
    "paused": "yellow", "throttled": "yellow", "quota": "yellow", "pace": "yellow",
    "held": "bold red", "breaker": "bold red",
}  # fmt: skip


def frame(
    samples: Sequence[Sample], *, shown_url: str, trouble: str, age_s: float, keys: bool
) -> RenderableType:
    """One frame. ``trouble`` says why the figures are ``age_s`` old, "" where they are not."""
    parts: list[RenderableType] = [_head(samples, shown_url, trouble, age_s, keys)]
    if not samples:
        parts.append(Text("No destination is known on this Redis yet."))
        return Group(*parts)
    style = "dim" if trouble else ""
    table = Table(box=None, pad_edge=False, header_style="bold", style=style)
    for number, name in enumerate(_COLUMNS):
        table.add_column(name, justify="right" if number else "left", no_wrap=True)
    table.add_column("why it waits", overflow="fold", min_width=12)
    for sample in samples:
        table.add_row(*_cells(sample), style=style)
    parts.append(table)
    if len(samples) <= _FEW:
        for sample in samples:
            parts += [Text(""), Text(status_text(sample.census, sample.rates), style=style)]
    return Group(*parts)


def _head(
    samples: Sequence[Sample], shown_url: str, trouble: str, age_s: float, keys: bool
) -> Text:
    head = Text("paceline top  ", style="bold")
    head.append(shown_url, style="not bold")
    if keys:
        head.append("  q ends it", style="not bold dim")
    if trouble:
        said = f"\nRedis does not answer: {trouble}"
        if samples:
            said += f"\nSTALE: the figures below are {in_words(age_s)} old"
        head.append(said, style="bold red")
    return head


def _cells(sample: Sample) -> list[str | Text]:
    census, rates = sample.census, sample.rates
    law, counts = census.law, explain.counters(census)
    why = explain.why_waits(census)
    text = Text(why.text, style=_CLOSED_STYLES.get(why.code, ""))
    if "draining" in census.gate:
        text = Text("draining; ", style="yellow").append(text)
    if census.intake_shut() is not None:
        text = Text("intake shut; ", style="red").append(text)
    if not census.sound:
        text = Text("NOT SOUND: paceline audit; ", style="bold red").append(text)
    return [
        census.destination,
        *(f"{law[term]:,}" for term in ("ready", "scheduled", "leased")),
        "-" if rates is None else f"{rates.sent:,.1f}",
        f"{'-' if rates is None else f'{rates.requests:,.1f}'}/{explain.rate(census):.4g}",
        _latency(rates.api_p50_s if rates else None),
        _latency(rates.api_p99_s if rates else None),
        in_words(census.sizes["oldest_us"] / 1e6) if law["ready"] else "-",
        eta_words(census),
        _workers(sample),
        f"{explain.connections(census)}/{census.config.get('connections', '?')}",
        *(_count(counts[name]) for name in ("retried", "ambiguous", "duplicates")),
        _count(law["dead"]),
        text,
    ]


def _workers(sample: Sample) -> Text:
    census = sample.census
    live = explain.live_workers(census)
    silent = len(census.workers) - live
    text = Text(str(live), style="" if live else "red")
    return text.append(f"+{silent} silent", style="red") if silent else text


def _latency(seconds: float | None) -> str:
    return "-" if seconds is None else in_words(seconds)


def _count(number: int) -> Text:
    return Text(f"{number:,}", style="yellow" if number else "dim")
