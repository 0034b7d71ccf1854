"""The synthesized templates of an environment."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cost.prices import CannotPriceError

Resources = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Templates:
    """The resources of each stack, those of a second region apart; the first region, if it is said."""

    stacks: Sequence[Resources]
    second_region: Resources
    region: str | None

    @classmethod
    def read(cls, directory: Path) -> Templates:
        """Read a cloud assembly."""
        artifacts = json.loads((directory / "manifest.json").read_text(encoding="utf-8"))["artifacts"]
        stacks, second, region = [], {}, None
        for name, each in artifacts.items():
            if each["type"] != "aws:cloudformation:stack":
                continue
            file = directory / each["properties"]["templateFile"]
            resources = json.loads(file.read_text(encoding="utf-8"))["Resources"]
            if name.endswith("-Recovery"):
                second = resources
                continue
            stacks.append(resources)
            region = each["environment"].rsplit("/", 1)[1]
        return cls(stacks, second, None if region == "unknown-region" else region)

    @classmethod
    def synthesized(cls, name: str) -> Templates:
        """Synthesize an environment, named by its file in config/ or by a path.

        Raises:
            CannotPriceError: it cannot be synthesized; the text says why.
        """
        chosen = (
            ["-c", "env=dev", "-c", f"config={name}"] if name.endswith(".toml") else ["-c", f"env={name}"]
        )
        with tempfile.TemporaryDirectory(prefix="cost-") as directory:
            done = subprocess.run(
                ["npx", "cdk", "synth", "--quiet", "--output", directory, *chosen],
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                raise CannotPriceError(f"{name} cannot be synthesized:\n{done.stderr.strip()}")
            return cls.read(Path(directory))
