"""A model's whole life against any deployment, step by step, each step under its own role.

`make demo-lifecycle` runs it against the embedded platform. The steps between training and production are
those of CI (`examples.credit_risk.pipeline`); the others show what is refused, what consumers load, and what
the record tells afterwards.
"""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from client_smoke.display import Screen, closing_words
from client_smoke.smoke import Smoke, Step
from client_smoke.verdict import Result, Status, StepFailed, exit_code
from examples.credit_risk.pipeline import MODEL, POLICY

_REPOSITORY = Path(__file__).resolve().parents[2]
_POST_CHECK_THAT_FAILS = "0.999"
REFUSED_BY_POLICY, REFUSED_BY_SERVER = 3, 4


@dataclass
class Demo:
    """The model's life so far, its files in `directory`.

    `environment` returns the whole environment of a client with this role; `tracked` wraps every process that
    is started, as long as it runs.
    """

    environment: Callable[[str], Mapping[str, str]]
    directory: Path
    tracked: Callable[[subprocess.Popen[str], str], AbstractContextManager[object]]
    _environments: dict[str, Mapping[str, str]] = field(default_factory=dict)

    def run(self, role: str, *arguments: str, expect: int = 0) -> subprocess.CompletedProcess[str]:
        """Run one Python command under this role; its exit code must be the expected one."""
        if role not in self._environments:
            self._environments[role] = self.environment(role)
        child = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=_REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**self._environments[role], "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"},
        )
        with self.tracked(child, f"{role}: {' '.join(arguments[1:3])}"):
            out, err = child.communicate()
        if child.returncode != expect:
            said = "\n".join((out + err).strip().splitlines()[-12:])
            raise StepFailed(
                f"{role}: {' '.join(arguments[1:])} ended with {child.returncode}, not {expect}:\n{said}",
                next_action="see its last lines above, then the server's log",
            )
        return subprocess.CompletedProcess(arguments, child.returncode, out, err)

    def pipeline(self, role: str, step: str, candidate: str, *more: str, expect: int = 0) -> str:
        """Run one step of the pipeline for a candidate; returns the last line it printed."""
        state = self.directory / f"{candidate}.json"
        module = "examples.credit_risk.pipeline"
        done = self.run(role, "-m", module, step, "--state", str(state), *more, expect=expect)
        return _last(done.stdout + done.stderr)

    def lifecycle(self, role: str, *arguments: str, expect: int = 0) -> dict[str, Any]:
        """Run one mlflow-lifecycle command and return its JSON."""
        done = self.run(role, "-m", "model_lifecycle", *arguments, "--json", expect=expect)
        document: dict[str, Any] = json.loads(done.stdout)
        return document

    def probe(self, role: str, *arguments: str) -> str:
        """Run one of `examples.credit_risk.probe`'s probes; returns what it observed."""
        return _last(self.run(role, "-m", "examples.credit_risk.probe", *arguments).stdout)

    def state_of(self, candidate: str) -> dict[str, Any]:
        """The pipeline's state for a candidate."""
        state: dict[str, Any] = json.loads((self.directory / f"{candidate}.json").read_text())
        return state


def _trained(demo: Demo) -> str:
    demo.pipeline("contributor", "train", "first", "--strategy", "logistic-regression")
    return demo.probe("contributor", "children", demo.state_of("first")["run_id"])


def _evaluated(demo: Demo) -> str:
    return demo.pipeline("contributor", "evaluate", "first")


def _registered(demo: Demo) -> str:
    demo.pipeline("contributor", "register", "first")
    return demo.probe("viewer", "sealed", MODEL, demo.state_of("first")["version"])


def _server_decides_who(demo: Demo) -> str:
    version = demo.state_of("first")["version"]
    refused = demo.lifecycle(
        "contributor",
        "promote",
        MODEL,
        version,
        "--to=staging",
        f"--policy={POLICY}",
        expect=REFUSED_BY_SERVER,
    )
    direct = demo.probe("contributor", "refused-directly", MODEL, version)
    return f"mlflow-lifecycle: {refused['outcome']}; stock client: {direct}"


