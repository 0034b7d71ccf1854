"""Small documents: bucket configurations, task credentials, the address book."""

from __future__ import annotations

import json
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from local.emulator import bucket_documents
from local.emulator.address_book import AddressBook
from local.emulator.task_credentials import TaskCredentials


def test_what_a_template_does_not_state_is_not_configured() -> None:
    assert bucket_documents.encryption({}) is None
    assert bucket_documents.lifecycle({}) is None
    assert bucket_documents.logging({}) is None


def test_a_lifecycle_rule_keeps_every_part() -> None:
    rule = {
        "Id": "a<b",
        "Status": "Enabled",
        "ExpirationInDays": 90,
        "NoncurrentVersionExpiration": {"NoncurrentDays": 7},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 3},
    }
    document = bucket_documents.lifecycle({"LifecycleConfiguration": {"Rules": [rule]}})
    assert document is not None
    for part in (
        b"<ID>a&lt;b</ID>",
        b"<Expiration><Days>90</Days></Expiration>",
        b"<NoncurrentDays>7</NoncurrentDays>",
        b"<DaysAfterInitiation>3</DaysAfterInitiation>",
    ):
        assert part in document


def test_a_part_of_a_lifecycle_rule_that_is_not_translated_is_an_error() -> None:
    with pytest.raises(NotImplementedError, match="Transitions"):
        bucket_documents.lifecycle({"LifecycleConfiguration": {"Rules": [{"Transitions": []}]}})


def test_access_logs_name_their_bucket_and_prefix() -> None:
    stated = {"LoggingConfiguration": {"DestinationBucketName": "logs", "LogFilePrefix": "a/"}}
    document = bucket_documents.logging(stated)
    assert document is not None
    assert b"<TargetBucket>logs</TargetBucket><TargetPrefix>a/</TargetPrefix>" in document


def test_every_task_gets_an_address_of_its_subnet_that_leads_to_its_port(tmp_path: Path) -> None:
    book = AddressBook(tmp_path / "addresses.json")
    network = IPv4Network("10.42.0.0/24")
    first = book.take(network, ports=[5000], local_port=41001)
    second = book.take(network, ports=[5000], local_port=41002)
    assert first != second
    assert json.loads((tmp_path / "addresses.json").read_text()) == {
        f"{first}:5000": "127.0.0.1:41001",
        f"{second}:5000": "127.0.0.1:41002",
    }
    book.give_back(first)
    assert list(json.loads((tmp_path / "addresses.json").read_text())) == [f"{second}:5000"]


def test_credentials_are_for_the_task_that_shows_its_token() -> None:
    endpoint = TaskCredentials(lambda role, session, _seconds: {"RoleArn": role, "Session": session})
    path, token = endpoint.admit(role_arn="arn:role", session_name="one")
    other_path, other_token = endpoint.admit(role_arn="arn:other", session_name="two")
    assert endpoint.answer(path, {"authorization": token}) == (200, {"RoleArn": "arn:role", "Session": "one"})
    for wrong in ({}, {"Authorization": ""}, {"Authorization": other_token}, {"Authorization": "é"}):
        assert endpoint.answer(path, wrong)[0] == 403
    assert endpoint.answer("/v2/credentials/guessed", {"Authorization": token})[0] == 403
    assert endpoint.answer(other_path, {"Authorization": other_token})[0] == 200
