"""What is interrupted, by whatever, is finished once; meanwhile the version says how it stands."""

from __future__ import annotations

import secrets
import threading
import time

import pytest

from tests.object_store import ObjectStore
from tests.server.sealing.harness import FILES, PENDING, Registry, is_ready

pytestmark = pytest.mark.slow

MANY = {f"shard-{number:03}.bin": secrets.token_bytes(1_500_000) for number in range(200)}


def assert_complete(registry: Registry, model: str, files: dict[str, bytes]) -> None:
    """One sealed copy, each of whose objects was written once, and nothing beside it."""
    seal = registry.seal(model)
    assert registry.sealed(registry.location(model)) == files
    everything = {f"{seal['prefix']}/{path}" for path in files} | {seal["manifest"]}
    found = registry.objects(registry.sealed_root(model))
    assert found.keys() == everything
    assert set(found.values()) == {1}
    assert (seal["files"], seal["bytes"]) == (len(files), sum(map(len, files.values())))
    assert "Uploads" not in registry.store.client.list_multipart_uploads(Bucket=registry.store.bucket)


def test_killed_server_leaves_a_pending_version_that_the_next_one_finishes(own: Registry) -> None:
    own.start()
    model, source = own.new_model(), own.new_source(MANY)
    registering = threading.Thread(target=own.register_and_forget, args=(model, source))
    registering.start()
    prefix = own.sealed_root(model)
    while len(own.objects(prefix)) < 20:
        time.sleep(0.01)
    own.kill()
    registering.join()
    copied = len(own.objects(prefix))
    assert 20 <= copied < len(MANY)
    own.start()
    version = own.version(model)
    assert version["status"] == PENDING or own.seal(model) is not None
    own.until(is_ready, model)
    assert_complete(own, model, MANY)


def test_two_servers_make_one_copy(own: Registry) -> None:
    # Neither can reach S3 before both want to seal.
    own.start(MLFLOW_AWS_SEAL_AT="promotion")
    models = [own.new_model() for _ in range(3)]
    files = dict(list(MANY.items())[:40])
    for model in models:
        own.register(model, own.new_source(files))
    own.kill()
    own.execute("UPDATE model_versions SET status = 'PENDING_REGISTRATION'")
    starting = [threading.Thread(target=own.start) for _ in range(2)]
    for each in starting:
        each.start()
    for each in starting:
        each.join()
    for model in models:
        own.until(is_ready, model)
        assert_complete(own, model, files)
    assert sorted(line["model"] for line in own.sealings("sealed")) == sorted(models)


def test_unreachable_s3_leaves_a_clear_state_and_sealing_goes_on_by_itself(own: Registry) -> None:
    store = ObjectStore()
    own.store = store
    own.start(AWS_ENDPOINT_URL_S3=store.endpoint)
    model = own.new_model()
    run, prefix = own.new_run()
    made = own.register(model, f"s3://{store.bucket}/{prefix}/model", run_id=run)
    assert made["status"] == PENDING
    version = own.until(lambda version: "Attempt 1" in version["status_message"], model)
    assert version["status"] == PENDING
    assert "failed, and the server tries again" in version["status_message"]
    assert "Could not connect to the endpoint URL" in version["status_message"]
    store.start()
    try:
        store.write_model(f"{prefix}/model", FILES)
        own.until(is_ready, model)
        assert "status_message" not in own.version(model)
        assert_complete(own, model, FILES)
    finally:
        store.stop()


def test_version_of_a_server_that_dies_right_after_mlflow_made_it_is_pending(own: Registry) -> None:
    own.start(AWS_ENDPOINT_URL_S3="http://127.0.0.1:9")
    model, source = own.new_model(), own.new_source()
    made = own.register(model, source)
    own.kill()
    ((status, location),) = own.execute(
        f"SELECT status, storage_location FROM model_versions WHERE name = '{model}'"
    )
    assert (status, location) == (PENDING, source)
    assert made["status"] == PENDING
    own.start()
    own.until(is_ready, model)
    assert_complete(own, model, FILES)


def test_version_deleted_while_it_is_sealed_stays_deleted(own: Registry) -> None:
    own.start(AWS_ENDPOINT_URL_S3="http://127.0.0.1:9")
    model, source = own.new_model(), own.new_source()
    own.register(model, source)
    status, _ = own.send("DELETE", "model-versions/delete", {"name": model, "version": "1"})
    assert status == 200
    own.kill()
    own.start()
    other = own.new_model()
    own.register(other, source)
    own.until(is_ready, other)
    assert own.objects(own.sealed_root(model)) == {}
    assert model not in own.output()


def test_live_versions_from_before_sealing_are_sealed_and_no_others(own: Registry) -> None:
    own.start(MLFLOW_AWS_SEAL_AT="promotion")
    staged, aliased, other = (own.new_model() for _ in range(3))
    for model in (staged, aliased, other):
        assert own.register(model, own.new_source())["status"] == "READY"
        assert own.seal(model) is None
    own.kill()
    own.execute(f"UPDATE model_versions SET current_stage = 'Production' WHERE name = '{staged}'")
    own.execute(f"INSERT INTO registered_model_aliases VALUES ('champion', 1, '{aliased}', 'default')")
    own.start()
    for model in (staged, aliased):
        own.until_sealed(model)
        assert_complete(own, model, FILES)
    assert own.seal(other) is None
    assert own.version(other)["status"] == "READY"


def test_live_version_that_cannot_be_sealed_stays_ready_and_is_reported(own: Registry) -> None:
    own.start(MLFLOW_AWS_SEAL_AT="promotion")
    model = own.new_model()
    run, prefix = own.new_run()
    own.register(model, f"s3://{own.store.bucket}/{prefix}/nothing", run_id=run)
    own.kill()
    own.execute("UPDATE model_versions SET current_stage = 'Production'")
    own.start()
    deadline = time.monotonic() + 30
    while not (lines := own.sealings("failed")):
        assert time.monotonic() < deadline, own.output()
        time.sleep(0.1)
    (line,) = lines
    assert (line["level"], line["model"]) == ("ERROR", model)
    assert "log the model first" in line["reason"]
    assert own.version(model)["status"] == "READY"
