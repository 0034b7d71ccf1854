"""`python -m local demo-lifecycle`: a model's whole life, step by step, each under its own role.

The steps between training and production are those of CI (`lifecycle/pipeline.py`); the ones in between show
what is refused, what consumers get, and what remains to be read afterwards.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from client_smoke.display import Screen, closing_words
from client_smoke.smoke import Smoke, Step
from client_smoke.verdict import PromiseBroken, Result, Status, exit_code
from local.environment import clean
from local.parts.processes import Ledger
from local.state import PROJECT

_MODEL = "credit-risk"
_POLICY = PROJECT / "lifecycle" / "policies" / "credit-risk.toml"
_POST_CHECK_THAT_FAILS = "0.999"
REFUSED_BY_POLICY, REFUSED_BY_SERVER, TAMPERED = 3, 4, 6


@dataclass
class Life:
    """The model's life so far. `environment` gives the variables of a client with a role."""

    environment: Callable[[str], Mapping[str, str]]
    directory: Path
    ledger: Ledger
    _known: dict[str, Mapping[str, str]] = field(default_factory=dict)

    def run(self, role: str, *arguments: str, expect: int = 0) -> subprocess.CompletedProcess[str]:
        """Run one Python command as somebody with this role; its exit code must be the expected one."""
        if role not in self._known:
            self._known[role] = self.environment(role)
        child = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=PROJECT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**clean(), **self._known[role], "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"},
        )
        self.ledger.add(child.pid, f"{role}: {' '.join(arguments[1:3])}")
        try:
            out, err = child.communicate()
        finally:
            if child.poll() is None:
                child.terminate()
                child.wait()
            self.ledger.remove(child.pid)
        if child.returncode != expect:
            said = "\n".join((out + err).strip().splitlines()[-12:])
            raise PromiseBroken(
                f"{role}: {' '.join(arguments[1:])} ended with {child.returncode}, not {expect}:\n{said}",
                next_action="read what it said; the server's log is in .local/logs",
            )
        return subprocess.CompletedProcess(arguments, child.returncode, out, err)

    def pipeline(self, role: str, step: str, candidate: str, *more: str, expect: int = 0) -> str:
        """Run one step of the pipeline for a candidate; returns the last line it said."""
        state = self.directory / f"{candidate}.json"
        done = self.run(role, "-m", "lifecycle.pipeline", step, "--state", str(state), *more, expect=expect)
        return _last(done.stdout + done.stderr)

    def lifecycle(self, role: str, *arguments: str, expect: int = 0) -> dict[str, Any]:
        """Run one mlflow-lifecycle command and return its JSON."""
        done = self.run(role, "-m", "model_lifecycle", *arguments, "--json", expect=expect)
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def ask(self, role: str, *question: str) -> str:
        """Ask one of `local.lifecycle_probe`'s questions; returns the answer."""
        return _last(self.run(role, "-m", "local.lifecycle_probe", *question).stdout)

    def known_of(self, candidate: str) -> dict[str, Any]:
        """What the pipeline has found out about a candidate."""
        found: dict[str, Any] = json.loads((self.directory / f"{candidate}.json").read_text())
        return found


def _trained(life: Life) -> str:
    life.pipeline("contributor", "train", "first", "--strategy", "logistic-regression")
    return life.ask("contributor", "children", life.known_of("first")["run_id"])


def _evaluated(life: Life) -> str:
    return life.pipeline("contributor", "evaluate", "first")


def _registered(life: Life) -> str:
    return life.pipeline("contributor", "register", "first")


def _server_decides_who(life: Life) -> str:
    version = life.known_of("first")["version"]
    refused = life.lifecycle(
        "contributor",
        "promote",
        _MODEL,
        version,
        "--to=staging",
        f"--policy={_POLICY}",
        expect=REFUSED_BY_SERVER,
    )
    direct = life.ask("contributor", "refused-directly", _MODEL, version)
    return f"mlflow-lifecycle: {refused['outcome']}; stock client: {direct}"


def _staged(life: Life) -> str:
    life.pipeline("approver", "promote-staging", "first")
    return life.ask(
        "viewer", "predicts-as", _MODEL, life.known_of("first")["version"], "Staging", "challenger"
    )


def _in_production(life: Life) -> str:
    life.pipeline("approver", "promote-production", "first")
    return life.pipeline("approver", "smoke", "first")


def _worse_is_refused(life: Life) -> str:
    life.pipeline("contributor", "train", "worse", "--weak")
    life.pipeline("contributor", "register", "worse")
    version = life.known_of("worse")["version"]
    refused = life.lifecycle(
        "approver",
        "promote",
        _MODEL,
        version,
        "--to=production",
        f"--policy={_POLICY}",
        expect=REFUSED_BY_POLICY,
    )
    broken = [rule for rule in refused["rules"] if not rule["passed"]]
    if not any("against current" in rule["rule"] for rule in broken):
        raise PromiseBroken(
            f"the comparison with the live version is not among the broken rules: {broken}",
            next_action="compare lifecycle/policies/credit-risk.toml with what the run measured",
        )
    return "; ".join(f"{rule['rule']}: {rule['observed']}, required {rule['required']}" for rule in broken)


