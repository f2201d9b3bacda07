"""An hour at 100/s with 3% faults and a kill each minute: nothing grows, and the ledger is exact.

    make soak MINUTES=60 REPORT=soak.json

Of each kind of process one is never killed, the elder: what its memory, descriptors and threads do
is what is judged. ``watch`` samples and reads records before they expire, ``trend`` judges.
"""