def _staged(demo: Demo) -> str:
    demo.pipeline("approver", "promote-staging", "first")
    return demo.probe(
        "viewer", "predicts-as", MODEL, demo.state_of("first")["version"], "Staging", "challenger"
    )


def _in_production(demo: Demo) -> str:
    demo.pipeline("approver", "promote-production", "first")
    return demo.pipeline("approver", "smoke", "first")


def _sealed_for(role: str) -> Callable[[Demo], str]:
    def refused(demo: Demo) -> str:
        return demo.probe(role, "sealed-is-refused", MODEL, demo.state_of("first")["version"])

    refused.__name__ = f"{role}_cannot_change_it"
    return refused


def _frozen(demo: Demo) -> str:
    return demo.probe("contributor", "run-is-refused", demo.state_of("first")["run_id"])


def _worse_is_refused(demo: Demo) -> str:
    demo.pipeline("contributor", "train", "worse", "--weak")
    demo.pipeline("contributor", "register", "worse")
    version = demo.state_of("worse")["version"]
    refused = demo.lifecycle(
        "approver",
        "promote",
        MODEL,
        version,
        "--to=production",
        f"--policy={POLICY}",
        expect=REFUSED_BY_POLICY,
    )
    broken = [rule for rule in refused["rules"] if not rule["passed"]]
    if not any("against current" in rule["rule"] for rule in broken):
        raise StepFailed(
            f"the comparison with the live version is not among the broken rules: {broken}",
            next_action="compare examples/credit_risk/policy.toml with what the run measured",
        )
    return "; ".join(f"{rule['rule']}: {rule['observed']}, required {rule['required']}" for rule in broken)


def _first_is_still_live(demo: Demo) -> str:
    return demo.probe(
        "viewer", "predicts-as", MODEL, demo.state_of("first")["version"], "Production", "champion"
    )


def _better_replaces(demo: Demo) -> str:
    demo.pipeline("contributor", "train", "better", "--strategy", "random-forest")
    for step in ("evaluate", "register"):
        demo.pipeline("contributor", step, "better")
    for step in ("promote-staging", "promote-production"):
        demo.pipeline("approver", step, "better")
    return demo.pipeline("approver", "smoke", "better")


def _better_is_live(demo: Demo) -> str:
    return demo.probe(
        "viewer", "predicts-as", MODEL, demo.state_of("better")["version"], "Production", "champion"
    )


def _rolled_back(demo: Demo) -> str:
    seen = demo.pipeline("approver", "smoke", "better", "--minimum", _POST_CHECK_THAT_FAILS, expect=1)
    demo.pipeline("approver", "rollback", "better")
    return f"{seen}; then rolled back"


def _intact(demo: Demo, version: str, file: str) -> tuple[dict[str, Any], Path]:
    """The version's report, whose verdict comes from what S3 says of the sealed files now."""
    report, asked = demo.directory / file, dt.datetime.now(dt.UTC).replace(microsecond=0)
    account = demo.lifecycle("viewer", "explain", MODEL, version, f"--html={report}")
    if account["outcome"] != "intact" or not account["files"]:
        raise StepFailed(
            f"the report says {account['outcome']} of {len(account['files'])} files",
            next_action=f"open {report}, and list the versions of the sealed files in S3",
        )
    if dt.datetime.fromisoformat(account["verified_at"]) < asked:
        raise StepFailed(
            f"the report is of {account['verified_at']}, and was asked for at {asked.isoformat()}",
            next_action="look at the clocks, and at model_lifecycle/evidence.py",
        )
    return account, report


