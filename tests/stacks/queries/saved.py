"""The saved queries of the templates, what they answer about recorded lines, and docs/logs.md about both.

`python -m tests.stacks.queries.saved` writes the queries and the answers into the document.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stacks.monitoring.saved_queries import ACCESS_QUERIES, AUDIT_QUERIES, FIREWALL_QUERY
from tests.stacks.queries import athena, insights

HERE = Path(__file__).parent
DOCUMENT = HERE.parents[2] / "docs" / "logs.md"
# Of the audit log of a laptop: a contributor logs and registers, an approver promotes, others are refused.
AUDIT = (HERE / "audit.jsonl").read_text().splitlines()
PRINCIPAL = "arn:aws:iam::111122223333:role/mlflow-approver"
WRITTEN = {"<principal>": PRINCIPAL, "<model>": "credit-risk", "<version>": "2"}
DAY = "2026/11/28"
GAPS = "Gaps in the audit log"

_TARGETS = "arn:aws:elasticloadbalancing:us-east-2:123456789012:targetgroup/my-targets/73e2d6bc24d8a067"
_RUN = "0123456789abcdef0123456789abcdef"
_ACTIONS = {401: "waf,fixed-response", 429: "waf"}
# Made like the examples of
# https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-access-logs.html
LOAD_BALANCER = [
    f"https 2026-11-28T22:23:00.186641Z app/my-loadbalancer/50dc6c495c0c9188 192.168.131.39:2817 "
    f"{'-' if seconds < 0 else '10.0.0.1:5000'} 0.086 {seconds} 0.037 {status} "
    f"{'-' if seconds < 0 else status} 0 57 "
    f'"{method} https://mlflow.example.com:443{path} HTTP/1.1" "mlflow-python-client/3.17.2" '
    f'TLS_AES_128_GCM_SHA256 TLSv1.3 {_TARGETS} "Root=1-58337281-1d84f3d73c47ec4e58577259" '
    '"mlflow.example.com" "arn:aws:acm:us-east-2:123456789012:certificate/12345678" 10 '
    f'2026-11-28T22:22:48.364000Z "{_ACTIONS.get(status, "waf,forward")}" "-" "-" "-" "-" "-" "-" TID_1'
    for method, path, seconds, status in (
        ("GET", f"/api/2.0/mlflow/runs/get?run_id={_RUN}", 0.004, 200),
        ("GET", f"/api/2.0/mlflow/logged-models/m-{_RUN}", 0.006, 200),
        ("GET", f"/api/2.0/mlflow/logged-models/m-{_RUN[::-1]}", 0.5, 200),
        ("POST", "/api/2.0/mlflow/runs/search", 1.25, 200),
        ("GET", '/api/2.0/mlflow/runs/search?a="b', 0.001, 403),
        ("GET", "/api/2.0/mlflow/runs/search", -1, 401),
        ("GET", "/wp-login.php", -1, 429),
    )
]  # fmt: skip
_OWNER = "79a59df900b949e55d96a1e698fbacedfd6e09d98eacf8f8d5218e7cd47ef2be"
# Made like the examples of https://docs.aws.amazon.com/AmazonS3/latest/userguide/LogFormat.html
ARTIFACTS = [
    f"{_OWNER} amzn-s3-demo-bucket1 [28/Nov/2026:00:00:38 +0000] 192.0.2.3 {requester} 3E57427F3EXAMPLE "
    f'{operation} 1/{_RUN}/model.pkl "{operation[5:8]} /1/model.pkl HTTP/1.1" 200 - {sent} {size} 7 - '
    '"-" "Boto3/1.41 md/Botocore" - s9lzHYrFp76ZVxRcpX9+5cjAnEH2ROuNkd2BHfIa6UkFVdtjf5mKR3= SigV4 '
    "TLS_AES_128_GCM_SHA256 AuthHeader amzn-s3-demo-bucket1.s3.us-west-1.amazonaws.com TLSv1.3 - -"
    for requester, operation, sent, size in (
        ("arn:aws:sts::111122223333:assumed-role/train/one", "REST.PUT.OBJECT", "-", 9000),
        ("arn:aws:sts::111122223333:assumed-role/train/two", "REST.GET.OBJECT", 700, 700),
        ("arn:aws:sts::111122223333:assumed-role/serve/one", "REST.GET.OBJECT", 50_000, 50_000),
        ("arn:aws:iam::111122223333:user/old", "REST.HEAD.OBJECT", "-", 50_000),
        ("-", "REST.GET.OBJECT", 243, "-"),
    )
]
# Of the fields in https://docs.aws.amazon.com/waf/latest/developerguide/logging-fields.html
FIREWALL = [
    json.dumps(
        {
            "timestamp": 1795824000000 + number,
            "action": action,
            "terminatingRuleId": terminating,
            "ruleGroupList": [
                {"terminatingRule": {"ruleId": rule} if rule and position == place else None}
                for position in range(5)
            ],
            "httpRequest": {"clientIp": f"192.0.2.{number}", "uri": uri, "httpMethod": "GET"},
        }
    )
    for number, (action, terminating, place, rule, uri) in enumerate(
        (
            ("BLOCK", "AWSManagedRulesAmazonIpReputationList", 0, "AWSManagedReconnaissanceList", "/"),
            ("BLOCK", "AWSManagedRulesCommonRuleSet", 1, "GenericLFI_QUERYARGUMENTS", "/get-artifact"),
            ("BLOCK", "AWSManagedRulesCommonRuleSet", 2, "GenericLFI_QUERYARGUMENTS", "/get-artifact"),
            ("BLOCK", "AWSManagedRulesKnownBadInputsRuleSet", 3, "ExploitablePaths_URIPATH", "/web-inf/"),
            ("BLOCK", "AWSManagedRulesBotControlRuleSet", 4, "CategoryHttpLibrary", "/"),
            ("BLOCK", "TooMany", 0, None, "/api/2.0/mlflow/runs/log-batch"),
            ("ALLOW", "Default_Action", 0, None, "/api/2.0/mlflow/runs/log-batch"),
        )
    )
]  # fmt: skip
_MARK = "<!-- run by tests/stacks/monitoring/test_saved_queries.py -->"
Answer = Sequence[Mapping[str, Any]]


def answers(tables: Mapping[str, Mapping[str, Any]]) -> dict[str, Answer]:
    """What each saved query answers; Athena's need the tables of the template, by name."""
    logs = {"load_balancer": LOAD_BALANCER, "artifacts": ARTIFACTS}
    days = {name: (tables[name], [(DAY, line) for line in lines]) for name, lines in logs.items()}
    return {
        **{name: insights.answer(written(query), AUDIT) for name, query in AUDIT_QUERIES.items()},
        GAPS: insights.answer(AUDIT_QUERIES[GAPS], AUDIT[:7] + AUDIT[8:]),
        "Blocked by the firewall": insights.answer(FIREWALL_QUERY, FIREWALL),
        **{name: athena.answer(query, days, since=DAY) for name, query in ACCESS_QUERIES.items()},
    }


