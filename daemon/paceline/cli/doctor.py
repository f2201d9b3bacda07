"""``paceline doctor``: is everything that sending rests on as it should be?"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click
import redis

from paceline.cli.common import (
    complete_redis,
    config_path_of,
    json_option,
    path_options,
    print_json,
)
from paceline.connect import connect
from paceline.doctor.finding import Finding, healthy
from paceline.doctor.run import Diagnosis, Patient, examine
from paceline.embedded import attached_url
from paceline.errors import ConfigError, ConfigProblem
from paceline.settings import RedisSettings, Settings
from paceline.settings_file import load

_TIMEOUT_S = 2.0
_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


@click.command(
    epilog="""\b
Examples:
  paceline doctor                  everything in the configuration file
  paceline doctor maxmd            Redis, this machine, and one destination
  paceline doctor --strict --json  for a deployment's last step

The exit code is 0 when nothing is wrong, else 1; with --strict a warning counts too. Nothing is
written to Redis, and no request is sent to a provider: connections are opened and closed."""
)
@click.argument("destinations", metavar="[DEST]...", nargs=-1)
@click.option("--strict", is_flag=True, help="Exit 1 for warnings too.")
@json_option
@path_options
def doctor(
    destinations: tuple[str, ...], strict: bool, as_json: bool, config_path: Path | None, data: Path
) -> int:
    """Check what sending rests on, and how to mend it.

    Redis and how durable it is, the configuration and its secrets, this machine, and for each
    destination its providers' names, addresses and certificates, its workers and its accounts.
    """
    patient = _patient(config_path_of(config_path), data)
    try:
        diagnosis = examine(patient, destinations)
    finally:
        if patient.client is not None:
            patient.client.close()
    well = healthy(diagnosis.findings, strict=strict)
    if as_json:
        print_json(_view(diagnosis, well))
    else:
        click.echo(_text(diagnosis, well))
    return 0 if well else 1


def _patient(source: Path | None, data: Path) -> Patient:
    settings: Settings | None = None
    problems: list[ConfigProblem] = []
    url = os.environ.get("PACELINE_REDIS_URL") or None
    if source is None:
        settings = Settings(redis=RedisSettings(), destinations={})
    else:
        try:
            settings = load(source)
        except ConfigError as error:
            problems += error.problems
            url = url or _readable_url(source)
    if settings is not None:
        try:
            url = complete_redis(replace(settings.redis, url=url or settings.redis.url), source).url
        except ConfigError as error:
            problems += error.problems
    url = url or attached_url(data)
    client: redis.Redis | None = None
    no_redis = f"no Redis URL is given, and no embedded server runs in {data}"
    if url is not None:
        try:
            client = connect(
                url, name="paceline-doctor", timeout_s=_TIMEOUT_S, connect_timeout_s=_TIMEOUT_S
            )
        except ConfigError as error:
            no_redis = str(error)
    return Patient(
        source=source,
        settings=settings,
        problems=problems,
        client=client,
        shown_url=replace(RedisSettings(), url=url).shown_url,
        no_redis=no_redis,
        variables=os.environ,
    )


def _readable_url(source: Path) -> str | None:
    """The Redis URL of a file that is wrong elsewhere: Redis can be looked at all the same."""
    try:
        table = tomllib.loads(source.read_text(encoding="utf-8-sig")).get("redis")
    except (OSError, ValueError, RecursionError):
        return None  # that it cannot be read is among the problems already
    url = table.get("url") if isinstance(table, dict) else None
    return url if isinstance(url, str) else None


def _text(diagnosis: Diagnosis, well: bool) -> str:
    lines: list[str] = []
    group = ""
    for finding in diagnosis.findings:
        if finding.group != group:
            group = finding.group
            lines += ([""] if lines else []) + [click.style(group, bold=True)]
        lines += _lines(finding)
    return "\n".join([*lines, "", diagnosis.durability, _verdict(diagnosis.findings, well)])


def _lines(finding: Finding) -> list[str]:
    level = click.style(f"{finding.level:<4}", fg=_COLOURS[finding.level])
    lines = [f"  {level}  {finding.check}: {finding.text}"]
    if finding.mend and finding.level != "ok":
        lines.append(f"        -> {finding.mend}")
    return lines


def _verdict(findings: Sequence[Finding], well: bool) -> str:
    fails = sum(finding.level == "fail" for finding in findings)
    warns = sum(finding.level == "warn" for finding in findings)
    counted = f"{len(findings)} checks: {fails} failed, {warns} to look at"
    return f"{'Healthy' if well else 'NOT HEALTHY'}: {counted}."


def _view(diagnosis: Diagnosis, well: bool) -> dict[str, object]:
    return {
        "healthy": well,
        "durability": diagnosis.durability,
        "findings": [finding.view() for finding in diagnosis.findings],
    }
