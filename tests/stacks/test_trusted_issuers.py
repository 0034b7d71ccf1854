"""Programs of other accounts sign in with their own account's issuer, and reach what their role may."""

import base64
import fnmatch
import itertools
import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from pydantic import ValidationError

from stacks.config import EnvironmentConfig
from tests.stacks.conftest import merged, read_config
from tests.stacks.templates import Assembly, Properties, as_list

ACCOUNT, PARTNER, LAB = "111122223333", "222233334444", "333344445555"
ISSUERS = {
    account: f"https://{number}a1d2b0fd-1177-4468-9351-2f00000000{number}.tokens.sts.global.api.aws"
    for number, account in enumerate((ACCOUNT, PARTNER, LAB))
}
READERS = (f"arn:aws:iam::{PARTNER}:role/analysts/*", f"arn:aws:iam::{LAB}:role/reports")
WRITER = f"arn:aws:iam::{PARTNER}:role/train"
TRUSTED = [{"account": account, "issuer": ISSUERS[account]} for account in (PARTNER, LAB)]
IDENTITY: dict[str, Any] = {
    "token_issuer": ISSUERS[ACCOUNT],
    "trusted_issuers": TRUSTED,
    "roles": {
        "viewer": {"iam_roles": [f"arn:aws:iam::{ACCOUNT}:role/viewer", *READERS]},
        "contributor": {"iam_roles": [WRITER]},
    },
}
AUDIENCE = "https://mlflow.dev.example.com"


@pytest.fixture(scope="module")
def shared(build: Callable[..., Assembly]) -> Assembly:
    """A deployment that programs of three accounts use, where an administrator has enabled federation."""
    return build("dev", {"account": ACCOUNT, "artifacts": {"prefix": "team"}, "identity": IDENTITY})


def parse(identity: Mapping[str, Any], account: str | None = ACCOUNT) -> EnvironmentConfig:
    changes = {"account": account, "identity": merged(IDENTITY, identity)}
    return EnvironmentConfig.model_validate(merged(read_config("dev"), changes))


# -- the file -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "issuer",
    [
        "http://a1.tokens.sts.global.api.aws",
        "https://a1.tokens.sts.global.api.aws/",
        "https://a1.tokens.sts.global.api.aws/.well-known/openid-configuration",
        "https://a1.tokens.sts.global.api.aws:443",
        "https://a1.tokens.sts.global.api.aws.",
        "https://a1.b2.tokens.sts.global.api.aws",
        "https://tokens.sts.global.api.aws",
        "https://oidc.eks.eu-central-1.amazonaws.com",
        "https://user@a1.tokens.sts.global.api.aws",
        "https://localhost",
        "a1.tokens.sts.global.api.aws",
    ],
)
def test_what_is_not_an_issuer_of_an_account_is_refused(issuer: str) -> None:
    for identity in (
        {"token_issuer": issuer},
        {"trusted_issuers": [{"account": PARTNER, "issuer": issuer}]},
    ):
        with pytest.raises(ValidationError, match="is not the issuer of an account's tokens"):
            parse(identity)


@pytest.mark.parametrize("account", ["22223333444", "2222333344445", "aaaabbbbcccc", "*"])
def test_an_account_has_twelve_digits(account: str) -> None:
    with pytest.raises(ValidationError):
        parse({"trusted_issuers": [{"account": account, "issuer": ISSUERS[PARTNER]}]})


@pytest.mark.parametrize(
    ("identity", "key"),
    [
        ({"trusted_issuers": [{"account": PARTNER, "issuer": ISSUERS[PARTNER]}] * 2}, "account"),
        (
            {"trusted_issuers": [{"account": each, "issuer": ISSUERS[LAB]} for each in (PARTNER, LAB)]},
            "issuer",
        ),
        ({"token_issuer": ISSUERS[LAB]}, "issuer"),
    ],
)
def test_an_account_has_one_issuer_and_an_issuer_one_account(identity: Mapping[str, Any], key: str) -> None:
    with pytest.raises(ValidationError, match="is given twice") as caught:
        parse(identity)
    assert caught.value.errors()[0]["ctx"]["key"] == f"trusted_issuers.{key}"


def test_the_deployment_s_own_account_is_not_another() -> None:
    with pytest.raises(ValidationError, match="is the deployment's own account"):
        parse({}, account=PARTNER)


