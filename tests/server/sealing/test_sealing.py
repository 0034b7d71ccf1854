"""A registered version is copied by the server, and served from the copy."""

from __future__ import annotations

import hashlib
import json
import secrets

import pytest
from mlflow.store.artifact.s3_artifact_repo import S3ArtifactRepository

from tests.server.conftest import Identity
from tests.server.sealing.harness import FILES, Registry, is_ready


def test_small_model_is_sealed_within_the_call_that_registers_it(served: Registry) -> None:
    model, source = served.new_model(), served.new_source()
    made = served.register(model, source)
    assert made["status"] == "READY"
    assert made["source"] == source
    seal = served.seal(model)
    location = served.location(model)
    assert location == f"s3://{seal['bucket']}/{seal['prefix']}"
    assert location == f"{served.store.root}/sealed/{model}/1/{made['creation_timestamp']}"
    assert served.sealed(location) == FILES
    assert (seal["files"], seal["bytes"]) == (len(FILES), sum(map(len, FILES.values())))


def test_manifest_says_what_s3_says_of_each_file(served: Registry) -> None:
    model = served.new_model()
    source = served.new_source()
    served.register(model, source)
    seal = served.seal(model)
    raw = served.store.client.get_object(Bucket=seal["bucket"], Key=seal["manifest"])["Body"].read()
    assert hashlib.sha256(raw).hexdigest() == seal["sha256"]
    manifest = json.loads(raw)
    assert raw == json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()
    items = manifest.pop("items")
    assert manifest == {
        "schema": 1, "model": model, "version": "1", "bucket": seal["bucket"], "prefix": seal["prefix"],
        "source": source, "sealed_at": seal["at"],
    }  # fmt: skip
    assert [item["path"] for item in items] == sorted(FILES)
    for item in items:
        found = served.store.client.head_object(
            Bucket=seal["bucket"], Key=f"{seal['prefix']}/{item['path']}", ChecksumMode="ENABLED"
        )
        assert item == {
            "path": item["path"], "version_id": found["VersionId"], "size": found["ContentLength"],
            "checksum": found["ChecksumSHA256"], "checksum_type": "FULL_OBJECT",
            "etag": found["ETag"].strip('"'),
        }  # fmt: skip


def test_sealed_bytes_are_served_when_the_source_is_overwritten_or_gone(served: Registry) -> None:
    model = served.new_model()
    served.register(model, source := served.new_source())
    prefix = source.removeprefix(f"s3://{served.store.bucket}/")
    served.store.write_model(prefix, {"MLmodel": b"forged", "added": b"x"})
    served.store.client.delete_object(Bucket=served.store.bucket, Key=f"{prefix}/data/model.pkl")
    assert served.sealed(served.location(model)) == FILES


def test_logged_model_is_sealed_from_where_it_was_logged(served: Registry) -> None:
    run, _ = served.new_run()
    logged = served.post("logged-models", {"experiment_id": "0", "name": "m", "source_run_id": run})
    info = logged["model"]["info"]
    served.store.write_model(
        info["artifact_uri"].removeprefix(f"s3://{served.store.bucket}/"), {"MLmodel": b"logged"}
    )
    model = served.new_model()
    made = served.register(model, f"models:/{info['model_id']}", model_id=info["model_id"])
    assert made["status"] == "READY"
    assert made["source"] == f"models:/{info['model_id']}"
    assert served.sealed(served.location(model)) == {"MLmodel": b"logged"}


def test_source_named_by_its_run_is_sealed(served: Registry) -> None:
    run, prefix = served.new_run()
    served.store.write_model(f"{prefix}/path/model", FILES)
    model = served.new_model()
    assert served.register(model, f"runs:/{run}/path/model", run_id=run)["status"] == "READY"
    assert served.sealed(served.location(model)) == FILES


def test_source_named_by_its_run_is_the_runs_logged_model_of_that_name(served: Registry) -> None:
    run, _ = served.new_run()
    made = served.post("logged-models", {"experiment_id": "0", "name": "m", "source_run_id": run})
    location = made["model"]["info"]["artifact_uri"]
    served.store.write_model(location.removeprefix(f"s3://{served.store.bucket}/"), FILES)
    model = served.new_model()
    assert served.register(model, f"runs:/{run}/m", run_id=run)["status"] == "READY"
    assert served.sealed(served.location(model)) == FILES


