"""Corrects where MiniStack's identity services differ from AWS in a way that matters: one function each.

Like `adapters`, they replace functions of modules in this process only.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs
from xml.sax.saxutils import escape

from local.emulator.web_identity import Federation, StsError, TokenRequest, TokenSubject

_TOKEN_ACTION = "GetWebIdentityToken"  # noqa: S105 - the name of an API action


def vend_web_identity_tokens(federation: Federation) -> None:
    """MiniStack signs with a well-known key and takes every caller for root; this is a real issuer.

    A caller with tags needs `sts:TagGetWebIdentityToken` too. The token's subject is the ARN of the role
    behind a session, with its path, or of the user.
    """
    from ministack.core import iam_actions
    from ministack.core.iam_evaluator import AuthError, CredentialResolutionError, enforce
    from ministack.core.responses import get_region
    from ministack.core.router import extract_access_key_id
    from ministack.services import sts

    handle, context_of = sts.handle_request, iam_actions.request_tag_context

    def with_conditions(service: str, iam_action: str, body: bytes, params: Any) -> dict[str, Any]:
        context: dict[str, Any] = dict(context_of(service, iam_action, body, params))
        if iam_action == f"sts:{_TOKEN_ACTION}":
            # If this fails, no token is issued: the handler answers with AWS's error.
            with contextlib.suppress(StsError):
                context.update(TokenRequest.of(params).conditions())
        return context

    async def handled(method: str, path: str, headers: Any, body: bytes, query: Any) -> Any:
        parameters = {**query, **(parse_qs(body.decode()) if method == "POST" and body else {})}
        if parameters.get("Action") != [_TOKEN_ACTION]:
            return await handle(method, path, headers, body, query)
        try:
            request = TokenRequest.of(parameters)
            identity = sts._caller_identity(headers, query)
            if isinstance(identity, CredentialResolutionError):
                return sts._credential_error_response(identity)
            issuer = federation.issuer_of(identity["accountId"])
            if request.tags:
                denied = enforce(
                    extract_access_key_id(headers, query),
                    "sts:TagGetWebIdentityToken",
                    "sts",
                    get_region(),
                    service_context=request.conditions(),
                )
                if denied is not None and not isinstance(denied, AuthError):
                    raise StsError(
                        403,
                        "AccessDenied",
                        f"User: {identity['userArn']} is not authorized to perform: "
                        "sts:TagGetWebIdentityToken",
                    )
            token, expires = issuer.issue(request, subject_of(identity), region=get_region())
        except StsError as refused:
            return sts._error(refused.status, refused.code, escape(str(refused)), ns="sts")
        ends = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(expires))
        return sts._xml(
            200,
            f"{_TOKEN_ACTION}Response",
            f"<{_TOKEN_ACTION}Result><WebIdentityToken>{token}</WebIdentityToken>"
            f"<Expiration>{ends}</Expiration></{_TOKEN_ACTION}Result>",
            ns="sts",
        )

    iam_actions.request_tag_context = with_conditions
    sts.handle_request = handled


def subject_of(identity: Mapping[str, Any]) -> TokenSubject:
    """The principal that a token names: for a session, its role with the role's path."""
    from ministack.services import iam, sts

    arn, account = str(identity["userArn"]), str(identity["accountId"])
    if ":assumed-role/" in arn:
        name = arn.split(":assumed-role/", 1)[1].rsplit("/", 1)[0]
        role = iam._roles.get_scoped(account, None, name)
        if role is None:
            raise StsError(403, "AccessDenied", f"the role of {arn} no longer exists")
        arn = str(role["Arn"])
    session = sts._sessions.get(identity["accessKey"]) or {}
    prefix = "aws:principaltag/"
    tags = {
        key.removeprefix(prefix): str(value)
        for key, value in (identity.get("principalKeys") or {}).items()
        if key.startswith(prefix)
    }
    return TokenSubject(arn=arn, account_id=account, tags=tags, expires=session.get("Expiration"))


def federate_outbound(federation: Federation) -> None:
    """MiniStack lacks IAM's three operations of outbound web identity federation."""
    from ministack.core.responses import get_account_id
    from ministack.services import iam

    def answering(action: str, body: Callable[[str], str]) -> Callable[[Any], Any]:
        def answer(_parameters: Any) -> Any:
            try:
                inner = body(get_account_id())
            except StsError as refused:
                return iam._error(refused.status, refused.code, str(refused), ns="iam")
            result = f"<{action}Result>{inner}</{action}Result>" if inner else ""
            return iam._xml(200, f"{action}Response", result, ns="iam")

        return answer

    def enable(account_id: str) -> str:
        return f"<IssuerIdentifier>{federation.enable(account_id)}</IssuerIdentifier>"

    def info(account_id: str) -> str:
        url = federation.info(account_id)
        return f"<IssuerIdentifier>{url}</IssuerIdentifier><JwtVendingEnabled>true</JwtVendingEnabled>"

    def disable(account_id: str) -> str:
        federation.disable(account_id)
        return ""

    for action, body in (
        ("EnableOutboundWebIdentityFederation", enable),
        ("GetOutboundWebIdentityFederationInfo", info),
        ("DisableOutboundWebIdentityFederation", disable),
    ):
        iam._IAM_HANDLERS[action] = answering(action, body)


