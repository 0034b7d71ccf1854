"""Nobody enters the user pool alone, and nothing of it goes away."""

from collections.abc import Callable

import pytest

from stacks.roles import ROLES
from tests.stacks.templates import Assembly, Properties

PROVIDER = "AWS::Cognito::UserPoolIdentityProvider"


def pool(assembly: Assembly) -> Properties:
    return assembly.foundation.one("AWS::Cognito::UserPool")


def test_nobody_signs_up_alone(either: Assembly) -> None:
    assert pool(either)["AdminCreateUserConfig"]["AllowAdminCreateUserOnly"] is True


def test_passwords_are_long_and_mixed(either: Assembly) -> None:
    policy = pool(either)["Policies"]["PasswordPolicy"]
    assert policy["MinimumLength"] >= 14
    assert all(policy[f"Require{each}"] for each in ("Lowercase", "Uppercase", "Numbers", "Symbols"))
    assert policy["TemporaryPasswordValidityDays"] <= 7


def test_a_second_factor_is_available_and_prod_demands_it(dev: Assembly, prod: Assembly) -> None:
    assert pool(dev)["MfaConfiguration"] == "OPTIONAL"
    assert pool(prod)["MfaConfiguration"] == "ON"


def test_a_second_factor_is_never_a_text_message(either: Assembly) -> None:
    assert pool(either)["EnabledMfas"] == ["SOFTWARE_TOKEN_MFA"]
    assert "SmsConfiguration" not in pool(either)


def test_an_account_is_recovered_by_its_verified_address_only(either: Assembly) -> None:
    mechanisms = pool(either)["AccountRecoverySetting"]["RecoveryMechanisms"]
    assert [each["Name"] for each in mechanisms] == ["verified_email"]
    assert pool(either)["AutoVerifiedAttributes"] == ["email"]
    updates = pool(either)["UserAttributeUpdateSettings"]
    assert updates["AttributesRequireVerificationBeforeUpdate"] == ["email"]


def test_people_sign_in_by_name_or_address_whatever_the_case(either: Assembly) -> None:
    assert pool(either)["AliasAttributes"] == ["email"]
    assert pool(either)["UsernameConfiguration"] == {"CaseSensitive": False}


def test_the_pool_cannot_be_deleted(either: Assembly) -> None:
    assert pool(either)["DeletionProtection"] == "ACTIVE"


def test_there_is_a_group_for_each_role_and_it_stays(either: Assembly) -> None:
    groups = {
        each["Properties"]["GroupName"]: each["DeletionPolicy"]
        for each in either.foundation.resources.values()
        if each["Type"] == "AWS::Cognito::UserPoolGroup"
    }
    assert groups == {role.group: "RetainExceptOnCreate" for role in ROLES}


def test_no_group_carries_an_iam_role(either: Assembly) -> None:
    assert not [each for each in either.foundation.all("AWS::Cognito::UserPoolGroup") if "RoleArn" in each]


def test_the_plan_is_that_of_the_file(dev: Assembly, given: Assembly) -> None:
    assert pool(dev)["UserPoolTier"] == "PLUS"
    assert pool(dev)["UserPoolAddOns"] == {"AdvancedSecurityMode": "ENFORCED"}
    assert pool(given)["UserPoolTier"] == "ESSENTIALS"
    assert "UserPoolAddOns" not in pool(given)


def test_a_leaked_password_and_a_sign_in_of_high_risk_are_blocked(either: Assembly, given: Assembly) -> None:
    risk = either.foundation.one("AWS::Cognito::UserPoolRiskConfigurationAttachment")
    assert risk["ClientId"] == "ALL"
    leaked = risk["CompromisedCredentialsRiskConfiguration"]["Actions"]
    assert leaked == {"EventAction": "BLOCK"}
    takeover = risk["AccountTakeoverRiskConfiguration"]["Actions"]
    assert takeover["HighAction"]["EventAction"] == "BLOCK"
    assert takeover["MediumAction"]["EventAction"] == "MFA_IF_CONFIGURED"
    assert given.foundation.all("AWS::Cognito::UserPoolRiskConfigurationAttachment") == []


