"""The load balancer in front of a target that echoes what it was sent."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from local.edge.__main__ import tls_context
from local.edge.balancer import Balancer, Configuration
from local.edge.listener import UnsupportedError
from local.edge.target_group import TargetGroup, status_codes
from local.parts.certificates import CertificateAuthority
from local.parts.token_issuer import TokenIssuer

GROUP = "arn:group"
FORWARD = {"Type": "forward", "TargetGroupArn": GROUP}
Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


def snapshot(
    *targets: str, rules: list[dict[str, Any]] | None = None, attributes: dict[str, str] | None = None
) -> dict[str, Any]:
    return {
        "listener": {"Protocol": "HTTPS", "SslPolicy": "ELBSecurityPolicy-TLS13-1-3-2021-06", "Port": 443},
        "rules": rules or [{"Priority": "default", "Actions": [FORWARD]}],
        "attributes": {"routing.http.drop_invalid_header_fields.enabled": "true", **(attributes or {})},
        "target_groups": {
            GROUP: {
                "HealthCheckPath": "/ready",
                "HealthCheckIntervalSeconds": 20,
                "HealthCheckTimeoutSeconds": 5,
                "HealthyThresholdCount": 2,
                "UnhealthyThresholdCount": 3,
                "Matcher": {"HttpCode": "200"},
                "targets": {f"10.0.0.{number}:5000": address for number, address in enumerate(targets)},
            }
        },
    }


async def tell(request: web.BaseRequest) -> web.StreamResponse:
    body = await request.read()
    told = {
        "method": request.method,
        "path": request.raw_path,
        "headers": [[name, value] for name, value in request.headers.items()],
        "length": len(body),
        "body": body[:100].decode(),
    }
    return web.json_response(told, headers={"X-Of": "target", "Keep-Alive": "timeout=1"})


@asynccontextmanager
async def target(handler: Handler = tell) -> AsyncIterator[str]:
    runner = web.ServerRunner(web.Server(handler), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    return CertificateAuthority.create(tmp_path_factory.mktemp("ca"), name="Test")


@pytest.fixture
def client(authority: CertificateAuthority) -> Callable[..., Any]:
    @asynccontextmanager
    async def client(configuration: dict[str, Any], *, healthy: bool = True) -> AsyncIterator[Any]:
        certificate = authority.issue("localhost", name="lb")
        read = Configuration.of(configuration)
        trust = ssl.create_default_context(cafile=str(authority.bundle))
        pools = "https://pools.example.com"
        async with Balancer(read, port=8443, trust=trust, user_pools=pools) as balancer:
            for each in read.groups[GROUP].targets.values():
                each.state = "healthy" if healthy else "initial"
            runner = web.ServerRunner(web.Server(balancer.handle, access_log=None), shutdown_timeout=0.1)
            await runner.setup()
            context = tls_context(certificate=certificate.certificate, key=certificate.key, minimum=read.tls)
            await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
            base = f"https://localhost:{runner.addresses[0][1]}"
            async with aiohttp.ClientSession(base, connector=aiohttp.TCPConnector(ssl=trust)) as session:
                session.balancer = balancer
                yield session
            await runner.cleanup()

    return client


def headers_of(told: dict[str, Any]) -> dict[str, str]:
    return {name.lower(): value for name, value in told["headers"]}


async def test_a_request_reaches_the_target_as_it_was_sent(client: Callable[..., Any]) -> None:
    async with target() as address, client(snapshot(address)) as session:
        url = URL("/a%2Fb/%C3%A9?q=%20x&q=2", encoded=True)
        async with session.post(url, data=b"hello", headers={"X-Mine": "1"}) as answer:
            told = await answer.json()
            assert (answer.status, answer.headers["X-Of"]) == (200, "target")
    assert (told["method"], told["path"], told["body"]) == ("POST", "/a%2Fb/%C3%A9?q=%20x&q=2", "hello")
    assert headers_of(told)["x-mine"] == "1"
    assert headers_of(told)["host"].startswith("localhost:")


async def test_the_client_s_address_is_appended_to_x_forwarded_for(client: Callable[..., Any]) -> None:
    async with target() as address, client(snapshot(address)) as session:
        first = headers_of(await (await session.get("/")).json())
        second = headers_of(await (await session.get("/", headers={"X-Forwarded-For": "203.0.113.9"})).json())
    assert first["x-forwarded-for"] == "127.0.0.1"
    assert second["x-forwarded-for"] == "203.0.113.9, 127.0.0.1"
    assert (first["x-forwarded-proto"], first["x-forwarded-port"]) == ("https", "8443")
    assert first["x-amzn-trace-id"].startswith("Root=1-")


async def test_a_client_cannot_choose_the_protocol_the_target_believes(client: Callable[..., Any]) -> None:
    forged = {"X-Forwarded-Proto": "http", "X-Forwarded-Port": "80"}
    async with target() as address, client(snapshot(address)) as session:
        told = headers_of(await (await session.get("/", headers=forged)).json())
    assert (told["x-forwarded-proto"], told["x-forwarded-port"]) == ("https", "8443")


async def test_invalid_headers_are_dropped_when_the_attribute_says_so(client: Callable[..., Any]) -> None:
    keep = {"routing.http.drop_invalid_header_fields.enabled": "false"}
    async with target() as address:
        async with client(snapshot(address)) as session:
            dropped = headers_of(await (await session.get("/", headers={"x_under": "1"})).json())
        async with client(snapshot(address, attributes=keep)) as session:
            kept = headers_of(await (await session.get("/", headers={"x_under": "1"})).json())
    assert "x_under" not in dropped
    assert kept["x_under"] == "1"


async def test_hop_by_hop_headers_are_not_passed_on(client: Callable[..., Any]) -> None:
    sent = {"Proxy-Authorization": "x", "TE": "gzip"}
    async with target() as address, client(snapshot(address)) as session:
        answer = await session.get("/", headers=sent)
        told = headers_of(await answer.json())
    assert "Keep-Alive" not in answer.headers
    assert not {"proxy-authorization", "te"} & set(told)


@pytest.mark.parametrize("chunked", [False, True])
async def test_large_bodies_pass_both_ways(client: Callable[..., Any], chunked: bool) -> None:
    async def echo(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        async for chunk in request.content.iter_any():
            await response.write(chunk)
        return response

    async def parts() -> AsyncIterator[bytes]:
        for _ in range(50):
            yield b"x" * 100_000

    async with target(echo) as address, client(snapshot(address)) as session:
        answer = await session.post("/", data=parts() if chunked else b"x" * 5_000_000)
        assert len(await answer.read()) == 5_000_000


async def test_a_response_is_streamed(client: Callable[..., Any]) -> None:
    go_on = asyncio.Event()

    async def slow(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"first")
        await go_on.wait()
        await response.write(b"second")
        return response

    async with target(slow) as address, client(snapshot(address)) as session, session.get("/") as answer:
        assert await asyncio.wait_for(answer.content.read(5), 10) == b"first"
        go_on.set()
        assert await answer.read() == b"second"


async def test_a_response_that_breaks_off_breaks_off_for_the_client(client: Callable[..., Any]) -> None:
    async def break_off(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "100"})
        await response.prepare(request)
        await response.write(b"begun")
        assert request.transport is not None
        request.transport.abort()
        return response

    async with target(break_off) as address, client(snapshot(address)) as session:
        with pytest.raises(aiohttp.ClientError):
            async with session.get("/") as answer:
                await answer.read()


async def test_a_compressed_response_stays_compressed(client: Callable[..., Any]) -> None:
    async def compressed(_request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=b"\x1f\x8bnot really", headers={"Content-Encoding": "gzip"})

    async with target(compressed) as address, client(snapshot(address)) as session:
        session._auto_decompress = False
        async with session.get("/") as answer:
            assert await answer.read() == b"\x1f\x8bnot really"


async def test_a_target_that_is_gone_is_a_502(client: Callable[..., Any]) -> None:
    async with client(snapshot("127.0.0.1:1")) as session:
        assert (await session.get("/")).status == 502


async def test_a_target_that_does_not_answer_within_the_idle_timeout_is_a_504(
    client: Callable[..., Any],
) -> None:
    async def never(_request: web.BaseRequest) -> web.StreamResponse:
        await asyncio.sleep(3600)
        raise AssertionError

    hurry = {"idle_timeout.timeout_seconds": "0.2"}
    async with target(never) as address, client(snapshot(address, attributes=hurry)) as session:
        assert (await session.get("/")).status == 504


async def test_without_a_healthy_target_the_response_is_503(client: Callable[..., Any]) -> None:
    async with client(snapshot("127.0.0.1:1"), healthy=False) as session:
        assert (await session.get("/")).status == 503


async def test_a_request_that_matches_no_rule_gets_the_default(client: Callable[..., Any]) -> None:
    refuse = {
        "Type": "fixed-response",
        "FixedResponseConfig": {"StatusCode": "401", "ContentType": "application/json", "MessageBody": "{}"},
    }
    bearer = {
        "Field": "http-header",
        "HttpHeaderConfig": {"HttpHeaderName": "Authorization", "Values": ["Bearer *"]},
    }
    rules = [
        {"Priority": "default", "Actions": [refuse]},
        {"Priority": "10", "Conditions": [bearer], "Actions": [FORWARD]},
    ]
    async with target() as address, client(snapshot(address, rules=rules)) as session:
        async with session.get("/") as answer:
            assert (answer.status, answer.content_type, await answer.text()) == (
                401,
                "application/json",
                "{}",
            )
        assert (await session.get("/", headers={"Authorization": "Bearer x"})).status == 200


async def test_every_answer_has_the_header_of_the_listener_s_attribute(
    client: Callable[..., Any], issuer: TokenIssuer
) -> None:
    async def boastful(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(headers={"Strict-Transport-Security": "max-age=1"})

    told = {"routing.http.response.strict_transport_security.header_value": "max-age=63072000"}
    seen = []
    async with target(boastful) as address:
        described = snapshot(address, rules=rules_of(issuer), attributes=told)
        async with client(described) as session:
            for path, headers in (
                ("/", program(issuer)),
                ("/", {"Authorization": "Bearer x"}),
                ("/ajax-api/2.0/mlflow/runs/get", {}),
                ("/", {}),
            ):
                seen.append(await session.get(path, headers=headers, allow_redirects=False))
        async with client(described, healthy=False) as session:
            seen.append(await session.get("/", headers=program(issuer)))
    assert [each.status for each in seen] == [200, 401, 401, 302, 503]
    for each in seen:
        assert each.headers.getall("Strict-Transport-Security") == ["max-age=63072000"]


async def test_a_redirect_keeps_what_it_does_not_name(client: Callable[..., Any]) -> None:
    config = {
        "Protocol": "HTTPS",
        "Port": "443",
        "Host": "#{host}",
        "Path": "/to/#{path}",
        "StatusCode": "HTTP_301",
    }
    rules = [{"Priority": "default", "Actions": [{"Type": "redirect", "RedirectConfig": config}]}]
    async with client(snapshot(rules=rules)) as session:
        answer = await session.get("/a?b=c", allow_redirects=False)
    assert (answer.status, answer.headers["Location"]) == (301, "https://localhost:443/to/a?b=c")


async def test_nothing_older_than_tls_1_3_is_accepted(
    client: Callable[..., Any], authority: CertificateAuthority
) -> None:
    async with target() as address, client(snapshot(address)) as session:
        old = ssl.create_default_context(cafile=str(authority.bundle))
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get("/", ssl=old)


async def test_targets_take_turns(client: Callable[..., Any]) -> None:
    async def name(request: web.BaseRequest) -> web.StreamResponse:
        assert request.transport is not None
        return web.Response(text=str(request.transport.get_extra_info("sockname")[1]))

    async with target(name) as first, target(name) as second, client(snapshot(first, second)) as session:
        seen = [await (await session.get("/")).text() for _ in range(4)]
    assert seen[0] != seen[1]
    assert seen[:2] == seen[2:]


async def test_a_target_becomes_healthy_when_its_check_says_so(client: Callable[..., Any]) -> None:
    async def ready(request: web.BaseRequest) -> web.StreamResponse:
        forwarded = "X-Forwarded-For" in request.headers
        return web.Response(status=200 if request.path != "/ready" or not forwarded else 500)

    async with target(ready) as address, client(snapshot(address), healthy=False) as session:
        checks = asyncio.create_task(session.balancer.check_targets())
        for _ in range(200):
            if (await session.get("/")).status == 200:
                break
            await asyncio.sleep(0.05)
        else:
            pytest.fail("the target did not become healthy in 10 seconds")
        checks.cancel()


@pytest.fixture
def group() -> TargetGroup:
    return Configuration.of(snapshot("127.0.0.1:1", "127.0.0.1:2")).groups[GROUP]


def test_a_new_target_waits_for_its_first_success(group: TargetGroup) -> None:
    one = next(iter(group.targets.values()))
    for _ in range(10):
        group.judge(one, passed=False, now=0)
    assert one.state == "initial"
    group.judge(one, passed=True, now=0)
    assert one.state == "healthy"


def test_a_healthy_target_needs_its_threshold_of_failures_and_of_successes(group: TargetGroup) -> None:
    one = next(iter(group.targets.values()))
    group.judge(one, passed=True, now=0)
    states = []
    for passed in (False, False, True, False, False, False, True, True):
        group.judge(one, passed=passed, now=0)
        states.append(one.state)
    assert states == ["healthy"] * 5 + ["unhealthy"] * 2 + ["healthy"]


def test_when_every_target_is_unhealthy_all_are_tried(group: TargetGroup) -> None:
    for each in group.targets.values():
        each.state = "unhealthy"
    assert group.pick() is not None


def test_a_target_that_just_started_gets_nothing_while_another_is_unhealthy(group: TargetGroup) -> None:
    first, second = group.targets.values()
    first.state, second.state = "unhealthy", "initial"
    assert group.pick() is None


def test_health_survives_a_new_snapshot_but_not_a_new_process() -> None:
    before = Configuration.of(snapshot("127.0.0.1:1", "127.0.0.1:2"))
    for each in before.groups[GROUP].targets.values():
        each.state = "healthy"
    after = Configuration.of(snapshot("127.0.0.1:1", "127.0.0.1:9"), before)
    assert [each.state for each in after.groups[GROUP].targets.values()] == ["healthy", "initial"]


def test_an_unsupported_action_stops_the_balancer() -> None:
    rules = [{"Priority": "default", "Actions": [{"Type": "authenticate-saml"}]}]
    with pytest.raises(UnsupportedError, match="authenticate-saml"):
        Configuration.of(snapshot(rules=rules))


def test_a_listener_without_tls_stops_the_balancer() -> None:
    plain = snapshot()
    plain["listener"]["Protocol"] = "HTTP"
    with pytest.raises(UnsupportedError, match="HTTP, not HTTPS"):
        Configuration.of(plain)


def test_a_matcher_names_codes_lists_and_ranges() -> None:
    assert status_codes("200") == {200}
    assert status_codes("200,204-206") == {200, 204, 205, 206}


def test_an_unchanged_snapshot_is_not_written_again(tmp_path: Path) -> None:
    from local.edge.snapshot import write_if_changed

    file = tmp_path / "listener.json"
    assert write_if_changed(file, snapshot("a:1"))
    assert not write_if_changed(file, snapshot("a:1"))
    assert write_if_changed(file, snapshot("b:1"))
    assert json.loads(file.read_text()) == snapshot("b:1")


AUDIENCE = "https://mlflow.example.com"
REFUSE = {"Type": "fixed-response", "FixedResponseConfig": {"StatusCode": "401"}}


def rules_of(issuer: TokenIssuer) -> list[dict[str, Any]]:
    """The deployed listener's rules: programs by token, fetches by session or 401, pages by session."""
    token = {
        "Issuer": issuer.url,
        "JwksEndpoint": f"{issuer.url}/.well-known/jwks.json",
        "AdditionalClaims": [{"Name": "aud", "Format": "single-string", "Values": [AUDIENCE]}],
    }

    def rule(priority: int, condition: dict[str, Any], kind: str, **config: Any) -> dict[str, Any]:
        first = {"Type": kind, "Order": 1, **config}
        return {"Priority": str(priority), "Conditions": [condition], "Actions": [first, FORWARD]}

    def people(otherwise: str) -> dict[str, Any]:
        pool = f"arn:aws:cognito-idp:eu-central-1:{'0' * 12}:userpool/eu-central-1_Tested"
        config = {"UserPoolArn": pool, "UserPoolClientId": "app", "OnUnauthenticatedRequest": otherwise}
        return {"AuthenticateCognitoConfig": config}

    def paths(*patterns: str) -> dict[str, Any]:
        return {"Field": "path-pattern", "PathPatternConfig": {"Values": list(patterns)}}

    bearer = {
        "Field": "http-header",
        "HttpHeaderConfig": {"HttpHeaderName": "Authorization", "Values": ["Bearer *"]},
    }
    return [
        rule(10, bearer, "jwt-validation", JwtValidationConfig=token),
        rule(20, paths("/ajax-api/*"), "authenticate-cognito", **people("deny")),
        rule(30, paths("/*"), "authenticate-cognito", **people("authenticate")),
        {"Priority": "default", "Actions": [REFUSE]},
    ]


