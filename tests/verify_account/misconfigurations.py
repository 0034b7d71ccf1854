"""Changes by hand that a check must notice, each with its undoing and the words of that check's title."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

Client = Callable[[str], Any]
Outputs = Mapping[str, str]
Undo = Callable[[], object]
Change = Callable[["Deployment"], Undo]


class Deployment:
    """A deployment's clients, and its parts by role."""

    def __init__(self, client: Client, outputs: Outputs) -> None:
        self.client, self.outputs = client, outputs

    def stack(self, kind: str, logical: str = "") -> str:
        """The physical id of a resource of the stacks."""
        pages = self.client("cloudformation").get_paginator("list_stack_resources")
        return next(
            str(each["PhysicalResourceId"])
            for stack in ("FoundationStack", "ServiceStack")
            for page in pages.paginate(StackName=self.outputs[stack])
            for each in page["StackResourceSummaries"]
            if each["ResourceType"] == kind and each["LogicalResourceId"].startswith(logical)
        )

    @property
    def bucket(self) -> str:
        return self.outputs["ArtifactBucket"]

    @property
    def instance(self) -> str:
        return self.stack("AWS::RDS::DBInstance")

    @property
    def balancer(self) -> str:
        return self.stack("AWS::ElasticLoadBalancingV2::LoadBalancer")

    @property
    def listener(self) -> str:
        return self.stack("AWS::ElasticLoadBalancingV2::Listener")

    @property
    def target_group(self) -> str:
        return self.stack("AWS::ElasticLoadBalancingV2::TargetGroup")

    def rules(self) -> list[dict[str, Any]]:
        return list(self.client("elbv2").describe_rules(ListenerArn=self.listener)["Rules"])

    def rule(self, priority: str) -> dict[str, Any]:
        return next(each for each in self.rules() if each["Priority"] == priority)


def bucket_policy(add: dict[str, Any] | None = None, without: str = "") -> Change:
    """Add a statement, or take one away by its text."""

    def change(d: Deployment) -> Undo:
        s3 = d.client("s3")
        before = s3.get_bucket_policy(Bucket=d.bucket)["Policy"]
        policy = json.loads(before)
        if without:
            policy["Statement"] = [each for each in policy["Statement"] if without not in json.dumps(each)]
        if add:
            policy["Statement"].append(json.loads(json.dumps(add).replace("BUCKET", d.bucket)))
        s3.put_bucket_policy(Bucket=d.bucket, Policy=json.dumps(policy))
        return lambda: s3.put_bucket_policy(Bucket=d.bucket, Policy=before)

    return change


def public_access(**otherwise: bool) -> Change:
    """Turn parts of the public access block off."""

    def change(d: Deployment) -> Undo:
        s3 = d.client("s3")
        before = s3.get_public_access_block(Bucket=d.bucket)["PublicAccessBlockConfiguration"]
        s3.put_public_access_block(Bucket=d.bucket, PublicAccessBlockConfiguration={**before, **otherwise})
        return lambda: s3.put_public_access_block(Bucket=d.bucket, PublicAccessBlockConfiguration=before)

    return change


def no_public_access_block(d: Deployment) -> Undo:
    s3 = d.client("s3")
    before = s3.get_public_access_block(Bucket=d.bucket)["PublicAccessBlockConfiguration"]
    s3.delete_public_access_block(Bucket=d.bucket)
    return lambda: s3.put_public_access_block(Bucket=d.bucket, PublicAccessBlockConfiguration=before)


def another_sealer(d: Deployment) -> Undo:
    """Let one more role write what is sealed."""
    s3 = d.client("s3")
    before = s3.get_bucket_policy(Bucket=d.bucket)["Policy"]
    policy = json.loads(before)
    (statement,) = (each for each in policy["Statement"] if each.get("Sid") == "OnlyTheServerSeals")
    server = statement["Condition"]["ArnNotEquals"]["aws:PrincipalArn"]
    statement["Condition"]["ArnNotEquals"]["aws:PrincipalArn"] = [server, f"{server}-too"]
    s3.put_bucket_policy(Bucket=d.bucket, Policy=json.dumps(policy))
    return lambda: s3.put_bucket_policy(Bucket=d.bucket, Policy=before)