def test_the_sign_in_page_has_a_host_name_that_cognito_accepts(dev: Assembly, prod: Assembly) -> None:
    def label(assembly: Assembly) -> list[object]:
        domain = assembly.foundation.one("AWS::Cognito::UserPoolDomain")
        assert domain["ManagedLoginVersion"] == 2
        parts: list[object] = domain["Domain"]["Fn::Join"][1]
        return parts

    assert label(dev)[:2] == ["mlflow-", {"Ref": "AWS::AccountId"}]
    assert label(dev) != label(prod)
    for reserved in ("aws", "amazon", "cognito"):
        assert reserved not in str(label(dev)[0]) + str(label(dev)[2])


def test_the_host_name_of_the_file_is_used(replicated: Assembly) -> None:
    assert replicated.foundation.one("AWS::Cognito::UserPoolDomain")["Domain"] == "mlflow-company"


def test_without_a_provider_in_the_file_there_is_none(either: Assembly) -> None:
    assert either.foundation.all(PROVIDER) == []


def test_a_saml_provider_is_made_from_its_metadata_and_takes_no_unasked_assertion(
    replicated: Assembly,
) -> None:
    saml = replicated.foundation.one(PROVIDER, id_starts="PeopleSaml")
    assert (saml["ProviderName"], saml["ProviderType"]) == ("Company", "SAML")
    assert saml["ProviderDetails"]["MetadataURL"] == "https://idp.example.com/metadata"
    assert saml["ProviderDetails"].get("IDPInit") in (None, "false", False)


def test_an_oidc_provider_s_secret_is_a_reference(replicated: Assembly) -> None:
    oidc = replicated.foundation.one(PROVIDER, id_starts="PeopleOidc")
    assert oidc["ProviderDetails"]["oidc_issuer"] == "https://login.example.com"
    assert oidc["ProviderDetails"]["client_id"] == "mlflow"
    reference = "{{resolve:secretsmanager:mlflow/partner-sign-in:SecretString:::}}"
    assert oidc["ProviderDetails"]["client_secret"] == reference


@pytest.mark.parametrize("word", ["ClientSecret", "TemporaryPassword"])
def test_no_template_names_a_secret_of_the_pool(either: Assembly, word: str) -> None:
    text = either.foundation.text.replace("TemporaryPasswordValidityDays", "") + either.service.text
    assert word not in text


def test_people_of_the_file_are_invited_once_and_join_the_groups_of_their_roles(
    build: Callable[..., Assembly],
) -> None:
    roles = {
        "admin": {"people": ["ada@company.org"]},
        "viewer": {"people": ["ada@company.org", "bo@company.org"]},
    }
    foundation = build("dev", {"identity": {"roles": roles}}).foundation
    people = foundation.all("AWS::Cognito::UserPoolUser")
    assert {each["Username"] for each in people} == {"ada-at-company.org", "bo-at-company.org"}
    for each in people:
        assert each["DesiredDeliveryMediums"] == ["EMAIL"]
        assert {"Name": "email_verified", "Value": "true"} in each["UserAttributes"]
    attachments = foundation.all("AWS::Cognito::UserPoolUserToGroupAttachment")
    groups = [
        foundation.resources[each["GroupName"]["Ref"]]["Properties"]["GroupName"] for each in attachments
    ]
    assert sorted(groups) == ["mlflow-admin", "mlflow-viewer", "mlflow-viewer"]


def test_a_persons_account_outlives_the_list_and_their_role_does_not(dev: Assembly) -> None:
    kinds = {each["Type"]: each for each in dev.foundation.resources.values()}
    assert kinds["AWS::Cognito::UserPoolUser"]["DeletionPolicy"] == "RetainExceptOnCreate"
    assert "DeletionPolicy" not in kinds["AWS::Cognito::UserPoolUserToGroupAttachment"]


def test_an_invitation_says_where_to_sign_in(dev: Assembly) -> None:
    message = pool(dev)["AdminCreateUserConfig"]["InviteMessageTemplate"]["EmailMessage"]
    assert all(part in message for part in ("https://mlflow.dev.example.com", "{username}", "{####}"))
