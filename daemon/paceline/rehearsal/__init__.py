"""The rehearsal: the main job on real parts, with faults, and a verdict (``paceline rehearse``).

Files, in the order of a run::

    command.py    options, exit codes
    run.py        the run, from start to report
    plan.py       what is asked; the configuration file made of it; forecast of the faults
    payloads.py   the messages, from the seed
    processes.py  one process: start, readiness, log, orderly end, CPU
    stage.py      Redis, sink, daemon, workers as processes
    intake.py     messages into the outbox, acknowledgements into the ledger
    ledger.py     the independent record of what was acknowledged
    watch.py      the outbox, looked at ten times a second
    plants.py     faults planted in Paceline's own record, for the tests of the verdict
    evidence.py   all that is needed to judge, collected
    measures.py reconcile.py checks.py report.py    pure: figures, findings, verdict, rendering
"""