def _first_is_still_live(life: Life) -> str:
    return life.ask(
        "viewer", "predicts-as", _MODEL, life.known_of("first")["version"], "Production", "champion"
    )


def _better_replaces(life: Life) -> str:
    life.pipeline("contributor", "train", "better", "--strategy", "random-forest")
    for step in ("evaluate", "register"):
        life.pipeline("contributor", step, "better")
    for step in ("promote-staging", "promote-production"):
        life.pipeline("approver", step, "better")
    return life.pipeline("approver", "smoke", "better")


def _better_is_live(life: Life) -> str:
    return life.ask(
        "viewer", "predicts-as", _MODEL, life.known_of("better")["version"], "Production", "champion"
    )


def _rolled_back(life: Life) -> str:
    seen = life.pipeline("approver", "smoke", "better", "--minimum", _POST_CHECK_THAT_FAILS, expect=1)
    life.pipeline("approver", "rollback", "better")
    return f"{seen}; then rolled back"


def _explained(life: Life) -> str:
    version = life.known_of("better")["version"]
    report = life.directory / f"{_MODEL}-{version}.html"
    account = life.lifecycle("viewer", "explain", _MODEL, version, f"--html={report}")
    happened = [event["what"] for event in account["life"]]
    wanted = ["trained", "registered", "moved to Staging", "moved to Production", "archived"]
    if [each for each in happened if each in wanted] != wanted or account["outcome"] != "intact":
        raise PromiseBroken(
            f"the report says: {happened}, files {account['outcome']}",
            next_action=f"open {report}, and see the version's mlflow_aws.history tags",
        )
    since = next(each["since"] for each in account["live"] if each["name"] == "Production")
    then = life.lifecycle("viewer", "explain", _MODEL, "--at", since, "--no-verify")
    if then["version"] != version:
        raise PromiseBroken(
            f"at {since} Production was version {then['version']}, says explain; it was {version}",
            next_action="see the version's mlflow_aws.history tags",
        )
    return f"{', '.join(happened)}; files intact; {report}"


def _tampering_shows(life: Life) -> str:
    version = life.known_of("better")["version"]
    life.ask("contributor", "overwrite", _MODEL, version)
    report = life.directory / f"{_MODEL}-{version}-tampered.html"
    account = life.lifecycle("viewer", "explain", _MODEL, version, f"--html={report}", expect=TAMPERED)
    return f"{account['damage'][0]['says']}; {report}"


_STEPS: tuple[tuple[str, Callable[[Life], str]], ...] = (
    ("contributor: a grid search is one parent run with its children", _trained),
    ("contributor: the logged model is what was measured", _evaluated),
    ("contributor: only the chosen model is registered", _registered),
    ("contributor: who may promote is the server's decision", _server_decides_who),
    ("approver: to Staging; consumers load it", _staged),
    ("approver: to Production; it is live", _in_production),
    ("approver: a worse version is refused by the policy", _worse_is_refused),
    ("viewer: what is live has not changed", _first_is_still_live),
    ("approver: a better version replaces it", _better_replaces),
    ("viewer: stage and alias load the better version", _better_is_live),
    ("approver: a failed check after the promotion rolls back", _rolled_back),
    ("viewer: stage and alias load the first version again", _first_is_still_live),
    ("viewer: the report tells the rolled-back version's whole life", _explained),
    ("viewer: a file overwritten in S3 shows", _tampering_shows),
)


def live(life: Life, *, url: str) -> int:
    """Go through every step; returns 0 if all held, 1 if one did not, 2 if it was interrupted.

    Stops at the first step that fails: each stands on the ones before.
    """
    life.directory.mkdir(parents=True, exist_ok=True)
    results: list[Result] = []
    started = time.perf_counter()
    with Screen(sys.stdout, total=len(_STEPS)) as screen:
        for promise, act in _STEPS:
            result = _attempt(promise, act, life, screen)
            results.append(result)
            screen.end(result)
            if result.status is not Status.PASSED:
                break
    code = exit_code(results)
    seconds = time.perf_counter() - started
    print(closing_words(results, url=url, seconds=seconds, remains=(), code=code))
    print(f"reports: {life.directory}")
    return code


def _attempt(promise: str, act: Callable[[Life], str], life: Life, screen: Screen) -> Result:
    def run(_smoke: Smoke) -> str:
        return act(life)

    began = time.perf_counter()
    status, observed, seen, next_action = Status.PASSED, "", "", ""
    try:
        screen.begin(Step(run, promise))
        observed = act(life)
    except PromiseBroken as error:
        status, seen, next_action = Status.BROKEN, error.seen, error.next_action
    except KeyboardInterrupt:
        status, seen, next_action = Status.INTERRUPTED, "interrupted before it was done", "run again"
    seconds = time.perf_counter() - began
    return Result(act.__name__.lstrip("_"), promise, status, seconds, observed, seen, next_action)


def _last(text: str) -> str:
    lines: Sequence[str] = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1] if lines else ""
