"""A reader that cannot keep up: Aurora's alarm over what a real standby of PostgreSQL lags behind.

Aurora's metric is the standby's lag in milliseconds, and no emulator has clusters: it is measured here.
"""

import time

import pytest

from tests.server import standby
from tests.stacks.monitoring.cloudwatch import state
from tests.stacks.monitoring.test_alarms import metric_alarms
from tests.stacks.templates import Assembly

pytestmark = pytest.mark.slow

_LAG = """
    SELECT CASE WHEN pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() THEN 0
           ELSE 1000 * extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()) END::float8
"""
_PATIENCE_SECONDS = 120


def test_readers_that_fall_behind_make_the_alarm_ring_until_they_catch_up(replicated: Assembly) -> None:
    alarm = metric_alarms(replicated.service)["ReplicaLag"]
    assert [each["MetricStat"]["Metric"]["MetricName"] for each in alarm["Metrics"]] == ["AuroraReplicaLag"]

    def rings() -> bool:
        lag = [milliseconds(pair)] * alarm["EvaluationPeriods"]
        return state(alarm, {"AuroraReplicaLag": lag}) == "ALARM"

    with standby.replicated() as pair:
        pair.write("CREATE TABLE written (at timestamptz)")
        pair.catch_up()
        assert not rings()
        with pair.lagging():
            pair.write("INSERT INTO written VALUES (now())")
            deadline = time.monotonic() + _PATIENCE_SECONDS
            while not rings():
                assert time.monotonic() < deadline, f"{milliseconds(pair):.0f} ms behind"
                time.sleep(0.5)
        pair.write("INSERT INTO written VALUES (now())")
        pair.catch_up()
        assert not rings()


def milliseconds(pair: standby.Pair) -> float:
    """How far the reader is behind."""
    with pair.reader.cursor(standby.DATABASE) as cursor:
        cursor.execute(_LAG)
        return float(cursor.fetchone()[0])
