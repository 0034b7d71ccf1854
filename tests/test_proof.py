"""Every promise of README.md names tests that exist, and docs/proof.md says so."""

from __future__ import annotations

import pytest

from tests import proof


def test_the_document_is_what_the_table_says() -> None:
    assert proof.DOCUMENT.read_text() == proof.rendered(), "run: python -m tests.proof"


@pytest.mark.parametrize("promise", proof.promises(), ids=lambda promise: promise.says[:60])
def test_a_promise_is_in_the_readme_and_is_held_by_tests_that_exist(promise: proof.Promise) -> None:
    assert proof.plain(promise.says) in proof.plain(proof.README.read_text())
    assert promise.tests, "name at least one test"
    missing = {
        test
        for tests in promise.tests.values()
        for test in tests
        if not (proof.PROJECT / test.split("::")[0]).exists()
        or test.split("::")[1] not in proof.tests_of(test.split("::")[0])
    }
    assert missing == set()


def test_every_sentence_of_the_readme_is_proved_or_promises_nothing() -> None:
    known = [proof.plain(each.says) for each in proof.promises()] + proof.not_promises()
    open_sentences = [
        each for each in proof.sentences() if not any(text in each or each in text for text in known)
    ]
    assert open_sentences == []


def test_what_only_an_account_shows_has_a_command() -> None:
    assert {
        each.says for each in proof.promises() if each.only_an_account_shows and not each.shown_by
    } == set()


def test_what_promises_nothing_is_still_in_the_readme() -> None:
    text = proof.plain(proof.README.read_text())
    assert [each for each in proof.not_promises() if each not in text] == []
