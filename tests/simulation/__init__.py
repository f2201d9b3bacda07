"""What many hosts and many destinations ask of one Redis: a simulation on a fake clock.

::

    PYTHONPATH=tests python -m simulation --hosts 100 --destinations 100 --seconds 60 --seed 1
    PYTHONPATH=tests python -m simulation --markdown        # the tables of docs/scaling.md

Real: Redis (the embedded server), all Lua scripts (their clock is injected), Scheduler, Reaper,
Dispatcher, Heartbeat, WireGate, the RQ worker's pop and bookkeeping. Simulated: time, hosts, sender
threads, connections and the provider. A simulated second takes as long as its work takes.
"""
