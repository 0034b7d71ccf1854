"""A registered version is copied by the server, and served from the copy."""

from __future__ import annotations

import hashlib
import json

from tests.server.sealing.harness import FILES, Registry


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
