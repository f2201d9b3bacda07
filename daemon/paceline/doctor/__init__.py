"""``paceline doctor``: everything that sending rests on, looked at and judged.

Probing and judging are apart: ``*_probe`` files ask the world and return facts, ``*_judge`` files
are pure and turn facts into findings; ``local_checks`` looks at this machine's files. Nothing is
written to Redis, and no request is sent to a provider.
"""
