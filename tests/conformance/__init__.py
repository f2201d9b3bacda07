"""The promise about every window, proven: real processes on the wire, and the scripts alone.

    PYTHONPATH=tests python -m conformance --seed 1
    PYTHONPATH=tests python -m conformance --seed 1 --rate 1000 --seconds 60 --json

``case`` says what is tried, ``mischief`` what is done to it meanwhile, ``field`` sets it up,
``evidence`` reads what was recorded and ``verdict`` judges it; ``floor`` and ``hands`` do the same
to the scripts alone, on a clock of their own.
"""
