"""The authentication that MLflow's client uses when MLFLOW_TRACKING_AUTH is `aws`."""

from __future__ import annotations

import os
import warnings

from mlflow.tracking.request_auth.abstract_request_auth_provider import RequestAuthProvider
from requests import PreparedRequest
from requests.auth import AuthBase

from mlflow_aws_auth import web_identity
from mlflow_aws_auth.origin import Origin
from mlflow_aws_auth.token_cache import Token, TokenCache

NAME = "aws"
AUDIENCE = "MLFLOW_AWS_AUDIENCE"

_tokens = TokenCache()


class AwsRequestAuthProvider(RequestAuthProvider):  # type: ignore[misc]
    """`MLFLOW_TRACKING_AUTH=aws`."""

    def get_name(self) -> str:
        """The value of MLFLOW_TRACKING_AUTH that selects this provider."""
        return NAME

    def get_auth(self) -> AuthBase:
        """What signs one request; cheap, since tokens are kept for all of them."""
        import mlflow

        return BearerAuth(mlflow.get_tracking_uri())


class BearerAuth(AuthBase):
    """Adds the caller's token to requests for one server, and to no other.

    requests drops the header itself when it follows a redirect to another host, port or scheme
    (`SessionRedirectMixin.should_strip_auth`), and does not ask again here.
    """

    def __init__(self, tracking_uri: str) -> None:
        self._tracking_uri = tracking_uri

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        """Sign `request`; raises `AwsAuthError` if there is no token or the way is not encrypted."""
        home, goal = Origin.of(self._tracking_uri), Origin.of(request.url or "")
        request.headers.pop("Authorization", None)
        if goal == home:
            home.require_private()
            request.headers["Authorization"] = f"Bearer {token_for(home).value}"
        else:  # such as a registry that is somebody else's, and may need no token
            warnings.warn(
                f"MLFLOW_TRACKING_AUTH=aws: a request to {goal} carries no token, since the tracking URI is "
                f"{home}; if {goal} is meant, set MLFLOW_TRACKING_URI to it",
                stacklevel=2,
            )
        return request


def audience_of(server: Origin) -> str:
    """What a token for this server says it is for: MLFLOW_AWS_AUDIENCE, else the server's own address."""
    return os.environ.get(AUDIENCE) or str(server)


def token_for(server: Origin) -> Token:
    """The caller's token for this server, kept until shortly before it ends.

    Raises:
        AwsAuthError: AWS gives none.
    """
    session = web_identity.default_session()
    credentials = web_identity.credentials_of(session)
    audience = audience_of(server)
    # The object, which the key keeps alive, stands for the identity: asking it for its key id could block.
    key = (audience, credentials)
    return _tokens.get(key, lambda: web_identity.fetch(session, credentials, audience=audience))
