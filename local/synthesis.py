"""Synthesizes the stacks with `cdk synth` for a laptop: the dev environment with a few values replaced."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import tomlkit

from local.environment import clean
from local.parts.processes import Ledger

ENVIRONMENT = "dev"
IMAGE = "mlflow-on-aws/server:local"
# A name that the stacks accept; clients use `localhost`, which every machine resolves.
DOMAIN = "mlflow.localhost"


class SynthesisError(RuntimeError):
    """`cdk synth` failed; the message holds its output."""


@dataclass(frozen=True)
class Synthesis:
    """Where the project is, and where its synthesized stacks go."""

    project: Path
    output: Path
    configuration: Path

    def configure(
        self,
        *,
        database_port: int,
        certificate_arn: str,
        members: Mapping[str, Sequence[str]],
        trusted: Mapping[str, str],
    ) -> None:
        """Write the laptop's configuration: config/dev.toml, watched like prod, without image and DNS zone.

        `members` maps each MLflow role to the ARNs of the IAM roles that have it, `trusted` each further
        account to its issuer of tokens.
        """
        document = tomlkit.parse((self.project / "config" / f"{ENVIRONMENT}.toml").read_text())
        document["database"]["port"] = database_port
        document["server"]["image_uri"] = IMAGE
        document["monitoring"]["dashboard"] = document["artifacts"]["request_metrics"] = True
        ingress = document["ingress"]
        for key in ("hosted_zone_id", "hosted_zone_name"):
            ingress.pop(key, None)
        ingress["domain"] = DOMAIN
        ingress["certificate_arn"] = certificate_arn
        document["identity"] = {
            "trusted_issuers": [{"account": each, "issuer": issuer} for each, issuer in trusted.items()],
            "roles": {role: {"iam_roles": list(arns)} for role, arns in members.items()},
        }
        self.configuration.write_text(tomlkit.dumps(document))

    def run(self, ledger: Ledger) -> bool:
        """Synthesize if an input has changed; returns whether it did.

        Raises:
            SynthesisError: it failed.
        """
        fingerprint = self._fingerprint()
        seal = self.output.with_suffix(".sealed")
        if (self.output / "manifest.json").exists() and seal.exists() and seal.read_text() == fingerprint:
            return False
        seal.unlink(missing_ok=True)
        process = subprocess.Popen(
            [
                str(self.project / ".venv" / "bin" / "node"),
                str(self.project / "node_modules" / "aws-cdk" / "bin" / "cdk"),
                "synth",
                "--quiet",
                "--no-notices",
                "-c",
                f"env={ENVIRONMENT}",
                "-c",
                f"config={self.configuration}",
                "-o",
                str(self.output),
            ],
            cwd=self.project,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=clean(CDK_DISABLE_VERSION_CHECK="1", CDK_DISABLE_CLI_TELEMETRY="true", CI="true"),
            start_new_session=True,
        )
        ledger.add(process.pid, "cdk synth")
        said, _ = process.communicate()
        ledger.remove(process.pid)
        if process.returncode != 0:
            raise SynthesisError(f"cdk synth ended with code {process.returncode}:\n{said.strip()}")
        seal.write_text(fingerprint)
        return True

    def _fingerprint(self) -> str:
        digest = hashlib.sha256()
        for file in self._inputs():
            digest.update(f"{file}\0".encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
        return digest.hexdigest()

    def _inputs(self) -> Iterator[Path]:
        yield self.configuration
        for name in ("app.py", "cdk.json", "package-lock.json", "requirements-dev.txt", "requirements.txt"):
            if (self.project / name).exists():
                yield self.project / name
        for file in sorted((self.project / "stacks").rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts:
                yield file
