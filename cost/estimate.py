"""A month's estimate, by parts that people recognize, and two of them side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cost.parts import Bill, Quantity, quantities
from cost.prices import DEFAULT_REGION, PriceList
from cost.templates import Templates


@dataclass(frozen=True)
class Estimate:
    """What a deployment costs a month in one region, in US dollars."""

    region: str
    allowance: float
    quantities: tuple[tuple[Quantity, float], ...]

    @classmethod
    def of(
        cls, templates: Templates, *, use: Mapping[str, float], region: str | None, prices: PriceList
    ) -> Estimate:
        """Price the resources in a region, or else in their own; those of a second region at the same prices.

        Raises:
            CannotPriceError: a type of resource, or the region, has no price.
        """
        region = region or templates.region or DEFAULT_REGION
        found = [*quantities(Bill([pair for each in templates.stacks for pair in each.items()], use), prices)]
        if templates.second_region:
            found += quantities(Bill([*templates.second_region.items()], use), prices)
            copied = use["gb_to_the_second_region"]
            found.append(Quantity("Backups", "between-regions-gb", copied, by_use=True))
        given = sum(
            min(most, sum(each.amount for each in found if each.price == name)) * prices.usd(name, region)
            for name, most in prices.allowances.items()
        )
        return cls(
            region,
            given,
            tuple((each, each.amount * prices.usd(each.price, region)) for each in found if each.amount),
        )

    def rows(self) -> dict[str, tuple[float, float]]:
        """Return each part's dollars: what it costs unused, and what use adds."""
        rows: dict[str, tuple[float, float]] = {}
        for each, usd in self.quantities:
            fixed, used = rows.get(each.part, (0.0, 0.0))
            rows[each.part] = (fixed, used + usd) if each.by_use else (fixed + usd, used)
        return dict(sorted(rows.items(), key=lambda row: -sum(row[1])))

    @property
    def fixed(self) -> float:
        """Dollars a month without any use."""
        return sum(usd for each, usd in self.quantities if not each.by_use)

    @property
    def used(self) -> float:
        """Dollars a month that the profile's use adds."""
        return sum(usd for each, usd in self.quantities if each.by_use)

    def document(self) -> dict[str, Any]:
        """Return the estimate for programs."""
        return {
            "region": self.region,
            "fixed": round(self.fixed, 2),
            "by_use": round(self.used, 2),
            "allowance": round(self.allowance, 2),
            "quantities": [
                {
                    "part": each.part,
                    "price": each.price,
                    "amount": round(each.amount, 4),
                    "usd": round(usd, 2),
                    "by_use": each.by_use,
                }
                for each, usd in self.quantities
            ],
        }


def table(estimates: Mapping[str, Estimate]) -> list[list[str]]:
    """Return lines of parts: what is fixed and by use in each estimate, and of two the whole difference."""
    rows = [each.rows() for each in estimates.values()]
    lines = [
        (part, [row.get(part, (0.0, 0.0)) for row in rows])
        for part in dict.fromkeys(part for row in rows for part in row)
    ]
    lines.append(("Total", [(each.fixed, each.used) for each in estimates.values()]))
    lines.append(("Free allowance", [(-each.allowance, 0.0) for each in estimates.values()]))
    heading = ["USD a month", *(word for name in estimates for word in (name, "by use"))]
    result = [heading + ["difference"] * (len(rows) == 2)]
    for part, costs in lines:
        difference = [sum(costs[1]) - sum(costs[0])] if len(costs) == 2 else []
        result.append([part, *(_usd(usd) for usd in (*(usd for pair in costs for usd in pair), *difference))])
    return result


def _usd(usd: float) -> str:
    return f"{usd:.2f}" if round(usd, 2) else ""
