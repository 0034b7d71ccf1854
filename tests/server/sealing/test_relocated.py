"""What was sealed in another bucket is sealed again in this one, if it is still what was sealed."""

from __future__ import annotations

import json
import re
import secrets

import pytest
from mlflow_aws_server.relocation import relocate
from mlflow_aws_server.sealing.manifest import Seal
from mlflow_aws_server.settings import ImportSettings
from model_lifecycle import evidence

from tests.server.sealing.harness import FILES, Registry

FORMER = "mlflow_aws.former_seal"


class Moved:
    """A version that was sealed in a bucket that is lost, whose files were copied below `relocated/`."""

    def __init__(self, registry: Registry) -> None:
        self.registry, self.model = registry, registry.new_model()
        self.lost = f"s3://lost-{secrets.token_hex(4)}"
        self.new = f"{registry.store.root}/relocated"
        source = registry.new_source()
        registry.register(self.model, source)
        self.source = source.replace(registry.store.root, self.new)
        client, bucket = registry.store.client, registry.store.bucket
        root = registry.store.root.removeprefix(f"s3://{bucket}/")
        for key in registry.objects(registry.sealed_root(self.model)):
            body = client.get_object(Bucket=bucket, Key=key)["Body"].read()
            client.put_object(Bucket=bucket, Key=self._here(key.removeprefix(f"{root}/")), Body=body)
            client.delete_object(Bucket=bucket, Key=key)
        seal = registry.seal(self.model)
        seal |= {name: seal[name].removeprefix(f"{root}/") for name in ("prefix", "manifest")}
        seal |= {"bucket": self.lost[5:], "source": source.replace(registry.store.root, self.lost)}
        self.place, self.manifest = registry.location(self.model), seal["manifest"]
        registry.execute(
            f"UPDATE model_version_tags SET value = '{json.dumps(seal)}'"
            f" WHERE name = '{self.model}' AND key = 'mlflow_aws.seal'"
        )
        for column in ("source", "storage_location"):
            lost = f"replace({column}, '{registry.store.root}', '{self.lost}')"
            registry.execute(f"UPDATE model_versions SET {column} = {lost} WHERE name = '{self.model}'")

    def relocate(self) -> object:
        settings = ImportSettings.from_environ(self.registry.deployment.environ)
        return relocate(settings, old=self.lost, new=self.new)["rows"]

    def overwrite(self, path: str) -> None:
        """As a contributor may, in `relocated/`."""
        self.registry.store.client.put_object(
            Bucket=self.registry.store.bucket, Key=self._here(path), Body=b"forged"
        )

    def tags(self) -> dict[str, str]:
        found = self.registry.version(self.model)
        return {tag["key"]: tag["value"] for tag in found["tags"]}

    def verdict(self) -> evidence.Integrity:
        """What `mlflow-lifecycle explain` says."""
        return evidence.examine(
            lambda: self.registry.store.client,
            self.tags(),
            model=self.model,
            version="1",
            created_ms=self.registry.version(self.model)["creation_timestamp"],
            served=self.registry.location(self.model),
        )

    def refusal(self) -> str:
        """Why the version gets no alias."""
        status, answer = self.registry.send(
            "POST", "registered-models/alias", {"name": self.model, "alias": "champion", "version": "1"}
        )
        assert status == 409, answer
        return str(answer["message"])

    def _here(self, path: str) -> str:
        return f"{self.new}/{path}".removeprefix(f"s3://{self.registry.store.bucket}/")


@pytest.fixture
def moved(served: Registry, monkeypatch: pytest.MonkeyPatch) -> Moved:
    for name, value in served.deployment.environ.items():
        monkeypatch.setenv(name, value)
    return Moved(served)


def test_a_relocated_version_is_not_sealed_until_it_is_here(moved: Moved) -> None:
    rows = moved.relocate()
    assert isinstance(rows, dict)
    assert rows["model_version_tags.mlflow_aws.seal"] == 1
    assert moved.verdict().verdict in ("not sealed", "intact")
    again = moved.relocate()
    assert isinstance(again, dict)
    assert sum(again.values()) == 0


def test_it_is_sealed_again_though_nothing_names_it_and_says_where_it_is_from(moved: Moved) -> None:
    moved.relocate()
    moved.registry.until_sealed(moved.model)
    found = moved.verdict()
    assert found.verdict == "intact"
    assert moved.registry.location(moved.model) == moved.place
    assert moved.registry.sealed(moved.place) == FILES
    assert found.seal is not None
    # Where erasing the run looks for what was made from it.
    assert found.seal.source == moved.source
    assert json.loads(moved.tags()[FORMER])["manifest"].endswith(moved.manifest)


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("data/model.pkl", "1 files under .* are not those that were sealed, such as data/model.pkl"),
        ("data/added", "1 files under .* are not those that were sealed, such as data/added"),
        (".manifest.json", "the manifest of that seal, .*, is another now"),
    ],
)
def test_what_somebody_changed_on_the_way_is_not_sealed(path: str, why: str, moved: Moved) -> None:
    sealed = moved.manifest.removesuffix(".manifest.json")
    moved.overwrite(f"{sealed}{path}" if path.startswith(".") else f"{sealed}/{path}")
    moved.relocate()
    refusal = moved.refusal()
    assert re.search(why, refusal), refusal
    assert moved.registry.seal(moved.model) is None
    assert moved.registry.version(moved.model)["status"] == "READY"
    assert moved.verdict().verdict == "not sealed"


@pytest.mark.parametrize(
    ("old", "place"),
    [
        ("s3://lost", "s3://here/relocated/mlflow/sealed/churn/1/17"),
        ("s3://lost/mlflow/", "s3://here/relocated/sealed/churn/1/17"),
        ("s3://los", None),
        ("s3://lost/mlflow/seal", None),
    ],
)
def test_a_seal_moves_with_its_manifest_and_its_source(old: str, place: str | None) -> None:
    seal = Seal(
        at="", bucket="lost", prefix="mlflow/sealed/churn/1/17", source="s3://lost/mlflow/1/run/artifacts/model",
        manifest="mlflow/sealed/churn/1/17.manifest.json", sha256="", files=1, bytes=1,
    )  # fmt: skip
    moved = seal.relocated(old, "s3://here/relocated")
    assert (moved and moved.location) == place
    if moved and place:
        assert f"s3://{moved.bucket}/{moved.manifest}" == f"{place}.manifest.json"
        assert moved.source == place.replace("sealed/churn/1/17", "1/run/artifacts/model")


def test_nobody_writes_a_former_seal(served: Registry) -> None:
    model = served.new_model()
    served.register(model, served.new_source())
    status, _ = served.send(
        "POST", "model-versions/set-tag", {"name": model, "version": "1", "key": FORMER, "value": "{}"}
    )
    assert status == 403
