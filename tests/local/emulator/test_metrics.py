"""CloudWatch has what AWS would measure, and what log lines embed."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from local.emulator.metrics import embedded

if TYPE_CHECKING:
    from tests.local.conftest import Account

LINE: dict[str, Any] = {
    "_aws": {
        "Timestamp": 1_700_000_000_000,
        "CloudWatchMetrics": [
            {
                "Namespace": "MLflowOnAws",
                "Dimensions": [["Deployment"]],
                "Metrics": [{"Name": "Requests", "Unit": "Count"}, {"Name": "Latency"}],
            }
        ],
    },
    "Deployment": "tested",
    "Requests": 3,
    "Latency": [1, 2, 2],
    "message": "a minute",
}


def test_a_line_s_metrics_have_its_dimensions_time_and_every_value() -> None:
    found = {datum["MetricName"]: datum for _namespace, datum in embedded(json.dumps(LINE))}
    assert found["Requests"] == {
        "MetricName": "Requests",
        "Dimensions": [{"Name": "Deployment", "Value": "tested"}],
        "Timestamp": 1_700_000_000,
        "Unit": "Count",
        "Values": [3],
    }
    assert found["Latency"]["Values"] == [1, 2, 2]


@pytest.mark.parametrize(
    "change",
    [{"Latency": list(range(101))}, {"Latency": "fast"}, {"Deployment": ...}, {"_aws": {"Timestamp": 1}}],
    ids=["too many values", "no number", "a dimension is missing", "no directive"],
)
def test_a_line_that_the_specification_does_not_allow_gives_no_metric(change: dict[str, Any]) -> None:
    line = {key: value for key, value in {**LINE, **change}.items() if value is not ...}
    assert list(embedded(json.dumps(line))) == []


def values(account: Account, namespace: str, name: str, statistic: str, **dimensions: str) -> list[float]:
    query = {
        "Id": "m",
        "MetricStat": {
            "Metric": {
                "Namespace": namespace,
                "MetricName": name,
                "Dimensions": [{"Name": key, "Value": value} for key, value in dimensions.items()],
            },
            "Period": 60,
            "Stat": statistic,
        },
    }
    now = datetime.now(UTC)
    (result,) = account.aws.client("cloudwatch").get_metric_data(
        MetricDataQueries=[query], StartTime=now - timedelta(hours=1), EndTime=now + timedelta(minutes=1)
    )["MetricDataResults"]
    return [float(each) for each in result["Values"]]


def soon(account: Account, *metric: str, **dimensions: str) -> float:
    return at_least(0, account, *metric, **dimensions)


def at_least(least: float, account: Account, *metric: str, **dimensions: str) -> float:
    deadline = time.monotonic() + 60
    while not (found := values(account, *metric, **dimensions)) or found[-1] < least:
        assert time.monotonic() < deadline, f"{metric} in a minute: {found}"
        time.sleep(0.2)
    return found[-1]


def test_the_metrics_of_log_lines_are_extracted_when_they_are_stored(account: Account) -> None:
    logs = account.aws.client("logs")
    group = {"logGroupName": "embedding", "logStreamName": "one"}
    logs.create_log_group(logGroupName="embedding")
    logs.create_log_stream(**group)
    now = int(time.time() * 1000)
    line = {**LINE, "_aws": {**LINE["_aws"], "Timestamp": now}}
    logs.put_log_events(**group, logEvents=[{"timestamp": now, "message": json.dumps(line)}] * 2)
    assert sum(values(account, "MLflowOnAws", "Requests", "Sum", Deployment="tested")) == 6
    assert values(account, "MLflowOnAws", "Latency", "p50", Deployment="tested") == [2]
    assert values(account, "MLflowOnAws", "Requests", "Sum", Deployment="another") == []


def test_what_s3_refuses_is_a_share_of_its_requests(account: Account) -> None:
    bucket = account.instance["outputs"]["Bucket"]
    account.aws.client("s3").put_object(Bucket=bucket, Key="counted", Body=b"")
    with pytest.raises(ClientError):
        account.role([]).client("s3").get_object(Bucket=bucket, Key="counted")
    named = {"BucketName": bucket, "FilterId": "EntireBucket"}
    assert sum(values(account, "AWS/S3", "AllRequests", "Sum", **named)) >= 2
    assert sum(values(account, "AWS/S3", "4xxErrors", "Sum", **named)) >= 1
    assert 0 < values(account, "AWS/S3", "4xxErrors", "Average", **named)[-1] < 1
    assert sum(values(account, "AWS/S3", "5xxErrors", "Sum", **named)) == 0


def test_a_database_a_certificate_and_the_load_balancer_are_measured(account: Account) -> None:
    database = {"DBInstanceIdentifier": "tested"}
    counted = [{"MetricName": "RequestCount", "Dimensions": [], "Values": [1], "Counts": [7]}]
    (account.directory / "load-balancer.metrics").write_text(
        json.dumps({"Namespace": "AWS/ApplicationELB", "MetricData": counted}) + "\n"
    )
    certificate = account.authority.issue("m.example.com", name="imported")
    imported = account.aws.client("acm").import_certificate(
        Certificate=certificate.certificate.read_bytes(), PrivateKey=certificate.key.read_bytes()
    )
    with account.postgres.cursor():
        at_least(1, account, "AWS/RDS", "DatabaseConnections", "Maximum", **database)
    assert 19 < soon(account, "AWS/RDS", "FreeStorageSpace", "Minimum", **database) / 1024**3 < 20
    assert 0 <= soon(account, "AWS/RDS", "CPUUtilization", "Average", **database) <= 100
    named = {"CertificateArn": imported["CertificateArn"]}
    assert 28 < soon(account, "AWS/CertificateManager", "DaysToExpiry", "Minimum", **named) <= 30
    assert soon(account, "AWS/ApplicationELB", "RequestCount", "Sum") == 7
