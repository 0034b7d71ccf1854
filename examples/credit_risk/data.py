"""The data set: the file, its hash and revision, and a hold-out that never changes."""

from __future__ import annotations

import hashlib
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml  # type: ignore[import-untyped]
from sklearn.model_selection import train_test_split

CSV = Path(__file__).parent / "data" / "credit.csv"
TARGET = "defaulted"
NUMBERS = (
    "income",
    "savings",
    "employment_years",
    "loan_amount",
    "loan_months",
    "open_loans",
    "late_payments",
)
CATEGORIES = ("housing", "purpose")
# Not the seed of the training: versions can only be compared if all were judged by the same applicants.
_HOLD_OUT_SEED = 1


@dataclass(frozen=True)
class Snapshot:
    """Which data exactly: enough to find the bytes again, and to notice that they changed."""

    file: str
    sha256: str
    bytes: int
    rows: int
    git_revision: str | None
    git_modified: bool | None
    dvc_md5: str | None

    def tags(self) -> dict[str, str]:
        """As tags of an MLflow dataset input; what is unknown is left out."""
        return {name: str(value) for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class CreditData:
    """The table, and the same rows split into those for fitting and those for judging."""

    table: pd.DataFrame
    snapshot: Snapshot
    fitting: pd.DataFrame
    judging: pd.DataFrame

    def only(self, rows: int) -> CreditData:
        """The same judgement with only the first `rows` rows to learn from."""
        return CreditData(self.table, self.snapshot, self.fitting.head(rows), self.judging)


def load(file: Path = CSV) -> CreditData:
    """Read the file and split it, three quarters for fitting.

    Raises OSError if it cannot be read, ValueError if it is not the credit data.
    """
    table = pd.read_csv(file)
    columns = {*NUMBERS, *CATEGORIES, TARGET}
    if set(table) != columns:
        raise ValueError(
            f"{file} has other columns than the credit data: {sorted(set(table) ^ columns)}; "
            "make it again with python -m examples.credit_risk.generate"
        )
    # Integers cannot be missing, so a signature with integers refuses the first incomplete request.
    table = table.astype({**dict.fromkeys(NUMBERS, "float64"), TARGET: "bool"})
    fitting, judging = train_test_split(
        table, test_size=0.25, stratify=table[TARGET], random_state=_HOLD_OUT_SEED
    )
    return CreditData(table, snapshot(file, rows=len(table)), fitting, judging)


def features(table: pd.DataFrame) -> pd.DataFrame:
    """The columns that a model may see."""
    return table.drop(columns=TARGET)


def snapshot(file: Path, *, rows: int) -> Snapshot:
    """Hash the file and look up its Git revision and DVC hash, where there are such."""
    content = file.read_bytes()
    status = _git(file, "status", "--porcelain", "--", file.name)
    return Snapshot(
        file=file.name,
        sha256=hashlib.sha256(content).hexdigest(),
        bytes=len(content),
        rows=rows,
        # The last commit that changed this file, not HEAD: it stays the same until the data change.
        git_revision=_git(file, "log", "-1", "--format=%H", "--", file.name) or None,
        git_modified=None if status is None else bool(status),
        dvc_md5=dvc_md5(file),
    )


def code_revision() -> str | None:
    """The commit that this code is at, `-dirty` added if it was changed since; None outside Git."""
    here = Path(__file__)
    head = _git(here, "rev-parse", "HEAD")
    if not head:
        return None
    return f"{head}-dirty" if _git(here, "status", "--porcelain", "--", ".") else head


def dvc_md5(file: Path) -> str | None:
    """What the file's DVC pointer beside it (`credit.csv.dvc`) says; None if there is none."""
    pointer = file.with_name(f"{file.name}.dvc")
    if not pointer.is_file():
        return None
    parsed: Any = yaml.safe_load(pointer.read_text())
    outs = parsed.get("outs", []) if isinstance(parsed, dict) else []
    return next((str(each["md5"]) for each in outs if each.get("path") == file.name), None)


def _git(file: Path, *arguments: str) -> str | None:
    """What git prints, or None where there is no git or no repository."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=file.parent, capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
