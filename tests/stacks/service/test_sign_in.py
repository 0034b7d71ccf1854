"""The load balancer is the user pool's only application, and keeps its secret to itself."""

from collections.abc import Callable

from tests.stacks.conftest import IMAGE
from tests.stacks.templates import Assembly, Properties

CLIENT = "AWS::Cognito::UserPoolClient"


def client(assembly: Assembly) -> Properties:
    return assembly.service.one(CLIENT)


def test_there_is_one_application_with_a_secret_that_no_template_reads(either: Assembly) -> None:
    assert client(either)["GenerateSecret"] is True
    assert either.foundation.all(CLIENT) == []
    assert "ClientSecret" not in either.service.text


def test_it_takes_the_authorization_code_at_the_load_balancer_only(dev: Assembly) -> None:
    assert client(dev)["AllowedOAuthFlows"] == ["code"]
    assert client(dev)["AllowedOAuthFlowsUserPoolClient"] is True
    assert client(dev)["CallbackURLs"] == ["https://mlflow.dev.example.com/oauth2/idpresponse"]


def test_a_token_of_it_cannot_change_the_user(either: Assembly) -> None:
    assert client(either)["AllowedOAuthScopes"] == ["openid"]


def test_no_flow_sends_a_password_in_clear(either: Assembly) -> None:
    assert set(client(either)["ExplicitAuthFlows"]) == {"ALLOW_USER_SRP_AUTH", "ALLOW_REFRESH_TOKEN_AUTH"}


def test_tokens_are_short_and_end_when_revoked(either: Assembly) -> None:
    assert client(either)["TokenValidityUnits"]["AccessToken"] == "minutes"
    assert client(either)["AccessTokenValidity"] == client(either)["IdTokenValidity"] == 15
    assert client(either)["EnableTokenRevocation"] is True


def test_who_does_not_exist_is_not_told(either: Assembly) -> None:
    assert client(either)["PreventUserExistenceErrors"] == "ENABLED"


def test_a_session_lasts_as_long_as_the_file_says(dev: Assembly, replicated: Assembly) -> None:
    for assembly, hours in ((dev, 8), (replicated, 10)):
        assert client(assembly)["RefreshTokenValidity"] == hours * 60
        sessions = {
            action["AuthenticateCognitoConfig"]["SessionTimeout"]
            for rule in assembly.service.all("AWS::ElasticLoadBalancingV2::ListenerRule")
            for action in rule["Actions"]
            if "AuthenticateCognitoConfig" in action
        }
        assert sessions == {hours * 3600}


def test_providers_of_the_file_are_on_the_sign_in_page(replicated: Assembly, dev: Assembly) -> None:
    assert set(client(replicated)["SupportedIdentityProviders"]) == {"COGNITO", "Company", "Partner"}
    assert client(dev)["SupportedIdentityProviders"] == ["COGNITO"]


def test_the_sign_in_page_has_a_style_without_which_there_is_no_page(either: Assembly) -> None:
    page = either.service.one("AWS::Cognito::ManagedLoginBranding")
    assert page["UseCognitoProvidedValues"] is True
    assert page["ClientId"] == {"Ref": either.service.outputs["UserPoolClientId"]["Value"]["Ref"]}


def test_the_sign_in_page_is_named_in_the_outputs(either: Assembly) -> None:
    parts = either.service.outputs["SignInUrl"]["Value"]["Fn::Join"][1]
    assert parts[0] == "https://"
    assert parts[-1] == ".amazoncognito.com"


def test_the_sign_in_page_of_govcloud_has_its_own_host(build: Callable[..., Assembly]) -> None:
    govcloud = {
        "region": "us-gov-west-1",
        "identity": {"roles": None},
        "server": {"image_uri": IMAGE.replace("eu-central-1", "us-gov-west-1")},
    }
    url = build("dev", govcloud).service.outputs["SignInUrl"]["Value"]["Fn::Join"][1]
    assert url[-1] == ".auth-fips.us-gov-west-1.amazoncognito.com"
