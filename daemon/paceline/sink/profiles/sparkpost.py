"""SparkPost's Transmissions API."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import msgspec

from paceline.sink.answers import Request, Rows, Verdict, When, is_json
from paceline.sink.idempotency import Keys
from paceline.sink.profiles.sparkpost_body import Accounted, Refusal, read

_KEY = re.compile(rb"[A-Za-z0-9._-]{1,255}\Z")
_SUBACCOUNT = re.compile(rb"\d{1,9}\Z")
_ID = 116_687_000_000_000_000

# Beside each code the provider's own words, from its table of extended error codes.
_MESSAGES = {
    "1100": "permission denied",
    "1101": "invalid URI",
    "1102": "invalid HTTP method",
    "1103": "invalid query string",
    "1200": "invalid params",
    "1300": "invalid data format/type",
    "1301": "Invalid combination of fields",
    "1303": "Invalid customer id, unauthorized tenant.",
    "1304": "Invalid User ID, unauthorized user.",
    "1305": "Input Data not UTF8 encoded",
    "1400": "required field is missing",
    "1401": "Required parameter missing",
    "1500": "Failed to update database",
    "1501": "Failed to read from database",
    "1502": "Server resources unavailable",
    "1600": "resource not found",
    "1601": "No license",
    "1603": "Subresource not found",
    "1700": "Unsupported Content-Type header",
    "1800": "HTTP header value not acceptable",
    "1900": "Message generation module not available",
    "1901": "Message failed to generate",
    "1902": "Message generation rejected",
    "2000": "transmission created, but with validation errors",
    "2002": "Substitution data too large",
    "2004": "No draft version of template exists",
    "2005": "No published version of template exists",
    "2101": "Exceed Sending Limit (hourly)",
    "2102": "Exceed Sending Limit (daily)",
    "2103": "Exceed Sending Limit (sandbox)",
    "2105": "Exceed Sending Limit (monthly)",
    "3000": "template language syntax error",
    "3001": "template language render error",
    "3002": "Invalid header",
    "5002": "No valid recipients in list",
    "7000": "Sending domain blacklisted",
    "7001": "Invalid domain",
}
_PAIR_MESSAGES = {
    (409, "1600"): "idempotency key was used for another request",
    (409, "1601"): "a request with this idempotency key is in progress",
    (429, None): "Too many requests",
}
_ROWS = Rows(
    ((200,), ("2000",)),
    (
        (400,),
        (
            "1200", "1305", "1401", "1502", "1901", "1902", "2008", "5002", "7000", "7001",
        ),
    ),
    ((401, 403), ("1100", "1303", "1304", "1601")),
    ((404, 405, 406, 415), ("1101", "1102", "1103", "1600", "1700", "1800")),
    ((409,), ("1600", "1601", "1602")),
    ((413,), ()),
    ((420,), ("2101", "2102", "2103", "2105")),
    (
        (422,),
        (
            "1300", "1301", "1400", "1603", "2002", "2004", "2005", "2007",
            *map(str, range(3000, 3052)),
        ),
    ),
    ((429,), ()),
    ((500, 502, 503, 504), ("1500", "1501", "1900")),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class SparkPost:
    """``POST /api/v1/transmissions``. ``api_key`` None accepts any key that is not empty.

    Addresses that begin with ``marker`` are refused, and the others of the transmission accepted.
    The key is expected bare, as it is: "Bearer", Basic or quotes are a mistake. With
    ``validate=False`` nothing is checked and recipients are counted by the bytes ``"address":``,
    wherever they stand; idempotency keys are kept all the same.
    """

    api_key: str | None = None
    marker: str = "reject-"
    validate: bool = True
    keys: Keys = field(default_factory=Keys)
    name: str = "sparkpost"
    methods: frozenset[bytes] = frozenset((b"POST",))
    headers: frozenset[bytes] = frozenset(
        (b"authorization", b"x-msys-subaccount", b"idempotency-key")
    )
    rows: tuple[str, ...] = _ROWS.names

    @property
    def reads_body(self) -> bool:
        return True

    def judge(self, request: Request, /) -> Verdict:
        refused = self._at_the_door(request) if self.validate else None
        if refused is not None:
            return refused
        headers = request.headers
        key = headers.get(b"idempotency-key")
        if key is None:
            return self._judge(request)
        if not _KEY.match(key):
            return _refused(422, "1300", "malformed", "Idempotency-Key is not acceptable")
        # A sub-account's keys are its own.
        scope = (headers.get(b"x-msys-subaccount"), key)
        first = self.keys.find(scope)
        if first is None:
            good = self._judge(request)
            hold = self.keys.hold(scope, request.sha256, good.status, good.body)
            return msgspec.structs.replace(good, hold=hold)
        if first.digest != request.sha256:
            return _refused(409, "1600", "key_conflict")
        if not first.done:
            return _refused(409, "1601", "key_in_progress")
        again = b"X-Idempotent-Replayed: true\r\n"
        return Verdict(first.status, first.body, False, "replayed", extra=again)

    def row(self, name: str, good: Verdict, _when: When, /) -> Verdict:
        status, code = _ROWS.find(self.name, name)
        if code == "2000":
            # One recipient of those accepted is refused; which, the answer does not say.
            addresses = good.addresses[:-1]
            accepted = max(0, good.recipients - 1)
            refused = [("1300", "invalid email address")]
            body = _results(good, Accounted(list(addresses), refused), accepted)
            return Verdict(200, body, accepted > 0, recipients=accepted, addresses=addresses)
        return _refused(status, code, name)

    def business(self, code: int, _good: Verdict, /) -> bytes:
        return _refused(200, str(code), "business").body

    def reset(self) -> None:
        self.keys.clear()

    def _at_the_door(self, request: Request) -> Verdict | None:
        if request.path.partition(b"?")[0].rstrip(b"/") != b"/api/v1/transmissions":
            return _refused(404, "1101", "path")
        given = request.headers.get(b"authorization", b"").decode("latin-1")
        if not given or " " in given or (self.api_key is not None and given != self.api_key):
            return _refused(401, None, "authentication")
        subaccount = request.headers.get(b"x-msys-subaccount")
        if subaccount is not None and not _SUBACCOUNT.match(subaccount):
            return _refused(401, "1303", "authentication")
        if not is_json(request.content_type):
            return _refused(415, "1700", "media_type")
        return None

    def _judge(self, request: Request) -> Verdict:
        if not self.validate:
            count = request.body.count(b'"address":')
            return Verdict(200, _answer(request.number, count), True, recipients=count)
        try:
            accounted = read(request.body, self.marker)
        except Refusal as exc:
            return _refused(exc.status, exc.code or None, "malformed", exc.description)
        accepted = accounted.accepted
        count = len(accepted)
        good = Verdict(
            200, _answer(request.number, count), True, recipients=count, addresses=accepted
        )
        if not accounted.refused:
            return good
        return msgspec.structs.replace(
            good, body=_results(good, accounted, count), name="partly_rejected"
        )


def _answer(number: int, accepted: int) -> bytes:
    return (
        b'{"results":{"total_rejected_recipients":0,"total_accepted_recipients":%d,"id":"%d"}}'
        % (accepted, _ID + number)
    )


def _results(good: Verdict, accounted: Accounted, accepted: int) -> bytes:
    results = msgspec.json.decode(good.body).get("results", {})
    errors = [_error(code, description) for code, description in accounted.refused]
    return msgspec.json.encode(
        {
            "errors": [_error("2000")],
            "results": {
                "rcpt_to_errors": errors,
                "total_rejected_recipients": len(errors),
                "total_accepted_recipients": accepted,
                "id": results.get("id", str(_ID)),
            },
        }
    )


def _error(code: str | None, description: str = "", status: int = 0) -> dict[str, str]:
    message = _PAIR_MESSAGES.get((status, code)) or _MESSAGES.get(code or "")
    error = {"message": message or ("error" if code else f"HTTP {status}")}
    if description:
        error["description"] = description
    if code is not None:
        error["code"] = code
    return error


def _refused(status: int, code: str | None, name: str, description: str = "") -> Verdict:
    if (status, code) == (401, None):
        body = b'{"errors":[{"message":"Unauthorized."}]}'
    else:
        body = msgspec.json.encode({"errors": [_error(code, description, status)]})
    return Verdict(status, body, False, name)
