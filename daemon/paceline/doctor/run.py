"""The whole examination: probes side by side, findings in order."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import redis
import redis.exceptions

from paceline import keys
from paceline.config_digest import differences
from paceline.doctor import (
    endpoint_judge,
    endpoint_probe,
    local_checks,
    outbox_judge,
    redis_judge,
    redis_probe,
)
from paceline.doctor.finding import REDIS, Finding, destination_group
from paceline.doctor.redis_facts import RedisFacts
from paceline.errors import ConfigError, ConfigProblem, UnknownDestination
from paceline.guard import guard_of
from paceline.log_veil import redact
from paceline.outbox import OutboxStore, known_destinations
from paceline.proxy import proxy_of
from paceline.scripts import LIBRARY_VERSION
from paceline.settings import Destination, Settings

_MOST_CONNECT_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Patient:
    """What is examined. ``settings`` is None where the file cannot be used, and ``problems`` says
    why; ``client`` is None where no Redis is named, and ``no_redis`` says so."""

    source: Path | None
    settings: Settings | None
    problems: Sequence[ConfigProblem]
    client: redis.Redis | None
    shown_url: str
    no_redis: str
    variables: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All findings, and what "accepted" means here."""

    findings: Sequence[Finding]
    durability: str


def examine(patient: Patient, names: Sequence[str]) -> Diagnosis:
    """Looks at the named destinations, or at all that the file or Redis knows.

    Raises UnknownDestination.
    """
    configured = dict(patient.settings.destinations) if patient.settings else {}
    known, trouble = _known(patient.client)
    everything = list(dict.fromkeys([*configured, *known]))
    # With neither a readable file nor Redis nobody can tell that a name is wrong.
    if patient.settings is not None or not trouble:
        for name in names:
            if name not in everything:
                raise UnknownDestination(name, everything)
    chosen = [name for name in everything if not names or name in names]
    mine = [configured[name] for name in chosen if name in configured]
    # Providers and Redis at once: a time-out of one is not added to the others'.
    with ThreadPoolExecutor(max_workers=1 + len(mine)) as pool:
        endpoints = {d.name: pool.submit(_endpoints, d, patient.variables) for d in mine}
        facts = _redis(patient, chosen)
        findings = [*_here(patient, mine), *_of_redis(patient, facts)]
        for name in chosen:
            destination = configured.get(name)
            if facts is not None and facts.answered and patient.client is not None:
                findings += _outbox(patient.client, name, destination)
            if destination is not None:
                findings += local_checks.secrets(destination, patient.variables)
                findings += endpoints[name].result()
    said = redis_judge.durability(facts) if facts else redis_judge.NOTHING_KNOWN
    return Diagnosis(findings, said)


def _known(client: redis.Redis | None) -> tuple[list[str], bool]:
    """The destinations that Redis knows, and whether it could not be asked. What its trouble is,
    the probe says."""
    if client is None:
        return [], True
    try:
        return known_destinations(client), False
    except redis.exceptions.RedisError:
        return [], True


def _here(patient: Patient, destinations: Sequence[Destination]) -> Iterator[Finding]:
    yield from local_checks.configuration(patient.source, patient.settings)
    yield from local_checks.problems(str(patient.source), patient.problems)
    yield local_checks.open_files(destinations, local_checks.open_files_limit())


def _redis(patient: Patient, names: Sequence[str]) -> RedisFacts | None:
    if patient.client is None:
        return None
    return redis_probe.probe(patient.client, patient.shown_url, names)


def _of_redis(patient: Patient, facts: RedisFacts | None) -> list[Finding]:
    if facts is None:
        return [
            Finding(
                REDIS,
                "answers",
                "fail",
                patient.no_redis,
                "Set [redis] url or PACELINE_REDIS_URL, or start the embedded one: paceline up",
            )
        ]
    return redis_judge.judge(facts, LIBRARY_VERSION)


def _outbox(client: redis.Redis, name: str, destination: Destination | None) -> list[Finding]:
    try:
        census = OutboxStore(client, name).census()
        shared = client.hget(keys.key(name, "cfg"), "json")
    except redis.exceptions.RedisError as error:
        text = f"its outbox cannot be read: {redact(str(error))}"
        mend = "Look at the rights of the user in [redis] url"
        return [Finding(destination_group(name), "outbox", "fail", text, mend)]
    differs = None
    if destination is not None and shared is not None:
        differs = differences(json.loads(shared), destination)
    return outbox_judge.judge(census, differs)


def _endpoints(destination: Destination, environ: Mapping[str, str]) -> list[Finding]:
    try:
        proxy = proxy_of(destination, environ)
    except ConfigError:
        return []  # the finding about its secrets says so
    found = endpoint_probe.probe_all(
        destination.urls,
        connect_timeout_s=min(destination.connect_timeout_s, _MOST_CONNECT_S),
        ca_file=destination.ca_file,
        proxy=proxy,
        guard=guard_of(destination),
    )
    return [
        finding
        for facts in found
        for finding in endpoint_judge.judge(
            destination.name,
            facts,
            now_s=time.time(),
            has_ca_file=destination.ca_file is not None,
        )
    ]
