"""Every attack of the table is refused and leaves nothing behind; legitimate requests work."""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.attacks.doors import Door, Headers, Request, Response
from tests.attacks.table import ATTACKS, bearer, person
from tests.attacks.world import BATCH, READ, VIEWER, WRITE, World
from tests.object_store import ObjectStore
from tests.roles import server_roles
from tests.server.conftest import SERVER_PYTHON

LINES = [
    pytest.param(line, variant, id=f"{line}: {variant}")
    for line, variants in ATTACKS.items()
    for variant in variants
]
# The part of a token that names its subject.
_CLAIMS = re.compile(r"eyJ[\w-]+\.([\w-]{20,})")
DOORS = ("through the balancer", "directly")


def _door(world: World, name: str) -> Door:
    return {door.name: door for door in world.doors}[name]


def _is_refused(answer: Response, statuses: frozenset[int], world: World) -> bool:
    if answer.status == 302:
        # The balancer sends a page's visitor without a session to the sign-in page.
        return (answer.header("location") or "").startswith(f"{world.pool.base_url}/oauth2/authorize?")
    return answer.status in statuses


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(("line", "variant"), LINES)
def test_attack_is_refused(world: World, line: str, variant: str, door: str) -> None:
    attempt = ATTACKS[line][variant](world)
    before, asked = world.rows(), world.mallory.fetches
    for request in attempt.requests:
        answer = _door(world, door).send(request, attempt.headers)
        assert _is_refused(answer, attempt.refusals, world), (
            f"{request.method} {request.target}: {answer.head}\n{answer.body!r}"
        )
        assert b"lifecycle_stage" not in answer.body
        assert answer.header("access-control-allow-origin") in (None, "https://mlflow.example.com")
        sent = " ".join(value for _, value in (*attempt.headers, *request.headers))
        assert not any(claims.encode() in answer.body for claims in _CLAIMS.findall(sent))
    assert world.rows() == before
    assert world.mallory.fetches == asked, "nobody may be made to fetch the attacker's keys"


def test_table_has_every_attack_of_the_requirements() -> None:
    assert len(ATTACKS) == 27
    assert len(LINES) > 150


# Positive controls: a refusal means something only if the same request with a valid token succeeds.


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("subject", [None, BATCH], ids=["admin", "matched by a wildcard"])
def test_good_bearer_token_reads_and_writes(world: World, door: str, subject: str | None) -> None:
    token = world.token(subject) if subject else world.token()
    _reads_and_writes(world, _door(world, door), bearer(token))


@pytest.mark.parametrize("door", DOORS)
def test_good_token_of_a_second_account_reads_and_writes(world: World, door: str) -> None:
    _reads_and_writes(world, _door(world, door), bearer(world.partner_token()))


def test_good_access_token_reads_and_writes_behind_the_balancer(world: World) -> None:
    _reads_and_writes(world, world.direct, person(world.pool.access_token()))


def test_signed_in_person_reads_and_writes_through_the_balancer(world: World) -> None:
    _reads_and_writes(world, world.balancer, _signed_in(world))


@pytest.mark.parametrize("door", DOORS)
def test_viewer_reads_and_cannot_write(world: World, door: str) -> None:
    before = world.rows()
    token = bearer(world.token(VIEWER))
    assert _door(world, door).send(READ, token).status == 200
    refused = _door(world, door).send(WRITE, token)
    assert (refused.status, refused.json["error_code"]) == (403, "PERMISSION_DENIED")
    assert "contributor" in refused.json["message"]
    assert world.rows() == before


def test_health_is_answered_directly_and_not_through_the_balancer(world: World) -> None:
    assert world.direct.send(Request("GET", "/health")).status == 200
    assert world.balancer.send(Request("GET", "/health")).status == 302


def _signed_in(world: World) -> Headers:
    """The cookies of a person who has signed in at the balancer."""
    page = world.balancer.send(Request("GET", "/"))
    asked = parse_qs(urlsplit(page.header("location") or "").query)
    callback = f"/oauth2/idpresponse?code={asked['nonce'][0]}&state={asked['state'][0]}"
    nonce = "; ".join(f"{name}={value}" for name, value in page.cookies().items())
    back = world.balancer.send(Request("GET", callback), [("Cookie", nonce)])
    assert back.status == 302, back.head
    session = {name: value for name, value in back.cookies().items() if value}
    return (("Cookie", "; ".join(f"{name}={value}" for name, value in session.items())),)


def _reads_and_writes(world: World, door: Door, headers: Headers) -> None:
    before = world.rows()
    read = door.send(READ, headers)
    assert read.status == 200, read.body
    assert b"lifecycle_stage" in read.body
    wrote = door.send(WRITE, headers)
    assert wrote.status == 200, wrote.body
    made = wrote.json["experiment_id"]
    assert world.rows() != before
    for path in ("delete", "update"):
        # Free the name for the next test: MLflow keeps deleted experiments.
        body = {"experiment_id": made, "new_name": f"no longer an attack {made}"}
        if path == "update":
            assert door.send(_post(f"experiments/{path}", body), headers).status == 200
    assert b"written by an attack" not in str(world.rows()).encode()


