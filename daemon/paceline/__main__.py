"""``paceline`` and ``python -m paceline``. The base install has no CLI: then it says what to do."""

from __future__ import annotations

import sys


def main() -> int:
    """Runs the command line; returns the exit code."""
    try:
        import click  # noqa: F401 - only to see whether the extra is there
        import rich  # noqa: F401
    except ImportError:
        sys.stderr.write(
            "paceline: the command line needs the extra 'daemon', which is not installed.\n"
            "Install it: pip install 'paceline[daemon]'\n"
        )
        return 2
    from paceline.cli import run

    return run()


if __name__ == "__main__":
    sys.exit(main())