@pytest.fixture(scope="module")
def issuer(authority: CertificateAuthority) -> Iterator[TokenIssuer]:
    with TokenIssuer.create(authority.issue("localhost", name="issuer")).serving() as issuer:
        yield issuer


def program(issuer: TokenIssuer, *, scheme: str = "Bearer", **more: Any) -> dict[str, str]:
    asked = {"subject": "arn:aws:iam::000000000000:role/r", "audience": AUDIENCE, **more}
    return {"Authorization": f"{scheme} {issuer.token(**asked)}"}


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_a_program_s_token_passes_in_any_case_of_its_scheme(
    client: Callable[..., Any], issuer: TokenIssuer, scheme: str
) -> None:
    sent = program(issuer, scheme=scheme)
    async with target() as address, client(snapshot(address, rules=rules_of(issuer))) as session:
        answer = await session.post("/api/2.0/mlflow/runs/create", headers=sent)
        assert answer.status == 200
        assert headers_of(await answer.json())["authorization"] == sent["Authorization"]


@pytest.mark.parametrize("audience", ["https://elsewhere.example.com", [AUDIENCE], [AUDIENCE, "x"]], ids=str)
async def test_a_token_for_another_audience_is_refused_at_the_edge(
    client: Callable[..., Any], issuer: TokenIssuer, audience: object
) -> None:
    async with target() as address, client(snapshot(address, rules=rules_of(issuer))) as session:
        answer = await session.get("/", headers=program(issuer, audience=audience))
    assert answer.status == 401


