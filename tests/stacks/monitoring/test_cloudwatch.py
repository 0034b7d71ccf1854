"""The evaluator agrees with the examples in CloudWatch's documentation."""

from typing import Any

import pytest

from tests.stacks.monitoring.cloudwatch import actions, holds, state, value_of

_, X = 1, 0  # a value within the threshold, and one that is not
HOLE = None


def alarm(
    missing: str, datapoints: int, *, periods: int = 3, expression: str | None = None
) -> dict[str, Any]:
    metric = {
        "Id": "m",
        "MetricStat": {"Metric": {"MetricName": "M"}, "Period": 60},
        "ReturnData": expression is None,
    }
    queries = [metric, *([{"Id": "e", "Expression": expression}] if expression else [])]
    return {
        "Metrics": queries,
        "Threshold": 1,
        "ComparisonOperator": "LessThanThreshold",
        "EvaluationPeriods": periods,
        "DatapointsToAlarm": datapoints,
        "TreatMissingData": missing,
    }


# "How alarm state is evaluated when data is missing": values, M of 3, state if breaching, state if not.
@pytest.mark.parametrize(
    ("values", "datapoints", "breaching", "not_breaching"),
    [
        ([_, HOLE, X, HOLE, X], 3, "OK", "OK"),
        ([HOLE, HOLE, HOLE, HOLE, _], 3, "OK", "OK"),
        ([HOLE] * 5, 3, "ALARM", "OK"),
        ([_, X, X, HOLE, X], 3, "ALARM", "ALARM"),
        ([HOLE, HOLE, X, HOLE, HOLE], 3, "ALARM", "OK"),
        ([_, HOLE, X, HOLE, X], 2, "ALARM", "ALARM"),
        ([_, _, X, _, X], 2, "ALARM", "ALARM"),
        ([_, HOLE, X, HOLE, HOLE], 2, "ALARM", "OK"),
        ([HOLE, HOLE, HOLE, HOLE, _], 2, "ALARM", "OK"),
        ([HOLE, HOLE, HOLE, X, HOLE], 2, "ALARM", "OK"),
    ],
)
def test_missing_data_counts_as_documented(
    values: list[float | None], datapoints: int, breaching: str, not_breaching: str
) -> None:
    assert state(alarm("breaching", datapoints), {"M": values}) == breaching
    assert state(alarm("notBreaching", datapoints), {"M": values}) == not_breaching


@pytest.mark.parametrize(
    ("expression", "values", "expected"),
    [
        ("FILL(m, 0)", [1, None, 3], [1, 0, 3]),
        ("RATE(m)", [60, 120, None, 0], [None, 1.0, None, -1.0]),
        ("100 * m / 50", [1, None], [2, None]),
        ("1 / m", [0, 2], [None, 0.5]),
        ("IF(m > 2, m, 7)", [1, None, 3], [7, None, 3]),
    ],
)
def test_metric_math_is_as_documented(
    expression: str, values: list[float | None], expected: list[float | None]
) -> None:
    assert value_of(alarm("breaching", 3, expression=expression), {"M": values}) == expected


def test_a_rule_of_a_composite_alarm_is_read_as_written() -> None:
    states = {"a": "ALARM", "b": "OK"}
    assert holds('ALARM("a") OR ALARM("b")', states)
    assert not holds('ALARM("a") AND NOT OK("b")', states)


def test_a_suppressed_composite_waits_and_acts_if_it_still_rings_after_its_cause() -> None:
    composite = {"ActionsSuppressorWaitPeriod": 300, "ActionsSuppressorExtensionPeriod": 300}
    rings = [True] * 30
    assert actions(composite, rings, [False] * 30) == 1
    assert actions(composite, rings, [False] * 4 + [True] * 26) == 0, "the cause came within the wait"
    assert actions(composite, rings, [True] * 10 + [False] * 20) == 1, "it outlasts its cause"
    assert actions(composite, [True] * 12 + [False] * 18, [True] * 10 + [False] * 20) == 0
