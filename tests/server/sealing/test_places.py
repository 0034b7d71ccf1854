"""Where sealed copies are, and what may be copied there."""

from __future__ import annotations

import pytest
from mlflow_aws_server.sealing.errors import UnsealableError
from mlflow_aws_server.sealing.places import Prefix, Root, slug

ROOT = Root.read("s3://bucket/runs")
PLACE = ROOT.place_of("model", 1, 1700000000000)

NAMES = (
    "model", "Model", "a b", "a_b", "a~20b", "~20", " ", ".", "..", "...", ".a", "~2Ea", "a.b", "a%2Fb",
    "naïve", "nai\u0308ve", "模型", "a#b", "a?b", "a%b", "a+b", "a\\b", "a\nb", "x" * 80, "x" * 81, "x" * 256,
    "x" * 255 + "y", "é" * 256,
)  # fmt: skip


def test_two_names_never_share_a_place() -> None:
    assert len({slug(name) for name in NAMES}) == len(NAMES)
    assert len({slug(name).lower() for name in NAMES}) == len(NAMES) - 1  # S3 tells model and Model apart


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_one_plain_segment_of_a_key(name: str) -> None:
    segment = slug(name)
    assert set(segment) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-~")
    assert not segment.startswith(".")
    assert 0 < len(segment) <= 93


def test_a_plain_name_stays_as_it_is() -> None:
    assert slug("credit-risk_2.0") == "credit-risk_2.0"
    assert str(PLACE) == "s3://bucket/runs/sealed/model/1/1700000000000"


def test_a_root_without_a_prefix_has_its_copies_at_the_top() -> None:
    assert str(Root.read("s3://bucket").place_of("m", 2, 3)) == "s3://bucket/sealed/m/2/3"
    assert str(Root.read("s3://bucket/").place_of("m", 2, 3)) == "s3://bucket/sealed/m/2/3"


def test_a_place_that_mlflow_could_not_store_is_refused() -> None:
    root = Root.read("s3://bucket/" + "p" * 400)
    with pytest.raises(UnsealableError, match="choose a shorter artifact prefix"):
        root.place_of("x" * 256, 1, 1700000000000)


@pytest.mark.parametrize(
    "location",
    [
        "s3://bucket/runs/0/abc/artifacts/model",
        "s3://bucket/runs/0/abc/artifacts/model/",
        "s3://bucket/runs/sealed/other/1/1600000000000",
        "s3://bucket/runs/sealed/model/1/1600000000000",
    ],
)
def test_what_is_under_the_root_may_be_sealed(location: str) -> None:
    assert str(ROOT.source(location, PLACE)) == location.rstrip("/")


@pytest.mark.parametrize(
    "location",
    [
        "s3://other/runs/0/abc", "s3://bucket/0/abc", "s3://bucket/runs2/abc", "s3://bucket/run",
        "S3X://bucket/runs/0/abc", "file:///runs/0", "runs/0/abc", "", "https://bucket/runs/0",
    ],
)  # fmt: skip
def test_a_source_elsewhere_is_refused_with_the_remedy(location: str) -> None:
    with pytest.raises(UnsealableError, match="log the model with this server"):
        ROOT.source(location, PLACE)


@pytest.mark.parametrize(
    "location",
    [
        "s3://bucket/runs", "s3://bucket/runs/", "s3://bucket/runs/sealed", "s3://bucket/runs/sealed/model",
        "s3://bucket/runs/sealed/model/1/", str(PLACE),
    ],
)  # fmt: skip
def test_a_source_that_holds_the_copies_is_refused(location: str) -> None:
    with pytest.raises(UnsealableError, match="register the directory of one model"):
        ROOT.source(location, PLACE)


def test_a_uri_is_cut_where_mlflows_clients_cut_it() -> None:
    from mlflow.store.artifact.s3_artifact_repo import S3ArtifactRepository

    for uri in (
        "s3://bucket/runs/a b",
        "s3://bucket/runs/a#b",
        "s3://bucket/runs/a?b",
        "s3://bucket/runs/%41",
    ):
        bucket, key = S3ArtifactRepository(uri).parse_s3_compliant_uri(uri)
        assert Prefix.read(uri) == Prefix(bucket, key)
