"""Each saved query is run over recorded lines: one that names a wrong field fails."""

from __future__ import annotations

import json
from typing import Any

import pytest

from stacks.monitoring.saved_queries import ACCESS_QUERIES, AUDIT_QUERIES
from tests.stacks.queries import athena, insights
from tests.stacks.queries.saved import (
    ARTIFACTS,
    AUDIT,
    DOCUMENT,
    GAPS,
    LOAD_BALANCER,
    PRINCIPAL,
    Answer,
    answers,
    rendered,
)
from tests.stacks.templates import Assembly

CONTRIBUTOR, VIEWER = (PRINCIPAL.replace("approver", role) for role in ("contributor", "viewer"))


def tables(assembly: Assembly) -> dict[str, Any]:
    found = [each["TableInput"] for each in assembly.service.all("AWS::Glue::Table")]
    return {each["Name"]: each for each in found}


@pytest.fixture(scope="module")
def found(prod: Assembly) -> dict[str, Answer]:
    return answers(tables(prod))


def test_who_promoted_what(found: dict[str, Answer]) -> None:
    done = [
        (row["principal"], row["model"], row["version"], row["stage"] or row["alias"])
        for row in found["Who promoted what"]
        if row["outcome"] == "changed"
    ]
    assert (PRINCIPAL, "credit-risk", "2", "Production") in done
    assert (PRINCIPAL, "credit-risk", "1", "Archived") in done
    assert {row[0] for row in done} == {PRINCIPAL}
    refused = [row for row in found["Who promoted what"] if row["outcome"] == "refused"]
    assert [row["principal"] for row in refused] == [CONTRIBUTOR]


def test_refused_callers(found: dict[str, Answer]) -> None:
    counts = {row["principal"]: (row["requests"], row["last_reason"]) for row in found["Refused callers"]}
    assert counts == {CONTRIBUTOR: (2, "role"), VIEWER: (1, "role")}


def test_the_day_of_one_principal(found: dict[str, Answer]) -> None:
    day = found["One principal's day"]
    times = [row["@timestamp"] for row in day]
    assert times == sorted(times)
    assert len(day) == sum(f'"principal":"{PRINCIPAL}"' in line for line in AUDIT) > 3


def test_what_one_version_went_through(found: dict[str, Answer]) -> None:
    life = [
        (row["route"].rpartition("/")[2], row["stage"] or row["alias"])
        for row in found["What one model version went through"]
    ]
    assert life[0] == ("create", None), "the model's own registration"
    for step in (
        ("create", None),
        ("transition-stage", "Production"),
        ("set-tag", None),
        ("alias", "champion"),
    ):
        assert step in life
    assert ("transition-stage", "Archived") not in life, "that was another version"


def test_gaps_in_the_audit_log(found: dict[str, Answer]) -> None:
    (gap,) = found[GAPS]
    assert gap["last"] - gap["first"] + 1 - gap["lines"] == 1
    assert insights.answer(AUDIT_QUERIES[GAPS], AUDIT) == []


def test_slowest_changes(found: dict[str, Answer]) -> None:
    rows = found["Slowest changes"]
    assert [row["p99_ms"] for row in rows] == sorted((row["p99_ms"] for row in rows), reverse=True)
    assert all(row["median_ms"] <= row["p99_ms"] <= row["longest_ms"] for row in rows)
    assert sum(row["requests"] for row in rows) == sum('"audit":"changed"' in line for line in AUDIT)


def test_blocked_by_the_firewall_names_the_rule_within_a_group_wherever_it_stands(
    found: dict[str, Answer],
) -> None:
    rows = {row["rule"]: (row["requests"], row["last_address"]) for row in found["Blocked by the firewall"]}
    assert rows == {
        "AWSManagedReconnaissanceList": (1, "192.0.2.0"),
        "GenericLFI_QUERYARGUMENTS": (2, "192.0.2.2"),
        "ExploitablePaths_URIPATH": (1, "192.0.2.3"),
        "CategoryHttpLibrary": (1, "192.0.2.4"),
        "TooMany": (1, "192.0.2.5"),
    }


def test_slowest_routes_have_no_ids_and_no_time_of_what_never_reached_the_server(
    found: dict[str, Answer],
) -> None:
    rows = {row["route"]: row for row in found["Slowest routes"]}
    assert next(iter(rows)) == "/api/2.0/mlflow/runs/search"
    assert set(rows) == {f"/api/2.0/mlflow/{name}" for name in ("runs/search", "runs/get", "logged-models/*")}
    assert rows["/api/2.0/mlflow/logged-models/*"]["requests"] == 2
    assert rows["/api/2.0/mlflow/logged-models/*"]["longest_seconds"] == 0.5


def test_refused_at_the_load_balancer(found: dict[str, Answer]) -> None:
    rows = [
        (row["elb_status_code"], row["actions_executed"]) for row in found["Refused at the load balancer"]
    ]
    assert sorted(rows) == [(401, "waf,fixed-response"), (429, "waf")]


def test_bytes_of_each_principal_whatever_its_session(found: dict[str, Answer]) -> None:
    rows = {
        row["principal"]: (row["bytes_read"], row["bytes_written"]) for row in found["Bytes per principal"]
    }
    assert rows["111122223333 serve"] == (50_000, 0)
    assert rows["111122223333 train"] == (700, 9000)
    assert rows["arn:aws:iam::111122223333:user/old"] == (0, 0)
    assert next(iter(rows)) == "111122223333 serve"


