"""Where to begin: one good example or two of each kind, and what was once got wrong."""

from __future__ import annotations

import struct
from collections.abc import Sequence

_HEAD = struct.pack(
    ">ccHH16sccddddBBH", b"P", b"R", 1, 0, b"n" * 16, b"1", b"-", 5.0, 1.7e15, 0.0, 0.0, 4, 2, 0
)
RECORDS: Sequence[bytes] = (
    _HEAD + b"acmec1{}",
    struct.pack(">cc16sd20s", b"p", b"S", b"n" * 16, 1.7e15, b"s" * 20) + b"provider-1",
    # Times that are no numbers.
    _HEAD[:24] + struct.pack(">dd", float("inf"), float("nan")) + _HEAD[40:] + b"acmec1{}",
    struct.pack(">cc16sd20s", b"p", b"S", b"n" * 16, float("inf"), b"s" * 20),
)
LINES: Sequence[bytes] = (
    b'{"payload": {"a": [1, 2.5, null]}, "id": "m-1", "priority": "high", "tenant": "t"}',
    b'{"payload": 5, "endpoint": "e", "key": "k", "campaign": "c", "delay_s": 5, "ttl_s": 9.5}',
    b'{"payload": {}, "not_before": "2026-11-30T08:00:00Z", "expires": 1800000000}',
    b'{"payload": "\\ud83d\\ude00", "id": "\\u0000"}',
    # A key that forges a line of whoever prints the error.
    b'{"payload": {}, "\\nFORGED\\u001b[2J": 1}',
    b'{"payload": {}, "' + b"k" * 100_000 + b'": 1}',
    b'{"payload": {}, "priority": {"' + b"k" * 100_000 + b'": 1}}',
)
PAYLOADS: Sequence[bytes] = (
    b'{"sender":"a@d.example","recipients":[{"email":"b@d.example","type":"TO"}],'
    b'"subject":"s","body":"t"}',
    b'{"email":{"from":"n@a.example","to":["j@e.example"],"subject":"H {{n}}","text":"D {{n}}",'
    b'"substitution":{"n":"J"},"attachments":[{"filename":"a","content_type":"a/b",'
    b'"content":"JVBERg=="}],"tags":["x"],"metadata":{"k":1}}}',
    # Like a good mail that came before it, but for an address that is no text.
    b'{"email":{"from":"n@a.example","to":["j@e.example"],"subject":"s","text":"t"}}',
    b'{"email":{"from":"n@a.example","to":["j@e.\xa1"],"subject":"s","text":"t"}}',
    b'{"email":{"from":"n@a.example","to":["\\ud800@e.f"],"subject":"s","text":"t"}}',
    b'{"recipients":[{"address":{"email":"a@b.c"},"substitution_data":{"a":1}}],'
    b'"content":{"from":"a@b.c","subject":"s","text":"t"}}',
    b'{"from":"a@b.c","to":["d@e.f"],"subject":"s","text":"t","recipient-variables":{"d@e.f":{}}}',
    b'{"personalizations":[{"to":[{"email":"j@e.o"}]}],"from":{"email":"n@a.e"}}',
    b"[1,[2,[3]]]",
)
ENTRIES: Sequence[bytes] = (
    b"kind=sent\nat=1700000000000000\nids=a b c\nseq=5\nprovider_id=x\nstatus=200\n"
    b"latency_us=2500\nattempt=1\nreason=ok\nrequest=r\n",
    # More than a float holds.
    b"kind=sent\nat=" + b"9" * 400 + b"\nids=a\nseq=1\n",
    b"kind=sent\nat=1\nids=a\nseq=1\nlatency_us=" + b"9" * 400 + b"\n",
    b"kind=sent\nat=1\nids=a\nseq=-1\nstatus=" + b"9" * 4000 + b"\n",
    # No moment that a calendar has.
    b"kind=dead\nat=" + b"9" * 30 + b"\nids=a\nseq=1\n",
)
ENDPOINTS: Sequence[bytes] = (
    b'{"name":"acme","url":"https://acme.example/h","rate":5,"burst":9}\n'
    b'{"name":"b","url":"http://127.0.0.1/","in_flight":2,"ordered":true}\n',
    b'{"url":"https://h","in_flight":1}',
)
TOMLS: Sequence[bytes] = (
    b'[redis]\nurl = "redis://u:SECRET@h:6379/0"\n[destinations.m]\nprovider = "maxmd"\n'
    b'url = "https://h/Send?key=SECRET"\nusername = "SECRET"\npassword = "SECRET"\n'
    b'proxy = "http://p:1"\nproxy_username = "SECRET"\nproxy_password = "SECRET"\n'
    b'headers = { X-Key = "SECRET", Y = { env = "E" } }\nrate = 5\n',
    b'[destinations.w]\nprovider = "webhook"\nurl = "https://h"\nsecrets = ["SECRET"]\n'
    b"[destinations.w.retry]\nfirst_s = 5\nwait_503_s = [1, 2]\n",
    b'[redis]\nurl = "SECRET"\n[destinations.s]\nprovider = "sparkpost"\nurl = "https://SECRET@h"\n'
    b'api_key = 5\nproxy = "http://u:SECRET@p"\npassword = ["SECRET"]\nheaders = "SECRET"\n',
    b'[destinations.h]\nprovider = "http"\nurl = ["https://a", "https://b"]\nmethod = "PUT"\n'
    b'outcomes = { 409 = "retry" }\n[destinations.h.success]\n'
    b'body = { pointer = "/a", equals = 1 }\n'
    b'[destinations.h.tenants."*"]\nweight = 2\n[exporter]\nlisten = "off"\n',
    b'redis.url = "redis+SECRET://SECRET"\ndestinations.a.url = "https://h:SECRET/"\n',
)
_OK = b"HTTP/1.1 200 OK\r\n"
WIRES: Sequence[bytes] = tuple(
    b"\xff" + text
    for text in (
        _OK + b"Content-Length: 5\r\n\r\nhello",
        _OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nT: t\r\n\r\n",
        b"HTTP/1.1 103 E\r\nLink: x\r\n\r\n" + _OK + b"Content-Length: 0\r\n\r\n",
        _OK + b"Content-Encoding: gzip\r\nContent-Length: 20\r\n\r\n"
        b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\x03\x00\x00\x00\x00\x00\x00\x00\x00\x00",
        _OK + b"Content-Encoding: deflate\r\n\r\n\x78\x9c\x03\x00\x00\x00\x00\x01",
        b"HTTP/1.0 101 S\r\nUpgrade: x\r\n\r\nabc",
    )
)
HEADERS: Sequence[bytes] = (
    b'Tue, 14 Nov 2023 22:13:20 GMT\nRateLimit:"d";r=5;t=30\nRateLimit-Policy:"d";q=100;w=60\n'
    b"Retry-After:120\n",
    b"\nX-RateLimit-Limit:100, 100;w=60\nX-RateLimit-Remaining:0\nX-RateLimit-Reset:1700000060\n"
    b"X-Rate-Limit-Reset:1700000060123\nRetry-After:Tue, 14 Nov 2023 22:13:20 GMT\n",
    b"\nRateLimit:limit=10, remaining=1, reset=5\nRetry-After:Tuesday, 14-Nov-23 22:13:20 GMT\n",
)