def test_copy_of_a_version_has_a_sealed_copy_of_its_own(served: Registry) -> None:
    first, second = served.new_model(), served.new_model()
    served.register(first, served.new_source())
    assert served.register(second, f"models:/{first}/1")["status"] == "READY"
    assert served.location(second) != served.location(first)
    assert served.seal(second)["source"] == served.location(first)
    assert served.sealed(served.location(second)) == FILES


def test_version_belongs_to_its_verified_principal(served: Registry) -> None:
    model = served.new_model()
    made = served.register(model, served.new_source(), user_id="somebody-else")
    assert made["user_id"] == Identity.arn("admin")


def test_prompts_are_not_sealed(served: Registry) -> None:
    prompt = [{"key": "mlflow.prompt.is_prompt", "value": "true"}]
    name = f"prompt-{secrets.token_hex(4)}"
    served.post("registered-models/create", {"name": name, "tags": prompt})
    text = {"key": "mlflow.prompt.text", "value": "Say {{word}}"}
    made = served.register(name, "dummy-source", tags=[*prompt, text])
    assert made["status"] == "READY"
    assert served.seal(name) is None
    assert served.post("registered-models/alias", {"name": name, "alias": "live", "version": "1"}) == {}


def test_a_tag_makes_no_model_a_prompt(served: Registry) -> None:
    model = served.new_model()
    made = served.register(
        model, served.new_source(), tags=[{"key": "mlflow.prompt.is_prompt", "value": "false"}]
    )
    assert made["status"] == "READY"
    assert served.seal(model) is not None


def test_source_without_files_fails_and_says_what_to_do(served: Registry) -> None:
    run, _ = served.new_run()
    model = served.new_model()
    made = served.register(model, f"runs:/{run}/nothing", run_id=run)
    assert made["status"] == "FAILED_REGISTRATION"
    assert "there is no file under" in made["status_message"].lower()
    assert "log the model first, and register the directory that holds it" in made["status_message"]
    assert served.seal(model) is None


@pytest.mark.parametrize(
    "name",
    [
        "two words", "naïve 模型", "a#b", "a%20b", "a+b&c=d", ".a", "~", "'\"\\", "x" * 256, "ü" * 256,
        "a?b", "<b>", "; DROP TABLE", " . ",
    ],
)  # fmt: skip
def test_model_of_any_name_is_sealed_and_served(name: str, served: Registry) -> None:
    served.new_model(name)
    made = served.register(name, served.new_source())
    assert made["status"] == "READY", made
    location = served.location(name)
    assert len(location) <= 500
    assert served.sealed(location) == FILES
    repository = S3ArtifactRepository(location)
    bucket, key = repository.parse_s3_compliant_uri(location)
    assert served.store.read(key) == FILES, "MLflow's clients read the location differently"
    assert bucket == served.store.bucket


def test_model_made_anew_does_not_find_the_copies_of_the_old_one(served: Registry) -> None:
    model = served.new_model()
    served.register(model, served.new_source({"MLmodel": b"old"}))
    old = served.location(model)
    status, _ = served.send("DELETE", "registered-models/delete", {"name": model})
    assert status == 200
    served.new_model(model)
    served.register(model, served.new_source({"MLmodel": b"new"}))
    assert served.location(model) != old
    assert served.sealed(served.location(model)) == {"MLmodel": b"new"}
    assert served.sealed(old) == {"MLmodel": b"old"}


def test_version_of_a_renamed_model_is_served_from_where_it_was_sealed(served: Registry) -> None:
    model = served.new_model()
    served.register(model, served.new_source())
    location = served.location(model)
    served.post("registered-models/rename", {"name": model, "new_name": f"{model}-new"})
    assert served.location(f"{model}-new") == location
    served.register(f"{model}-new", served.new_source())
    assert served.sealed(served.location(f"{model}-new", "2")) == FILES


def test_the_server_reads_and_writes_no_model_bytes(served: Registry) -> None:
    """A large file takes no longer than its copy inside S3, and the server's memory stays what it was."""
    model = served.new_model()
    before = served.resident_bytes()
    made = served.register(model, served.new_source({"large.bin": bytes(64 * 2**20)}))
    served.until(is_ready, model)
    assert made["status"] in ("READY", "PENDING_REGISTRATION")
    assert served.resident_bytes() - before < 32 * 2**20
