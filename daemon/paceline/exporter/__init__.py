"""The exporter: what Redis holds, as Prometheus reads it (docs/metrics.md).

::

    catalogue.py    every metric: name, type, labels, meaning
    sheet.py        the samples of one scrape, by the catalogue
    destination.py  a census -> samples
    redis_server.py what Redis says of itself -> samples
    reading.py      one reading of Redis: it writes nothing
    flight.py       one call at a time, with a deadline for those who wait
    collector.py    prometheus_client's collector: a reading -> families
    health.py       what /healthz and /readyz say
    server.py       HTTP: the address, a bounded number of threads
    service.py      all of it together, for the daemon and for ``paceline exporter``
"""
