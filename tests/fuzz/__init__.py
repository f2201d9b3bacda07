"""Bytes that others wrote, given to whatever reads them: `targets.py` says what must hold of each.

Three ways to try them: Hypothesis in every `make test` (`tests/unit/test_fuzz.py`; longer under
``PACELINE_HYPOTHESIS=long``), atheris by coverage (`make fuzz SECONDS=60 TARGET=judges`), and for
the enqueue function, whose code is Lua, a seeded generator (``python -m fuzz.enqueues``).
"""
