"""Which regions AWS has, and which of them can hold a deployment."""

from __future__ import annotations

import difflib
from functools import cache

from botocore.session import Session


@cache
def partitions() -> dict[str, str]:
    """Return each region's partition, as the pinned botocore knows them."""
    session = Session()
    return {
        region: partition
        for partition in session.get_available_partitions()
        for region in session.get_available_regions("ec2", partition)
    }


@cache
def _signs_in(partition: str) -> bool:
    return bool(Session().get_available_regions("cognito-idp", partition))


def existing_region(region: str) -> str:
    """Return the region; raise ValueError if there is none of that name."""
    if region not in partitions():
        close = difflib.get_close_matches(region, partitions())
        # Two letters that changed places are the likeliest slip: us-esat-1 is as close to us-west-1.
        close.sort(key=lambda each: sorted(each) != sorted(region))
        guess = f"did you mean {close[0]}?" if close else "write its code, such as eu-central-1."
        raise ValueError(
            f"is not a region; {guess} One that is newer than this release is chosen in your credentials' "
            "profile, without this setting"
        )
    return region


def region_with_sign_in(region: str) -> str:
    """Return the region; raise ValueError if it is known to lack what people sign in by."""
    partition = partitions().get(region)
    if partition and not _signs_in(partition):
        raise ValueError(
            f"is in {partition}, where Cognito has no user pools, by which people sign in; choose a region "
            "outside"
        )
    return region
