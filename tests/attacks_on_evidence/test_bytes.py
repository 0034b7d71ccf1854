"""What consumers load is what was approved, whatever insiders do to the files of the model."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError

from tests.attacks_on_evidence.bytes_attacks import (
    FILE,
    ON_ORIGINALS,
    ON_SEALED,
    delete_the_version,
    overwrite,
)
from tests.attacks_on_evidence.site import (
    APPROVER,
    AUTHOR,
    COLLEAGUE,
    FILES,
    INSIDERS,
    KINDS,
    MOMENTS,
    VIEWER,
    Kind,
    Model,
    Moment,
    Person,
    Site,
)
from tests.iam.conftest import SERVER

pytestmark = pytest.mark.slow

DENIALS = {"AccessDenied", "403"}


@pytest.fixture(scope="module", params=KINDS)
def in_production(site: Site, request: pytest.FixtureRequest) -> Model:
    """A version in Production, shared by attacks that must leave it as it is."""
    return site.model(request.param)


@pytest.mark.parametrize("attack", ON_ORIGINALS)
@pytest.mark.parametrize("person", INSIDERS, ids=lambda person: person.name)
def test_after_production_an_original_changes_and_what_is_loaded_does_not(
    attack: str, person: Person, in_production: Model
) -> None:
    site = in_production.site
    ON_ORIGINALS[attack](site.s3(person), site.bucket, in_production.source)
    assert in_production.loaded() == FILES
    in_production.assert_as_approved()


@pytest.mark.parametrize("attack", ["overwrite", "delete_all", "upload_the_same_again", "add_a_file"])
@pytest.mark.parametrize("moment", MOMENTS[:2])
@pytest.mark.parametrize("kind", KINDS)
def test_before_production_an_original_changes_and_what_is_approved_is_what_was_registered(
    kind: Kind, moment: Moment, attack: str, site: Site
) -> None:
    model = site.model(kind, until=moment)
    ON_ORIGINALS[attack](site.s3(COLLEAGUE), site.bucket, model.source)
    model.live_on(moment)
    assert model.loaded() == FILES
    model.assert_as_approved()


@pytest.mark.parametrize("attack", ON_SEALED)
@pytest.mark.parametrize("person", [AUTHOR, APPROVER], ids=lambda person: person.name)
def test_every_write_and_delete_where_production_loads_from_is_denied_by_iam(
    attack: str, person: Person, in_production: Model
) -> None:
    site, place = in_production.site, in_production.place
    with pytest.raises(ClientError) as refused:
        ON_SEALED[attack](site.s3(person), site.bucket, place)
    assert refused.value.response["Error"]["Code"] in DENIALS
    assert in_production.loaded() == FILES


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_sealed_copy_is_out_of_reach_from_the_start(moment: Moment, site: Site) -> None:
    model = site.model("run artifact", until=moment)
    with pytest.raises(ClientError):
        overwrite(site.s3(AUTHOR), site.bucket, model.place)
    model.live_on(moment)
    model.assert_as_approved()


def test_not_even_the_server_deletes_or_changes_the_rights_of_what_it_sealed(
    site: Site, in_production: Model
) -> None:
    s3 = site.deployed.roles[SERVER].client("s3")
    for attack in ("delete", "delete_all", "delete_the_version", "open_it_to_others"):
        with pytest.raises(ClientError) as refused:
            ON_SEALED[attack](s3, site.bucket, in_production.place)
        assert refused.value.response["Error"]["Code"] in DENIALS
    with pytest.raises(ClientError):
        overwrite(s3, site.bucket, in_production.source)


def test_an_original_of_which_no_object_version_is_left_can_still_be_loaded(site: Site) -> None:
    """What the bucket's lifecycle does to overwritten files after `noncurrent_days`, at once."""
    model = site.model("run artifact")
    overwrite(site.s3(AUTHOR), site.bucket, model.source)
    versions = site.root_s3.list_object_versions(Bucket=site.bucket, Prefix=f"{model.source}/")
    for each in versions["Versions"]:
        site.root_s3.delete_object(Bucket=site.bucket, Key=each["Key"], VersionId=each["VersionId"])
    assert model.loaded() == FILES
    model.assert_as_approved()


def test_what_the_root_of_the_account_overwrites_is_shown(site: Site) -> None:
    model = site.model("run artifact")
    overwrite(site.root_s3, site.bucket, model.place)
    model.assert_shows_tampering(FILE)


def test_the_same_bytes_written_by_the_root_are_shown_too(site: Site) -> None:
    model = site.model("logged model")
    site.root_s3.put_object(Bucket=site.bucket, Key=f"{model.place}/{FILE}", Body=FILES[FILE])
    model.assert_shows_tampering(FILE)


def test_a_sealed_object_version_deleted_by_the_root_is_shown(site: Site) -> None:
    model = site.model("run artifact")
    delete_the_version(site.root_s3, site.bucket, model.place)
    model.assert_shows_tampering(FILE)


def test_a_delete_marker_of_the_root_is_shown(site: Site) -> None:
    model = site.model("run artifact")
    site.root_s3.delete_object(Bucket=site.bucket, Key=f"{model.place}/{FILE}")
    model.assert_shows_tampering(FILE)


def test_a_file_added_by_the_root_is_shown(site: Site) -> None:
    model = site.model("run artifact")
    site.root_s3.put_object(Bucket=site.bucket, Key=f"{model.place}/sitecustomize.py", Body=b"evil()")
    model.assert_shows_tampering("sitecustomize.py")


def test_a_file_swapped_by_the_root_between_staging_and_production_stops_the_promotion(site: Site) -> None:
    model = site.model("run artifact", until="between Staging and Production")
    overwrite(site.root_s3, site.bucket, model.place)
    said = site.lifecycle(APPROVER, "promote", model.name, model.number, "--to=production")
    assert said.code == 3, said.words
    assert FILE in said.words
    with site.being(VIEWER) as client:
        assert client.get_model_version(model.name, model.number).current_stage == "Staging"
