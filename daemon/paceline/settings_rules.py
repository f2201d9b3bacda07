"""What the replies of the `http` profile mean: its rules, out of the file's tables."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from paceline.errors import ConfigProblem
from paceline.settings import ItemsRule, ReplyRule, SuccessRule
from paceline.settings_tables import BODY, ITEMS, RULE, SUCCESS, read_table

__all__ = ["items_from", "outcomes_from", "rules_from", "success_from"]

_OUTCOMES = ("retry", "rejected", "throttled", "held", "ambiguous", "too_large")
_STATUS = re.compile(r"[1-5](\d\d|xx)", re.ASCII)


def success_from(at: str, table: Any, problems: list[ConfigProblem]) -> SuccessRule:
    """`success`: when a reply means "sent"."""
    at = f"{at}.success"
    values = read_table(table, SUCCESS, at, problems)
    if "statuses" in values:
        values["statuses"] = tuple(values["statuses"])
    if "body" in values:
        body = read_table(
            values.pop("body"), BODY, f"{at}.body", problems, required=("pointer", "equals")
        )
        values.update(body)
    return SuccessRule(**values)


def outcomes_from(
    at: str, table: Any, problems: list[ConfigProblem], *, codes: bool = False
) -> Mapping[str, str]:
    """`outcomes`, of statuses, or of any `codes`."""
    at = f"{at}.outcomes"
    if not isinstance(table, dict):
        problems.append(ConfigProblem(at, "no table", f'[{at}] with lines such as 409 = "retry"'))
        return {}
    for status, outcome in table.items():
        if not codes and not _STATUS.fullmatch(status):
            problems.append(ConfigProblem(f"{at}.{status}", "is no status", 'Write 409 or "4xx"'))
        if outcome not in _OUTCOMES:
            problems.append(
                ConfigProblem(
                    f"{at}.{status}", f"{outcome!r} is no outcome", "One of " + ", ".join(_OUTCOMES)
                )
            )
    return MappingProxyType(dict(table))


def rules_from(at: str, table: Any, problems: list[ConfigProblem]) -> Mapping[str, ReplyRule]:
    """`rules`, in the order of the file: the first that fits holds."""
    at = f"{at}.rules"
    if not isinstance(table, dict):
        problems.append(ConfigProblem(at, "no table", f"[{at}.NAME] with status and outcome"))
        return {}
    rules: dict[str, ReplyRule] = {}
    for name, terms in table.items():
        key = f"{at}.{name}"
        before = len(problems)
        values = read_table(terms, RULE, key, problems, required=("status", "outcome"))
        for one, other in (("pointer", "equals"), ("equals", "pointer")):
            if one in values and other not in values:
                problems.append(
                    ConfigProblem(f"{key}.{other}", f"missing beside {one}", RULE[other].mend)
                )
        if not isinstance(values.get("equals", ""), str | int | float):
            problems.append(
                ConfigProblem(f"{key}.equals", "is no single value", RULE["equals"].mend)
            )
        if len(problems) == before:
            rules[name] = ReplyRule(**values)
    return MappingProxyType(rules)


def items_from(at: str, table: Any, problems: list[ConfigProblem]) -> ItemsRule | None:
    """`items`: what a reply says of each message. None where `problems` grew."""
    before = len(problems)
    key = f"{at}.items"
    values = read_table(table, ITEMS, key, problems, required=("pointer", "success"))
    if "success" not in values:
        return None
    body = read_table(
        values.pop("success"), BODY, f"{key}.success", problems, required=("pointer", "equals")
    )
    outcomes = outcomes_from(key, values.pop("outcomes", {}), problems, codes=True)
    if outcomes and "code_pointer" not in values:
        problems.append(
            ConfigProblem(
                f"{key}.code_pointer", "missing beside outcomes", ITEMS["code_pointer"].mend
            )
        )
    if len(problems) > before:
        return None
    return ItemsRule(success=body["pointer"], equals=body["equals"], outcomes=outcomes, **values)