def _reply(status: int, body: bytes, headers: bytes = b"") -> bytes:
    return b"\x00" + bytes([status]) + b"\x00" + headers + b"\n" + body


REPLIES: Sequence[bytes] = (
    _reply(0, b'{"smtpId":"<1@d>","message":"ok","code":0,"success":true}'),
    _reply(0, b'{"code":999,"message":"error"}'),
    _reply(
        0, b'{"results":{"total_rejected_recipients":0,"total_accepted_recipients":1,"id":"7"}}'
    ),
    _reply(14, b'{"errors":[{"message":"m","description":"d","code":"1602"}]}'),
    _reply(0, b'{"id":"<1@m>","message":"Queued. Thank you."}'),
    _reply(20, b'{"message":"try again after Fri, 29 Jul 2030 01:02:03 UTC"}', b"Retry-After:5\n"),
    _reply(0, b'[{"ErrorCode":0,"MessageID":"x"}]'),
    _reply(0, b'[{"ErrorCode":406,"Message":"inactive"},{"ErrorCode":0}]'),
    _reply(0, b'{"a":[{"b":true,"id":"q"}]}'),
    _reply(7, b"a duplicate"),
    _reply(2, b"", b"X-Message-Id:abc\n"),
    _reply(0, b'{"recipients":[{"email":"b@d","status":"delivered"}]}'),
)