async def test_two_tokens_are_refused_even_if_one_is_good(
    client: Callable[..., Any], issuer: TokenIssuer
) -> None:
    good = program(issuer)["Authorization"]
    async with target() as address, client(snapshot(address, rules=rules_of(issuer))) as session:
        for second in ("Bearer x", "Basic eDp4", good):
            both = [("Authorization", good), ("Authorization", second)]
            assert (await session.get("/", headers=both)).status == 401


async def test_while_an_issuer_does_not_answer_nobody_passes(
    client: Callable[..., Any], issuer: TokenIssuer
) -> None:
    sent = program(issuer)
    issuer.available = False
    async with target() as address, client(snapshot(address, rules=rules_of(issuer))) as session:
        refused = (await session.get("/", headers=sent)).status
    issuer.available = True
    assert refused == 500


async def test_without_a_session_visits_lead_to_the_page_and_fetches_are_refused(
    client: Callable[..., Any], issuer: TokenIssuer
) -> None:
    async with target() as address, client(snapshot(address, rules=rules_of(issuer))) as session:
        fetched = await session.get("/ajax-api/2.0/mlflow/runs/get", allow_redirects=False)
        visited = await session.get("/", allow_redirects=False)
        basic = await session.get("/", headers={"Authorization": "Basic eDp4"}, allow_redirects=False)
    assert (fetched.status, visited.status, basic.status) == (401, 302, 302)
    assert visited.headers["Location"].startswith("https://pools.example.com/oauth2/authorize?")
    assert visited.headers["Cache-Control"] == "no-store"


async def test_a_client_s_identity_headers_are_dropped_where_the_balancer_sets_them(
    client: Callable[..., Any], issuer: TokenIssuer
) -> None:
    forged = {"X-Amzn-Oidc-Accesstoken": "forged", "x-amzn-oidc-identity": "admin"}
    rules = rules_of(issuer)
    rules[2]["Actions"][0]["AuthenticateCognitoConfig"]["OnUnauthenticatedRequest"] = "allow"
    async with target() as address, client(snapshot(address, rules=rules)) as session:
        told = headers_of(await (await session.get("/", headers=forged)).json())
        passed = headers_of(await (await session.get("/", headers={**forged, **program(issuer)})).json())
    assert not {name for name in told if name.startswith("x-amzn-oidc")}
    # Undocumented whether a rule without authentication drops them, so the server must not trust them.
    assert passed["x-amzn-oidc-accesstoken"] == "forged"