@pytest.mark.parametrize("field", ["principal", "object.version", "route", "ms", "reason", "audit"])
def test_a_query_that_names_a_field_which_no_line_has_fails(field: str) -> None:
    naming = [query for query in AUDIT_QUERIES.values() if field in query]
    assert naming
    for query in naming:
        with pytest.raises(insights.UnknownFieldError):
            insights.answer(query.replace(field, f"{field}_"), AUDIT)


def test_every_line_of_an_access_log_fits_its_table(prod: Assembly) -> None:
    for name, lines in (("load_balancer", LOAD_BALANCER), ("artifacts", ARTIFACTS)):
        for row in athena.rows(tables(prod)[name], lines):
            assert None not in row[:5]
    first = athena.rows(tables(prod)["load_balancer"], LOAD_BALANCER)[0]
    columns = [each["Name"] for each in tables(prod)["load_balancer"]["StorageDescriptor"]["Columns"]]
    line = dict(zip(columns, first, strict=True))
    assert (line["client_ip"], line["client_port"], line["target_ip"]) == (
        "192.168.131.39",
        "2817",
        "10.0.0.1",
    )
    assert (line["request_verb"], line["request_proto"]) == ("GET", "HTTP/1.1")
    assert (line["matched_rule_priority"], line["actions_executed"]) == ("10", "waf,forward")


def test_tables_find_the_folder_of_a_day_where_the_logs_are_written(prod: Assembly) -> None:
    bucket = prod.foundation.one("AWS::S3::Bucket", id_starts="ArtifactsBucket")["LoggingConfiguration"]
    assert bucket["LogFilePrefix"] == "artifacts/"
    assert bucket["TargetObjectKeyFormat"] == {"PartitionedPrefix": {"PartitionDateSource": "EventTime"}}
    balancer = prod.service.one("AWS::ElasticLoadBalancingV2::LoadBalancer")["LoadBalancerAttributes"]
    assert {"Key": "access_logs.s3.prefix", "Value": "alb"} in balancer
    folders = {
        "load_balancer": r"s3://B/alb/AWSLogs/AWS::AccountId/elasticloadbalancing/AWS::Region",
        "artifacts": r"s3://B/artifacts/AWS::AccountId/AWS::Region/B",
    }
    for name, folder in folders.items():
        table = tables(prod)[name]
        parameters = table["Parameters"]
        assert _joined(parameters["storage.location.template"]) == f"{folder}/${{day}}"
        assert _joined(table["StorageDescriptor"]["Location"]) == f"{folder}/"
        assert parameters["projection.enabled"] == "true"
        assert parameters["projection.day.format"] == "yyyy/MM/dd"
        assert parameters["projection.day.range"] == "NOW-365DAYS,NOW", "as long as the logs are kept"


def test_athena_reads_a_limited_number_of_bytes_and_keeps_results_itself(either: Assembly) -> None:
    settings = either.service.one("AWS::Athena::WorkGroup")["WorkGroupConfiguration"]
    assert settings["EnforceWorkGroupConfiguration"] is True
    assert settings["ManagedQueryResultsConfiguration"] == {"Enabled": True}
    assert settings["BytesScannedCutoffPerQuery"] == 10 * 2**30


def test_every_query_is_saved_for_its_own_log(dev: Assembly, prod: Assembly) -> None:
    for assembly, more in ((dev, set()), (prod, {"Blocked by the firewall"})):
        saved = {
            each["Name"].partition("/")[2]: json.dumps(each["LogGroupNames"])
            for each in assembly.service.all("AWS::Logs::QueryDefinition")
        }
        assert set(saved) == set(AUDIT_QUERIES) | more
        for name, group in saved.items():
            assert ("FirewallLog" if name in more else "AuditLog") in group
        named = {each["Name"] for each in assembly.service.all("AWS::Athena::NamedQuery")}
        assert named == set(ACCESS_QUERIES)


def test_the_document_has_each_query_and_what_it_answers(found: dict[str, Answer]) -> None:
    document = DOCUMENT.read_text(encoding="utf-8")
    assert rendered(document, found) == document, "run `python -m tests.stacks.queries.saved`"


@pytest.mark.parametrize("environment", ["dev", "prod"])
def test_every_log_is_encrypted_and_expires(environment: str, request: pytest.FixtureRequest) -> None:
    assembly: Assembly = request.getfixturevalue(environment)
    for template in assembly.templates:
        for name, resource in template.resources.items():
            properties = resource.get("Properties", {})
            if resource["Type"] == "AWS::Logs::LogGroup":
                assert properties["KmsKeyId"], name
                assert properties["RetentionInDays"] in range(1, 3654), name
            # Without a group of ours, a function and a build log in the clear, and for ever.
            if resource["Type"] == "AWS::Lambda::Function":
                assert properties["LoggingConfig"]["LogGroup"]["Ref"] in template.resources, name
            if resource["Type"] == "AWS::CodeBuild::Project":
                assert properties["LogsConfig"]["CloudWatchLogs"]["GroupName"]["Ref"] in template.resources
            if resource["Type"] == "AWS::ECS::TaskDefinition":
                for container in properties["ContainerDefinitions"]:
                    assert container["LogConfiguration"]["Options"]["awslogs-group"], name


def test_access_logs_expire(dev: Assembly, prod: Assembly) -> None:
    for assembly, days in ((dev, 90), (prod, 365)):
        rules = assembly.foundation.one("AWS::S3::Bucket", id_starts="AccessLogs")["LifecycleConfiguration"]
        (expire,) = rules["Rules"]
        assert expire["ExpirationInDays"] == days
        assert expire["Status"] == "Enabled"


def _joined(value: Any) -> str:
    if isinstance(value, str):
        return value
    _, parts = value["Fn::Join"]
    return "".join(part if isinstance(part, str) else part.get("Ref") or "B" for part in parts)
