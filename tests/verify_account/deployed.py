"""What AWS answers about a deployment that passes every check."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

ISSUER, AUDIENCE = "https://issuer.example.com", "https://mlflow.example.com"
KEY = "arn:aws:kms:eu-central-1:000000000000:key/artifacts"
ROLES = ("auditor", "viewer", "contributor", "approver", "admin")
FORWARD = {"Type": "forward"}
OUTPUTS = {
    "ArtifactBucket": "artifacts",
    "ArtifactKeyArn": KEY,
    "ClusterName": "cluster",
    "ServiceName": "service",
    "DatabaseEndpoint": "database.example.com:5433",
    "LoadBalancerDnsName": "balancer.example.com",
    "UserPoolId": "eu-central-1_Pool",
    "UserPoolClientId": "client",
    "TokenIssuer": ISSUER,
    "TokenAudience": AUDIENCE,
    **{f"{role.capitalize()}PolicyArn": f"arn:aws:iam::000000000000:policy/{role}" for role in ROLES},
}


class Account:
    """The clients of an account: each method answers from `answers`, whatever it is asked about."""

    def __init__(self) -> None:
        self.answers = _answers()

    def __call__(self, _service: str) -> Account:
        return self

    def __getattr__(self, method: str) -> Any:
        def call(**parameters: Any) -> Any:
            # Policies are the only resources of which there are several.
            answer = self.answers[method]
            return answer[parameters["PolicyArn"]] if method == "get_policy_version" else answer

        return call

    def get_paginator(self, method: str) -> Any:
        """A paginator with one page."""
        return _Pages(self.answers[method])


class _Pages:
    def __init__(self, page: Any) -> None:
        self._page = page

    def paginate(self, **_: str) -> Iterator[Any]:
        yield self._page


def program_rule(issuer: str) -> list[dict[str, Any]]:
    """The actions of a rule that checks the tokens of this issuer."""
    audience = {"Name": "aud", "Format": "single-string", "Values": [AUDIENCE]}
    config = {"Issuer": issuer, "AdditionalClaims": [audience]}
    return [{"Type": "jwt-validation", "JwtValidationConfig": config}, FORWARD]


def people_rule(otherwise: str) -> list[dict[str, Any]]:
    """The actions of a rule that signs people in; `otherwise` is for those without a session."""
    config = {"OnUnauthenticatedRequest": otherwise}
    return [{"Type": "authenticate-cognito", "AuthenticateCognitoConfig": config}, FORWARD]


def _answers() -> dict[str, Any]:
    return {**_artifacts(), **_database(), **_tasks(), **_load_balancer(), **_identity()}


def _artifacts() -> dict[str, Any]:
    default = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": KEY}
    encryption = {"ApplyServerSideEncryptionByDefault": default, "BucketKeyEnabled": True}
    blocked = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
    return {
        "get_bucket_encryption": {"ServerSideEncryptionConfiguration": {"Rules": [encryption]}},
        "get_public_access_block": {"PublicAccessBlockConfiguration": dict.fromkeys(blocked, True)},
        "get_bucket_policy": {
            "Policy": '{"Statement": ['
            '{"Effect": "Deny", "Action": "s3:*", "Condition": {"Bool": {"aws:SecureTransport": "false"}}},'
            '{"Effect": "Deny", "Action": "s3:DeleteObjectVersion"}]}'
        },
        "get_bucket_ownership_controls": {
            "OwnershipControls": {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
        },
        "get_bucket_lifecycle_configuration": {"Rules": [{"AbortIncompleteMultipartUpload": {}}]},
        "get_bucket_versioning": {"Status": "Enabled"},
        "get_bucket_logging": {"LoggingEnabled": {}},
    }


def _database() -> dict[str, Any]:
    instance = {
        "DBInstanceArn": "arn:aws:rds:eu-central-1:000000000000:db:mlflow",
        "DbiResourceId": "db-1",
        "Endpoint": {"Address": "database.example.com", "Port": 5433},
        "DBParameterGroups": [{"DBParameterGroupName": "group"}],
        "IAMDatabaseAuthenticationEnabled": True,
        "StorageEncrypted": True,
        "KmsKeyId": KEY,
        "PubliclyAccessible": False,
        "BackupRetentionPeriod": 7,
        "MasterUserSecret": {"SecretStatus": "active"},
    }
    parameter = {"ParameterName": "rds.force_ssl", "ParameterValue": "1"}
    return {
        "describe_db_instances": {"DBInstances": [{}, instance]},
        "describe_db_parameters": {"Parameters": [{"ParameterName": "work_mem"}, parameter]},
    }


def _tasks() -> dict[str, Any]:
    container = {
        "environment": [{"name": "MLFLOW_AWS_DATABASE_HOST"}],
        "readonlyRootFilesystem": True,
        "user": "10001",
        "healthCheck": {"command": ["CMD", "true"]},
    }
    connect = {
        "Effect": "Allow",
        "Action": "rds-db:connect",
        "Resource": "arn:aws:rds-db:eu-central-1:000000000000:dbuser:db-1/mlflow_server",
    }
    return {
        "describe_services": {
            "services": [
                {
                    "taskDefinition": "definition:1",
                    "deploymentConfiguration": {
                        "deploymentCircuitBreaker": {"enable": True, "rollback": True}
                    },
                }
            ]
        },
        "describe_task_definition": {
            "taskDefinition": {
                "taskRoleArn": "arn:aws:iam::000000000000:role/task",
                "executionRoleArn": "arn:aws:iam::000000000000:role/execution",
                "containerDefinitions": [container],
            }
        },
        "list_role_policies": {"PolicyNames": ["policy"]},
        "get_role_policy": {"PolicyDocument": {"Statement": [connect]}},
    }


def _load_balancer() -> dict[str, Any]:
    rules = {
        "10": program_rule(ISSUER),
        "20": people_rule("deny"),
        "30": people_rule("authenticate"),
        "default": [{"Type": "fixed-response", "FixedResponseConfig": {"StatusCode": "401"}}],
    }
    return {
        "describe_load_balancers": {
            "LoadBalancers": [
                {"DNSName": "another.example.com", "LoadBalancerArn": "arn:another"},
                {"DNSName": "balancer.example.com", "LoadBalancerArn": "arn:balancer"},
            ]
        },
        "describe_listeners": {
            "Listeners": [
                {
                    "ListenerArn": "arn:listener",
                    "Protocol": "HTTPS",
                    "Port": 443,
                    "SslPolicy": "ELBSecurityPolicy-TLS13-1-3-2021-06",
                }
            ]
        },
        "describe_load_balancer_attributes": {
            "Attributes": [
                {"Key": "routing.http.drop_invalid_header_fields.enabled", "Value": "true"},
                {"Key": "access_logs.s3.enabled", "Value": "true"},
            ]
        },
        "describe_target_groups": {"TargetGroups": [{"HealthCheckPath": "/ready"}]},
        "describe_rules": {
            "Rules": [{"Priority": name, "Actions": actions} for name, actions in rules.items()]
        },
    }


def _identity() -> dict[str, Any]:
    policy = {
        "PasswordPolicy": {
            "MinimumLength": 14,
            "RequireLowercase": True,
            "RequireUppercase": True,
            "RequireNumbers": True,
            "RequireSymbols": True,
        }
    }
    return {
        "get_outbound_web_identity_federation_info": {"JwtVendingEnabled": True, "IssuerIdentifier": ISSUER},
        "get_policy": {"Policy": {"DefaultVersionId": "v1"}},
        "get_policy_version": {
            OUTPUTS[f"{role.capitalize()}PolicyArn"]: {
                "PolicyVersion": {"Document": {"Statement": _client_statements()}}
            }
            for role in ROLES
        },
        "describe_user_pool": {
            "UserPool": {
                "Policies": policy,
                "AdminCreateUserConfig": {"AllowAdminCreateUserOnly": True},
                "MfaConfiguration": "OPTIONAL",
                "DeletionProtection": "ACTIVE",
            }
        },
        "describe_user_pool_client": {
            "UserPoolClient": {"AllowedOAuthFlows": ["code"], "ClientSecret": "made-up"}
        },
        "list_groups": {"Groups": [{"GroupName": f"mlflow-{role}"} for role in ROLES]},
    }


def _client_statements() -> list[dict[str, Any]]:
    condition = {
        "ForAllValues:StringEquals": {"sts:IdentityTokenAudience": [AUDIENCE]},
        "Null": {"sts:IdentityTokenAudience": "false"},
    }
    return [
        {
            "Effect": "Allow",
            "Action": ["s3:GetObject", "s3:ListBucket"],
            "Resource": "arn:aws:s3:::artifacts",
        },
        {"Effect": "Allow", "Action": "sts:GetWebIdentityToken", "Resource": "*", "Condition": condition},
    ]
