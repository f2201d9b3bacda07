"""A long random run: the whole of Paceline as real processes, killed and frozen again and again.

    make chaos SEED=1 KILLS=50 REPORT=chaos-1.json
    PYTHONPATH=tests python -m rampage total chaos-*.json

Same seed, same deeds in the same order; when they strike is the machine's. ``plan`` draws them,
``scene`` and ``together`` are the two ways of running, ``deeds`` carries them out and times the
recovery, ``intake`` is the producer with its ledger outside Redis, ``judge`` compares ledger, sink
and outbox at the end, ``report`` is what is kept.
"""
