"""Runs that show what is promised of fairness, pace and events, each with its bar, on real
processes::

    PYTHONPATH=tests python -m shows steady             # all of them: make shows
    PYTHONPATH=tests python -m shows high --seconds 20 --seed 3 --json

Each prints the figures as they were measured, and ends with 1 where a bar was missed.
"""
