"""A provider's table: one row for each reply that its documents name, and what it means.

A profile judges **by** its table: it says which `case` a reply is (an error code, mostly), and the
row of that status and case gives the outcome. Where there is none, the row of the status alone
(case "") does, then the general table of `outcome.py`; but a 2xx without a row is never "sent".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from paceline_workers.outcome import Kind, Outcome, Reply, judge_status

__all__ = ["Row", "Table", "said"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """status, body, headers: the reply as it comes; case: what the profile reads out of it, and
    `last` where the row is for a range of codes; kind, says: what it means; the rest: as in
    Outcome. `wait_s`: how long a quota takes, from the reply's moment in unix seconds."""

    status: int
    body: bytes
    kind: Kind
    says: str
    case: str = ""
    last: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    quota: bool = False
    wait_s: Callable[[float], float] | None = None
    most_retries: int | None = None


class Table:
    """The rows, to be asked."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = {(row.status, row.case): row for row in rows if not row.last}
        self._ranges = tuple(row for row in rows if row.last)

    def row(self, status: int, case: str) -> Row | None:
        """The row of this status and case, else that of the status alone."""
        found = self._rows.get((status, case))
        if found is None and case:
            found = next(
                (
                    row
                    for row in self._ranges
                    if row.status == status
                    # Codes of equal length compare as their numbers do.
                    and len(case) == len(row.case)
                    and row.case <= case <= row.last
                ),
                self._rows.get((status, "")),
            )
        return found

    def judge(
        self,
        reply: Reply,
        case: str,
        now: float,
        *,
        detail: str = "",
        said_at: float | None = None,
        taken: bool = False,
    ) -> Outcome:
        """What the reply means. `detail`: the provider's own words; `now`: unix seconds by our
        clock, `said_at` by the peer's, where its `Date` can be read; `taken`: the body says that
        the request was taken, whatever its status says."""
        general = judge_status(reply, now)
        # Of success there is one status in the tables: its body says more than its number.
        row = self.row(200 if 200 <= reply.status < 300 else reply.status, case)
        if row is None:
            if general.kind is Kind.SENT:
                reason = f"{general.reason}, which means nothing known"
                return replace(general, kind=Kind.AMBIGUOUS, reason=said(reason, detail))
            return replace(general, reason=said(general.reason, detail))
        retry_after_s = general.retry_after_s
        if retry_after_s is None and row.wait_s is not None:
            retry_after_s = row.wait_s(now if said_at is None else said_at)
        kind = row.kind
        # The peer names a time: it did not act, and says when it will. A code says more.
        if general.kind is Kind.THROTTLED and (not row.case or kind is Kind.UNAVAILABLE):
            kind = Kind.THROTTLED
        reason = said(row.says, detail)
        if taken and reply.status >= 500 and kind is not Kind.AMBIGUOUS:
            # "Not processed", above an answer to what was: neither can be believed.
            kind, reason = Kind.AMBIGUOUS, f"{reason}; and yet its body says that it was taken"
        return replace(
            general,
            kind=kind,
            reason=reason,
            retry_after_s=retry_after_s,
            quota=row.quota,
            most_retries=row.most_retries,
        )


def said(reason: str, detail: str) -> str:
    """The reason with the provider's own words behind it, on one line."""
    if not detail:
        return reason
    words = " ".join(detail.split())
    return f"{reason}: {words[:200]}"