def _explained(demo: Demo) -> str:
    version = demo.state_of("better")["version"]
    account, report = _intact(demo, version, f"{MODEL}-{version}.html")
    happened = [event["what"] for event in account["life"]]
    wanted = ["trained", "registered", "moved to Staging", "moved to Production", "archived"]
    if [each for each in happened if each in wanted] != wanted:
        raise StepFailed(
            f"the report says: {happened}",
            next_action=f"open {report}, and see the version's mlflow_aws.history tags",
        )
    since = next(each["since"] for each in account["live"] if each["name"] == "Production")
    then = demo.lifecycle("viewer", "explain", MODEL, "--at", since, "--no-verify")
    if then["version"] != version:
        raise StepFailed(
            f"at {since} Production was version {then['version']}, says explain; it was {version}",
            next_action="see the version's mlflow_aws.history tags",
        )
    files = len(account["files"])
    return f"{', '.join(happened)}; S3 at {account['verified_at']}: {files} files intact; {report}"


def _original_changes_nothing(demo: Demo) -> str:
    version = demo.state_of("first")["version"]
    overwritten = demo.probe("contributor", "overwrite", MODEL, version)
    _first_is_still_live(demo)
    account, report = _intact(demo, version, f"{MODEL}-{version}.html")
    return f"{overwritten}; Production predicts as before; S3 at {account['verified_at']}: intact; {report}"


_STEPS: tuple[tuple[str, Callable[[Demo], str]], ...] = (
    ("contributor: a grid search is one parent run with its children", _trained),
    ("contributor: the logged model is what was measured", _evaluated),
    ("contributor: only the chosen model is registered, and it is sealed", _registered),
    ("contributor: who may promote is the server's decision", _server_decides_who),
    ("approver: to Staging; consumers load it", _staged),
    ("approver: to Production; it is live", _in_production),
    ("contributor: what Production loads cannot be written or deleted", _sealed_for("contributor")),
    ("approver: nor by who promoted it", _sealed_for("approver")),
    ("contributor: the run behind it is frozen", _frozen),
    ("approver: a worse version is refused by the policy", _worse_is_refused),
    ("viewer: what is live has not changed", _first_is_still_live),
    ("approver: a better version replaces it", _better_replaces),
    ("viewer: stage and alias load the better version", _better_is_live),
    ("approver: a failed check after the promotion rolls back", _rolled_back),
    ("viewer: stage and alias load the first version again", _first_is_still_live),
    ("viewer: the report tells the rolled-back version's whole life", _explained),
    (
        "contributor: overwriting the original changes neither Production nor the report",
        _original_changes_nothing,
    ),
)


def play(demo: Demo, *, url: str) -> int:
    """Run every step; returns 0 if all passed, 1 if one failed, 2 if it was interrupted.

    Stops at the first step that fails: each builds on the ones before.
    """
    demo.directory.mkdir(parents=True, exist_ok=True)
    results: list[Result] = []
    started = time.perf_counter()
    with Screen(sys.stdout, total=len(_STEPS)) as screen:
        for title, act in _STEPS:
            result = _attempt(title, act, demo, screen)
            results.append(result)
            screen.end(result)
            if result.status is not Status.PASSED:
                break
    code = exit_code(results)
    seconds = time.perf_counter() - started
    words = closing_words(results, url=url, seconds=seconds, remains=(), code=code)
    sys.stdout.write(f"{words}\nreports: {demo.directory}\n")
    return code


def _attempt(title: str, act: Callable[[Demo], str], demo: Demo, screen: Screen) -> Result:
    def run(_smoke: Smoke) -> str:
        return act(demo)

    began = time.perf_counter()
    status, observed, seen, next_action = Status.PASSED, "", "", ""
    try:
        screen.begin(Step(run, title))
        observed = act(demo)
    except StepFailed as error:
        status, seen, next_action = Status.FAILED, error.seen, error.next_action
    except KeyboardInterrupt:
        status, seen, next_action = Status.INTERRUPTED, "interrupted before it was done", "run again"
    seconds = time.perf_counter() - began
    return Result(act.__name__.lstrip("_"), title, status, seconds, observed, seen, next_action)


def _last(text: str) -> str:
    lines: Sequence[str] = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1] if lines else ""
