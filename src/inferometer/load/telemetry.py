"""What the server says of itself while it is measured: its Prometheus `/metrics`, scraped beside the run.

A thread of the parent process, so that it cannot disturb a worker. Every sample is a row of `telemetry.parquet`
(t_ns since the run's epoch, source, name, labels, value). Histogram buckets and the runtime's own families are left
out; sums and counts stay. A server without `/metrics` costs one request and one note.
"""

from __future__ import annotations

import http.client
import re
import ssl
import threading
import time
from typing import Any, NamedTuple

import numpy as np

from inferometer.load.connection import tls_context
from inferometer.load.options import Endpoint, Target
from inferometer.timeline import Array

INTERVAL_S = 1.0
MAX_PAGE_BYTES = 8 << 20

_SAMPLE = re.compile(
    r"^([a-zA-Z_:][\w:]*)(?:\{(.*)\})?\s+([-+]?(?:[\d.]+(?:[eE][-+]?\d+)?|Inf|NaN))", re.MULTILINE
)
_LEFT_OUT = re.compile(r"_bucket$|_created$|^(?:python|process|http|go|promhttp)_")


class Sample(NamedTuple):
    """One value of one series."""

    name: str
    labels: str
    value: float


def samples(page: str) -> list[Sample]:
    """The samples of a page in the Prometheus text format (exposition format 0.0.4) that are kept."""
    return [
        Sample(name, labels, float(value))
        for name, labels, value in _SAMPLE.findall(page)
        if not _LEFT_OUT.search(name)
    ]


def fetch(
    endpoint: Endpoint, path: str, target: Target, timeout_s: float = 5.0
) -> tuple[int, bytes]:
    """(status, body) of a GET beside the measured traffic; OSError or HTTPException where that fails."""
    connection = plain_connection(endpoint, target, timeout_s)
    try:
        connection.request("GET", path, headers=dict(target.headers))
        response = connection.getresponse()
        return response.status, response.read(MAX_PAGE_BYTES)
    finally:
        connection.close()


def plain_connection(
    endpoint: Endpoint, target: Target, timeout_s: float
) -> http.client.HTTPConnection:
    """A blocking connection to an endpoint, through its proxy if it has one."""
    host, port = endpoint.address
    if not endpoint.tls:
        return http.client.HTTPConnection(host, port, timeout=timeout_s)
    context: ssl.SSLContext = tls_context(target.trust)
    secure = http.client.HTTPSConnection(host, port, timeout=timeout_s, context=context)
    if endpoint.proxy:
        secure.set_tunnel(endpoint.host, endpoint.port, dict(endpoint.proxy_headers))
    return secure


class Scraper:
    """Scrapes each endpoint's `/metrics` about once a second between `start` and `stop`."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._rows: list[tuple[int, str, str, str, float]] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._scrape_on, daemon=True)
        self.notes: list[str] = []

    def start(self) -> None:
        """Begin; the first scrape is made at once."""
        self._thread.start()

    def stop(self) -> None:
        """End, after one last scrape."""
        self._over.set()
        self._thread.join(timeout=15)

    def columns(self, epoch_ns: int) -> dict[str, Array]:
        """The columns of `telemetry.parquet`; empty where nothing was scraped."""
        if not self._rows:
            return {}
        t_ns, source, name, labels, value = zip(*self._rows, strict=True)
        columns: dict[str, Any] = {"t_ns": np.array(t_ns, dtype=np.int64) - epoch_ns}
        columns |= {"source": source, "name": name, "labels": labels, "value": np.array(value)}
        return {key: np.asarray(column) for key, column in columns.items()}

    def _scrape_on(self) -> None:
        endpoints = [e for e in self._target.endpoints if self._scrape(e)]
        while endpoints and not self._over.wait(INTERVAL_S):
            for endpoint in endpoints:
                self._scrape(endpoint)
        for endpoint in endpoints:
            self._scrape(endpoint)

    def _scrape(self, endpoint: Endpoint) -> bool:
        before_ns = time.monotonic_ns()
        try:
            status, page = fetch(endpoint, metrics_path(endpoint), self._target)
        except (OSError, http.client.HTTPException) as error:
            self.notes.append(f"{endpoint.authority}: /metrics: {error}")
            return False
        found = samples(page.decode("utf-8", "replace")) if status == 200 else []
        if not found:
            self.notes.append(f"{endpoint.authority} has no /metrics (HTTP {status})")
            return False
        t_ns = (before_ns + time.monotonic_ns()) // 2
        self._rows += [(t_ns, endpoint.authority, s.name, s.labels, s.value) for s in found]
        return True


def metrics_path(endpoint: Endpoint) -> str:
    """Where an engine keeps its metrics: at the root, beside /v1."""
    path = endpoint.path.split("?")[0]
    base = path.split("/v1/")[0] if "/v1/" in path else ""
    prefix = f"http://{endpoint.authority}" if endpoint.proxy and not endpoint.tls else ""
    return f"{prefix}{base}/metrics"
