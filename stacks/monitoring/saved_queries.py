"""Questions that operators and auditors ask of the logs, saved in AWS's consoles: docs/logs.md."""

from collections.abc import Mapping

import aws_cdk as cdk
from aws_cdk import aws_athena as athena
from aws_cdk import aws_glue as glue
from aws_cdk import aws_logs as logs
from aws_cdk import aws_s3 as s3
from constructs import Construct

# Of the audit log, in the language of CloudWatch Logs Insights. What stands in <…> is yours to write.
AUDIT_QUERIES: Mapping[str, str] = {
    "Who promoted what": r"""
fields @timestamp, principal, object.name as model, object.version as version, object.stage as stage,
  object.alias as alias, audit as outcome, route
| filter route like /\/(transition-stage|alias)$/
| sort @timestamp desc
| limit 1000
""",
    "Slowest changes": """
filter audit = "changed"
| stats count(*) as requests, pct(ms, 50) as median_ms, pct(ms, 99) as p99_ms, max(ms) as longest_ms
  by method, route
| sort p99_ms desc
| limit 25
""",
    "Refused callers": """
filter audit = "refused"
| stats count(*) as requests, latest(route) as last_route, latest(reason) as last_reason
  by principal, lane, role
| sort requests desc
| limit 100
""",
    "One principal's day": """
fields @timestamp, audit as outcome, method, route, object.name as name, object.experiment_id as experiment,
  object.run_id as run, status
| filter principal = "<principal>"
| sort @timestamp asc
| limit 10000
""",
    "What one model version went through": """
fields @timestamp, principal, audit as outcome, route, object.stage as stage, object.alias as alias, status
| filter object.name = "<model>" and (object.version = "<version>" or not ispresent(object.version))
| sort @timestamp asc
| limit 10000
""",
    "Gaps in the audit log": """
stats min(number) as first, max(number) as last, count(*) as lines by process
| filter last - first + 1 != lines
""",
}
# Of the firewall's log: https://docs.aws.amazon.com/waf/latest/developerguide/logging-fields.html. A request
# meets five managed groups at most; each has a place in the list, and one of them the rule that blocked.
FIREWALL_QUERY = """
fields coalesce(ruleGroupList.0.terminatingRule.ruleId, ruleGroupList.1.terminatingRule.ruleId,
    ruleGroupList.2.terminatingRule.ruleId, ruleGroupList.3.terminatingRule.ruleId,
    ruleGroupList.4.terminatingRule.ruleId, terminatingRuleId) as rule
| filter action = "BLOCK"
| stats count(*) as requests, latest(httpRequest.clientIp) as last_address by rule, httpRequest.uri
| sort requests desc
| limit 100
"""
# Of the access logs, in Athena's SQL. Ids in paths are one route.
ACCESS_QUERIES: Mapping[str, str] = {
    "Slowest routes": """
SELECT request_verb AS method,
  regexp_replace(
    regexp_replace(request_url, '^https://[^/]*|[?].*$', ''),
    '/([0-9a-f]{32}|(m|tr)-[0-9a-f]+|[0-9]+)(?=/|$)', '/*'
  ) AS route,
  count(*) AS requests,
  approx_percentile(target_processing_time, 0.5) AS median_seconds,
  approx_percentile(target_processing_time, 0.99) AS p99_seconds,
  max(target_processing_time) AS longest_seconds
FROM load_balancer
WHERE day >= date_format(current_date - interval '7' day, '%Y/%m/%d') AND target_processing_time >= 0
GROUP BY 1, 2
ORDER BY p99_seconds DESC
LIMIT 25
""",
    "Refused at the load balancer": """
SELECT client_ip, elb_status_code, actions_executed, count(*) AS requests, max(time) AS last_time
FROM load_balancer
WHERE day >= date_format(current_date - interval '7' day, '%Y/%m/%d')
  AND elb_status_code IN (401, 403, 429) AND target_status_code = '-'
GROUP BY 1, 2, 3
ORDER BY requests DESC
LIMIT 100
""",
    "Bytes per principal": """
SELECT
  regexp_replace(requester, '^arn:aws[^:]*:sts::([0-9]+):assumed-role/([^/]+)/.*$', '$1 $2') AS principal,
  count(*) AS requests,
  sum(CASE WHEN operation LIKE 'REST.GET.%' THEN bytes_sent ELSE 0 END) AS bytes_read,
  sum(CASE WHEN operation LIKE 'REST.PUT.%' THEN object_size ELSE 0 END) AS bytes_written
FROM artifacts
WHERE day >= date_format(current_date - interval '7' day, '%Y/%m/%d')
GROUP BY 1
ORDER BY 3 DESC
LIMIT 100
""",
}
# https://docs.aws.amazon.com/athena/latest/ug/create-alb-access-logs-table.html
_LOAD_BALANCER = {
    "type": r"([^ ]*)",
    "time": r" ([^ ]*)",
    "elb": r" ([^ ]*)",
    "client_ip": r" ([^ ]*)",
    "client_port": r":([0-9]*)",
    "target_ip": r" ([^ ]*)",
    "target_port": r"[:-]([0-9]*)",
    "request_processing_time double": r" ([-.0-9]*)",
    "target_processing_time double": r" ([-.0-9]*)",
    "response_processing_time double": r" ([-.0-9]*)",
    "elb_status_code int": r" (|[-0-9]*)",
    "target_status_code": r" (-|[-0-9]*)",
    "received_bytes bigint": r" ([-0-9]*)",
    "sent_bytes bigint": r" ([-0-9]*)",
    "request_verb": r' "([^ ]*)',
    "request_url": r" (.*)",
    "request_proto": r' (- |[^ ]*)"',
    "user_agent": r' "([^"]*)"',
    "ssl_cipher": r" ([A-Z0-9-_]+)",
    "ssl_protocol": r" ([A-Za-z0-9.-]*)",
    "target_group_arn": r" ([^ ]*)",
    "trace_id": r' "([^"]*)"',
    "domain_name": r' "([^"]*)"',
    "chosen_cert_arn": r' "([^"]*)"',
    "matched_rule_priority": r" ([-.0-9]*)",
    "request_creation_time": r" ([^ ]*)",
    "actions_executed": r' "([^"]*)".*',
}
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-s3-access-logs-to-identify-requests.html
_ARTIFACTS = {
    "bucket_owner": r"([^ ]*)",
    "bucket": r" ([^ ]*)",
    "time": r" \[(.*?)\]",
    "client_ip": r" ([^ ]*)",
    "requester": r" ([^ ]*)",
    "request_id": r" ([^ ]*)",
    "operation": r" ([^ ]*)",
    "key": r" ([^ ]*)",
    "request_uri": r' ("[^"]*"|-)',
    "status": r" (-|[0-9]*)",
    "error_code": r" ([^ ]*)",
    "bytes_sent bigint": r" ([^ ]*)",
    "object_size bigint": r" ([^ ]*)",
    "total_time": r" ([^ ]*)",
    "turn_around_time": r" ([^ ]*)",
    "referrer": r' ("[^"]*"|-)',
    "user_agent": r' ("[^"]*"|-)',
    "version_id": r" ([^ ]*).*",
}
_MOST_BYTES = 10 * 2**30


