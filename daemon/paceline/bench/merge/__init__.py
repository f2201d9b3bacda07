"""``paceline bench merge``: millions of messages a minute, many in one request.

::

    command    options, forms of the report
    plan       what is asked for, and how the destination speaks
    run        turn by turn: intake, floor, drain
    producer   one producer, a process of its own: fresh ids, a campaign, priority bulk
    floor      the bare commands that messages cost Redis, a process of its own
    figures    raw numbers to figures; report: three forms of it
"""
