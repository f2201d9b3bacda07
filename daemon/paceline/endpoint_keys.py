"""The keys with which each of a destination's endpoints is signed: derived, or from files.

Derived: HMAC-SHA256 under each of the destination's `secrets`, over `paceline-endpoint:` and the
endpoint's name. So one secret stands for any number of endpoints, and none of them can sign for
another. From files: one for each endpoint, of its name, in `secrets_dir`.
"""

from __future__ import annotations

import hmac
from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from paceline.errors import ConfigError, ConfigProblem
from paceline.settings import Destination
from paceline.webhook_key import MEND, webhook_key

__all__ = ["EndpointKeys"]

#: As many as a destination's `secrets`.
_MOST = 5
_CONTEXT = b"paceline-endpoint:"


class EndpointKeys:
    """``masters``: keys to derive from, the newest first. ``folder``: where files are, or None.
    ``at``: dotted key of the destination. `repr` shows none of them."""

    def __init__(self, masters: Sequence[bytes], folder: Path | None, at: str) -> None:
        self._masters = tuple(masters)
        self._folder = folder
        self._at = at

    def __repr__(self) -> str:
        return f"EndpointKeys({self._at})"

    @classmethod
    def of(cls, destination: Destination, environ: Mapping[str, str]) -> Self:
        """Raises ConfigError where a secret is missing, or is no key, or the folder is none."""
        problems: list[ConfigProblem] = []
        masters: list[bytes] = []
        for secret in destination.secrets:
            try:
                masters.append(webhook_key(secret.reveal(environ)))
            except ConfigError as error:
                problems.extend(error.problems)
            except ValueError as error:
                problems.append(ConfigProblem(secret.key, str(error), MEND))
        at = f"destinations.{destination.name}"
        endpoints = destination.endpoints
        folder = None
        if endpoints is not None and endpoints.secrets_dir is not None:
            folder = Path(endpoints.secrets_dir)
            if not folder.is_dir():
                where = f"{at}.endpoints.secrets_dir"
                problems.append(
                    ConfigProblem(where, f"{folder} is no folder here", "Make it, or mend the path")
                )
        if problems:
            raise ConfigError(problems, source=f"destination {destination.name}")
        return cls(masters, folder, at)

    def of_endpoint(self, name: str) -> list[bytes]:
        """The newest first. Raises ConfigError where there are none, or one is no key."""
        found = self._from_file(name) if self._folder is not None else None
        if found is not None:
            return found
        if not self._masters:
            raise self._wrong(f"there is no file {name} in it", "Put the endpoint's keys there")
        return [hmac.digest(key, _CONTEXT + name.encode(), "sha256") for key in self._masters]

    def texts(self, name: str) -> list[str]:
        """The same as an owner is given them: `whsec_` and base64. Raises ConfigError."""
        return ["whsec_" + b64encode(key).decode("ascii") for key in self.of_endpoint(name)]

    def _from_file(self, name: str) -> list[bytes] | None:
        assert self._folder is not None
        try:
            text = (self._folder / name).read_text(encoding="ascii")
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else "holds other than ASCII"
            raise self._wrong(f"{name} cannot be read: {why}", MEND) from None
        lines = [line for line in (line.strip() for line in text.splitlines()) if line]
        if not 1 <= len(lines) <= _MOST:
            raise self._wrong(f"{name} has not 1 to {_MOST} keys, a line each", MEND)
        try:
            return [webhook_key(line) for line in lines]
        except ValueError as error:
            raise self._wrong(f"a key in {name} {error}", MEND) from None

    def _wrong(self, problem: str, mend: str) -> ConfigError:
        where = f"{self._at}.endpoints.secrets_dir"
        return ConfigError([ConfigProblem(where, problem, mend)], source=self._at)
