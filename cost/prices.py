"""The dated price list, and a month's use: `prices.toml` and `profiles/`."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent
DEFAULT_REGION = "us-east-1"


class CannotPriceError(Exception):
    """What is missing to name a price; the text is for the operator."""


@dataclass(frozen=True, kw_only=True)
class PriceList:
    """AWS's list prices, by their names in `prices.toml`."""

    date: str
    regions: tuple[str, ...]
    prices: Mapping[str, Mapping[str, Any]]
    each: Mapping[str, Mapping[str, Any]]
    allowances: Mapping[str, float]
    use: tuple[Mapping[str, str], ...]
    free: frozenset[str]

    @classmethod
    def read(cls) -> PriceList:
        """Return the one of this tree."""
        found = tomllib.loads((_HERE / "prices.toml").read_text(encoding="utf-8"))
        return cls(
            **{key: found[key] for key in ("date", "prices", "allowances", "each")},
            regions=tuple(found["regions"]),
            use=tuple(found["use"]),
            free=frozenset(found["free"]["types"]),
        )

    def usd(self, name: str, region: str) -> float:
        """Return the price of one unit in a region.

        Raises:
            CannotPriceError: the list has no such region.
        """
        if region not in self.regions:
            raise CannotPriceError(f"no prices of {region}; choose REGION={'|'.join(self.regions)}")
        usd = self.prices[name]["usd"]
        return float(usd[self.regions.index(region)] if isinstance(usd, list) else usd)


def profile(name: str) -> Mapping[str, float]:
    """Return the quantities that a month uses: those of `profiles/NAME.toml`, or of a file of one's own.

    Raises:
        CannotPriceError: there is no such file, or it lacks a quantity or has one too many.
    """
    known = tomllib.loads((_HERE / "profiles" / "team.toml").read_text(encoding="utf-8"))
    file = Path(name) if name.endswith(".toml") else _HERE / "profiles" / f"{name}.toml"
    try:
        found = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CannotPriceError(
            f"PROFILE={name}: {error}; write such a file after cost/profiles/team.toml"
        ) from None
    if wrong := known.keys() ^ found.keys():
        raise CannotPriceError(
            f"PROFILE={name}: {', '.join(sorted(wrong))} missing or unknown; see cost/profiles/team.toml"
        )
    if wrong := {key for key, value in found.items() if not isinstance(value, (int, float)) or value < 0}:
        raise CannotPriceError(f"PROFILE={name}: {', '.join(sorted(wrong))} is not a quantity")
    return found
