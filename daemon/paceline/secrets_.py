"""Secrets of the configuration: named where they are, revealed only where a worker starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from paceline.errors import ConfigError, ConfigProblem

__all__ = ["Secret"]


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret value, or where to find it. `repr` and `str` never show it.

    key     dotted key of the configuration, for error messages
    source  "value" (written in the file), "env" (variable's name), "file" (path)
    ref     the value, the name or the path
    """

    key: str
    source: Literal["value", "env", "file"]
    ref: str = field(repr=False)

    def __repr__(self) -> str:
        return f"Secret({self.key})"

    __str__ = __repr__

    def reveal(self, environ: Mapping[str, str]) -> str:
        """The secret itself. A file's last line end is taken off.

        Raises ConfigError naming the key where the variable or file is missing or empty.
        """
        if self.source == "value":
            return self.ref
        if self.source == "env":
            value = environ.get(self.ref)
            if not value:
                state = "is not set" if value is None else "is empty"
                raise self._missing(f"the environment variable {self.ref} {state}")
            return value
        try:
            value = Path(self.ref).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            raise self._missing(f"the file {self.ref} cannot be read ({why})") from error
        # Editors and `echo` end a file with a line break; no credential contains one.
        value = value.removesuffix("\n").removesuffix("\r")
        if not value:
            raise self._missing(f"the file {self.ref} is empty")
        return value

    def _missing(self, problem: str) -> ConfigError:
        return ConfigError([ConfigProblem(self.key, problem, "Set it where the worker starts")])