def test_a_role_whose_tokens_nobody_could_verify_is_refused() -> None:
    with pytest.raises(ValidationError, match="is a role outside account") as caught:
        parse({"trusted_issuers": TRUSTED[:1]})
    context = caught.value.errors()[0]["ctx"]
    assert (context["key"], context["value"]) == ("identity.roles.viewer.iam_roles", READERS[1])
    assert "[[identity.trusted_issuers]]" in context["remedy"]


def test_one_account_at_most_is_taken_for_the_deployment_s_where_the_file_names_none() -> None:
    assert parse({}, account=None)
    with pytest.raises(ValidationError, match="one of the two is not the deployment's"):
        parse({"trusted_issuers": TRUSTED[:1]}, account=None)


def test_more_accounts_than_the_load_balancer_has_room_for_are_left_to_the_server() -> None:
    five = [
        {"account": f"{number:012}", "issuer": f"https://a{number}.tokens.sts.global.api.aws"}
        for number in range(5)
    ]
    members: Mapping[str, Any] = {"roles": {"viewer": {"iam_roles": []}, "contributor": {"iam_roles": []}}}
    with pytest.raises(ValidationError, match="are 5 accounts"):
        parse({"trusted_issuers": five, **members})
    assert parse({"trusted_issuers": five, "edge_jwt_check": False, **members})
    assert parse({"trusted_issuers": five[:4], **members})


# -- whom the server and the load balancer believe -----------------------------------------------------


def rules(assembly: Assembly) -> dict[int, Properties]:
    return {
        each["Priority"]: each for each in assembly.service.all("AWS::ElasticLoadBalancingV2::ListenerRule")
    }


def chosen(assembly: Assembly, token: str) -> str:
    """The issuer in the first rule that a request with this token meets, as a load balancer compares."""
    for _, rule in sorted(rules(assembly).items()):
        (condition,) = rule["Conditions"]
        values = condition.get("HttpHeaderConfig", {}).get("Values", [])
        if any(fnmatch.fnmatchcase(f"bearer {token}".lower(), value.lower()) for value in values):
            return str(rule["Actions"][0]["JwtValidationConfig"]["Issuer"])
    raise AssertionError("a program's request meets no rule")


def token(*claims: tuple[str, object]) -> str:
    written = json.dumps(dict(claims), separators=(",", ":")).encode()
    return f"eyJhbGciOiJSUzI1NiJ9.{base64.urlsafe_b64encode(written).decode().rstrip('=')}.c2lnbmF0dXJl"


@pytest.mark.parametrize("account", ISSUERS)
@pytest.mark.parametrize("length", range(4))
def test_a_token_is_checked_by_the_rule_of_its_issuer_wherever_the_claim_stands(
    shared: Assembly, account: str, length: int
) -> None:
    claims = [("iss", ISSUERS[account]), ("aud", AUDIENCE), ("sub", "x" * length)]
    for order in itertools.permutations(claims):
        assert chosen(shared, token(*order)) == ISSUERS[account]


def test_a_claim_that_only_looks_like_another_account_s_leads_to_a_check_that_refuses_it(
    shared: Assembly,
) -> None:
    """Whatever rule a token chooses, that rule demands its own issuer's signature."""
    lie = token(("iss", ISSUERS[ACCOUNT]), ("note", ISSUERS[PARTNER]))
    assert chosen(shared, lie) == ISSUERS[PARTNER]
    for rule in (each for priority, each in rules(shared).items() if priority <= 10):
        assert [each["Type"] for each in rule["Actions"]] == ["jwt-validation", "forward"]


def test_every_rule_for_programs_fetches_its_own_issuer_s_keys_and_demands_our_audience(
    shared: Assembly,
) -> None:
    assert sorted(rules(shared)) == [1, 2, 3, 4, 10, 20, 30]
    for priority in (1, 2, 3, 4, 10):
        check = rules(shared)[priority]["Actions"][0]["JwtValidationConfig"]
        assert check["JwksEndpoint"] == f"{check['Issuer']}/.well-known/jwks.json"
        assert check["AdditionalClaims"] == [{"Name": "aud", "Format": "single-string", "Values": [AUDIENCE]}]


def test_rules_stay_within_what_a_load_balancer_takes(shared: Assembly) -> None:
    for rule in rules(shared).values():
        (condition,) = rule["Conditions"]
        values = condition.get("HttpHeaderConfig", {}).get("Values", [])
        assert len(values) <= 3
        assert sum(value.count("*") + value.count("?") for value in values) <= 5
        assert all(len(value) <= 128 and value.isascii() and value.isprintable() for value in values)


