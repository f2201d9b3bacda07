"""The bench: what a message costs, beside a naive loop and RQ alone (``paceline bench``).

Files, in the order of a run::

    command.py    options, exit codes
    plan.py       what is asked: contestants, sections, counts
    run.py        the sections in turn
    machine.py    on what it runs
    sink.py       the one sink of the run, and what it saw of each contestant
    stage.py      one server with daemons and workers on it
    child.py      peers and producer, each a process that tells its own figures
    producer.py peers/    what those processes run
    cpu.py        CPU time of processes, and Redis's own
    peak.py       the most memory that a process has held
    contest.py memory.py latency.py events.py backlog.py    the sections
    figures.py report.py    pure: medians, ratios, bars; rendering
    work_folder.py          where it runs
    pacing/                 ``paceline bench pacing``: how well the pace is kept, a bench by itself
    merge/                  ``paceline bench merge``: millions a minute, in and out, another one
"""
