"""The metrics of a task as text, in Prometheus's format 0.0.4.

Source: prometheus.io, "Exposition formats".
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from mlflow_aws_server.metrics import emf
from mlflow_aws_server.metrics.names import TABLE
from mlflow_aws_server.metrics.recorder import BOUNDS, Counted

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
_PREFIX = "mlflow_aws_"


def text(counted: Counted, living: Mapping[int, Mapping[str, Any]]) -> bytes:
    """The text: what all processes have counted, and what each of the `living` says of itself."""
    lines = [*_calls(counted), *_latency(counted), *_counts(counted), *_values(living), *_states(living)]
    return ("\n".join(lines) + "\n").encode()


def _calls(counted: Counted) -> Iterator[str]:
    calls: Counter[tuple[str, ...]] = Counter()
    for (*labels, status, _throttled), number in counted.calls.items():
        calls[(*map(str, labels), str(status))] += number
    yield _type("requests_total", "counter")
    names = ("method", "route", "lane", "role", "code")
    for values, number in sorted(calls.items()):
        yield _sample("requests_total", dict(zip(names, values, strict=True)), number)


def _latency(counted: Counted) -> Iterator[str]:
    name = "request_seconds"
    yield _type(name, "histogram")
    for method, route in sorted({key[:2] for key in counted.spent}):
        labels = {"method": method, "route": route}
        seen, total = 0, 0.0
        for place, end in enumerate((*BOUNDS, "+Inf")):
            number, seconds = counted.spent.get((method, route, place), (0, 0.0))
            seen, total = seen + number, total + seconds
            yield _sample(f"{name}_bucket", {**labels, "le": str(end)}, seen)
        yield _sample(f"{name}_sum", labels, round(total, 6))
        yield _sample(f"{name}_count", labels, seen)


def _counts(counted: Counted) -> Iterator[str]:
    found = emf.values(counted)
    for name, metric in TABLE.items():
        if metric.statistic == "Sum" and name != "Requests":
            snake = f"{_snake(name)}_total"
            yield _type(snake, "counter")
            yield _sample(snake, {}, found[name])


def _values(living: Mapping[int, Mapping[str, Any]]) -> Iterator[str]:
    for name, metric in TABLE.items():
        having = {process: said[name] for process, said in living.items() if name in said}
        if having:
            unit = {"Seconds": "_seconds", "Bytes": "_bytes"}.get(metric.unit, "")
            snake = _snake(name) + unit
            yield _type(snake, "gauge")
            for process, value in having.items():
                yield _sample(snake, {"process": str(process)}, value)
    yield _type("waiting", "gauge")
    for process, said in living.items():
        yield _sample("waiting", {"process": str(process)}, said["waiting"])


def _states(living: Mapping[int, Mapping[str, Any]]) -> Iterator[str]:
    yield _type("state", "gauge")
    for process, said in living.items():
        states = {name: str(said.get(name)) for name in ("fast_path", "schema", "schema_head")}
        yield _sample("state", {"process": str(process), **states}, 1)
    yield _type("left_to_stock", "gauge")
    for process, said in living.items():
        for reason, number in said.get("left_to_stock", {}).items():
            yield _sample("left_to_stock", {"process": str(process), "reason": reason}, number)


def _type(name: str, kind: str) -> str:
    return f"# TYPE {_PREFIX}{name} {kind}"


def _sample(name: str, labels: Mapping[str, str], value: object) -> str:
    written = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
    return f"{_PREFIX}{name}{{{written}}} {value}" if labels else f"{_PREFIX}{name} {value}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
