"""Generated sequences of calls: stock MLflow and ours answer and store alike at every step."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.server.fastpath.harness import Pair

KEYS = st.sampled_from(["a", "b", "loss/train", "é", "a//b", ""])
GOOD_KEYS = st.sampled_from(["a", "b", "c", "loss/train"])
NUMBERS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-3, 3),
    st.integers(-(2**70), 2**70),
    st.sampled_from(["NaN", "Infinity", "-Infinity", "1.5", "nonsense", None, True]),
)
# Few values, so that points and keys meet again and again.
GOOD_NUMBERS = st.sampled_from(
    [0, 0.0, -0.0, 1, 1.0, 2.5, "NaN", "Infinity", "-Infinity", 1.7976931348623157e308]
)
TIMES = st.one_of(st.integers(0, 3), st.sampled_from([-1, 2**63 - 1, 2**63, "2", 1.5, None]))
STEPS = st.one_of(st.integers(-2, 3), st.sampled_from([-(2**63), 2**63, "2", None]))
POINTS = st.fixed_dictionaries({"key": KEYS, "value": NUMBERS, "timestamp": TIMES}, optional={"step": STEPS})
GOOD_POINTS = st.fixed_dictionaries(
    {"key": GOOD_KEYS, "value": GOOD_NUMBERS, "timestamp": st.integers(0, 3), "step": st.integers(-2, 3)}
)
TEXT = st.one_of(st.sampled_from(["1", "2", ""]), st.text(max_size=20))
PARAMS = st.fixed_dictionaries({"key": GOOD_KEYS, "value": st.sampled_from(["1", "2"])})
TAGS = st.fixed_dictionaries({"key": st.one_of(GOOD_KEYS, st.just("mlflow.runName")), "value": TEXT})
FILTERS = st.sampled_from(
    ["", "metrics.a > 1", "params.b = '1'", "tags.c LIKE '%'", "metrics.a != 0 and params.a = '2'"]
)
ORDERS = st.lists(st.sampled_from(["metrics.a DESC", "params.b", "tags.a DESC", "start_time"]), max_size=2)


class Calls(RuleBasedStateMachine):
    """What trainers, schedulers and the UI do, in any order."""

    pair: ClassVar[Pair]

    def __init__(self) -> None:
        super().__init__()
        self.pair.empty()
        self.runs: list[str] = []
        self.experiments = ["0"]

    def _run(self, index: int) -> str:
        return self.runs[index % len(self.runs)]

    @rule(
        name=st.one_of(st.none(), TEXT),
        tags=st.lists(TAGS, max_size=3),
        start_time=st.integers(0, 5),
        experiment=st.integers(0, 3),
    )
    def create_run(
        self, name: str | None, tags: list[dict[str, Any]], start_time: int, experiment: int
    ) -> None:
        body: dict[str, Any] = {
            "experiment_id": self.experiments[experiment % len(self.experiments)],
            "start_time": start_time,
            "user_id": "u",
            "tags": tags,
        }
        if name is not None:
            body["run_name"] = name
        answer = self.pair.post("runs/create", body)
        if answer.status == 200:
            self.runs.append(answer.json["run"]["info"]["run_id"])

    @rule()
    @precondition(lambda self: len(self.experiments) < 3)
    def create_experiment(self) -> None:
        answer = self.pair.post("experiments/create", {"name": f"e{len(self.experiments)}"})
        self.experiments.append(answer.json["experiment_id"])

    @rule(experiment=st.integers(0, 3), action=st.sampled_from(["delete", "restore"]))
    @precondition(lambda self: len(self.experiments) > 1)
    def move_experiment(self, experiment: int, action: str) -> None:
        chosen = self.experiments[1:][experiment % (len(self.experiments) - 1)]
        self.pair.post(f"experiments/{action}", {"experiment_id": chosen})

    @rule(run=st.integers(0, 9), points=st.lists(POINTS, max_size=3), params=st.lists(PARAMS, max_size=2))
    @precondition(lambda self: self.runs)
    def log_anything(self, run: int, points: list[dict[str, Any]], params: list[dict[str, str]]) -> None:
        self.pair.post("runs/log-batch", {"run_id": self._run(run), "metrics": points, "params": params})

    @rule(
        run=st.integers(0, 9),
        points=st.lists(GOOD_POINTS, max_size=12),
        params=st.lists(PARAMS, max_size=2),
        tags=st.lists(TAGS, max_size=3),
    )
    @precondition(lambda self: self.runs)
    def log_batch(
        self, run: int, points: list[dict[str, Any]], params: list[dict[str, str]], tags: list[dict[str, str]]
    ) -> None:
        body = {"run_id": self._run(run), "metrics": points, "params": params, "tags": tags}
        self.pair.post("runs/log-batch", body)

    @rule(run=st.integers(0, 9), point=st.one_of(POINTS, GOOD_POINTS))
    @precondition(lambda self: self.runs)
    def log_metric(self, run: int, point: dict[str, Any]) -> None:
        run_id = self._run(run)
        self.pair.post("runs/log-metric", {"run_id": run_id, "run_uuid": run_id, **point})

    @rule(run=st.integers(0, 9), param=PARAMS)
    @precondition(lambda self: self.runs)
    def log_param(self, run: int, param: dict[str, str]) -> None:
        self.pair.post("runs/log-parameter", {"run_id": self._run(run), **param})

    @rule(run=st.integers(0, 9), tag=TAGS)
    @precondition(lambda self: self.runs)
    def set_tag(self, run: int, tag: dict[str, str]) -> None:
        self.pair.post("runs/set-tag", {"run_id": self._run(run), **tag})

    @rule(
        run=st.integers(0, 9),
        fields=st.fixed_dictionaries(
            {},
            optional={
                "status": st.sampled_from(["RUNNING", "FINISHED", "FAILED", 3, "nonsense"]),
                "end_time": st.integers(-1, 9),
                "run_name": TEXT,
            },
        ),
    )
    @precondition(lambda self: self.runs)
    def update_run(self, run: int, fields: dict[str, Any]) -> None:
        self.pair.post("runs/update", {"run_id": self._run(run), **fields})

    @rule(run=st.integers(0, 9), action=st.sampled_from(["delete", "restore"]))
    @precondition(lambda self: self.runs)
    def move_run(self, run: int, action: str) -> None:
        self.pair.post(f"runs/{action}", {"run_id": self._run(run)})

    @rule(run=st.integers(0, 9), key=GOOD_KEYS, max_results=st.one_of(st.none(), st.integers(1, 4)))
    @precondition(lambda self: self.runs)
    def read(self, run: int, key: str, max_results: int | None) -> None:
        run_id = self._run(run)
        self.pair.get("runs/get", {"run_id": run_id})
        arguments: dict[str, Any] = {"metric_key": key}
        if max_results is not None:
            arguments["max_results"] = max_results
        several = [run_id, self.runs[0]]
        self.pair.get("metrics/get-history-bulk-interval", {"run_ids": several, **arguments})

    @rule(question=FILTERS, order=ORDERS, size=st.integers(1, 4))
    def search(self, question: str, order: list[str], size: int) -> None:
        body = {
            "experiment_ids": self.experiments,
            "filter": question,
            "order_by": order,
            "max_results": size,
        }
        self.pair.post("runs/search", body)

    @invariant()
    def rows_are_the_same(self) -> None:
        self.pair.same_tables()


def _explore(pair: Pair, **profile: int) -> None:
    Calls.pair = pair
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    run = settings(deadline=None, suppress_health_check=checks, database=None, **profile)  # type: ignore[arg-type]
    machine: Any = Calls.TestCase
    machine.settings = run
    machine().runTest()


@pytest.mark.slow
@pytest.mark.stock_may_serve("by_chance")
def test_any_sequence_of_calls_is_answered_and_stored_as_by_stock(pair: Pair) -> None:
    _explore(pair, max_examples=12, stateful_step_count=15)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.stock_may_serve("by_chance")
def test_many_long_sequences_of_calls_are_answered_and_stored_as_by_stock(pair: Pair) -> None:
    _explore(pair, max_examples=60, stateful_step_count=40)