def written(query: str) -> str:
    """The query with what a reader writes into it."""
    for place, text in WRITTEN.items():
        query = query.replace(place, text)
    return query


def rendered(document: str, found: Mapping[str, Answer]) -> str:
    """The document with each query, and its answer, at the end of its section."""
    sections = re.split(r"(?m)^(?=##+ )", document)
    for name, query in {**AUDIT_QUERIES, "Blocked by the firewall": FIREWALL_QUERY, **ACCESS_QUERIES}.items():
        (number,) = (n for n, section in enumerate(sections) if section.startswith(f"### {name}\n"))
        text = sections[number].partition("<!-- run by")[0].rstrip("\n")
        block = f"{_MARK}\n```{'sql' if name in ACCESS_QUERIES else ''}\n{query.strip()}\n```"
        sections[number] = f"{text}\n\n{block}\n\n{_table(found[name])}\n\n"
    return "".join(sections).rstrip("\n") + "\n"


def _table(rows: Answer) -> str:
    names = list(rows[0])
    lines = [names, ["---"] * len(names), *([_cell(row[name]) for name in names] for row in rows[:6])]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Any) -> str:
    return "" if value is None else str(value).replace("|", "\\|").replace("+00:00", "Z")


if __name__ == "__main__":
    import tempfile

    from stacks.config import EnvironmentConfig
    from tests.stacks.conftest import read_config, synthesize

    prod = synthesize(
        EnvironmentConfig.model_validate(read_config("prod")), name="prod", directory=Path(tempfile.mkdtemp())
    )
    tables = {each["TableInput"]["Name"]: each["TableInput"] for each in prod.service.all("AWS::Glue::Table")}
    DOCUMENT.write_text(rendered(DOCUMENT.read_text(encoding="utf-8"), answers(tables)), encoding="utf-8")