def authorize_oidc_providers_by_name() -> None:
    """MiniStack authorizes calls about an account's OIDC providers on `*`; in AWS each is a resource."""
    from ministack.core import iam_actions

    resource_of = iam_actions.extract_resource_arn

    def documented(service: str, *rest: Any, **more: Any) -> Any:
        _, _, _, _, query, _, account_id = rest
        if service == "iam":
            if arn := iam_actions._query_param(query, "OpenIDConnectProviderArn"):
                return arn
            if iam_actions._query_param(query, "Action") == "CreateOpenIDConnectProvider":
                host = str(iam_actions._query_param(query, "Url")).removeprefix("https://")
                return f"arn:aws:iam::{account_id}:oidc-provider/{host}"
        return resource_of(service, *rest, **more)

    iam_actions.extract_resource_arn = documented


def keep_identifying_actions() -> None:
    """A listener rule loses its jwt-validation and authenticate-cognito settings in MiniStack.

    MiniStack also does not attach a target group to the load balancer when only a rule leads to it.
    """
    from ministack.services import alb
    from ministack.services.cloudformation import provisioners

    read, render = provisioners._elbv2_listener_actions, alb._action_xml
    kept = ("JwtValidationConfig", "AuthenticateCognitoConfig")

    def with_settings(
        props: dict[str, Any], lb_arn: Any, prop: str = "DefaultActions"
    ) -> list[dict[str, Any]]:
        stated = [each for each in props.get(prop) or [] if isinstance(each, dict)]
        listener = alb._listeners.get(props.get("ListenerArn", "")) or {}
        actions: list[dict[str, Any]] = read(props, lb_arn or listener.get("LoadBalancerArn"), prop)
        for action, source in zip(actions, stated, strict=True):
            action.update({key: source[key] for key in kept if key in source})
        return actions

    def rendered(action: Mapping[str, Any]) -> str:
        inner = "".join(f"<{key}>{_xml(action[key])}</{key}>" for key in kept if key in action)
        return str(render(action)).removesuffix("</member>") + f"{inner}</member>"

    provisioners._elbv2_listener_actions = with_settings
    alb._action_xml = rendered


def _xml(value: Any) -> str:
    """A document in the Query protocol: lists of `member`, maps of strings where ELBv2's model has them."""
    if isinstance(value, Mapping):
        return "".join(
            f"<{key}>{_entries(inner) if key == 'AuthenticationRequestExtraParams' else _xml(inner)}</{key}>"
            for key, inner in value.items()
        )
    if isinstance(value, list):
        return "".join(f"<member>{_xml(each)}</member>" for each in value)
    return escape(str(value).lower() if isinstance(value, bool) else str(value))


def _entries(values: Mapping[str, Any]) -> str:
    return "".join(
        f"<entry><key>{escape(key)}</key><value>{escape(str(value))}</value></entry>"
        for key, value in values.items()
    )


def give_user_pools_a_host(url: str, *, public_urls: Mapping[str, str]) -> None:
    """A user pool's tokens name an issuer in AWS; here they name `url`, and so does `ProviderURL`.

    MiniStack has no such attribute, and forgets a user's groups when a token is renewed. An app client sends
    people back to the application on this machine: `public_urls` maps a URL of the template to it.
    """
    from ministack.services import cognito
    from ministack.services.cloudformation import provisioners

    from local.emulator.hosted_sign_in import page

    sign, make = cognito._signed_jwt, cognito._fake_token
    attributes = provisioners._cognito_user_pool_attributes

    def signed(claims: dict[str, Any], pool_id: str = "", use: str = "") -> str:
        own = {"iss": f"{url}/{pool_id}"} if pool_id else {}
        return str(sign({**claims, **own}, pool_id, use))

    def made(sub: str, pool_id: str, client_id: str, token_type: str, *rest: Any, **more: Any) -> str:
        if more.get("username") and more.get("groups") is None:
            users = (cognito._get_pool_unscoped(pool_id) or {}).get("_users", {})
            more["groups"] = users.get(more["username"], {}).get("_groups", [])
        return str(make(sub, pool_id, client_id, token_type, *rest, **more))

    def described(pool_id: str) -> dict[str, Any]:
        return {**attributes(pool_id), "ProviderURL": f"{url}/{pool_id}"}

    cognito._signed_jwt = signed
    cognito._fake_token = made
    cognito._page_shell = page
    provisioners._cognito_user_pool_attributes = described
    handler = provisioners._RESOURCE_HANDLERS["AWS::Cognito::UserPoolClient"]
    create, update = handler["create"], handler["update"]

    def here(props: dict[str, Any]) -> dict[str, Any]:
        return {
            key: [_at(each, public_urls) for each in value]
            if key in ("CallbackURLs", "LogoutURLs")
            else value
            for key, value in props.items()
        }

    def created(logical_id: str, props: dict[str, Any], stack_name: str) -> Any:
        return create(logical_id, here(props), stack_name)

    def updated(physical_id: str, old: dict[str, Any], new: dict[str, Any], *rest: Any, **more: Any) -> Any:
        return update(physical_id, here(old), here(new), *rest, **more)

    handler["create"] = created
    handler["update"] = updated


def _at(url: str, public_urls: Mapping[str, str]) -> str:
    for deployed, here in public_urls.items():
        if url == deployed or url.startswith(f"{deployed}/"):
            return here + url[len(deployed) :]
    return url
