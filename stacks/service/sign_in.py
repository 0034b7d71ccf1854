"""How people sign in at the load balancer."""

import aws_cdk as cdk
from aws_cdk import aws_cognito as cognito
from aws_cdk import aws_elasticloadbalancingv2 as elb
from aws_cdk import aws_elasticloadbalancingv2_actions as elb_actions
from constructs import Construct

from stacks.foundation.user_directory import UserDirectory
from stacks.identity_config import IdentityConfig

# A change of a person's groups takes effect after this time, when the load balancer renews the token.
ACCESS_TOKEN = cdk.Duration.minutes(15)
# Where the load balancer receives the authorization code.
CALLBACK_PATH = "/oauth2/idpresponse"


class SignIn(Construct):
    """The load balancer as the user pool's only application, with the authorization code flow.

    The load balancer itself reads its secret, which is in no template. People stay signed in for the
    configured hours; a token is valid for minutes.
    """

    def __init__(
        self, scope: Construct, construct_id: str, *, people: UserDirectory, url: str, config: IdentityConfig
    ) -> None:
        super().__init__(scope, construct_id)
        self._people = people
        self._session = cdk.Duration.hours(config.session_hours)
        custom = cognito.UserPoolClientIdentityProvider.custom
        self.client = cognito.UserPoolClient(
            self,
            "Client",
            user_pool=people.pool,
            generate_secret=True,
            o_auth=cognito.OAuthSettings(
                flows=cognito.OAuthFlows(authorization_code_grant=True),
                scopes=[cognito.OAuthScope.OPENID],
                callback_urls=[f"{url}{CALLBACK_PATH}"],
            ),
            # The flow of the sign-in page; calling it directly takes the client secret.
            auth_flows=cognito.AuthFlow(user_srp=True),
            supported_identity_providers=[
                cognito.UserPoolClientIdentityProvider.COGNITO,
                *(custom(name) for name in people.provider_names),
            ],
            access_token_validity=ACCESS_TOKEN,
            id_token_validity=ACCESS_TOKEN,
            refresh_token_validity=self._session,
            enable_token_revocation=True,
            prevent_user_existence_errors=True,
        )
        # Without a style, managed login shows no page at all.
        cognito.CfnManagedLoginBranding(
            self,
            "Page",
            user_pool_id=people.pool.user_pool_id,
            client_id=self.client.user_pool_client_id,
            use_cognito_provided_values=True,
        )

    def or_sign_in_page(self, then: elb.ListenerAction) -> elb.ListenerAction:
        """Let people pass; send everybody else to the sign-in page."""
        return self._authenticate(then, elb.UnauthenticatedAction.AUTHENTICATE)

    def or_refusal(self, then: elb.ListenerAction) -> elb.ListenerAction:
        """Let people pass; refuse everybody else with 401."""
        return self._authenticate(then, elb.UnauthenticatedAction.DENY)

    def _authenticate(
        self, then: elb.ListenerAction, otherwise: elb.UnauthenticatedAction
    ) -> elb.ListenerAction:
        return elb_actions.AuthenticateCognitoAction(
            user_pool=self._people.pool,
            user_pool_client=self.client,
            user_pool_domain=self._people.domain,
            scope="openid",
            session_timeout=self._session,
            on_unauthenticated_request=otherwise,
            next=then,
            # The load balancer's security group already says where it may go.
            allow_https_outbound=False,
        )
