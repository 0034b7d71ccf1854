"""Records of measurements, and the files that hold them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

SYSTEMS = ("ours", "stock", "floor")


@dataclass(frozen=True)
class BenchRecord:
    """One scenario at one concurrency on one system.

    `rps` counts calls that succeeded, per second; `p50_ms` and `p99_ms` are over the calls that
    succeeded; a call without a response counts with the time waited for it. `errors` are the calls that
    failed: responses other than 2xx, broken connections and missing responses. `more` holds what only some
    scenarios have; in the file, its keys stand beside the others.
    """

    scenario: str
    concurrency: int
    system: str
    rps: float | None
    p50_ms: float | None
    p99_ms: float | None
    errors: int
    more: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The record as written to the results file."""
        own = {
            "scenario": self.scenario,
            "concurrency": self.concurrency,
            "system": self.system,
            "rps": _rounded(self.rps),
            "p50_ms": _rounded(self.p50_ms),
            "p99_ms": _rounded(self.p99_ms),
            "errors": self.errors,
        }
        clash = own.keys() & self.more.keys()
        if clash:
            raise ValueError(f"record {self.scenario}: `more` repeats {sorted(clash)}; rename those keys")
        return own | {key: _rounded(value) for key, value in self.more.items()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> BenchRecord:
        """The inverse of `as_json`.

        Raises:
            ValueError: a key is missing, or the system has an unknown name.
        """
        own = ("scenario", "concurrency", "system", "rps", "p50_ms", "p99_ms", "errors")
        missing = [key for key in own if key not in value]
        if missing:
            raise ValueError(f"record {dict(value)!r} lacks {missing}; run the benchmark again")
        if value["system"] not in (*SYSTEMS, "deployed"):
            raise ValueError(
                f"record {value['scenario']}: system {value['system']!r} is not one of {SYSTEMS}"
            )
        more = {key: content for key, content in value.items() if key not in own}
        return cls(**{key: value[key] for key in own}, more=more)


class Results:
    """The records of one run of the benchmark, looked up by name."""

    def __init__(self, records: Iterable[BenchRecord]) -> None:
        self.records: Sequence[BenchRecord] = tuple(records)
        self._index = {(each.scenario, each.concurrency, each.system): each for each in self.records}

    def find(self, scenario: str, concurrency: int, system: str) -> BenchRecord | None:
        """The record, or None if it was not measured."""
        return self._index.get((scenario, concurrency, system))

    def scenarios(self) -> list[str]:
        """Names of scenarios in the order they were measured."""
        return list(dict.fromkeys(each.scenario for each in self.records))

    def concurrencies(self, scenario: str) -> list[int]:
        """The numbers of callers that `scenario` was measured at, ascending."""
        return sorted({each.concurrency for each in self.records if each.scenario == scenario})


def percentile(values: Sequence[float], share: float) -> float | None:
    """The nearest-rank percentile of `values` (any order), `share` in 0..1; None if there are none."""
    if not 0 <= share <= 1:
        raise ValueError(f"a percentile's share lies in 0..1, not {share}")
    if not values:
        return None
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def percentile_ms(seconds: Sequence[float], share: float) -> float | None:
    """The percentile of times in seconds, in milliseconds; None if there are none."""
    found = percentile(seconds, share)
    return None if found is None else found * 1000


def middle(values: Iterable[float]) -> float | None:
    """The median; None if there are no values."""
    listed = list(values)
    return median(listed) if listed else None


def save(path: Path, records: Iterable[BenchRecord], metadata: Mapping[str, Any]) -> None:
    """Write `path` (the list of records) and beside it `*.meta.json` (machine, versions, settings)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join("  " + json.dumps(each.as_json(), allow_nan=False) for each in records)
    path.write_text(f"[\n{lines}\n]\n")
    metadata_path(path).write_text(json.dumps(metadata, indent=2, allow_nan=False) + "\n")


def load(path: Path) -> tuple[Results, dict[str, Any]]:
    """Read what `save` wrote.

    Raises:
        FileNotFoundError: there are no results yet.
    """
    records = Results(BenchRecord.from_json(each) for each in json.loads(path.read_text()))
    metadata = json.loads(metadata_path(path).read_text())
    assert isinstance(metadata, dict)
    return records, metadata


def metadata_path(path: Path) -> Path:
    """Where the metadata of the results in `path` is."""
    return path.with_suffix(".meta.json")


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, Mapping):
        return {key: _rounded(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(each) for each in value]
    return value
