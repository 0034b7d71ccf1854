"""What RDS refuses about its windows is refused while it is still a word in a file."""

import pytest
from pydantic import ValidationError

from stacks.config import DatabaseConfig
from stacks.rds_windows import WEEK, backup_windows, maintenance_window


def database(**windows: str) -> DatabaseConfig:
    return DatabaseConfig.model_validate(
        {"instance_class": "t4g.micro", "max_connections": 100, "multi_az": False, **windows}
    )


@pytest.mark.parametrize(
    ("backup", "maintenance"),
    [
        ("03:00-04:00", "sun:03:30-sun:04:30"),
        ("03:45-04:15", "sun:03:30-sun:04:30"),
        ("03:00-05:00", "sun:03:30-sun:04:30"),
        ("23:30-00:30", "wed:00:15-wed:00:45"),
        ("23:30-00:30", "tue:23:00-tue:23:45"),
        ("23:30-00:30", "mon:00:00-mon:00:30"),
        ("00:00-00:30", "sun:23:45-mon:00:45"),
        ("12:00-13:00", "sat:12:30-sun:11:30"),
    ],
)
def test_windows_that_overlap_are_refused(backup: str, maintenance: str) -> None:
    with pytest.raises(ValidationError, match="overlaps maintenance_window"):
        database(backup_window=backup, maintenance_window=maintenance)


def test_a_backup_beside_the_default_maintenance_is_refused_too() -> None:
    with pytest.raises(ValidationError, match="overlaps maintenance_window = sun:03:30-sun:04:30"):
        database(backup_window="03:00-04:00")
    with pytest.raises(ValidationError, match="overlaps maintenance_window"):
        database(maintenance_window="mon:01:45-mon:02:15")


@pytest.mark.parametrize(
    ("backup", "maintenance"),
    [
        ("02:00-03:00", "sun:03:00-sun:03:30"),
        ("23:30-00:30", "wed:00:30-wed:23:30"),
        ("23:30-00:00", "sun:23:00-sun:23:30"),
        ("12:00-13:00", "sat:13:00-sun:12:00"),
        ("01:00-02:00", "sun:23:30-mon:00:30"),
    ],
)
def test_windows_that_only_touch_are_accepted(backup: str, maintenance: str) -> None:
    assert database(backup_window=backup, maintenance_window=maintenance)


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("backup_window", "02:00-02:29", "lasts 29 minutes"),
        ("backup_window", "02:00-02:00", "lasts 0 minutes"),
        ("backup_window", "24:00-01:00", "has no time of day in 24:00"),
        ("backup_window", "02:60-03:30", "has no time of day in 02:60"),
        ("backup_window", "2:00-3:00", "is not a window such as 02:00-03:00"),
        ("backup_window", "02:00/03:00", "is not a window"),
        ("maintenance_window", "sun:03:30-sun:03:45", "lasts 15 minutes"),
        ("maintenance_window", "son:03:30-sun:04:30", "names no day"),
        ("maintenance_window", "sun:25:30-sun:26:30", "has no time of day in 25:30"),
        ("maintenance_window", "sun:03:30-mon:03:30", "lasts a day or longer"),
        ("maintenance_window", "03:30-04:30", "is not a window such as sun:03:30-sun:04:30"),
    ],
)
def test_a_window_that_rds_does_not_know_is_refused(key: str, value: str, reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        database(**{key: value})


def test_windows_are_minutes_of_the_week() -> None:
    assert maintenance_window("sun:23:30-mon:00:30").start == WEEK - 30
    assert [each.length for each in backup_windows("23:45-00:15")] == [30] * 7
