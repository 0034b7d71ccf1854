"""Webhooks' secrets open in every task, with a key that Secrets Manager keeps."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from botocore.exceptions import ClientError
from mlflow.store.model_registry.dbmodels.models import EncryptedString
from mlflow_aws_server.webhook_key import WebhookKey, WebhookKeyError

ARN = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:WebhookKey-a1B2c3"
MISSING = {"Error": {"Code": "ResourceNotFoundException"}}


@dataclass
class Secrets:
    """Secrets Manager, with one secret's versions; the newest comes first."""

    versions: list[str]
    available: bool = True
    reads: int = 0

    class exceptions:  # noqa: N801 - boto3's name
        ResourceNotFoundException = type("ResourceNotFoundException", (ClientError,), {})

    def get_secret_value(self, *, SecretId: str, VersionStage: str) -> dict[str, str]:  # noqa: N803
        assert SecretId == ARN
        self.reads += 1
        if not self.available:
            raise ClientError({"Error": {"Code": "InternalServiceError"}}, "GetSecretValue")
        place = ("AWSCURRENT", "AWSPREVIOUS").index(VersionStage)
        if place >= len(self.versions):
            raise self.exceptions.ResourceNotFoundException(MISSING, "GetSecretValue")
        return {"SecretString": self.versions[place]}


@dataclass
class Task:
    """A server's process: MLflow's column with our cipher."""

    secrets: Secrets
    column: EncryptedString = field(default_factory=EncryptedString)

    def __post_init__(self) -> None:
        self.column.cipher = WebhookKey(ARN, "eu-central-1", client=lambda: self.secrets)

    def store(self, secret: str) -> str:
        stored: str = self.column.process_bind_param(secret, None)
        return stored

    def load(self, stored: str) -> str:
        loaded: str = self.column.process_result_value(stored, None)
        return loaded


def test_a_secret_that_one_task_stored_is_read_by_another() -> None:
    secrets = Secrets(["made by Secrets Manager"])
    stored = Task(secrets).store("signing secret")
    assert "signing" not in stored
    assert Task(secrets).load(stored) == "signing secret"


def test_nobody_asks_for_the_key_before_a_webhook_has_a_secret() -> None:
    secrets = Secrets(["key"])
    task = Task(secrets)
    assert task.column.process_result_value(None, None) is None
    assert secrets.reads == 0


def test_after_a_rotation_old_secrets_open_and_a_task_with_the_old_key_reads_new_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    secrets = Secrets(["first"])
    running = Task(secrets)
    old = running.store("old")
    secrets.versions.insert(0, "second")
    new = Task(secrets).store("new")
    assert Task(secrets).load(old) == "old"
    monkeypatch.setattr("mlflow_aws_server.webhook_key._SECONDS_BETWEEN_READINGS", -1)
    assert (running.load(new), running.load(old)) == ("new", "old")


def test_a_secret_whose_key_is_lost_neither_fails_nor_is_sent_unsigned(
    caplog: pytest.LogCaptureFixture,
) -> None:
    lost = Task(Secrets(["lost"])).store("signing secret")
    secrets = Secrets(["key"])
    task = Task(secrets)
    # MLflow signs nothing where there is no secret.
    assert len(task.load(lost)) == 64
    assert task.load(lost) not in ("signing secret", task.load(lost))
    assert "set it again" in caplog.text
    # However many rows there are, Secrets Manager is not asked for each.
    assert secrets.reads == 2


def test_without_secrets_manager_mlflow_answers_503_and_tries_again_with_the_next_call() -> None:
    secrets = Secrets(["key"], available=False)
    task = Task(secrets)
    with pytest.raises(WebhookKeyError) as refused:
        task.store("signing secret")
    assert refused.value.get_http_status_code() == 503
    secrets.available = True
    assert task.load(task.store("signing secret")) == "signing secret"
