"""``python -m fuzz [TARGET] --seconds 60``: atheris on a target, or on all of them in turn.

What it finds is written to ``.run/fuzz/TARGET-…`` and printed; put the bytes into `seeds.py`, where
every later run begins. The exit code is 1 if anything was found.
"""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
from pathlib import Path

_FOUND = Path(".run/fuzz")


def main() -> int:
    """Each target in a process of its own: libFuzzer ends the one it runs in."""
    parser = argparse.ArgumentParser(prog="python -m fuzz")
    parser.add_argument("target", nargs="?", default="all")
    parser.add_argument("--seconds", type=int, default=60, help="for all targets together")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.here:
        return _fuzz(given.target, given.seconds)
    known = list(importlib.import_module("fuzz.targets").TARGETS)
    if given.target not in ("all", *known):
        parser.error(f"{given.target!r} is none of all, {', '.join(known)}")
    names = known if given.target == "all" else [given.target]
    each = max(1, given.seconds // len(names))
    failed = []
    for name in names:
        command = [sys.executable, "-m", "fuzz", name, "--here", "--seconds", str(each)]
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
        told = [line for line in done.stderr.splitlines() if line.startswith(("Done", "#"))]
        word = "ok" if done.returncode == 0 else "FOUND"
        print(f"{name:10} {word:5} {' '.join(told[-1:])}", flush=True)
        if done.returncode:
            failed.append(name)
            print(done.stderr[-6000:], flush=True)
    return 1 if failed else 0


def _fuzz(name: str, seconds: int) -> int:
    import atheris

    # What is to be measured must be seen as it is imported.
    with atheris.instrument_imports(include=["paceline", "paceline_workers"]):
        target = importlib.import_module("fuzz.targets").TARGETS[name]
    corpus = _FOUND / "corpus" / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    words = _FOUND / f"{name}.dict"
    words.write_text("".join(f'"{_quoted(word)}"\n' for word in target.words), encoding="ascii")
    atheris.Setup(
        [
            sys.argv[0],
            f"-max_total_time={seconds}",
            "-max_len=8192",
            "-timeout=10",
            "-rss_limit_mb=1024",
            f"-dict={words}",
            f"-artifact_prefix={_FOUND}/{name}-",
            str(corpus),
        ],
        target.run,
    )
    atheris.Fuzz()
    return 0


def _quoted(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word[:64])


if __name__ == "__main__":
    sys.exit(main())
