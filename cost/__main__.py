"""What an environment costs a month by list prices, from its synthesized templates; asks AWS nothing.

Exit code 0 if all is priced, 2 if something is not.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from cost.estimate import Estimate, table
from cost.prices import DEFAULT_REGION, CannotPriceError, PriceList, profile
from cost.templates import Templates


def main(arguments: Sequence[str]) -> int:
    """Print the estimate, or what is missing for it; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m cost", description=__doc__)
    parser.add_argument(
        "--env", default="dev", help="the environment: a file in config/ without .toml, or a path"
    )
    parser.add_argument("--against", help="another environment, to compare with")
    parser.add_argument("--region", help="whose prices; without it, those of the environment's region")
    parser.add_argument(
        "--profile", default="team", help="a month's use: a file in cost/profiles/, or a path"
    )
    parser.add_argument("--json", action="store_true", help="print the result for programs")
    options = parser.parse_args(arguments)
    prices = PriceList.read()
    try:
        use = profile(options.profile)
        prices.usd("key", options.region or DEFAULT_REGION)  # before a synthesis, which takes a while
        found = {
            name: Estimate.of(Templates.synthesized(name), use=use, region=options.region, prices=prices)
            for name in filter(None, (options.env, options.against))
        }
    except CannotPriceError as error:
        print(f"cost: {error}", file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps({name: each.document() for name, each in found.items()}, indent=2))
        return 0
    where = ", ".join(dict.fromkeys(each.region for each in found.values()))
    print(f"List prices of {prices.date} in {where}, before tax and discounts; use of {options.profile}.")
    for first, *rest in table(found):
        print(f"{first:20}" + "".join(f"{each:>12}" for each in rest))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
