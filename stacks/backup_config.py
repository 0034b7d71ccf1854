"""The schema of `[backup]`: what AWS Backup keeps, for how long, and where a second time."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from stacks.regions import existing_region
from stacks.section import Section, refusal

# AWS Backup restores to a second of no more than the last 35 days.
MOST_CONTINUOUS_DAYS = 35
# A century: the most that AWS Backup takes.
MOST_DAYS = 36500


class VaultLockConfig(Section):
    """How long nobody can delete a backup before its time, or shorten that time."""

    mode: Literal["governance", "compliance"] = Field(
        description="`compliance` is for good once its days of grace are over, for the account's root too; "
        "`governance` can be lifted by who may change the vault."
    )
    min_days: int = Field(ge=1, le=MOST_DAYS, description="The vault refuses backups kept for less.")
    max_days: int = Field(ge=1, le=MOST_DAYS, description="The vault refuses backups kept for longer.")
    grace_days: int = Field(
        default=7,
        ge=3,
        le=MOST_DAYS,
        description="Days after the deployment in which a `compliance` lock can still be removed.",
    )


class RecoveryConfig(Section):
    """A second region: a vault with copies of the backups, and a replica of the artifact bucket."""

    region: Annotated[str, AfterValidator(existing_region)] = Field(
        description="The second region, of the same partition; it needs `make bootstrap` once, too."
    )
    days: int = Field(default=35, ge=1, le=MOST_DAYS, description="Days to keep the copy of a daily backup.")
    replicate: bool = Field(
        default=True, description="Replicate the artifact bucket there, from now on, under a key of its own."
    )


class BackupConfig(Section):
    """AWS Backup of the database, daily, and of the artifact bucket. Without this table there is none."""

    days: int = Field(ge=1, le=MOST_DAYS, description="Days to keep a daily backup.")
    hour: int = Field(
        default=5,
        ge=0,
        le=23,
        description="When it starts, UTC: an hour or more away from the database's two windows.",
    )
    artifacts: bool = Field(
        default=True,
        description="The artifact bucket, too: continuously for up to 35 days, and daily if `days` is more.",
    )
    lock: VaultLockConfig | None = Field(default=None, description=VaultLockConfig.__doc__)
    recovery: RecoveryConfig | None = Field(default=None, description=RecoveryConfig.__doc__)

    @property
    def continuous_days(self) -> int:
        """For how many days the bucket can be restored to any second."""
        return min(self.days, MOST_CONTINUOUS_DAYS)

    @model_validator(mode="after")
    def _the_lock_admits_every_backup(self) -> Self:
        """A vault fails the jobs whose backups its lock does not admit."""
        if self.lock is None:
            return self
        least, most = self.lock.min_days, self.lock.max_days
        kept = {"days": self.days} | ({"recovery.days": self.recovery.days} if self.recovery else {})
        if self.artifacts and self.lock.min_days > self.continuous_days:
            raise refusal(
                "lock.min_days",
                self.lock.min_days,
                f"refuses the continuous backup of the bucket, which is kept for {self.continuous_days} days",
                f"use {self.continuous_days} at most, or set artifacts = false",
            )
        for key, days in kept.items():
            if not least <= days <= most:
                raise refusal(
                    key,
                    days,
                    f"is not within lock.min_days = {least} and lock.max_days = {most}",
                    "change one of the three",
                )
        return self
