"""A Redis under the ACL file that `paceline acl` prints, with a password for each role."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from paceline.connect import connect
from paceline.rights import ROLES, acl_lines, hash_of

_PASSWORD = "pass-of-{}"


class Guarded:
    """``options`` are the server's. The default user is the tests' own and may do all."""

    def __init__(self, folder: Path, destinations: Sequence[str]) -> None:
        folder.mkdir()
        hashes = {role: hash_of(_PASSWORD.format(role)) for role in ROLES}
        lines = acl_lines([(role, role) for role in ROLES], destinations, hashes)
        assert lines[0] == "user default off"
        file = folder / "users.acl"
        text = "\n".join(["user default on nopass ~* &* +@all", *lines[1:], ""])
        file.write_text(text, encoding="utf-8")
        self.options = {"aclfile": str(file)}

    def url(self, server_url: str, role: str) -> str:
        return server_url.replace("://", f"://{role}:{_PASSWORD.format(role)}@")

    def refused(self, server_url: str) -> list[str]:
        """What was not allowed to whom since the server started: user, command or key, how."""
        with connect(server_url) as client:
            found: Any = client.acl_log()
        return [
            " ".join(_text(e[name]) for name in ("username", "reason", "object", "context"))
            for e in found
        ]


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
