"""CloudWatch's documented semantics: metric math, missing data, M of N, composite alarms and suppression.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarms-and-missing-data.html
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/using-metric-math.html
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarm-suppression.html
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

# One value for each period, the newest last; None where there is none.
Series = Sequence[float | None]

# CloudWatch looks back further than the periods that it evaluates: at 5 for 3 in its own examples.
FURTHER = 2
_BREACHES: Mapping[str, Callable[[float, float], bool]] = {
    "GreaterThanThreshold": operator.gt,
    "LessThanThreshold": operator.lt,
}
_OPERATORS: Mapping[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: lambda left, right: left / right if right else None,
    ast.Lt: operator.lt,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.LtE: operator.le,
}


def value_of(alarm: Mapping[str, Any], data: Mapping[str, Series]) -> Series:
    """What the alarm compares: its metric, or its expression over `data`, by the names of the metrics."""
    queries = alarm["Metrics"]
    (returned,) = [query for query in queries if query.get("ReturnData", True)]
    inputs = {q["Id"]: data[q["MetricStat"]["Metric"]["MetricName"]] for q in queries if "MetricStat" in q}
    expression = returned.get("Expression")
    if expression is None:
        return inputs[returned["Id"]]
    if query := re.match(r"SELECT MAX\((\w+)\) FROM ", expression):
        return data[query[1]]
    period = queries[0]["MetricStat"]["Period"]
    length = max(len(each) for each in inputs.values())
    result = _calculate(ast.parse(expression, mode="eval").body, inputs, period, length)
    return result if isinstance(result, list) else [result] * length


def state(alarm: Mapping[str, Any], data: Mapping[str, Series], *, before: str = "OK") -> str:
    """The state that a metric alarm reaches from `before`; it knows the two treatments that ours use.

    Real values count first: where there are enough of them in the range, missing ones are not filled.
    """
    periods, needed = alarm["EvaluationPeriods"], alarm["DatapointsToAlarm"]
    newest = list(value_of(alarm, data))[-(periods + FURTHER) :]
    known = [value for value in newest if value is not None]
    filled = max(0, periods - len(known))
    breaches = _BREACHES[alarm["ComparisonOperator"]]
    verdicts = [breaches(value, alarm["Threshold"]) for value in known]
    if not filled:
        verdicts = verdicts[-periods:]
    verdicts += [{"breaching": True, "notBreaching": False}[alarm["TreatMissingData"]]] * filled
    return "ALARM" if sum(verdicts) >= needed else "OK"


def holds(rule: str, states: Mapping[str, str]) -> bool:
    """Whether the rule of a composite alarm is true."""
    python = re.sub(r'(ALARM|OK|INSUFFICIENT_DATA)\("([^"]+)"\)', r'(states["\2"] == "\1")', rule)
    python = python.replace(" AND ", " and ").replace(" OR ", " or ").replace("NOT ", "not ")
    return bool(eval(python, {"__builtins__": {}}, {"states": states}))


def actions(
    composite: Mapping[str, Any], rings: Sequence[bool], suppressor: Sequence[bool] | None = None
) -> int:
    """How often a composite alarm acts on ALARM, minute by minute.

    With a suppressor it waits for it before it acts; while that rings, and for the extension after it, it
    does not act; if it still rings then, it does.
    """
    if suppressor is None:
        return sum(now and not was for was, now in zip([False, *rings], rings, strict=False))
    wait = composite["ActionsSuppressorWaitPeriod"] // 60
    extension = composite["ActionsSuppressorExtensionPeriod"] // 60
    acted, count, since, quiet_until = False, 0, 0, -1
    for minute, (ringing, suppressed) in enumerate(zip(rings, suppressor, strict=True)):
        if not ringing:
            acted, since = False, minute + 1
        if suppressed:
            quiet_until = minute + extension
        elif ringing and not acted and minute > quiet_until and minute - since >= wait:
            acted, count = True, count + 1
    return count


def _calculate(node: ast.expr, inputs: Mapping[str, Series], period: int, length: int) -> Any:
    def part(each: ast.expr) -> Any:
        return _calculate(each, inputs, period, length)

    match node:
        case ast.Constant():
            return node.value
        case ast.Name():
            return list(inputs[node.id])
        case ast.BinOp():
            return _each(_OPERATORS[type(node.op)], part(node.left), part(node.right), length=length)
        case ast.Compare():
            return _each(
                _OPERATORS[type(node.ops[0])], part(node.left), part(node.comparators[0]), length=length
            )
        case ast.Call(func=ast.Name(id="IF")):
            test, then, other = (_spread(part(each), length) for each in node.args)
            return [
                None if which is None else (yes if which else no)
                for which, yes, no in zip(test, then, other, strict=True)
            ]
        case ast.Call(func=ast.Name(id="FILL")):
            values, filling = part(node.args[0]), part(node.args[1])
            return [filling if value is None else value for value in values]
        case ast.Call(func=ast.Name(id="RATE")):
            return _rate(part(node.args[0]), period)
    raise AssertionError(f"the evaluator does not know {ast.unparse(node)}: teach it, with the document")


def _spread(value: Any, length: int) -> list[Any]:
    return value if isinstance(value, list) else [value] * length


def _each(of: Callable[[Any, Any], Any], left: Any, right: Any, *, length: int) -> list[Any]:
    """A value that is missing on one side is missing in the result."""
    pairs = zip(_spread(left, length), _spread(right, length), strict=True)
    return [None if a is None or b is None else of(a, b) for a, b in pairs]


def _rate(values: Series, period: int) -> list[float | None]:
    """The change per second since the value before, if there is one."""
    result: list[float | None] = []
    last: tuple[int, float] | None = None
    for number, value in enumerate(values):
        known = value is not None and last is not None
        result.append(
            (value - last[1]) / ((number - last[0]) * period)
            if known and last and value is not None
            else None
        )
        last = (number, value) if value is not None else last
    return result
