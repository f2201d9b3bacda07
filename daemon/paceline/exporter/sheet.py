"""The samples of one scrape, in the catalogue's order. What it has not, cannot be put."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import Metric as Family

from paceline.exporter.catalogue import CATALOGUE, Metric


class Sheet:
    """Filled by ``put`` and ``put_histogram``; a metric without samples does not appear."""

    def __init__(self) -> None:
        self._families: dict[str, Family] = {}

    def put(self, name: str, value: float, *labels: str) -> None:
        """One sample of a gauge or counter."""
        metric = _metric(name, labels)
        family = self._families.get(name)
        if family is None:
            make = {"gauge": GaugeMetricFamily, "counter": CounterMetricFamily}[metric.kind]
            family = self._families[name] = make(name, metric.text, labels=metric.labels)
        assert isinstance(family, (GaugeMetricFamily, CounterMetricFamily))
        family.add_metric(labels, value)

    def put_histogram(
        self, name: str, buckets: Sequence[tuple[str, float]], total: float, *labels: str
    ) -> None:
        """``buckets`` are cumulative, (upper bound, count), and end with ``+Inf``."""
        metric = _metric(name, labels)
        family = self._families.get(name)
        if family is None:
            family = self._families[name] = HistogramMetricFamily(
                name, metric.text, labels=metric.labels
            )
        assert isinstance(family, HistogramMetricFamily)
        family.add_metric(labels, list(buckets), total)

    def families(self) -> Iterator[Family]:
        """What was put, in the catalogue's order."""
        for name in CATALOGUE:
            if name in self._families:
                yield self._families[name]


def _metric(name: str, labels: Sequence[str]) -> Metric:
    metric = CATALOGUE[name]
    if len(labels) != len(metric.labels):
        raise ValueError(f"{name} has the labels {metric.labels}, not {len(labels)}")
    return metric
