"""The running platform, and what its alarms would say."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import signal
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg2

from local import demo_roles
from local.parts.aws import Aws
from local.platform import account
from local.state import State
from tests.stacks.monitoring.cloudwatch import state as state_of

# The server tells its metrics each minute, and a failure may need a look of its own to be seen.
PATIENCE_SECONDS = 180


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


class Watched:
    """The platform, and what its alarms would say."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.aws: Aws = account(state)
        self._tls = ssl.create_default_context(cafile=self.endpoints["ca_file"])

    @property
    def endpoints(self) -> Mapping[str, str]:
        """Where everything is now."""
        return State.read(self.state.endpoints)

    def alarm(self, name: str) -> Mapping[str, Any]:
        """The deployed alarm of a row of the table."""
        pages = self.aws.client("cloudwatch").get_paginator("describe_alarms").paginate()
        (found,) = [
            each for page in pages for each in page["MetricAlarms"] if each["AlarmName"].endswith(f"-{name}")
        ]
        return dict(found)

    def rings(self, name: str, *, since: dt.datetime, by_silence: bool = False) -> bool:
        """Whether the alarm would ring if what has been since then lasted; only one is to ring by silence."""
        return self.would_ring(self.alarm(name), since=since, by_silence=by_silence)

    def would_ring(self, alarm: Mapping[str, Any], *, since: dt.datetime, by_silence: bool = False) -> bool:
        """Whether this alarm would."""
        series = {
            query["MetricStat"]["Metric"]["MetricName"]: self.values_of(query["MetricStat"], since=since)
            for query in alarm["Metrics"]
            if "MetricStat" in query
        }
        moments: set[dt.datetime | None] = {at for values in series.values() for at in values}
        if not moments and by_silence:
            moments = {None}
        return any(
            state_of(
                alarm,
                {
                    name: [values.get(at) if at else None] * alarm["EvaluationPeriods"]
                    for name, values in series.items()
                },
            )
            == "ALARM"
            for at in moments
        )

    def state_now(self, alarm: Mapping[str, Any], *, since: dt.datetime) -> str:
        """What the alarm would be in now, if nothing had been before."""
        series = {
            query["MetricStat"]["Metric"]["MetricName"]: list(
                self.values_of(query["MetricStat"], since=since).values()
            )
            for query in alarm["Metrics"]
            if "MetricStat" in query
        }
        longest = max(len(each) for each in series.values())
        if not longest and alarm["TreatMissingData"] == "breaching":
            # It watches more time than there has been.
            return "INSUFFICIENT_DATA"
        return state_of(
            alarm, {name: [*[None] * (longest - len(each)), *each] for name, each in series.items()}
        )

    def values_of(self, stat: Mapping[str, Any], *, since: dt.datetime) -> Mapping[dt.datetime, float]:
        """A metric's data since then."""
        (result,) = self.aws.client("cloudwatch").get_metric_data(
            MetricDataQueries=[{"Id": "value", "MetricStat": stat}],
            StartTime=since,
            EndTime=now() + dt.timedelta(minutes=1),
        )["MetricDataResults"]
        return dict(zip(result["Timestamps"], result["Values"], strict=True))

    def values(self, name: str, *, since: dt.datetime) -> Mapping[dt.datetime, float]:
        """What the alarm's only metric has been since then."""
        (query,) = self.alarm(name)["Metrics"]
        return self.values_of(query["MetricStat"], since=since)

    def will_ring(self, name: str, *, since: dt.datetime, by_silence: bool = False) -> None:
        """Wait until the alarm would ring."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self.rings(name, since=since, by_silence=by_silence):
            assert time.monotonic() < deadline, f"{name} does not ring: {self.alarm(name)}"
            time.sleep(1)

    def token(self, aws: Aws) -> str:
        """A token for the server."""
        return demo_roles.token(aws, audience=self.endpoints["audience"])

    def ask(self, token: str, path: str = "/api/2.0/mlflow/experiments/get?experiment_id=0") -> int:
        """The status of an answer through the load balancer."""
        return self.send(token, path)[0]

    def send(self, token: str, path: str, body: Any = None) -> tuple[int, Any]:
        """The status of an answer through the load balancer, and its JSON."""
        request = urllib.request.Request(
            self.endpoints["tracking_url"] + path,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, context=self._tls, timeout=30) as answer:
                return int(answer.status), json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, {}

    def ask_often(self, token: str, times: int, *, at_once: int = 8) -> list[int]:
        """The statuses of many answers."""
        with ThreadPoolExecutor(at_once) as threads:
            return list(threads.map(lambda _: self.ask(token), range(times)))

    def end_server(self, number: int = signal.SIGTERM) -> None:
        """End the server's process; after SIGTERM it says what it has counted since its last minute."""
        (server,) = [each for each in self.state.ledger.alive() if each.what.endswith("-server")]
        os.kill(server.pid, number)

    def wait_until_it_serves(self) -> None:
        """Return once the load balancer has a healthy server again."""
        token = self.token(demo_roles.assume(self.aws, "viewer"))
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.ask(token) != 200:
            assert time.monotonic() < deadline, "the server does not come back"
            time.sleep(0.5)

    @contextlib.contextmanager
    def database(self) -> Iterator[Any]:
        """A superuser's cursor, which is nobody's in AWS."""
        directory = Path(State.read(self.state.run / "postgres.json")["directory"])
        connection = psycopg2.connect(
            host=str(directory / "run"), port=5432, user="postgres", dbname="mlflow"
        )
        connection.autocommit = True
        try:
            with connection.cursor() as cursor:
                yield cursor
        finally:
            connection.close()