class SavedQueries(Construct):
    """Queries for CloudWatch Logs Insights and for Athena, with the tables of access logs that Athena needs.

    Nothing is billed but what a query reads; one of Athena's reads 10 GB at most, which is 5 cents. Its
    result is kept by Athena itself, encrypted, for a day.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        audit_log: logs.ILogGroup,
        firewall_log: logs.ILogGroup | None,
        access_logs: s3.IBucket,
        artifacts: s3.IBucket,
        days: int,
    ) -> None:
        super().__init__(scope, construct_id)
        stack = cdk.Stack.of(self)
        self._folder = stack.stack_name
        for name, text in AUDIT_QUERIES.items():
            self._insights(name, text, audit_log)
        if firewall_log:
            self._insights("Blocked by the firewall", FIREWALL_QUERY, firewall_log)
        database = stack.stack_name.lower().replace("-", "_")
        catalog = glue.CfnDatabase(
            self,
            "Database",
            catalog_id=stack.account,
            database_input=glue.CfnDatabase.DatabaseInputProperty(
                name=database, description="Access logs of MLflow on AWS"
            ),
        )
        logs_of = f"s3://{access_logs.bucket_name}"
        place = f"{stack.account}/elasticloadbalancing/{stack.region}"
        tables = [
            _table(self, "load_balancer", _LOAD_BALANCER, f"{logs_of}/alb/AWSLogs/{place}", database, days),
            _table(
                self,
                "artifacts",
                _ARTIFACTS,
                f"{logs_of}/artifacts/{stack.account}/{stack.region}/{artifacts.bucket_name}",
                database,
                days,
            ),
        ]
        for table in tables:
            table.node.add_dependency(catalog)
        workgroup = athena.CfnWorkGroup(
            self,
            "WorkGroup",
            name=stack.stack_name,
            recursive_delete_option=True,
            work_group_configuration=athena.CfnWorkGroup.WorkGroupConfigurationProperty(
                enforce_work_group_configuration=True,
                bytes_scanned_cutoff_per_query=_MOST_BYTES,
                managed_query_results_configuration=athena.CfnWorkGroup.ManagedQueryResultsConfigurationProperty(
                    enabled=True
                ),
            ),
        )
        for name, text in ACCESS_QUERIES.items():
            query = athena.CfnNamedQuery(
                self,
                _id(name),
                name=name,
                database=database,
                query_string=text.strip(),
                work_group=workgroup.name,
            )
            query.node.add_dependency(workgroup)

    def _insights(self, name: str, text: str, log: logs.ILogGroup) -> None:
        logs.CfnQueryDefinition(
            self,
            _id(name),
            name=f"{self._folder}/{name}",
            query_string=text.strip(),
            log_group_names=[log.log_group_name],
        )


def _id(name: str) -> str:
    return "".join(filter(str.isalpha, name.title()))


def _table(
    scope: Construct, name: str, columns: Mapping[str, str], location: str, database: str, days: int
) -> glue.CfnTable:
    """A table of text files, one folder a day. Partition projection names the folders: no crawler runs."""
    named = [column.partition(" ")[::2] for column in columns]
    return glue.CfnTable(
        scope,
        _id(name),
        catalog_id=cdk.Stack.of(scope).account,
        database_name=database,
        table_input=glue.CfnTable.TableInputProperty(
            name=name,
            table_type="EXTERNAL_TABLE",
            partition_keys=[glue.CfnTable.ColumnProperty(name="day", type="string")],
            parameters={
                "projection.enabled": "true",
                "projection.day.type": "date",
                "projection.day.format": "yyyy/MM/dd",
                "projection.day.range": f"NOW-{days}DAYS,NOW",
                "projection.day.interval": "1",
                "projection.day.interval.unit": "DAYS",
                "storage.location.template": f"{location}/${{day}}",
            },
            storage_descriptor=glue.CfnTable.StorageDescriptorProperty(
                location=f"{location}/",
                columns=[
                    glue.CfnTable.ColumnProperty(name=column, type=kind or "string") for column, kind in named
                ],
                input_format="org.apache.hadoop.mapred.TextInputFormat",
                output_format="org.apache.hadoop.hive.ql.io.HiveIgnoreKeyTextOutputFormat",
                serde_info=glue.CfnTable.SerdeInfoProperty(
                    serialization_library="org.apache.hadoop.hive.serde2.RegexSerDe",
                    parameters={"input.regex": "".join(columns.values())},
                ),
            ),
        ),
    )
