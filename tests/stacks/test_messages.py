"""Whatever stands in a file: one line for each mistake, in the words of who wrote it."""

import datetime
import re
from pathlib import Path
from typing import Any

import pytest
import tomlkit

from stacks.config_file import ConfigurationError, load_environment
from tests.stacks.conftest import (
    BACKUP,
    COST,
    EVENTS,
    EXISTING_VPC,
    GITHUB_PROVIDER,
    IDENTITY,
    IMAGE,
    OBJECT_LOCK,
    REPLICA,
    ROOT,
    merged,
    read_config,
)
from tests.stacks.schema import replaced, settings

UUID = "0f5c9a3e-1b2d-4c6f-8a7b-9c0d1e2f3a4b"
# Every optional table is here, so that every setting has a place.
WHOLE = merged(
    read_config("dev"),
    {
        "account": "111122223333",
        "network": {"existing": EXISTING_VPC},
        "region": "eu-central-1",
        "backup": BACKUP,
        "cost": COST,
        "events": EVENTS,
        "monitoring": {
            "slack": {"workspace_id": "T0123ABCD", "channel_id": "C0123ABCD"},
            "teams": {"tenant_id": UUID, "team_id": UUID, "channel_id": "19%3Aabc%40thread.tacv2"},
        },
        "server": {"image_uri": IMAGE},
        "artifacts": {"object_lock": OBJECT_LOCK, "sealed_replica": REPLICA},
        "identity": {
            **IDENTITY,
            "github_provider_arn": GITHUB_PROVIDER,
        },
    },
)
VALUES: list[Any] = [
    "",
    " ",
    "a b",
    "two\nlines",
    "x" * 5000,
    "Ünï",
    "${AWS::AccountId}",
    "arn:aws:iam::1:role/x",
    "http://example.com",
    "0.0.0.0/0",
    -1,
    0,
    7,
    10**12,
    10**40,
    7.5,
    float("nan"),
    True,
    datetime.date(2026, 1, 1),
    [],
    [""],
    [1],
    ["a", "a"],
    ["10.0.0.0/33", "10.0.0.1/8", "10.0.0.0"],
    [["a"]],
    [{"a": 1}],
    {},
    {"a": 1},
    {"two\nlines": "\n"},
]
# Words of the validation library, of regular expressions and of Python.
FOREIGN = re.compile(
    r"should|valid (string|integer|boolean|tuple)|Input|pattern '|regex|\^|\\d|\(\[|pydantic|tuple|dict|"
    r"Traceback|Error\b|bits set| '|None|<class"
)


# tomlkit needs more time than what is tested. Compared by repr below, since 0 equals False.
WRITTEN = {key: tomlkit.dumps({key: value}) for key, value in WHOLE.items()}


def message(document: dict[str, Any], directory: Path) -> str | None:
    file = directory / "mine.toml"
    parts = [
        WRITTEN[key] if repr(value) == repr(WHOLE.get(key)) else tomlkit.dumps({key: value})
        for key, value in document.items()
    ]
    # A plain key after a table would belong to the table.
    file.write_text("".join(sorted(parts, key=lambda part: part.startswith("["))))
    try:
        load_environment(name="dev", path=str(file), directory=ROOT / "config")
    except ConfigurationError as error:
        return str(error)
    return None


def test_the_file_of_these_tests_is_valid_and_whole(tmp_path: Path) -> None:
    assert message(WHOLE, tmp_path) is None


@pytest.mark.parametrize("setting", list(settings()))
def test_a_wrong_value_costs_one_line_in_plain_words(setting: str, tmp_path: Path) -> None:
    key = setting.replace("*", "0")
    refused = 0
    for value in VALUES:
        text = message(replaced(WHOLE, setting, value), tmp_path)
        if text is None:
            continue
        refused += 1
        heading, *findings = text.split("\n")
        assert heading == f"{tmp_path / 'mine.toml'}: is not a valid configuration"
        many = isinstance(value, list) or value == {"a": 1}
        assert len(findings) <= (max(len(value), 1) if many else 1), findings
        for finding in findings:
            assert not FOREIGN.search(finding), finding
            assert len(finding) < 400
            what, _, remedy = finding.strip().partition(": ")[2].partition("; ")
            assert what, finding
            assert remedy, finding
        assert key.rsplit(".", 1)[-1] in text
    assert refused > len(VALUES) / 2


@pytest.mark.parametrize("table", ["database", "network", "network.existing", "identity", "identity.roles"])
def test_a_table_that_is_none_costs_one_line(table: str, tmp_path: Path) -> None:
    for value in VALUES:
        text = message(replaced(WHOLE, table, value), tmp_path)
        if text is not None and not isinstance(value, dict):
            (finding,) = text.split("\n")[1:]
            assert f"{table}" in finding
            assert "is not a table; write its settings as lines below a heading in brackets" in finding


def test_a_misspelt_key_is_one_mistake_and_not_a_missing_one_too(tmp_path: Path) -> None:
    document = {("databse" if key == "database" else key): value for key, value in WHOLE.items()}
    text = message(document, tmp_path) or ""
    assert text.split("\n")[1:] == ["  [databse]: is not a setting; did you mean database?"]


def test_one_table_for_many_is_answered_with_its_brackets(tmp_path: Path) -> None:
    text = message(replaced(WHOLE, "identity.github", WHOLE["identity"]["github"][0]), tmp_path) or ""
    assert text.split("\n")[1:] == [
        "  [identity.github]: is one table where several may be; write [[identity.github]], with two brackets"
    ]


@pytest.mark.parametrize(
    "text",
    [
        b"x = ",
        b"\xff\xfe",
        b"\xef\xbb\xbfaccount = 1",
        b"a = 1\na = 2",
        b"x = " + b"[" * 100_000,
        b"x = " + b"{a=" * 100_000,
        b"x = " + b"9" * 10_000,
        b"x = 1e999999999\n",
        b"x = 1979-05-27T07:32:00Z",
        b"\x00",
        b"",
        b'"a\\nb" = 1',
        b"x = '''" + b"\n" * 100,
        ("[" + ".".join("a" * 3000) + "]").encode(),
    ],
)
def test_no_file_ends_in_a_traceback(text: bytes, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_bytes(text)
    with pytest.raises(ConfigurationError) as refusal:
        load_environment(name="dev", path=str(file), directory=ROOT / "config")
    for line in str(refusal.value).split("\n"):
        assert "; " in line or line.endswith("is not a valid configuration")
        assert not re.search(r"Error\b|Traceback|codec|recursion|int\(\)|sys\.", line), line


def test_a_path_is_shown_as_a_person_here_would_write_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "dev.toml").write_text("x = 1\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=r"^config/dev\.toml: "):
        load_environment(name="dev", path=None, directory=tmp_path / "config")
    with pytest.raises(ConfigurationError, match=r"^ENV=nope has no file config/nope\.toml; use ENV=dev "):
        load_environment(name="nope", path=None, directory=tmp_path / "config")
