"""`/metrics` for Prometheus: the numbers of `ocr.stats()`, which are read when they are asked for, and those of the answers."""

from __future__ import annotations

import os
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.registry import Collector

from threadsafe_ocr.server.service import Service

# Seconds: from a receipt on a fast machine to the default timeout.
BUCKETS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60)
PREFIX = "threadsafe_ocr"
OUTCOMES = ("answered", "failed", "rejected", "cancelled", "timed_out")
GAUGES = {
    "queue_size": "Requests that hold a permit",
    "queue_bytes": "Bytes that they hold",
    "waiting_for_permit": "Requests in line for a permit",
    "waiting_for_room": "Requests that wait until their pixels may be copied",
    "waiting_items": "Lines and pages that wait for a worker",
    "running": "Runs of networks under way",
    "activation_bytes": "Bytes reserved for large runs",
}
SUMMARIES = {
    "run_size": "Items a run of a network",
    "queue_seconds": "Seconds that an item waited for its run",
}
STAGES = ("detection", "orientation", "recognition")


class Metrics:
    """Of one process: with `--workers N` a scrape meets any one of them, and the label `pid` says which."""

    def __init__(self, service: Service, paths: set[str]) -> None:
        self._paths = paths
        self._registry = CollectorRegistry()
        self._registry.register(Engine(service))
        self._process = ProcessCollector(registry=self._registry)
        labels = ["path", "status", "pid"]
        self._seconds = Histogram(f"{PREFIX}_http_seconds", "Seconds an answer", labels, buckets=BUCKETS, registry=self._registry)

    def route(self, path: str) -> str:
        """A path that nobody serves is not named: there are too many of them."""
        return path if path in self._paths else "other"

    def answered(self, path: str, status: int, seconds: float) -> None:
        """Counts an answer."""
        self._seconds.labels(self.route(path), str(status), str(os.getpid())).observe(seconds)

    def memory(self) -> float | None:
        """Resident bytes of the process, where the system tells them: Linux."""
        return next((each.samples[0].value for each in self._process.collect() if each.name == "process_resident_memory_bytes"), None)

    def text(self) -> bytes:
        """The exposition format 0.0.4."""
        return generate_latest(self._registry)


class Engine(Collector):
    """What the engine and the service count themselves."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def describe(self) -> list[Metric]:
        """Nothing is asked before there is an engine."""
        return []

    def collect(self) -> Iterator[Metric]:
        service, pid = self._service, str(os.getpid())
        stats = service.ocr.stats()
        requests = CounterMetricFamily(f"{PREFIX}_requests", "Pages given to the engine, by outcome", labels=["outcome", "pid"])
        for outcome in OUTCOMES:
            requests.add_metric([outcome, pid], stats[outcome])
        yield requests
        for name, about in GAUGES.items():
            gauge = GaugeMetricFamily(f"{PREFIX}_{name}", about, labels=["pid"])
            gauge.add_metric([pid], stats[name])
            yield gauge
        for name, about in SUMMARIES.items():
            summary = SummaryMetricFamily(f"{PREFIX}_{name}", about, labels=["pid"])
            summary.add_metric([pid], stats[name]["count"], stats[name]["sum"])
            yield summary
        inference = SummaryMetricFamily(f"{PREFIX}_inference_seconds", "Seconds a run of a network", labels=["stage", "pid"])
        for stage in STAGES:
            inference.add_metric([stage, pid], stats["inference_seconds"][stage]["count"], stats["inference_seconds"][stage]["sum"])
        yield inference
        lines = CounterMetricFamily(f"{PREFIX}_lines", "Lines read", labels=["pid"])
        lines.add_metric([pid], stats["lines"])
        yield lines
        errors = CounterMetricFamily(f"{PREFIX}_errors", "Errors answered, by kind", labels=["error", "pid"])
        for kind, count in service.errors.items():
            errors.add_metric([kind, pid], count)
        yield errors
        for name, value, about in (
            ("active", len(service.active), "Requests that read, from their first byte to their last"),
            ("upload_bytes", service.room.used, "Bytes of uploads being held"),
        ):
            gauge = GaugeMetricFamily(f"{PREFIX}_{name}", about, labels=["pid"])
            gauge.add_metric([pid], value)
            yield gauge
