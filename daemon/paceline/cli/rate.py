"""The rate, looked at and set live."""

from __future__ import annotations

import math
from typing import Any

import click
import redis

from paceline.census import Census
from paceline.cli import explain
from paceline.cli.common import json_option, pick_stores, print_json, redis_option, who
from paceline.cli.words import count_of, excerpt, local_time
from paceline.outbox import OutboxStore

_MOST = 1e6
_RESET = "reset"
_SHOWN = 10


class _RateType(click.ParamType[float | None]):
    """Requests/s, or "reset" (None)."""

    name = "rate"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float | None:
        if value is None or value == _RESET:
            return None
        try:
            rate = float(value)
        except ValueError:
            rate = math.nan
        if not 0 < rate <= _MOST:
            self.fail(
                f"{value!r} is no rate: give requests per second above 0, such as 60, or "
                f"{_RESET}. To stop sending, use paceline pause",
                param,
                ctx,
            )
        return rate


@click.command(
    epilog="""\b
Examples:
  paceline rate maxmd                                    the rate, where it comes from, who set it
  paceline rate maxmd 60 --reason "provider asked us to"
  paceline rate maxmd reset                              back to the configured one

It acts on all hosts from the next request on, and stays over restarts until it is reset."""
)
@click.argument("destination", metavar="DEST")
@click.argument("rate", metavar="[RATE|reset]", required=False)
@click.option("--reason", default="", metavar="TEXT", help="Kept on record, shown in status.")
@json_option
@redis_option
def rate(
    client: redis.Redis, destination: str, rate: str | None, reason: str, as_json: bool
) -> int:
    """Show the rate of a destination, or set it live."""
    store = pick_stores(client, (destination,))[0]
    if rate is None:
        if reason:
            raise click.UsageError("--reason is for a new rate: give one, or reset")
        _show(store, as_json=as_json)
        return 0
    asked = _RateType().convert(rate, None, click.get_current_context(silent=True))
    store.set_rate(asked, why=reason, who=who())
    census = store.census()
    warnings = list(_warnings(census))
    if as_json:
        print_json({"destination": destination, **explain.pace_view(census), "warnings": warnings})
        return 0
    click.echo(f"{destination}: {explain.rate_origin(census)[1]}")
    for warning in warnings:
        click.echo(f"Note: {warning}", err=True)
    return 0


def _warnings(census: Census) -> Any:
    able = explain.capacity(census)
    if able is not None and able < census.ceiling:
        yield (
            f"{count_of(explain.connections(census), 'connection')} at the provider's latency "
            f"carry about {able:.3g}/s; for {census.ceiling:g}/s raise connections in the "
            "configuration"
        )
    configured = float(census.config.get("rate", 0))
    if census.ceiling > configured:
        yield f"this is above the {configured:g}/s of the configuration"


def _show(store: OutboxStore, *, as_json: bool) -> None:
    census, hands = store.census(), store.hands()
    if as_json:
        view = explain.pace_view(census)
        print_json({"destination": store.destination, **view, "log": hands})
        return
    click.echo(f"{store.destination}: {explain.rate_origin(census)[1]}")
    able = explain.capacity(census)
    if able is not None:
        click.echo(
            f"  {count_of(explain.connections(census), 'connection')} at the provider's latency "
            f"carry about {able:.3g}/s"
        )
    for hand in hands[:_SHOWN]:
        click.echo(f"  {_hand_words(hand)}")


def _hand_words(hand: dict[str, Any]) -> str:
    """One entry of the record of what operators did."""
    did = hand.get("what", "?")
    if did == "rate":
        did = f"rate {hand.get('value') or _RESET}"
    by = f" by {hand['who']}" if hand.get("who") else ""
    why = f": {excerpt(hand['why'], 200)}" if hand.get("why") else ""
    return f"{local_time(float(hand.get('at_us', 0)) / 1e6)}  {did}{by}{why}"
