"""Every code block of the documents is run by a test, or says why it is not."""

from __future__ import annotations

import re

import pytest

from local.state import PROJECT
from tests.documents import blocks, documents, spans

ACCOUNT_COMMAND = re.compile(
    r"(make (bootstrap|credentials|diff|deploy|destroy|preflight|smoke|synth|verify)\b|npx |cdk |aws |pip )"
)
DEPLOYING = "tests/deploy/test_documents.py"
# These run the blocks themselves, as printed.
RUNNING = (
    DEPLOYING,
    "tests/attacks_on_evidence/test_by_hand.py",
    "tests/deploy/test_another_region.py",
    "tests/deploy/test_operations.py",
    "tests/local/test_failures.py",
)
# Commands for an account in trouble: run by tests/local/test_failures.py, held to AWS by test_runbook.py.
HELD_TO_AWS = "docs/runbook.md"
# What of a sentence is a command with all its arguments, and no test runs it.
NOT_RUN = {
    # These two are run in tests/deploy/test_documents.py.
    "aws iam enable-outbound-web-identity-federation": "",
    "aws iam get-outbound-web-identity-federation-info": "",
    "aws sso login": "signing in needs a person and a browser",
    "aws sso login --profile team": "signing in needs a person and a browser",
    "pip install --upgrade 'boto3>=1.41'": "advice for a library that is too old",
    "make verify ENV=prod": "tests/deploy deploys and verifies dev",
    "make deploy ENV=dev ARGS=--force": "no test brings CloudFormation into UPDATE_ROLLBACK_FAILED",
    "pip install mlflow": "names what was compared",
    "pip install mlflow skops": "tests/clients installs it, pinned",
    "cdk deploy": "names what `make deploy` runs",
    "aws sts assume-role": "names an operation",
    "aws cloudwatch list-metrics --namespace MLflowOnAws": "the laptop's metrics are read by tests/local",
    "aws cloudwatch set-alarm-state": "docs/runbook.md has all of it; it wakes people",
    "aws rds reboot-db-instance --force-failover --db-instance-identifier …": "a failover needs RDS",
    "aws cognito-idp admin-add-user-to-group": "names an operation",
    "aws logs tail LOG_GROUP --log-stream-name-prefix canary/": "the emulator has no live tail",
}


@pytest.mark.parametrize("document", documents())
def test_every_code_block_is_run_by_a_test_or_says_why_not(document: str) -> None:
    unmarked = [f"{document}:{each.line}" for each in blocks(document) if not each.test and not each.reason]
    assert unmarked == [], (
        "before the block: <!-- run by tests/… -->, <!-- tested by tests/… --> or <!-- not run: why -->"
    )


@pytest.mark.parametrize("document", documents())
def test_every_test_that_a_block_names_exists(document: str) -> None:
    named = {each.test for each in blocks(document) if each.test}
    assert {each for each in named if not (PROJECT / each).is_file()} == set()


@pytest.mark.parametrize("document", documents())
def test_every_account_command_is_run_as_printed(document: str) -> None:
    in_blocks = [
        f"{document}:{each.line}: {line}"
        for each in blocks(document)
        if each.test not in RUNNING and not each.reason
        for line in each.commands.splitlines()
        if re.match(r"make (bootstrap|diff|deploy|destroy|preflight|verify)\b|npx |cdk |aws ", line)
    ]
    assert in_blocks == [], f"have {DEPLOYING} run it"


def test_every_account_command_of_a_sentence_is_one_of_a_block_or_says_why_not() -> None:
    run = {
        _plain(line)
        for document in documents()
        for each in blocks(document)
        if each.test
        for line in each.commands.splitlines()
    }
    named = {
        _plain(span)
        for document in documents()
        if document != HELD_TO_AWS
        for span in spans(document)
        if ACCOUNT_COMMAND.match(span)
    }
    # A target by its name alone is a word of a sentence.
    targets = {each for each in named if re.fullmatch(r"make [a-z]+", each)}
    assert named - targets - run - set(NOT_RUN) == set()
    assert set(NOT_RUN) - named == set(), "no document names it any more"


def _plain(command: str) -> str:
    """Without a comment, spaces at the end, and which server is meant."""
    return re.sub(
        r"\s+#.*|\s+$", "", re.sub(r"https://mlflow(\.dev)?\.example\.com", "https://HOST", command)
    )