def _post(path: str, body: object) -> Request:
    return Request("POST", f"/api/2.0/mlflow/{path}", body)


@pytest.mark.parametrize(
    "pattern",
    [
        "arn:aws:iam::*:role/batch/train",
        "arn:aws:iam::12345678901*:role/batch/train",
        "arn:aws:iam::123456789012*",
        "arn:aws:iam::123456789012:*/batch/train",
        "arn:aws:*::123456789012:role/batch/train",
        "arn:*:iam::123456789012:role/batch/train",
        "arn:aws:iam::?23456789012:role/batch/train",
        "*",
        "*:role/batch/train",
    ],
)
def test_pattern_that_would_match_another_account_is_refused(pattern: str) -> None:
    from mlflow_aws_server.identity import RoleMap

    with pytest.raises(ValueError, match="is not the full ARN of an IAM role"):
        RoleMap.parse(json.dumps({"contributor": {"permissions": ["read"], "iam_roles": [pattern]}}))


def test_server_does_not_start_with_such_a_pattern(world: World) -> None:
    roles = server_roles({"viewer": {"iam_roles": ["arn:aws:iam::*:role/batch/train"]}})
    done = subprocess.run(
        [SERVER_PYTHON, "-m", "mlflow_aws_server", "serve"],
        env={**world.environ, "MLFLOW_AWS_ROLES": roles},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert "MLFLOW_AWS_ROLES" in done.stderr + done.stdout


def test_run_names_its_author_and_not_even_an_admin_can_change_it(world: World) -> None:
    """Through the balancer, in both lanes."""
    admin = bearer(world.token())
    for headers, who in ((bearer(world.token(BATCH)), BATCH), (_signed_in(world), "cognito:someone")):
        forged = [{"key": "mlflow_aws.principal", "value": "mallory"}]
        made = world.balancer.send(_post("runs/create", {"experiment_id": "0", "tags": forged}), headers)
        assert (made.status, made.json["error_code"]) == (403, "PERMISSION_DENIED")
        claim = {"experiment_id": "0", "tags": [{"key": "mlflow.user", "value": "mallory"}]}
        run = world.balancer.send(_post("runs/create", claim), headers).json["run"]["info"]["run_id"]
        change = {"run_id": run, "key": "mlflow_aws.principal", "value": "mallory"}
        refused = world.balancer.send(_post("runs/set-tag", change), admin)
        assert (refused.status, refused.json["error_code"]) == (403, "PERMISSION_DENIED")
        got = world.balancer.send(Request("GET", f"/api/2.0/mlflow/runs/get?run_id={run}"), admin)
        tags = {tag["key"]: tag["value"] for tag in got.json["run"]["data"]["tags"]}
        assert (tags["mlflow_aws.principal"], tags["mlflow.user"]) == (who, who)


def test_of_two_promotions_at_once_by_two_people_exactly_one_wins(
    world: World, object_store: ObjectStore
) -> None:
    """Through the balancer, to a server of two processes."""
    token = bearer(world.token())
    source = object_store.write_model("runs/m", {"MLmodel": b"flavors: {}"})
    assert world.balancer.send(_post("registered-models/create", {"name": "raced"}), token).status == 200
    for _ in range(3):
        version = _post("model-versions/create", {"name": "raced", "source": source})
        assert world.balancer.send(version, token).status == 200
    first = _post("registered-models/alias", {"name": "raced", "version": "1", "alias": "champion"})
    assert world.balancer.send(first, token).status == 200
    answers: dict[str, Response] = {}

    def promote(version: str) -> None:
        change = _post("registered-models/alias", {"name": "raced", "version": version, "alias": "champion"})
        answers[version] = world.balancer.send(change, (*token, ("If-Match", '"1"')))
        while answers[version].status == 503:
            # As every client does after a response that another promotion is under way.
            answers[version] = world.balancer.send(change, (*token, ("If-Match", '"1"')))

    threads = [threading.Thread(target=promote, args=(version,)) for version in "23"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer.status for answer in answers.values()) == [200, 412]
    [won] = [version for version, answer in answers.items() if answer.status == 200]
    got = world.balancer.send(Request("GET", "/api/2.0/mlflow/registered-models/get?name=raced"), token)
    assert got.json["registered_model"]["aliases"] == [{"alias": "champion", "version": won}]


def test_no_token_is_in_the_log_of_the_server(world: World) -> None:
    tokens = (world.token(), world.token(seconds=-60), world.pool.access_token())
    path = "/api/2.0/mlflow/in-the-log"
    for headers in (bearer(tokens[0]), bearer(tokens[1]), person(tokens[2]), bearer(tokens[0] + "=")):
        assert world.direct.send(Request("POST", path, {}), headers).status in (401, 404)
    deadline = time.monotonic() + 30
    # A line may be written just after its response was sent.
    while (log := world.log.read_text()).count(path) < 4:
        assert time.monotonic() < deadline, log[-2000:]
        time.sleep(0.05)
    assert re.search(r"eyJ[\w-]{10,}\.eyJ", log) is None
    assert not any(token[-40:] in log for token in tokens)