def test_the_server_is_told_each_issuer_s_account(shared: Assembly) -> None:
    task = shared.service.one("AWS::ECS::TaskDefinition", id_starts="ServerTaskDefinition")
    environment = {each["Name"]: each["Value"] for each in task["ContainerDefinitions"][0]["Environment"]}
    parts = environment["MLFLOW_AWS_TOKEN_ISSUERS"]["Fn::Join"][1]
    text = "".join(each if isinstance(each, str) else "aws" for each in parts)
    assert text == " ".join(f"arn:aws:iam::{account}={issuer}" for account, issuer in ISSUERS.items())


def test_an_issuer_that_is_enabled_already_needs_no_resource_and_no_permission(shared: Assembly) -> None:
    assert shared.foundation.all("Custom::OutboundWebIdentityFederation") == []
    allowed = [action for who, action, _ in shared.foundation.allowed() if who[:8] != "Verifier"]
    assert [each for each in allowed if each.endswith(("WebIdentityFederation", "FederationInfo"))] == []
    assert shared.service.outputs["TokenIssuer"]["Value"] == ISSUERS[ACCOUNT]
    assert shared.service.outputs["TrustedIssuers"]["Value"].split() == [ISSUERS[PARTNER], ISSUERS[LAB]]


# -- what they reach in S3 and KMS ---------------------------------------------------------------------


def admitted(assembly: Assembly, kind: str, name: str) -> list[Properties]:
    """The statements of a resource's policy for other accounts."""
    document = "PolicyDocument" if kind == "AWS::S3::BucketPolicy" else "KeyPolicy"
    statements = assembly.foundation.one(kind, id_starts=name)[document]["Statement"]
    return [each for each in statements if "ArnLike" in each.get("Condition", {})]


def of(statements: list[Properties], *members: str) -> list[Properties]:
    return [
        each
        for each in statements
        if as_list(each["Condition"]["ArnLike"]["aws:PrincipalArn"]) == list(members)
    ]


def accounts(statement: Properties) -> set[str]:
    return {str(each["Fn::Join"][1][-1]) for each in as_list(statement["Principal"]["AWS"])}


def test_members_of_other_accounts_reach_artifacts_by_their_role_s_actions(shared: Assembly) -> None:
    statements = admitted(shared, "AWS::S3::BucketPolicy", "ArtifactsBucket")
    assert len(statements) == 4
    listing, reading = of(statements, *READERS)
    assert (listing["Action"], reading["Action"]) == ("s3:ListBucket", "s3:GetObject")
    assert listing["Condition"]["StringLike"] == {"s3:prefix": "team/*"}
    assert reading["Resource"]["Fn::Join"][1][-1] == "/team/*"
    _, writing = of(statements, WRITER)
    assert set(writing["Action"]) == {
        "s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload", "s3:DeleteObject",
    }  # fmt: skip
    assert writing["Resource"]["Fn::Join"][1][-1] == "/team/*"


def test_members_of_other_accounts_use_the_key_through_s3_only(shared: Assembly) -> None:
    statements = admitted(shared, "AWS::KMS::Key", "ArtifactsKey")
    (reading,), (writing,) = of(statements, *READERS), of(statements, WRITER)
    assert reading["Action"] == "kms:Decrypt"
    assert set(writing["Action"]) == {"kms:Decrypt", "kms:GenerateDataKey"}
    for each in statements:
        assert set(each["Condition"]["StringEquals"]) == {"kms:ViaService"}


def test_only_trusted_accounts_are_named_and_each_by_its_members(shared: Assembly) -> None:
    for kind, name in (("AWS::S3::BucketPolicy", "ArtifactsBucket"), ("AWS::KMS::Key", "ArtifactsKey")):
        statements = admitted(shared, kind, name)
        assert {each["Effect"] for each in statements} == {"Allow"}
        for each in of(statements, *READERS):
            assert accounts(each) == {f":iam::{PARTNER}:root", f":iam::{LAB}:root"}
        for each in of(statements, WRITER):
            assert accounts(each) == {f":iam::{PARTNER}:root"}


def test_no_other_account_is_named_where_none_is_trusted(either: Assembly) -> None:
    assert admitted(either, "AWS::S3::BucketPolicy", "ArtifactsBucket") == []
    assert admitted(either, "AWS::KMS::Key", "ArtifactsKey") == []


def test_other_accounts_leave_no_finding(shared: Assembly) -> None:
    assert shared.findings == ()
