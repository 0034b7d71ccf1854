"""The command line: exit codes, JSON beside the words, and every rule in both."""

from __future__ import annotations

import io
import json
import math
import shlex

import pytest
from model_lifecycle.cli import main, parser

from tests.documents import blocks
from tests.lifecycle.conftest import Registered


def _run(model: Registered, role: str, command: str, *arguments: str) -> int:
    policy = [] if command == "explain" else [f"--policy={model.site.policy}"]
    with model.site.bearer(role):
        return main([command, model.name, *arguments, *policy, f"--tracking-uri={model.site.url}"])


def test_a_promotion_ends_with_0_and_says_where_the_version_is(
    model: Registered, capsys: pytest.CaptureFixture[str]
) -> None:
    number = model.version()
    assert _run(model, "approver", "promote", number, "--to=staging") == 0
    assert f"{model.name} version {number} is now in Staging (@challenger)" in capsys.readouterr().out


def test_a_refusal_ends_with_3_and_lists_every_rule_for_people_and_machines(
    model: Registered, capsys: pytest.CaptureFixture[str]
) -> None:
    number = model.version(0.5)
    assert _run(model, "approver", "promote", number, "--to=production", "--json") == 3
    said = capsys.readouterr()
    assert "✗ auc minimum" in said.err
    document = json.loads(said.out)
    assert document["outcome"] == "refused by policy"
    assert [rule["rule"] for rule in document["rules"] if not rule["passed"]] == ["comes from", "auc minimum"]


def test_a_refusal_by_the_server_ends_with_4(model: Registered, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(model, "contributor", "promote", model.version(), "--to=staging") == 4
    assert "refused by the server" in capsys.readouterr().err


def test_a_policy_that_cannot_be_used_ends_with_2(
    model: Registered, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["promote", model.name, "1", "--to=staging", "--policy=/nowhere.toml"]) == 2
    assert "/nowhere.toml" in capsys.readouterr().err


def test_a_rollback_needs_no_versions(model: Registered, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = model.version(), model.version(0.85)
    model.live(first, second)
    assert _run(model, "approver", "rollback") == 0
    assert (
        f"version {first} is now in Production (@champion) instead of version {second}"
        in capsys.readouterr().out
    )


def test_a_tampered_version_is_explained_with_6(
    model: Registered, capsys: pytest.CaptureFixture[str]
) -> None:
    number = model.version()
    model.live(number)
    model.overwrite(number, b"another model")
    assert _run(model, "viewer", "explain", number, "--json") == 6
    document = json.loads(capsys.readouterr().out)
    assert document["outcome"] == "tampered"
    assert document["damage"][0]["path"] == "model.skops"


def test_record_waits_for_the_seal_and_names_it(
    model: Registered, capsys: pytest.CaptureFixture[str]
) -> None:
    number = model.version()
    digests = []
    for _ in range(2):
        with model.site.bearer("contributor"):
            assert main(["record", model.name, number, "--json", f"--tracking-uri={model.site.url}"]) == 0
        digests.append(json.loads(capsys.readouterr().out)["manifest_sha256"])
    assert digests[0] == digests[1]
    with model.site.bearer("viewer"):
        tags = model.site.client().get_model_version(model.name, number).tags
    assert json.loads(tags["mlflow_aws.seal"])["sha256"] == digests[0]


def test_json_is_valid_where_a_figure_is_no_number(
    model: Registered, capsys: pytest.CaptureFixture[str]
) -> None:
    number = model.version(math.nan)
    assert _run(model, "viewer", "explain", number, "--json") == 0
    document = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(name))
    assert document["metrics"] == {"auc": "NaN"}


def test_a_terminal_that_knows_only_ascii_gets_escapes(
    model: Registered, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = model.version()
    narrow = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", narrow)
    assert _run(model, "viewer", "explain", number) == 0
    assert b"\\u2713 files" in narrow.buffer.getvalue()


def test_every_command_of_the_document_is_one_that_the_parser_takes() -> None:
    lines = [line for block in blocks("docs/lifecycle.md") for line in block.commands.splitlines()]
    commands = [shlex.split(line, comments=True) for line in lines if line.startswith("mlflow-lifecycle ")]
    named = {
        parser().parse_args(words[1 : words.index(">") if ">" in words else None]).run for words in commands
    }
    assert len(named) == 4


@pytest.mark.parametrize("code", ["0 ", "1 ", "2 ", "3 ", "4 ", "5 ", "6 ", "130 "])
def test_the_help_names_every_exit_code(code: str) -> None:
    assert f"\n  {code}" in parser().format_help()
