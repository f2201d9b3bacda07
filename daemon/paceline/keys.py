"""Names of the Redis keys of one destination (docs/keys.md tells what each holds).

Every key starts with the hash tag ``{destination}``, so that all of a destination's keys live in
one slot and one ACL pattern covers them. The scripts compose the same names in ``lua/lib.lua``.
"""

from __future__ import annotations

#: The set of the names of all destinations ever configured on this Redis.
DESTINATIONS = "paceline:destinations"


def tag(destination: str) -> str:
    """``maxmd`` -> ``{maxmd}``, the only key that scripts are given."""
    return "{" + destination + "}"


def key(destination: str, name: str) -> str:
    """One key of a destination, e.g. ``key("maxmd", "dead")`` -> ``{maxmd}:dead``."""
    return f"{{{destination}}}:{name}"


def message(destination: str, message_id: str) -> str:
    """The key of one message, or of the record that stays when it has ended."""
    return f"{{{destination}}}:m:{message_id}"


def attempts(destination: str, message_id: str) -> str:
    """The list of a message's last ten attempts."""
    return f"{{{destination}}}:a:{message_id}"
