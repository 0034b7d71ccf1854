"""CloudWatch's data: from log lines in the embedded metric format, and from whatever AWS measures itself.

Measurements come from threads; CloudWatch is told of them when it is next asked.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

# What is measured every few seconds, CloudWatch keeps for three hours, before it keeps only minutes:
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_GetMetricStatistics.html
_KEPT_SECONDS = 3 * 3600
_MOST_PENDING = 50_000
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
_MOST_VALUES = 100
_EMBEDDED = '"_aws"'

Datum = Mapping[str, Any]


class PublishedMetrics:
    """Data in the words of PutMetricData, until CloudWatch takes them."""

    def __init__(self) -> None:
        self._pending: deque[tuple[str, str, str, Datum]] = deque(maxlen=_MOST_PENDING)

    def put(self, namespace: str, data: Iterable[Datum]) -> None:
        """Add data of the present request's account and region."""
        from ministack.core.responses import get_account_id, get_region

        scope = get_account_id(), get_region()
        self._pending.extend((*scope, namespace, each) for each in data)

    def install(self) -> None:
        """Let CloudWatch take what is pending before it answers, and CloudWatch Logs extract metrics."""
        from ministack.core.responses import request_scope
        from ministack.services import cloudwatch, cloudwatch_logs

        evict, put_log_events = cloudwatch._evict_old_metrics, cloudwatch_logs._put_log_events

        def take_and_evict() -> None:
            while self._pending:
                account_id, region, namespace, datum = self._pending.popleft()
                with request_scope(account_id, region):
                    cloudwatch._put_metric_data({}, {"Namespace": namespace, "MetricData": [datum]}, True)
            evict()

        def extracted(request: dict[str, Any]) -> Any:
            for event in request.get("logEvents", []):
                if _EMBEDDED in event.get("message", ""):
                    for namespace, datum in embedded(event["message"]):
                        self.put(namespace, [datum])
            return put_log_events(request)

        cloudwatch._evict_old_metrics = take_and_evict
        cloudwatch.TWO_WEEKS_SECONDS = _KEPT_SECONDS
        cloudwatch_logs._put_log_events = extracted

    def of_buckets(self, app: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
        """The API, counting S3's requests for the filter that covers a whole bucket.

        An error's average is its rate: every request counts, 0 or 1.
        https://docs.aws.amazon.com/AmazonS3/latest/userguide/metrics-dimensions.html
        """
        from ministack.core.router import detect_service

        async def counted(scope: Any, receive: Any, send: Any) -> None:
            headers = {key.decode("latin-1").lower(): value.decode("latin-1")
                       for key, value in scope.get("headers", [])}  # fmt: skip
            bucket = scope.get("path", "").lstrip("/").partition("/")[0]

            async def sent(message: Any) -> None:
                if message["type"] == "http.response.start":
                    status = message["status"]
                    self.put("AWS/S3", [
                        datum(name, value, BucketName=bucket, FilterId="EntireBucket", unit="Count")
                        for name, value in (("AllRequests", 1), ("4xxErrors", 400 <= status < 500),
                                            ("5xxErrors", status >= 500))
                    ])  # fmt: skip
                await send(message)

            is_request = scope["type"] == "http" and bucket and not bucket.startswith("_")
            of_s3 = is_request and detect_service(scope["method"], scope["path"], headers, {}) == "s3"
            await app(scope, receive, sent if of_s3 else send)

        return counted


def datum(name: str, value: float, *, unit: str = "None", **dimensions: str) -> Datum:
    """One value now."""
    return {
        "MetricName": name,
        "Dimensions": [{"Name": key, "Value": each} for key, each in dimensions.items()],
        "Timestamp": time.time(),
        "Unit": unit,
        "Value": float(value),
    }


def embedded(message: str) -> Iterable[tuple[str, Datum]]:
    """The metrics of a line; of one that the format's specification does not allow, none."""
    try:
        line = json.loads(message)
        return [
            (directive["Namespace"], _extracted(line, names, metric))
            for directive in line["_aws"]["CloudWatchMetrics"]
            for names in directive["Dimensions"]
            for metric in directive["Metrics"]
        ]
    except (ValueError, LookupError, TypeError):
        return []


def _extracted(line: Mapping[str, Any], names: Iterable[str], metric: Mapping[str, str]) -> Datum:
    target = line[metric["Name"]]
    values = [float(each) for each in (target if isinstance(target, list) else [target])]
    if len(values) > _MOST_VALUES:
        raise ValueError(f"{metric['Name']} has {len(values)} values")
    return {
        "MetricName": metric["Name"],
        "Dimensions": [{"Name": name, "Value": str(line[name])} for name in names],
        "Timestamp": line["_aws"]["Timestamp"] / 1000,
        "Unit": metric.get("Unit", "None"),
        "Values": values,
    }