def copied_elsewhere(d: Deployment) -> Undo:
    """Have S3 copy every artifact to a bucket of somebody's own."""
    s3, name = d.client("s3"), f"{d.bucket[:40]}-elsewhere"
    region = {"LocationConstraint": s3.meta.region_name}
    s3.create_bucket(Bucket=name, CreateBucketConfiguration=region)
    s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    rule = {"ID": "All", "Status": "Enabled", "Priority": 1, "Filter": {"Prefix": ""}}
    rule |= {
        "DeleteMarkerReplication": {"Status": "Disabled"},
        "Destination": {"Bucket": f"arn:aws:s3:::{name}"},
    }
    role = f"arn:aws:iam::{d.client('sts').get_caller_identity()['Account']}:role/any"
    s3.put_bucket_replication(Bucket=d.bucket, ReplicationConfiguration={"Role": role, "Rules": [rule]})

    def undo() -> None:
        s3.delete_bucket_replication(Bucket=d.bucket)
        s3.delete_bucket(Bucket=name)

    return undo


def unblocked(change: Change) -> Change:
    """Make a change that the public access block would refuse."""

    def without_block(d: Deployment) -> Undo:
        block_again = no_public_access_block(d)
        undo = change(d)

        def both() -> None:
            undo()
            block_again()

        return both

    return without_block


def public_acl(d: Deployment) -> Undo:
    s3 = d.client("s3")

    def owner(value: str) -> object:
        return s3.put_bucket_ownership_controls(
            Bucket=d.bucket, OwnershipControls={"Rules": [{"ObjectOwnership": value}]}
        )

    owner("ObjectWriter")
    s3.put_bucket_acl(Bucket=d.bucket, ACL="public-read")

    def undo() -> None:
        s3.put_bucket_acl(Bucket=d.bucket, ACL="private")
        owner("BucketOwnerEnforced")

    return undo


def versioning(d: Deployment) -> Undo:
    def put(status: str) -> object:
        return d.client("s3").put_bucket_versioning(
            Bucket=d.bucket, VersioningConfiguration={"Status": status}
        )

    put("Suspended")
    return lambda: put("Enabled")


