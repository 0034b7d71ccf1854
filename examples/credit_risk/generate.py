"""Make `data/credit.csv`: `python -m examples.credit_risk.generate [--check]`.

The people are invented: every figure is drawn from Python's own generator with a fixed seed, so the same
file comes out everywhere and nobody's data is in this repository. Columns that must not decide on credit
(age, gender, origin, address) are not drawn in the first place.

The risk that decides who defaults has a part that a straight line finds (late payments, open loans), and a
part that only trees find: a high instalment hurts little with savings and much without, and new firms fail
when their owners rent. A tenth of the outcomes is luck.
"""

from __future__ import annotations

import argparse
import csv
import io
import math
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import TypeVar

_T = TypeVar("_T")

CSV = Path(__file__).parent / "data" / "credit.csv"
ROWS = 2400
SEED = 20240229


@dataclass(frozen=True)
class Applicant:
    """One row: money in euros, times in months or years, `defaulted` is what a model shall foresee."""

    income: int
    savings: int
    employment_years: float
    loan_amount: int
    loan_months: int
    open_loans: int
    late_payments: int
    housing: str
    purpose: str
    defaulted: int


def applicants(*, rows: int = ROWS, seed: int = SEED) -> Iterator[Applicant]:
    """Draw applicants; the same for the same seed, on every platform and Python version from 3.2 on."""
    dice = random.Random(seed)  # noqa: S311 - reproducible data, no secret
    for _ in range(rows):
        yield _applicant(dice)


def _applicant(dice: random.Random) -> Applicant:
    income = round(1200 + 5200 * _skewed(dice, 2), -1)
    savings = round(45_000 * _skewed(dice, 4), -2)
    employment_years = round(25 * _skewed(dice, 2), 1)
    loan_months = _one_of(dice, (12, 24, 36, 48, 60, 72))
    loan_amount = round(1000 + 34_000 * _skewed(dice, 2), -2)
    open_loans = _small_number(dice, 0.42)
    late_payments = _small_number(dice, 0.30)
    housing = _one_of(dice, ("rent", "rent", "mortgage", "own"))
    purpose = _one_of(dice, ("car", "car", "education", "home", "business"))
    burden = loan_amount / loan_months / income
    risk = (
        -2.1
        + 0.75 * late_payments
        + 0.35 * open_loans
        + (2.6 if burden > 0.18 and savings < 6_000 else 0.0)
        + (2.2 if purpose == "business" and employment_years < 4 and housing == "rent" else 0.0)
        + (1.3 if income < 2_000 and loan_months >= 60 else 0.0)
        - (1.1 if housing == "own" and savings > 12_000 else 0.0)
        - 0.05 * employment_years
    )
    defaulted = dice.random() < 0.05 + 0.9 / (1 + math.exp(-1.7 * risk))
    return Applicant(
        income=int(income),
        savings=int(savings),
        employment_years=employment_years,
        loan_amount=int(loan_amount),
        loan_months=loan_months,
        open_loans=open_loans,
        late_payments=late_payments,
        housing=housing,
        purpose=purpose,
        defaulted=int(defaulted),
    )


# Built from random() alone: its sequence is the one that Python guarantees never to change.
def _skewed(dice: random.Random, power: int) -> float:
    return dice.random() ** power


def _one_of(dice: random.Random, choices: Sequence[_T]) -> _T:
    return choices[int(dice.random() * len(choices))]


def _small_number(dice: random.Random, more: float) -> int:
    number = 0
    while number < 6 and dice.random() < more:
        number += 1
    return number


def as_csv(rows: Iterator[Applicant]) -> bytes:
    """The file's bytes: a header, a line for each applicant, `\\n` at the end of each."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(field.name for field in fields(Applicant))
    writer.writerows(astuple(row) for row in rows)
    return text.getvalue().encode()


def main(argv: Sequence[str] | None = None) -> int:
    """Write the file, or with `--check` say whether it is the one that this program makes (exit code 1)."""
    assert __doc__ is not None  # noqa: S101 - above
    parser = argparse.ArgumentParser(prog="python -m examples.credit_risk.generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if the file differs")
    check: bool = parser.parse_args(argv).check
    made = as_csv(applicants())
    if not check:
        CSV.write_bytes(made)
        return 0
    if CSV.is_file() and CSV.read_bytes() == made:
        return 0
    sys.stderr.write(f"{CSV} is not what this program makes; run it without --check\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
