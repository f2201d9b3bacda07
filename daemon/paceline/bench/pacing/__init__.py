"""How well a pace is kept, beside others: ``paceline bench pacing``.

Files, in the order of a run::

    command.py       options
    plan.py          what is asked: contestants, scenes, seconds. Pure
    run.py           turn after turn, interleaved
    contestant.py    what a turn asks of a contestant
    paceline.py dispatch.py bullmq.py    the contestants, each on a server of its own
    node.py          BullMQ's packages, installed at first use
    scene.py         one turn: go, freeze, thaw, and when each request started
    figures.py report.py    pure: from arrival times to figures; rendering

The judge is the sink: a process that knows nothing of a contestant but its requests. What the
peers' processes run is in ``peers/``.
"""