def expiry(d: Deployment) -> Undo:
    s3 = d.client("s3")
    before = s3.get_bucket_lifecycle_configuration(Bucket=d.bucket)["Rules"]
    rule = {"ID": "Clean", "Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 30}}

    def put(rules: list[Any]) -> object:
        return s3.put_bucket_lifecycle_configuration(Bucket=d.bucket, LifecycleConfiguration={"Rules": rules})

    put([*before, rule])
    return lambda: put(before)


def bucket_logging(d: Deployment) -> Undo:
    s3 = d.client("s3")
    before = s3.get_bucket_logging(Bucket=d.bucket)["LoggingEnabled"]
    s3.put_bucket_logging(Bucket=d.bucket, BucketLoggingStatus={})
    return lambda: s3.put_bucket_logging(Bucket=d.bucket, BucketLoggingStatus={"LoggingEnabled": before})


def other_encryption(d: Deployment) -> Undo:
    s3 = d.client("s3")
    before = s3.get_bucket_encryption(Bucket=d.bucket)["ServerSideEncryptionConfiguration"]

    def put(configuration: Any) -> object:
        return s3.put_bucket_encryption(Bucket=d.bucket, ServerSideEncryptionConfiguration=configuration)

    put({"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]})
    return lambda: put(before)


def instance(changed: Mapping[str, Any], right: Mapping[str, Any]) -> Change:
    """Modify the database instance."""

    def change(d: Deployment) -> Undo:
        rds, name = d.client("rds"), d.instance

        def modify(values: Mapping[str, Any]) -> object:
            return rds.modify_db_instance(DBInstanceIdentifier=name, ApplyImmediately=True, **values)

        modify(changed)
        return lambda: modify(right)

    return change


def force_ssl_off(d: Deployment) -> Undo:
    rds = d.client("rds")
    found = rds.describe_db_instances(DBInstanceIdentifier=d.instance)["DBInstances"][0]
    group = found["DBParameterGroups"][0]["DBParameterGroupName"]

    def put(value: str) -> object:
        parameter = {"ParameterName": "rds.force_ssl", "ParameterValue": value, "ApplyMethod": "immediate"}
        return rds.modify_db_parameter_group(DBParameterGroupName=group, Parameters=[parameter])

    put("0")
    return lambda: put("1")


def other_parameter_group(d: Deployment) -> Undo:
    rds, name = d.client("rds"), d.instance
    found = rds.describe_db_instances(DBInstanceIdentifier=name)["DBInstances"][0]
    before = found["DBParameterGroups"][0]["DBParameterGroupName"]
    rds.create_db_parameter_group(
        DBParameterGroupName="lax", DBParameterGroupFamily="postgres18", Description="lax"
    )

    def put(group: str) -> object:
        return rds.modify_db_instance(
            DBInstanceIdentifier=name, DBParameterGroupName=group, ApplyImmediately=True
        )

    put("lax")

    def undo() -> None:
        put(before)
        rds.delete_db_parameter_group(DBParameterGroupName="lax")

    return undo


def shared_snapshot(d: Deployment) -> Undo:
    rds = d.client("rds")
    rds.create_db_snapshot(DBSnapshotIdentifier="shared", DBInstanceIdentifier=d.instance)
    rds.get_waiter("db_snapshot_available").wait(
        DBSnapshotIdentifier="shared", WaiterConfig={"Delay": 1, "MaxAttempts": 120}
    )
    rds.modify_db_snapshot_attribute(
        DBSnapshotIdentifier="shared", AttributeName="restore", ValuesToAdd=["all"]
    )
    return lambda: rds.delete_db_snapshot(DBSnapshotIdentifier="shared")


def admitted(logical: str, port: int, cidr: str = "0.0.0.0/0", *, egress: bool = False) -> Change:
    """Add a rule to a security group of the stacks."""

    def change(d: Deployment) -> Undo:
        ec2, group = d.client("ec2"), d.stack("AWS::EC2::SecurityGroup", logical)
        way = "egress" if egress else "ingress"
        ranges = {"Ipv6Ranges": [{"CidrIpv6": cidr}]} if ":" in cidr else {"IpRanges": [{"CidrIp": cidr}]}
        permission = {"IpProtocol": "tcp", "FromPort": port, "ToPort": port, **ranges}
        getattr(ec2, f"authorize_security_group_{way}")(GroupId=group, IpPermissions=[permission])
        return lambda: getattr(ec2, f"revoke_security_group_{way}")(GroupId=group, IpPermissions=[permission])

    return change


def role_policy(statement: Mapping[str, Any], logical: str = "ServerRole") -> Change:
    """Add a policy to a role of the stacks."""

    def change(d: Deployment) -> Undo:
        iam, role = d.client("iam"), d.stack("AWS::IAM::Role", logical)
        document = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", **statement}]}
        iam.put_role_policy(RoleName=role, PolicyName="more", PolicyDocument=json.dumps(document))
        return lambda: iam.delete_role_policy(RoleName=role, PolicyName="more")

    return change


def attached_policy(d: Deployment) -> Undo:
    iam, role = d.client("iam"), d.stack("AWS::IAM::Role", "ServerRole")
    arn = d.outputs["AdminPolicyArn"]
    iam.attach_role_policy(RoleName=role, PolicyArn=arn)
    return lambda: iam.detach_role_policy(RoleName=role, PolicyArn=arn)


def trusting_everybody(d: Deployment) -> Undo:
    iam, role = d.client("iam"), d.stack("AWS::IAM::Role", "ServerRole")
    before = iam.get_role(RoleName=role)["Role"]["AssumeRolePolicyDocument"]
    more = {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}

    def put(document: Any) -> object:
        return iam.update_assume_role_policy(RoleName=role, PolicyDocument=json.dumps(document))

    put({**before, "Statement": [*before["Statement"], more]})
    return lambda: put(before)


def client_policy(change_document: Callable[[Any], object], output: str = "ContributorPolicyArn") -> Change:
    """Give a client's policy another default version."""

    def change(d: Deployment) -> Undo:
        iam, arn = d.client("iam"), d.outputs[output]
        first = iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
        document = iam.get_policy_version(PolicyArn=arn, VersionId=first)["PolicyVersion"]["Document"]
        changed = json.loads(json.dumps(document))
        change_document(changed["Statement"])
        made = iam.create_policy_version(
            PolicyArn=arn, PolicyDocument=json.dumps(changed), SetAsDefault=True
        )["PolicyVersion"]["VersionId"]

        def undo() -> None:
            iam.set_default_policy_version(PolicyArn=arn, VersionId=first)
            iam.delete_policy_version(PolicyArn=arn, VersionId=made)

        return undo

    return change


def key_policy(d: Deployment) -> Undo:
    kms, key = d.client("kms"), d.outputs["ArtifactKeyArn"]
    before = kms.get_key_policy(KeyId=key, PolicyName="default")["Policy"]
    policy = json.loads(before)
    policy["Statement"].append(
        {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "kms:Decrypt", "Resource": "*"}
    )
    kms.put_key_policy(KeyId=key, PolicyName="default", Policy=json.dumps(policy))
    return lambda: kms.put_key_policy(KeyId=key, PolicyName="default", Policy=before)


def no_rotation(d: Deployment) -> Undo:
    kms, key = d.client("kms"), d.outputs["ArtifactKeyArn"]
    kms.disable_key_rotation(KeyId=key)
    return lambda: kms.enable_key_rotation(KeyId=key)


def secret_policy(d: Deployment) -> Undo:
    rds, secrets = d.client("rds"), d.client("secretsmanager")
    found = rds.describe_db_instances(DBInstanceIdentifier=d.instance)["DBInstances"][0]
    arn = found["MasterUserSecret"]["SecretArn"]
    statement = {
        "Effect": "Allow",
        "Principal": {"AWS": "*"},
        "Action": "secretsmanager:GetSecretValue",
        "Resource": "*",
    }
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    secrets.put_resource_policy(SecretId=arn, ResourcePolicy=document)
    return lambda: secrets.delete_resource_policy(SecretId=arn)


def listener(changed: Mapping[str, Any], *back: str) -> Change:
    """Modify the listener; `back` are the properties to restore."""

    def change(d: Deployment) -> Undo:
        elb, arn = d.client("elbv2"), d.listener
        before = elb.describe_listeners(ListenerArns=[arn])["Listeners"][0]
        values = json.loads(json.dumps(changed).replace("TARGETS", d.target_group))
        elb.modify_listener(ListenerArn=arn, **values)
        return lambda: elb.modify_listener(ListenerArn=arn, **{key: before[key] for key in back})

    return change


def another_listener(**properties: Any) -> Change:
    """Add a listener that forwards."""

    def change(d: Deployment) -> Undo:
        elb = d.client("elbv2")
        made = elb.create_listener(
            LoadBalancerArn=d.balancer,
            DefaultActions=[{"Type": "forward", "TargetGroupArn": d.target_group}],
            **properties,
        )["Listeners"][0]["ListenerArn"]
        return lambda: elb.delete_listener(ListenerArn=made)

    return change


def another_balancer(d: Deployment) -> Undo:
    elb = d.client("elbv2")
    made = elb.create_load_balancer(Name="beside", Scheme="internet-facing")["LoadBalancers"][0]
    elb.create_listener(
        LoadBalancerArn=made["LoadBalancerArn"],
        Protocol="HTTP",
        Port=80,
        DefaultActions=[{"Type": "forward", "TargetGroupArn": d.target_group}],
    )
    return lambda: elb.delete_load_balancer(LoadBalancerArn=made["LoadBalancerArn"])


def rule_order(d: Deployment) -> Undo:
    elb = d.client("elbv2")
    programs, visited = d.rule("10")["RuleArn"], d.rule("30")["RuleArn"]

    def put(first: str, second: str) -> object:
        priorities = [{"RuleArn": first, "Priority": 10}, {"RuleArn": second, "Priority": 30}]
        return elb.set_rule_priorities(RulePriorities=priorities)

    put(visited, programs)
    return lambda: put(programs, visited)


def another_rule(d: Deployment) -> Undo:
    elb = d.client("elbv2")
    made = elb.create_rule(
        ListenerArn=d.listener,
        Priority=5,
        Conditions=[{"Field": "path-pattern", "Values": ["/debug/*"]}],
        Actions=[{"Type": "forward", "TargetGroupArn": d.target_group}],
    )["Rules"][0]["RuleArn"]
    return lambda: elb.delete_rule(RuleArn=made)


def rule(priority: str, change_actions: Callable[[list[dict[str, Any]]], object]) -> Change:
    """Modify the actions of a rule."""

    def change(d: Deployment) -> Undo:
        elb, before = d.client("elbv2"), d.rule(priority)
        actions = json.loads(json.dumps(before["Actions"]))
        change_actions(actions)
        elb.modify_rule(RuleArn=before["RuleArn"], Actions=actions)
        return lambda: elb.modify_rule(RuleArn=before["RuleArn"], Actions=before["Actions"])

    return change


def rule_condition(d: Deployment) -> Undo:
    elb, before = d.client("elbv2"), d.rule("10")
    elb.modify_rule(RuleArn=before["RuleArn"], Conditions=[{"Field": "path-pattern", "Values": ["/api/*"]}])
    return lambda: elb.modify_rule(
        RuleArn=before["RuleArn"],
        Conditions=[
            {"Field": "http-header", "HttpHeaderConfig": before["Conditions"][0]["HttpHeaderConfig"]}
        ],
    )


def balancer_attribute(key: str, value: str, right: str) -> Change:
    """Set an attribute of the load balancer."""

    def change(d: Deployment) -> Undo:
        def put(to: str) -> object:
            return d.client("elbv2").modify_load_balancer_attributes(
                LoadBalancerArn=d.balancer, Attributes=[{"Key": key, "Value": to}]
            )

        put(value)
        return lambda: put(right)

    return change


def insecure_transport(d: Deployment) -> Undo:
    """Let browsers come back without TLS."""
    key = "routing.http.response.strict_transport_security.header_value"

    def put(to: str) -> object:
        return d.client("elbv2").modify_listener_attributes(
            ListenerArn=d.listener, Attributes=[{"Key": key, "Value": to}]
        )

    put("max-age=0")
    return lambda: put("max-age=63072000")


def health_path(d: Deployment) -> Undo:
    def put(path: str) -> object:
        return d.client("elbv2").modify_target_group(TargetGroupArn=d.target_group, HealthCheckPath=path)

    put("/")
    return lambda: put("/ready")


def another_target(d: Deployment) -> Undo:
    elb, target = d.client("elbv2"), [{"Id": "10.42.48.250", "Port": 5000}]
    elb.register_targets(TargetGroupArn=d.target_group, Targets=target)
    return lambda: elb.deregister_targets(TargetGroupArn=d.target_group, Targets=target)


def pool(changed: Mapping[str, Any], right: Mapping[str, Any]) -> Change:
    """Update the user pool."""

    def change(d: Deployment) -> Undo:
        def put(values: Mapping[str, Any]) -> object:
            return d.client("cognito-idp").update_user_pool(UserPoolId=d.outputs["UserPoolId"], **values)

        put(changed)
        return lambda: put(right)

    return change


def another_application(d: Deployment) -> Undo:
    cognito, pool_id = d.client("cognito-idp"), d.outputs["UserPoolId"]
    made = cognito.create_user_pool_client(UserPoolId=pool_id, ClientName="beside")["UserPoolClient"]
    return lambda: cognito.delete_user_pool_client(UserPoolId=pool_id, ClientId=made["ClientId"])


def another_provider(d: Deployment) -> Undo:
    cognito, pool_id = d.client("cognito-idp"), d.outputs["UserPoolId"]
    cognito.create_identity_provider(
        UserPoolId=pool_id,
        ProviderName="Beside",
        ProviderType="SAML",
        ProviderDetails={"MetadataURL": "https://idp.example.com"},
    )
    return lambda: cognito.delete_identity_provider(UserPoolId=pool_id, ProviderName="Beside")


def user_pool_client(**changed: Any) -> Change:
    """Update the load balancer's client of the user pool."""

    def change(d: Deployment) -> Undo:
        cognito = d.client("cognito-idp")
        place = {"UserPoolId": d.outputs["UserPoolId"], "ClientId": d.outputs["UserPoolClientId"]}
        found = cognito.describe_user_pool_client(**place)["UserPoolClient"]
        before = {key: found[key] for key in changed}
        cognito.update_user_pool_client(**place, **changed)
        return lambda: cognito.update_user_pool_client(**place, **before)

    return change


def federation_off(d: Deployment) -> Undo:
    iam = d.client("iam")
    iam.disable_outbound_web_identity_federation()
    return lambda: iam.enable_outbound_web_identity_federation()


def log_key(d: Deployment) -> Undo:
    logs, name = d.client("logs"), d.stack("AWS::Logs::LogGroup", "ClusterLog")
    found = logs.describe_log_groups(logGroupNamePrefix=name)["logGroups"][0]
    logs.disassociate_kms_key(logGroupName=name)
    return lambda: logs.associate_kms_key(logGroupName=name, kmsKeyId=found["kmsKeyId"])


def log_for_ever(d: Deployment) -> Undo:
    logs, name = d.client("logs"), d.stack("AWS::Logs::LogGroup", "ClusterLog")
    logs.delete_retention_policy(logGroupName=name)
    return lambda: logs.put_retention_policy(logGroupName=name, retentionInDays=30)


def service(changed: Mapping[str, Any], right: Mapping[str, Any]) -> Change:
    """Update the ECS service."""

    def change(d: Deployment) -> Undo:
        ecs = d.client("ecs")
        place = {"cluster": d.outputs["ClusterName"], "service": d.outputs["ServiceName"]}
        ecs.update_service(**place, **changed)
        return lambda: ecs.update_service(**place, **right)

    return change


def public_address(d: Deployment) -> Undo:
    ecs = d.client("ecs")
    place = {"cluster": d.outputs["ClusterName"], "service": d.outputs["ServiceName"]}
    found = ecs.describe_services(cluster=place["cluster"], services=[place["service"]])["services"][0]
    before = found["networkConfiguration"]["awsvpcConfiguration"]

    def put(value: str) -> object:
        changed = {"awsvpcConfiguration": {**before, "assignPublicIp": value}}
        return ecs.update_service(**place, networkConfiguration=changed)

    put("ENABLED")
    return lambda: put("DISABLED")


def another_admin(d: Deployment) -> Undo:
    """A definition in which one more group has the role admin."""
    ecs = d.client("ecs")
    place = {"cluster": d.outputs["ClusterName"], "service": d.outputs["ServiceName"]}
    found = ecs.describe_services(cluster=place["cluster"], services=[place["service"]])["services"][0]
    before = found["taskDefinition"]
    definition = ecs.describe_task_definition(taskDefinition=before)["taskDefinition"]
    text = json.dumps(definition["containerDefinitions"]).replace(
        '\\"mlflow-admin\\"]', '\\"mlflow-admin\\",\\"interns\\"]'
    )
    assert "interns" in text
    kept = ("family", "taskRoleArn", "executionRoleArn", "networkMode", "volumes", "cpu", "memory")
    made = ecs.register_task_definition(
        containerDefinitions=json.loads(text), **{key: definition[key] for key in kept}
    )["taskDefinition"]["taskDefinitionArn"]
    ecs.update_service(**place, taskDefinition=made, desiredCount=0)
    return lambda: ecs.update_service(**place, taskDefinition=before, desiredCount=1)


def route_out(d: Deployment) -> Undo:
    ec2 = d.client("ec2")
    table = d.stack("AWS::EC2::RouteTable", "NetworkVpcIsolatedSubnet1")
    gateway = d.stack("AWS::EC2::InternetGateway")
    ec2.create_route(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway)
    return lambda: ec2.delete_route(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0")


_READ_ALL = {
    "Effect": "Allow",
    "Principal": "*",
    "Action": "s3:GetObject",
    "Resource": "arn:aws:s3:::BUCKET/*",
}
_PASSWORDS = {
    "MinimumLength": 14,
    "RequireUppercase": True,
    "RequireLowercase": True,
    "RequireNumbers": True,
    "RequireSymbols": True,
}


def issuer(url: str) -> Callable[[list[dict[str, Any]]], object]:
    def change(actions: list[dict[str, Any]]) -> None:
        actions[0]["JwtValidationConfig"] |= {"Issuer": url, "JwksEndpoint": f"{url}/.well-known/jwks.json"}

    return change


# What is changed, and words of the titles of the checks that fail then.
TWELVE: Mapping[str, tuple[Change, str]] = {
    "bucket public": (no_public_access_block, "block all public access"),
    "TLS policy weakened": (
        listener({"SslPolicy": "ELBSecurityPolicy-TLS13-1-2-2021-06"}, "SslPolicy"),
        "TLS 1.3 only",
    ),
    "port 5000 opened": (admitted("ServerTaskSecurityGroup", 5000), "security groups admit"),
    "wildcard action": (
        role_policy({"Action": "s3:*", "Resource": "arn:aws:s3:::another/*"}),
        "no wildcard action",
    ),
    "deletion protection off": (
        instance({"DeletionProtection": False}, {"DeletionProtection": True}),
        "protected from deletion, if",
    ),
    "IAM authentication off": (
        instance({"EnableIAMDatabaseAuthentication": False}, {"EnableIAMDatabaseAuthentication": True}),
        "accepts IAM tokens",
    ),
    "versioning suspended": (versioning, "are versioned"),
    "log group unencrypted": (log_key, "every log is encrypted"),
    "listener rule order": (rule_order, "in their order"),
    "plain HTTP listener": (another_listener(Protocol="HTTP", Port=80), "only listener is HTTPS"),
    "another account's issuer": (
        rule("10", issuer("https://another.tokens.sts.global.api.aws")),
        "checks a token's issuer",
    ),
    "snapshot shared": (shared_snapshot, "no snapshot"),
}
MORE: Mapping[str, tuple[Change, str]] = {
    "bucket policy for everybody": (unblocked(bucket_policy(add=_READ_ALL)), "buckets' policies say"),
    "bucket policy for another account": (
        bucket_policy(add={**_READ_ALL, "Principal": {"AWS": "arn:aws:iam::444455556666:root"}}),
        "buckets' policies say",
    ),
    "versions may be deleted": (bucket_policy(without="OnlyBreakGlass"), "nobody deletes"),
    "what is sealed may be written": (bucket_policy(without="OnlyTheServerSeals"), "nobody deletes it"),
    "what is sealed may be deleted": (bucket_policy(without="NobodyDeletesSealed"), "nobody deletes it"),
    "artifacts copied elsewhere": (copied_elsewhere, "copied where the stacks say"),
    "another role seals": (another_sealer, "nobody deletes it"),
    "plain HTTP to the bucket": (bucket_policy(without="SecureTransport"), "without TLS"),
    "other keys admitted": (bucket_policy(without="OnlyOurKey"), "buckets' policies say"),
    "public access partly open": (public_access(RestrictPublicBuckets=False), "block all public access"),
    "bucket's access list": (unblocked(public_acl), "no access list"),
    "artifacts expire": (expiry, "removes current artifacts"),
    "bucket's log off": (bucket_logging, "access to the bucket"),
    "bucket without its key": (other_encryption, "encrypted under their own key"),
    "database public": (
        instance({"PubliclyAccessible": True}, {"PubliclyAccessible": False}),
        "not public",
    ),
    "no backups": (
        instance({"BackupRetentionPeriod": 0}, {"BackupRetentionPeriod": 7}),
        "backups are kept",
    ),
    "TLS not required": (force_ssl_off, "database requires TLS"),
    "other parameters": (other_parameter_group, "the stack's parameters"),
    "database from anywhere": (admitted("DatabaseSecurityGroup", 5433), "security groups admit"),
    "database from anywhere, IPv6": (
        admitted("DatabaseSecurityGroup", 5433, "::/0"),
        "security groups admit",
    ),
    "load balancer on port 80": (admitted("IngressSecurityGroup", 80, "10.0.0.0/8"), "security groups admit"),
    "more networks": (admitted("IngressSecurityGroup", 443), "security groups admit"),
    "tasks reach anything": (
        admitted("ServerTaskSecurityGroup", 22, egress=True),
        "security groups admit",
    ),
    "database reaches the internet": (route_out, "no route to the internet"),
    "one more policy": (
        role_policy({"Action": "s3:PutObject", "Resource": "arn:aws:s3:::another/key"}),
        "roles may do what the stacks say",
    ),
    "the migration's role may do more": (
        role_policy({"Action": "s3:PutObject", "Resource": "arn:aws:s3:::a/b"}, "MigrationTaskRole"),
        "roles may do what the stacks say",
    ),
    "policy attached": (attached_policy, "roles may do what the stacks say"),
    "role for everybody": (trusting_everybody, "roles are taken by"),
    "client policy widened": (
        client_policy(lambda s: s[1]["Action"].append("s3:PutBucketPolicy")),
        "policies of clients",
    ),
    "viewer writes": (
        client_policy(lambda s: s[1].update(Action=["s3:PutObject"]), "ViewerPolicyArn"),
        "write nothing",
    ),
    "tokens for anything": (client_policy(lambda s: s[3].pop("Condition")), "tokens for this deployment"),
    "key for everybody": (key_policy, "keys may be used by"),
    "key does not rotate": (no_rotation, "keys are enabled"),
    "secret for everybody": (secret_policy, "administrator's secret"),
    "other certificate": (
        listener(
            {"Certificates": [{"CertificateArn": "arn:aws:acm:eu-central-1:000000000000:certificate/other"}]},
            "Certificates",
        ),
        "the stack's certificate",
    ),
    "open by default": (
        listener({"DefaultActions": [{"Type": "forward", "TargetGroupArn": "TARGETS"}]}, "DefaultActions"),
        "gets 401",
    ),
    "weaker listener on another port": (
        another_listener(
            Protocol="HTTPS",
            Port=8443,
            SslPolicy="ELBSecurityPolicy-2016-08",
            Certificates=[{"CertificateArn": "arn:aws:acm:eu-central-1:000000000000:certificate/other"}],
        ),
        "only listener is HTTPS",
    ),
    "another load balancer": (another_balancer, "nothing else does"),
    "another target": (another_target, "requests go to the service's tasks"),
    "rule that forwards": (another_rule, "identifies the caller"),
    "programs unchecked": (rule("10", lambda a: a.pop(0)), "identifies the caller"),
    "any audience": (
        rule("10", lambda a: a[0]["JwtValidationConfig"].pop("AdditionalClaims")),
        "checks a token's issuer",
    ),
    "other condition": (rule_condition, "in their order"),
    "calls sent to sign in": (
        rule("20", lambda a: a[0]["AuthenticateCognitoConfig"].update(OnUnauthenticatedRequest="allow")),
        "calls are refused",
    ),
    "another client's sessions": (
        rule("30", lambda a: a[0]["AuthenticateCognitoConfig"].update(UserPoolClientId="other")),
        "sessions are the user pool's",
    ),
    "invalid headers": (
        balancer_attribute("routing.http.drop_invalid_header_fields.enabled", "false", "true"),
        "drops invalid headers",
    ),
    "load balancer's log off": (balancer_attribute("access_logs.s3.enabled", "false", "true"), "access logs"),
    "desync": (
        balancer_attribute("routing.http.desync_mitigation_mode", "monitor", "defensive"),
        "as the stack says",
    ),
    "no HSTS": (insecure_transport, "over TLS only"),
    "health": (health_path, "/ready says so"),
    "people sign up": (
        pool(
            {"AdminCreateUserConfig": {"AllowAdminCreateUserOnly": False}},
            {"AdminCreateUserConfig": {"AllowAdminCreateUserOnly": True}},
        ),
        "nobody signs up",
    ),
    "short passwords": (
        pool(
            {"Policies": {"PasswordPolicy": {**_PASSWORDS, "MinimumLength": 8}}},
            {"Policies": {"PasswordPolicy": _PASSWORDS}},
        ),
        "passwords are long",
    ),
    "no second factor": (
        pool({"MfaConfiguration": "OFF"}, {"MfaConfiguration": "OPTIONAL"}),
        "second factor",
    ),
    "pool may go": (
        pool({"DeletionProtection": "INACTIVE"}, {"DeletionProtection": "ACTIVE"}),
        "pool is protected",
    ),
    "trigger": (
        pool(
            {"LambdaConfig": {"PreAuthentication": "arn:aws:lambda:eu-central-1:000000000000:function:x"}},
            {"LambdaConfig": {}},
        ),
        "no function",
    ),
    "another application": (another_application, "only application"),
    "another provider": (another_provider, "identity providers"),
    "implicit flow": (user_pool_client(AllowedOAuthFlows=["implicit"]), "authorization code flow"),
    "password flow": (
        user_pool_client(ExplicitAuthFlows=["ALLOW_ADMIN_USER_PASSWORD_AUTH", "ALLOW_REFRESH_TOKEN_AUTH"]),
        "authorization code flow",
    ),
    "tokens for a day": (user_pool_client(AccessTokenValidity=1440), "authorization code flow"),
    "other callback": (
        user_pool_client(CallbackURLs=["https://example.org/oauth2/idpresponse"]),
        "return to this deployment",
    ),
    "federation off": (federation_off, "outbound federation"),
    "log never expires": (log_for_ever, "every log is encrypted"),
    "shell": (service({"enableExecuteCommand": True}, {"enableExecuteCommand": False}), "opens a shell"),
    "no rollback": (
        service(
            {"deploymentConfiguration": {"deploymentCircuitBreaker": {"enable": False, "rollback": False}}},
            {"deploymentConfiguration": {"deploymentCircuitBreaker": {"enable": True, "rollback": True}}},
        ),
        "rolled back",
    ),
    "public address": (public_address, "no public address"),
    "second admin group": (another_admin, "the stack's definition"),
}


@contextmanager
def made(change: Change, deployment: Deployment) -> Iterator[None]:
    """The deployment with this change."""
    undo = change(deployment)
    try:
        yield
    finally:
        undo()
