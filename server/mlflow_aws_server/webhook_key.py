"""The key that encrypts the signing secrets of webhooks: one for all tasks, kept by Secrets Manager.

MLflow's own is in an environment variable, or else made anew by each process, whose rows no other can read.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import secrets
import threading
import time
from collections.abc import Callable
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import TEMPORARILY_UNAVAILABLE
from sqlalchemy.exc import DontWrapMixin

from mlflow_aws_server.aws import aws_client
from mlflow_aws_server.database.token import NoCredentialsError

_log = logging.getLogger(__name__)

# The one that encrypts, and the one before a rotation.
_STAGES = ("AWSCURRENT", "AWSPREVIOUS")
_SECONDS_BETWEEN_READINGS = 60.0


class WebhookKeyError(MlflowException, DontWrapMixin):  # type: ignore[misc]
    """Secrets Manager does not give the key; MLflow answers 503, which clients send again."""

    def __init__(self) -> None:
        super().__init__(
            "The key of webhooks' secrets cannot be read at the moment.", error_code=TEMPORARILY_UNAVAILABLE
        )


class WebhookKey:
    """Takes the place of MLflow's cipher.

    The key is read when it is first needed, so that no start waits for it, and again when a secret does not
    open with it: another task may have a newer one. A secret whose key is lost reads as one that nobody
    knows: its webhook is listed, and what it sends has a signature that its receiver refuses.
    """

    def __init__(self, arn: str, region: str, *, client: Callable[[], Any] | None = None) -> None:
        self._arn = arn
        self._client = client or (lambda: aws_client("secretsmanager", region, read_timeout=5))
        self._reading = threading.Lock()
        self._read_at = float("-inf")
        self._keys: MultiFernet | None = None

    def use(self) -> None:
        """Let MLflow use it, in this process; before its stores are opened, which copy the column's type."""
        from mlflow.store.model_registry.dbmodels.models import SqlWebhook

        SqlWebhook.__table__.c.secret.type.cipher = self

    def encrypt(self, secret: bytes) -> bytes:
        """Encrypt with the newest key that is known here."""
        return self._known().encrypt(secret)

    def decrypt(self, token: bytes) -> bytes:
        """Decrypt with the key, or the one before it."""
        for newest in (False, True):
            try:
                return self._known(newest=newest).decrypt(token)
            except InvalidToken:
                pass
        _log.error("the secret of a webhook was encrypted with a key that is lost: set it again")
        return secrets.token_hex(32).encode()

    def _known(self, *, newest: bool = False) -> MultiFernet:
        with self._reading:
            old = time.monotonic() - self._read_at > _SECONDS_BETWEEN_READINGS
            if self._keys is None or (newest and old):
                try:
                    self._keys = MultiFernet(self._from_secrets_manager())
                except (BotoCoreError, ClientError, NoCredentialsError) as error:
                    _log.error("the key of webhooks' secrets cannot be read: %s", error)
                    raise WebhookKeyError from error
                self._read_at = time.monotonic()
            return self._keys

    def _from_secrets_manager(self) -> list[Fernet]:
        client, keys = self._client(), []
        for stage in _STAGES:
            try:
                answer = client.get_secret_value(SecretId=self._arn, VersionStage=stage)
            except client.exceptions.ResourceNotFoundException:
                # Never rotated: there is none before.
                if stage == _STAGES[0]:
                    raise
            else:
                digest = hashlib.sha256(answer["SecretString"].encode()).digest()
                keys.append(Fernet(base64.urlsafe_b64encode(digest)))
        return keys
